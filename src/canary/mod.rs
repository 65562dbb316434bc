//! The live proof: a session that the gateway mints for nobody, shown to upstream, ended, removed.
//!
//! Settings can all be right by themselves and still not fit: another database, another prefix,
//! another folder. Only upstream itself can say whether it reads what the gateway writes.

mod advice;
mod watch;

use std::time::Duration;

use tokio::{
    sync,
    time::{sleep, timeout},
};

pub(crate) use self::{advice::advice, watch::Watch};
use crate::{
    authz::{
        policy::Grant,
        session::{SessionId, SessionRecord},
    },
    clock,
    config::CookieConfig,
    flask::cookie::SessionCookie,
    sessions::{Sessions, SessionsError},
    upstream::{Upstream, UpstreamError},
};

/// SimpleChat asks for a session here, and for nothing more.
const HEARTBEAT: &str = "/api/session/heartbeat";
/// Rounds that must go well one after the other. The first request that a fresh worker serves is
/// anonymous, so a refusal alone says little.
const ROUNDS_IN_A_ROW: usize = 2;
/// Rounds before upstream's answer is believed.
const MAX_ROUNDS: usize = 12;
/// For one request: a fresh worker reads its settings first.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often removing is tried.
const REMOVALS: usize = 3;
/// Between those.
const PAUSE: Duration = Duration::from_millis(500);

/// What must be so, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Upstream refuses a stranger: else the rest proves nothing.
    StrangerRefused,
    /// The store takes a session.
    Minted,
    /// Upstream lets in whoever bears it.
    Honoured,
    /// And nobody any more once it has ended.
    EndHonoured,
    /// Nothing of it is left in the store.
    Removed,
}

/// Why the proof does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("upstream lets a stranger in at POST {HEARTBEAT}: a session proves nothing there")]
    StrangerLetIn,
    #[error("upstream answers a stranger's POST {HEARTBEAT} with {0}, SimpleChat with 401")]
    NotSimpleChat(u16),
    #[error("upstream")]
    Upstream(#[source] UpstreamError),
    #[error("session store")]
    Store(#[source] SessionsError),
    #[error("upstream refused the session {asked} times of {asked}, with {status}")]
    Refused { status: u16, asked: usize },
    #[error("upstream failed over the session, with {0}")]
    Failed(u16),
    #[error("upstream honoured the session {honoured} times of {asked}: its workers disagree")]
    HonouredBySome { honoured: usize, asked: usize },
    #[error("upstream lets the session in after its end")]
    EndIgnored,
    #[error("upstream wrote the session back after its end")]
    WrittenBack,
    #[error(
        "upstream did not answer a request of it in time, and may write the session back; a running gateway sweeps it"
    )]
    Unsettled,
    #[error("it was interrupted")]
    Interrupted,
}

/// A step, and how it went.
pub(crate) type Finding = (Step, Result<(), Doubt>);

/// What the proof is made with.
pub(crate) struct Canary<'a> {
    pub(crate) sessions: &'a Sessions,
    pub(crate) upstream: &'a Upstream,
    pub(crate) cookie: &'a CookieConfig,
}

impl Canary<'_> {
    /// Goes as far as the first doubt; the proof holds when there is none. What was minted is removed
    /// however it ends, also when `stop` turns true meanwhile.
    pub(crate) async fn prove(&self, stop: &sync::watch::Receiver<bool>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let stranger = self.stranger_is_refused().await;
        let is_refused = stranger.is_ok();
        findings.push((Step::StrangerRefused, stranger));
        if !is_refused || *stop.borrow() {
            return findings;
        }
        let now = clock::now();
        let record = SessionRecord::new(Grant::canary(now), "canary".to_owned(), now);
        let id = match self.sessions.open(record, Vec::new(), None).await {
            Ok(opened) => opened.id,
            Err(error) => {
                findings.push((Step::Minted, Err(Doubt::Store(error))));
                return findings;
            }
        };
        findings.push((Step::Minted, Ok(())));

        let mut asking = Asking { canary: self, id, is_settled: true };
        let honoured = asking.is_honoured(stop).await;
        let was_honoured = honoured.is_ok();
        findings.push((Step::Honoured, honoured));
        let ended = self.end(&id).await;
        // Where it was never honoured, its end is no news.
        if was_honoured && ended.is_ok() {
            findings.push((Step::EndHonoured, asking.end_is_honoured().await));
        }
        let removed = match ended {
            Ok(()) => self.remove(&id, asking.is_settled).await,
            Err(error) => Err(Doubt::Store(error)),
        };
        findings.push((Step::Removed, removed));
        findings
    }

    async fn stranger_is_refused(&self) -> Result<(), Doubt> {
        match self.status_of("").await.map_err(Doubt::Upstream)? {
            401 => Ok(()),
            200 => Err(Doubt::StrangerLetIn),
            status => Err(Doubt::NotSimpleChat(status)),
        }
    }

    async fn status_of(&self, fields: &str) -> Result<u16, UpstreamError> {
        let fields = format!("Accept: application/json\r\nContent-Length: 0\r\n{fields}");
        let asking = self.upstream.ask("POST", HEARTBEAT, &fields);
        let answer = timeout(UPSTREAM_TIMEOUT, asking).await;
        answer.unwrap_or(Err(UpstreamError::ResponseTimeout)).map(|head| head.status)
    }

    async fn end(&self, id: &SessionId) -> Result<(), SessionsError> {
        let mut tries = 1;
        loop {
            match self.sessions.end(&[*id]).await {
                Err(_) if tries < REMOVALS => tries += 1,
                ended => return ended.map(drop),
            }
            sleep(PAUSE).await;
        }
    }

    async fn remove(&self, id: &SessionId, is_settled: bool) -> Result<(), Doubt> {
        if self.sessions.has(id).await.map_err(Doubt::Store)? {
            // That it has ended stays written down: the sweep will see to it.
            self.sessions.forget(*id);
            return Err(Doubt::WrittenBack);
        }
        if !is_settled {
            return Err(Doubt::Unsettled);
        }
        self.sessions.erase(id).await.map_err(Doubt::Store)
    }
}

/// Requests that bear the session.
struct Asking<'a> {
    canary: &'a Canary<'a>,
    id: SessionId,
    /// Whether all of them were answered. Flask writes the session at the end of a request, whatever
    /// has become of it.
    is_settled: bool,
}

impl Asking<'_> {
    async fn is_honoured(&mut self, stop: &sync::watch::Receiver<bool>) -> Result<(), Doubt> {
        let (mut honoured, mut asked, mut in_a_row) = (0, 0, 0);
        let mut refused = Err(Doubt::Interrupted);
        for _ in 0..MAX_ROUNDS {
            if *stop.borrow() {
                return Err(Doubt::Interrupted);
            }
            let mut is_good = true;
            for answer in self.round().await {
                asked += 1;
                match answer {
                    Ok(200) => honoured += 1,
                    // One that hangs is not asked on.
                    Err(error @ UpstreamError::ResponseTimeout) => {
                        return Err(Doubt::Upstream(error));
                    }
                    other => {
                        is_good = false;
                        refused = other.map_err(Doubt::Upstream);
                    }
                }
            }
            in_a_row = if is_good { in_a_row + 1 } else { 0 };
            if in_a_row == ROUNDS_IN_A_ROW {
                return Ok(());
            }
        }
        Err(match refused? {
            _ if honoured > 0 => Doubt::HonouredBySome { honoured, asked },
            status @ 500.. => Doubt::Failed(status),
            status => Doubt::Refused { status, asked },
        })
    }

    async fn end_is_honoured(&mut self) -> Result<(), Doubt> {
        let answers = self.round().await;
        if answers.iter().any(|answer| matches!(answer, Ok(200))) {
            return Err(Doubt::EndIgnored);
        }
        answers
            .into_iter()
            .find_map(Result::err)
            .map_or(Ok(()), |error| Err(Doubt::Upstream(error)))
    }

    /// Four requests at once, each on a connection of its own: they spread over upstream's workers.
    async fn round(&mut self) -> [Result<u16, UpstreamError>; 4] {
        let cookie = self.canary.cookie;
        let cookie = format!("{}={}", cookie.name, SessionCookie(cookie).value(&self.id));
        let field = format!("Cookie: {cookie}\r\n");
        let ask = || self.canary.status_of(&field);
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        let answers = [a, b, c, d];
        let is_settled = |answer: &Result<u16, UpstreamError>| {
            !matches!(answer, Err(UpstreamError::ResponseTimeout | UpstreamError::BrokeOff(_)))
        };
        self.is_settled &= answers.iter().all(is_settled);
        answers
    }
}
