//! How fast a caller sends a body, while it is the caller who is waited for. As ASP.NET Core's
//! Kestrel has it (`MinRequestBodyDataRate`): 240 bytes a second, after 5 seconds. What comes faster earns
//! some silence, but not much: who sends much at once and then nothing holds what others need.

use std::time::Duration;

use tokio::time::Instant;

const GRACE: Duration = Duration::from_secs(5);
const MIN_PER_SECOND: u64 = 240;
/// Most silence that can be earned.
const MAX_CREDIT: Duration = Duration::from_secs(30);

/// The pace of one body.
#[derive(Debug)]
pub(crate) struct MinBodyRate {
    /// How long the caller may be waited for.
    credit: Duration,
    waits_since: Option<Instant>,
    /// Longest silence.
    silence: Duration,
}

impl MinBodyRate {
    pub(crate) fn new(silence: Duration) -> Self {
        Self { credit: GRACE, waits_since: None, silence }
    }

    /// Until when the caller must send something, being waited for.
    pub(crate) fn deadline(&mut self) -> Instant {
        self.waits_since() + self.credit.min(self.silence)
    }

    /// Since when the caller is waited for.
    pub(crate) fn waits_since(&mut self) -> Instant {
        *self.waits_since.get_or_insert_with(Instant::now)
    }

    /// So many bytes came.
    pub(crate) fn earn(&mut self, bytes: u64) {
        self.stop();
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / MIN_PER_SECOND);
        self.credit = self.credit.saturating_add(earned).min(MAX_CREDIT);
    }

    /// It is somebody else who is waited for.
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
    async fn a_caller_has_five_seconds_and_then_what_it_earned() {
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
            "others' time does not count"
        );
        rate.earn(1_000_000);
        assert_eq!(rate.deadline() - Instant::now(), MAX_CREDIT, "nor is much silence earned");
        let mut short = MinBodyRate::new(Duration::from_secs(2));
        assert_eq!(short.deadline() - Instant::now(), Duration::from_secs(2));
    }
}
