//! How fast a caller sends a body, while it is the caller who is waited for. As ASP.NET Core's
//! Kestrel has it (`MinRequestBodyDataRate`): 240 bytes a second, after 5 seconds.

use std::time::Duration;

use tokio::time::Instant;

const GRACE: Duration = Duration::from_secs(5);
const LEAST_PER_SECOND: u64 = 240;

/// The pace of one body.
#[derive(Debug)]
pub(super) struct Pace {
    bytes: u64,
    /// How long the caller was waited for, before the present wait.
    waited: Duration,
    waits_since: Option<Instant>,
    /// Longest silence.
    silence: Duration,
}

impl Pace {
    pub(super) fn new(silence: Duration) -> Self {
        Self { bytes: 0, waited: Duration::ZERO, waits_since: None, silence }
    }

    /// Until when the caller must send something, being waited for.
    pub(super) fn deadline(&mut self) -> Instant {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.bytes / LEAST_PER_SECOND).max(GRACE);
        since + earned.saturating_sub(self.waited).min(self.silence)
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.stop();
    }

    /// It is somebody else who is waited for.
    pub(super) fn stop(&mut self) {
        if let Some(since) = self.waits_since.take() {
            self.waited += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_five_seconds_and_then_what_it_earned() {
        let mut pace = Pace::new(Duration::from_mins(1));
        let begun = Instant::now();
        assert_eq!(pace.deadline() - begun, GRACE);
        tokio::time::advance(Duration::from_secs(4)).await;
        pace.came(100);
        assert_eq!(pace.deadline() - begun, GRACE, "100 bytes earn nothing");
        pace.came(2400 - 100);
        assert_eq!(pace.deadline() - begun, Duration::from_secs(10));
        pace.stop();
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(
            pace.deadline() - begun,
            Duration::from_secs(110),
            "others' time does not count"
        );
        pace.came(1_000_000);
        assert_eq!(
            pace.deadline() - Instant::now(),
            Duration::from_mins(1),
            "nor is silence endless"
        );
    }
}
