//! Minimum rate of request bodies while the gateway waits for the caller, as in ASP.NET Core's Kestrel
//! (`MinRequestBodyDataRate`): 240 bytes a second, after 5 seconds. Faster bodies accrue at most 30 s of idle
//! credit, so that a burst cannot pin an upload slot.

use std::time::Duration;

use tokio::time::Instant;

/// Credit at the start of a body.
const GRACE: Duration = Duration::from_secs(5);
/// Minimum rate in bytes per second.
const MIN_PER_SECOND: u64 = 240;
/// Maximum idle credit.
const MAX_CREDIT: Duration = Duration::from_secs(30);

/// Rate of one body.
#[derive(Debug)]
pub(crate) struct MinBodyRate {
    /// Remaining time that the gateway may wait for the caller.
    credit: Duration,
    waits_since: Option<Instant>,
    /// Maximum of one wait, whatever the credit (`GATEWAY_TIMEOUT_IDLE`).
    silence: Duration,
}

impl MinBodyRate {
    pub(crate) fn new(silence: Duration) -> Self {
        Self { credit: GRACE, waits_since: None, silence }
    }

    /// Deadline for the next byte. Starts a wait if none has started.
    pub(crate) fn deadline(&mut self) -> Instant {
        self.waits_since() + self.credit.min(self.silence)
    }

    /// Start of the current wait for the caller. Starts one if none has started.
    pub(crate) fn waits_since(&mut self) -> Instant {
        *self.waits_since.get_or_insert_with(Instant::now)
    }

    /// Ends the wait and adds the credit for `bytes` received bytes.
    pub(crate) fn earn(&mut self, bytes: u64) {
        self.stop();
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / MIN_PER_SECOND);
        self.credit = self.credit.saturating_add(earned).min(MAX_CREDIT);
    }

    /// Ends the wait for the caller: the gateway waits for another peer.
    pub(crate) fn stop(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_the_grace_time_plus_the_credit_of_received_bytes() {
        let mut rate = MinBodyRate::new(Duration::from_mins(1));
        let begun = Instant::now();
        assert_eq!(rate.deadline() - begun, GRACE);
        tokio::time::advance(Duration::from_secs(4)).await;
        rate.earn(240);
        assert_eq!(rate.deadline() - begun, Duration::from_secs(6));
        rate.stop();
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(
            rate.deadline() - begun,
            Duration::from_secs(106),
            "the wait for other peers is not charged"
        );
        rate.earn(1_000_000);
        assert_eq!(rate.deadline() - Instant::now(), MAX_CREDIT, "the credit is limited");
        let mut short = MinBodyRate::new(Duration::from_secs(2));
        assert_eq!(short.deadline() - Instant::now(), Duration::from_secs(2));
    }
}
