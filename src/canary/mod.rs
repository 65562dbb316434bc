//! Canary: a live test with a session of a subject that does not exist. It mints the session, sends it to upstream,
//! revokes it, sends it again and removes it.
//!
//! Settings can be valid one by one and still not match upstream's: another database, another key prefix, another
//! folder. Only a request to upstream shows whether it reads the gateway's sessions.

mod advice;
mod watch;

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{advice::advice, watch::Watch};
use crate::{
    authz::{
        policy::Grant,
        session::{SessionId, SessionRecord},
    },
    clock,
    config::CookieConfig,
    sessions::{Sessions, SessionsError},
    upstream::{Upstream, UpstreamError},
};

/// Path for which SimpleChat requires a session and nothing else.
const HEARTBEAT: &str = "/api/session/heartbeat";
/// Consecutive rounds that must succeed. A new worker treats its first request as anonymous, so a single rejection
/// proves nothing.
const ROUNDS_IN_A_ROW: usize = 2;
/// Maximum number of rounds before the rejection is reported.
const MAX_ROUNDS: usize = 12;
/// Timeout of a request; a new worker loads its settings first.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of attempts to revoke the session.
const MAX_REMOVALS: usize = 3;
/// Pause between those attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Steps of the test, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Upstream rejects an anonymous request; otherwise the other steps prove nothing.
    AnonymousRejected,
    /// The session store accepts a session.
    Minted,
    /// Upstream accepts requests with the session.
    Honoured,
    /// Upstream rejects the session after its revocation.
    EndHonoured,
    /// The session store contains nothing of the session.
    Removed,
}

/// Failures of the test.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CanaryFailure {
    #[error("upstream accepts an anonymous POST {HEARTBEAT}: a session proves nothing there")]
    AnonymousAccepted,
    #[error("upstream answers an anonymous POST {HEARTBEAT} with {0}; SimpleChat answers 401")]
    NotSimpleChat(u16),
    #[error("upstream")]
    Upstream(#[source] UpstreamError),
    #[error("session store")]
    Store(#[source] SessionsError),
    #[error("upstream rejected the session in {requests} of {requests} requests, with {status}")]
    Refused { status: u16, requests: usize },
    #[error("upstream failed at a request with the session, with {0}")]
    Failed(u16),
    #[error(
        "upstream accepted the session in {honoured} of {requests} requests: its workers disagree"
    )]
    HonouredBySome { honoured: usize, requests: usize },
    #[error("upstream accepts the session after its revocation")]
    EndIgnored,
    #[error("upstream wrote the session back after its revocation")]
    WrittenBack,
    #[error(
        "upstream did not answer a request with the session in time and may write the session back; a running gateway removes it"
    )]
    Unsettled,
    #[error("the test was interrupted")]
    Interrupted,
}

/// Step with its result.
pub(crate) type Finding = (Step, Result<(), CanaryFailure>);

/// Parts that the test uses.
pub(crate) struct Canary<'a> {
    pub(crate) sessions: &'a Sessions,
    pub(crate) upstream: &'a Upstream,
    pub(crate) cookie: &'a CookieConfig,
}

impl Canary<'_> {
    /// Runs the test up to the first failure; it succeeds if there is none. Removes the minted session in any case,
    /// even when `stop` becomes true meanwhile.
    pub(crate) async fn prove(&self, stop: &CancellationToken) -> Vec<Finding> {
        let mut findings = Vec::new();
        let anonymous = self.anonymous_is_refused().await;
        let is_refused = anonymous.is_ok();
        findings.push((Step::AnonymousRejected, anonymous));
        if !is_refused || stop.is_cancelled() {
            return findings;
        }
        let now = clock::now();
        let record = SessionRecord::new(Grant::canary(now), "canary".to_owned(), now);
        let id = match self.sessions.open(record, Vec::new(), None).await {
            Ok(opened) => opened.id,
            Err(error) => {
                findings.push((Step::Minted, Err(CanaryFailure::Store(error))));
                return findings;
            }
        };
        findings.push((Step::Minted, Ok(())));

        let mut probe = SessionProbe { canary: self, id, is_settled: true };
        let honoured = probe.is_honoured(stop).await;
        let was_honoured = honoured.is_ok();
        findings.push((Step::Honoured, honoured));
        let ended = self.end(&id).await;
        // A rejection after the end is meaningful only if the session was accepted before.
        if was_honoured && ended.is_ok() {
            findings.push((Step::EndHonoured, probe.end_is_honoured().await));
        }
        let removed = match ended {
            Ok(()) => self.remove(&id, probe.is_settled).await,
            Err(error) => Err(CanaryFailure::Store(error)),
        };
        findings.push((Step::Removed, removed));
        findings
    }

    async fn anonymous_is_refused(&self) -> Result<(), CanaryFailure> {
        match self.status_of("").await.map_err(CanaryFailure::Upstream)? {
            401 => Ok(()),
            200 => Err(CanaryFailure::AnonymousAccepted),
            status => Err(CanaryFailure::NotSimpleChat(status)),
        }
    }

    async fn status_of(&self, fields: &str) -> Result<u16, UpstreamError> {
        let fields = format!("Accept: application/json\r\nContent-Length: 0\r\n{fields}");
        let probe = self.upstream.ask("POST", HEARTBEAT, &fields);
        let answer = timeout(UPSTREAM_TIMEOUT, probe).await;
        answer.unwrap_or(Err(UpstreamError::ResponseTimeout)).map(|head| head.status)
    }

    async fn end(&self, id: &SessionId) -> Result<(), SessionsError> {
        let mut tries = 1;
        loop {
            match self.sessions.end(&[*id]).await {
                Err(_) if tries < MAX_REMOVALS => tries += 1,
                ended => return ended.map(drop),
            }
            sleep(PAUSE).await;
        }
    }

    async fn remove(&self, id: &SessionId, is_settled: bool) -> Result<(), CanaryFailure> {
        if self.sessions.has(id).await.map_err(CanaryFailure::Store)? {
            // It stays in the revocation list, so the sweep removes it.
            self.sessions.forget(*id);
            return Err(CanaryFailure::WrittenBack);
        }
        if !is_settled {
            return Err(CanaryFailure::Unsettled);
        }
        self.sessions.erase(id).await.map_err(CanaryFailure::Store)
    }
}

/// Requests with the session.
struct SessionProbe<'a> {
    canary: &'a Canary<'a>,
    id: SessionId,
    /// True if all requests were answered. Flask writes the session at the end of a request, even if it was removed
    /// meanwhile.
    is_settled: bool,
}

impl SessionProbe<'_> {
    async fn is_honoured(&mut self, stop: &CancellationToken) -> Result<(), CanaryFailure> {
        let (mut honoured, mut requests, mut in_a_row) = (0, 0, 0);
        let mut refused = Err(CanaryFailure::Interrupted);
        for _ in 0..MAX_ROUNDS {
            if stop.is_cancelled() {
                return Err(CanaryFailure::Interrupted);
            }
            let mut all_accepted = true;
            for answer in self.round().await {
                requests += 1;
                match answer {
                    Ok(200) => honoured += 1,
                    // A worker that hangs gets no further requests.
                    Err(error @ UpstreamError::ResponseTimeout) => {
                        return Err(CanaryFailure::Upstream(error));
                    }
                    other => {
                        all_accepted = false;
                        refused = other.map_err(CanaryFailure::Upstream);
                    }
                }
            }
            in_a_row = if all_accepted { in_a_row + 1 } else { 0 };
            if in_a_row == ROUNDS_IN_A_ROW {
                return Ok(());
            }
        }
        Err(match refused? {
            _ if honoured > 0 => CanaryFailure::HonouredBySome { honoured, requests },
            status @ 500.. => CanaryFailure::Failed(status),
            status => CanaryFailure::Refused { status, requests },
        })
    }

    async fn end_is_honoured(&mut self) -> Result<(), CanaryFailure> {
        let answers = self.round().await;
        if answers.iter().any(|answer| matches!(answer, Ok(200))) {
            return Err(CanaryFailure::EndIgnored);
        }
        answers
            .into_iter()
            .find_map(Result::err)
            .map_or(Ok(()), |error| Err(CanaryFailure::Upstream(error)))
    }

    /// Sends four requests at once, each on its own connection, so that they reach several workers of upstream.
    async fn round(&mut self) -> [Result<u16, UpstreamError>; 4] {
        let cookie = self.canary.cookie;
        let cookie = format!("{}={}", cookie.name, self.id);
        let field = format!("Cookie: {cookie}\r\n");
        let ask = || self.canary.status_of(&field);
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        let answers = [a, b, c, d];
        let is_settled = |answer: &Result<u16, UpstreamError>| {
            !matches!(answer, Err(UpstreamError::ResponseTimeout | UpstreamError::ClosedEarly(_)))
        };
        self.is_settled &= answers.iter().all(is_settled);
        answers
    }
}
