//! Longest header field that upstream accepts. Its operator sets it (gunicorn: `--limit-request-field_size`), so it
//! is measured: with a field of a given length on a cheap request.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{PROBE, Upstream, UpstreamError};
use crate::authz::token;

/// Default of gunicorn's `--limit-request-field_size`, in bytes.
const DEFAULT: usize = 8190;
/// Fields of up to this length are not measured: all common servers accept them.
const ALWAYS_TAKEN: usize = 4096;
/// Length of the `Authorization` field with the longest token that the gateway accepts, in bytes.
pub(crate) const LONGEST: usize = field_length("Authorization", "Bearer ".len() + token::LONGEST);
/// Time for one measurement while a login waits for it.
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Age at which a measurement expires: upstream's configuration may have changed.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Time after a failed measurement before the next one.
const RETRY_DELAY: Duration = Duration::from_secs(30);
/// Statuses by which servers refuse a field that is too long: 431 (RFC 6585, section 5), 400 and 413 of older
/// servers, nginx's 494.
const REFUSALS: [u16; 4] = [400, 413, 431, 494];

/// Length of a field, in bytes, as gunicorn measures it and the gateway writes it: name, colon, space, value, CRLF.
pub(crate) const fn field_length(name: &str, value: usize) -> usize {
    name.len() + 2 + value + 2
}

/// Reasons why upstream's limit could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FieldLimitError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("upstream responds {0} to GET {PROBE} even without a long field")]
    Refused(u16),
}

/// Measured lengths.
#[derive(Debug, Default)]
pub(super) struct FieldLimit {
    /// The longest accepted length, the shortest refused one, and the time of the first of these measurements.
    measured: Option<(usize, usize, Instant)>,
    failed: Option<Instant>,
}

impl FieldLimit {
    /// The longest accepted length and the shortest refused one, as far as known.
    fn bounds(&self) -> (usize, usize, Instant) {
        let current = self.measured.filter(|(_, _, since)| since.elapsed() < MAX_AGE);
        current.unwrap_or_else(|| (ALWAYS_TAKEN, usize::MAX, Instant::now()))
    }
}

impl Upstream {
    /// True if upstream accepts a field of this length ([`field_length`]): from earlier measurements, else measured
    /// now, once for all callers. If that fails, gunicorn's default applies.
    pub(crate) async fn accepts_field(&self, length: usize) -> bool {
        if length <= ALWAYS_TAKEN {
            return true;
        }
        let mut limit = self.0.field_limit.lock().await;
        let (taken, refused, since) = limit.bounds();
        if length <= taken {
            return true;
        }
        if length >= refused {
            return false;
        }
        if limit.failed.is_some_and(|failed| failed.elapsed() < RETRY_DELAY) {
            return length <= DEFAULT;
        }
        match timeout(MEASUREMENT_TIMEOUT, self.try_field(length)).await {
            Ok(Ok(true)) => {
                limit.measured = Some((length, refused, since));
                true
            }
            Ok(Ok(false)) => {
                limit.measured = Some((taken, length, since));
                false
            }
            Ok(Err(_)) | Err(_) => {
                limit.failed = Some(Instant::now());
                length <= DEFAULT
            }
        }
    }

    /// Length of the longest field that upstream accepts, up to [`LONGEST`].
    ///
    /// # Errors
    /// When upstream does not respond, or refuses every request.
    pub(crate) async fn longest_field(&self) -> Result<usize, FieldLimitError> {
        if self.try_field(LONGEST).await? {
            return Ok(LONGEST);
        }
        let (mut taken, mut refused) = (0, LONGEST);
        // The default first, as the most common value.
        for length in [DEFAULT, DEFAULT + 1] {
            if taken < length && length < refused {
                if self.try_field(length).await? {
                    taken = length;
                } else {
                    refused = length;
                }
            }
        }
        while refused - taken > 1 {
            let length = usize::midpoint(taken, refused);
            if length < SHORTEST || self.try_field(length).await? {
                taken = length;
            } else {
                refused = length;
            }
        }
        Ok(taken)
    }

    /// Sends a request with a field of this length; true if it was accepted.
    async fn try_field(&self, length: usize) -> Result<bool, FieldLimitError> {
        let filler = "x".repeat(length.saturating_sub(SHORTEST));
        match self.ask("GET", PROBE, &format!("{NAME}: {filler}\r\n")).await {
            Ok(head) if !REFUSALS.contains(&head.status) => return Ok(true),
            // Some servers close the connection without a response.
            Ok(_) | Err(UpstreamError::ClosedEarly(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let status = self.ask("GET", PROBE, "").await?.status;
        if REFUSALS.contains(&status) { Err(FieldLimitError::Refused(status)) } else { Ok(false) }
    }
}

/// Name of the field that is sent to measure.
const NAME: &str = "X-Field-Length";
/// Length of that field with an empty value.
const SHORTEST: usize = field_length(NAME, 0);

#[cfg(test)]
mod tests {
    use super::*;

    /// Named in the deployment files, in the documentation and in `check`.
    #[test]
    fn the_longest_token_needs_16408_bytes() {
        assert_eq!(LONGEST, 16_408);
        let line = format!("Authorization: Bearer {}\r\n", "x".repeat(token::LONGEST));
        assert_eq!(line.len(), LONGEST);
    }
}
