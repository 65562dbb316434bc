//! Sign-in: exchange of an access token for a session that SimpleChat honours.
//!
//! Nothing here knows HTTP. The order of the checks is part of the contract: failure limit, token, origin, blocks,
//! policy, login limit, session store, activity log.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;
use uuid::Uuid;

use super::external_access::{BlockError, ExternalAccess};
use crate::{
    activity::{Activity, ActivityError, Actor, Author, EndReason, EventKind, Record},
    authz::{
        policy::{Denial, Policy},
        session::{SessionId, SessionRecord, email},
        token::{BearerToken, TokenError},
    },
    entra::{Entra, EntraError},
    sessions::{EndedSession, Opened, Sessions, SessionsError},
    upstream::{Upstream, field_length},
};

/// `reason` of the activity record of a failure beyond the limit.
pub(crate) const TOO_OFTEN: &str = "too_often";

/// Reasons for refusing a sign-in, and failures of what it depends on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error(transparent)]
    Entra(#[from] EntraError),
    /// The request was sent by a page of an origin that is not listed (login CSRF).
    #[error("Origin not allowed")]
    ForeignOrigin,
    #[error(transparent)]
    Blocked(#[from] BlockError),
    #[error(transparent)]
    Denied(#[from] Denial),
    /// External access was disabled while the session was made.
    #[error("External access is disabled on this deployment")]
    ExternalAccessOff,
    /// Too many logins or failures; with the time until the next attempt is allowed.
    #[error("Too many sign-in attempts; try again later")]
    TooOften(Duration),
    #[error("Session store unavailable")]
    Sessions(#[source] SessionsError),
    #[error(transparent)]
    Activity(#[from] ActivityError),
}

impl From<SessionsError> for SignInError {
    fn from(error: SessionsError) -> Self {
        match error {
            SessionsError::TooOften(wait) => Self::TooOften(wait),
            error => Self::Sessions(error),
        }
    }
}

impl SignInError {
    /// `reason` of the activity record if the caller was denied; `None` for failures of the gateway's dependencies
    /// and limits, which are not recorded.
    pub(crate) fn denial(&self) -> Option<&'static str> {
        match self {
            Self::Entra(error @ EntraError::Rejected(_)) => Some(error.reason()),
            Self::ForeignOrigin => Some("foreign_origin"),
            Self::Blocked(error @ BlockError::Blocked) => Some(error.reason()),
            Self::Denied(denial) => Some(denial.reason()),
            Self::Entra(EntraError::KeysUnavailable)
            | Self::Blocked(BlockError::Unknown)
            | Self::ExternalAccessOff
            | Self::TooOften(_)
            | Self::Sessions(_)
            | Self::Activity(_) => None,
        }
    }
}

/// One attempt to sign in.
pub(crate) struct Attempt<'a> {
    pub(crate) token: &'a BearerToken,
    /// Length of the `Authorization` field's value, in bytes.
    pub(crate) authorization_length: usize,
    /// Address of the client.
    pub(crate) client: IpAddr,
    /// False if the request names an origin that is not listed.
    pub(crate) has_allowed_origin: bool,
    /// Minted sessions that the request carries. Those of the same subject end.
    pub(crate) sessions: Vec<SessionId>,
    /// Author of the activity records, without the actor.
    pub(crate) author: Author,
}

/// A session that was created and recorded.
pub(crate) struct Granted {
    pub(crate) id: SessionId,
    /// Entra's object id.
    pub(crate) subject: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    /// Claims as they were stored: an object.
    pub(crate) claims: Value,
    /// True if the session has neither the role `User` nor `Admin`.
    pub(crate) lacks_user_role: bool,
    /// True if SimpleChat refuses requests with this `Authorization` field.
    pub(crate) exceeds_field_limit: bool,
}

/// Parts that a sign-in uses. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SignIn {
    pub(crate) entra: Entra,
    pub(crate) sessions: Sessions,
    pub(crate) activity: Activity,
    pub(crate) external_access: ExternalAccess,
    pub(crate) policy: std::sync::Arc<Policy>,
    pub(crate) upstream: Upstream,
}

impl SignIn {
    /// Signs a caller in. The session exists and is recorded when this returns. `now`: Unix seconds.
    pub(crate) async fn sign_in(
        &self,
        attempt: Attempt<'_>,
        now: i64,
    ) -> Result<Granted, SignInError> {
        let author = |actor| Author { actor, ..attempt.author.clone() };
        let mut caller = None;
        let record = match self.authorize(&attempt, now, &mut caller).await {
            Ok(record) => record,
            Err(error) => {
                let Some(reason) = error.denial() else { return Err(error) };
                let (actor, client) = caller.unzip();
                let actor: Actor = actor.unwrap_or_default();
                let denied = denied(actor.oid.clone(), client, reason);
                let wait = self.record_failure(attempt.client, denied.by(&author(actor))).await;
                return Err(wait.map_or(error, SignInError::TooOften));
            }
        };
        let (subject, client) = (record.subject(), record.client().to_owned());
        let lacks_user_role = record.lacks_user_role();
        let length = field_length("Authorization", attempt.authorization_length);
        let exceeds_field_limit = !self.upstream.accepts_field(length).await;

        // No session without its record.
        let slot = self.activity.reserve().await?;
        let opened =
            self.sessions.open(record, attempt.sessions.clone(), Some(attempt.client.into()));
        let Opened { id, user: claims, replaced, crowded_out } = opened.await?;

        // An administrator may have blocked the caller, or disabled external access, in the meantime.
        if let Err(error) = self.check_again(subject, &client) {
            self.sessions.end(&[id]).await?;
            if let Some(reason) = error.denial() {
                let denied = denied(Some(subject.to_string()), Some(client), reason);
                self.activity.record_denial(denied.by(&author(Actor::default())));
            }
            return Err(error);
        }

        let actor = actor(subject, |name| claims.get(name).and_then(Value::as_str));
        for ended in ended_by_login(subject, replaced, crowded_out, self.sessions.per_subject()) {
            self.activity.record(ended.by(&author(actor.clone()))).await;
        }
        let about = |record: Record| Record {
            subject: Some(subject.to_string()),
            client: Some(client.clone()),
            session: Some(id.handle()),
            ..record.by(&author(actor.clone()))
        };
        if let Err(error) = slot.write(about(Record::new(EventKind::Login))).await {
            self.sessions.end(&[id]).await?;
            let undone = Record::refused(EventKind::LoginDenied, "not_recorded");
            self.activity.record(about(undone)).await;
            return Err(error.into());
        }
        let Actor { name, email, .. } = actor;
        Ok(Granted { id, subject, name, email, claims, lacks_user_role, exceeds_field_limit })
    }

    /// Records a failed attempt without a token that could be read; `reason`: as in the activity record. Returns the
    /// time until the next attempt is allowed, if there were too many failures.
    pub(crate) async fn fail(
        &self,
        client: IpAddr,
        reason: &'static str,
        author: &Author,
    ) -> Option<Duration> {
        self.record_failure(client, denied(None, None, reason).by(author)).await
    }

    /// Checks an attempt; `caller`: the subject and the client app, once the token is verified.
    async fn authorize(
        &self,
        attempt: &Attempt<'_>,
        now: i64,
        caller: &mut Option<(Actor, String)>,
    ) -> Result<SessionRecord, SignInError> {
        if let Some(wait) = self.sessions.failure_limit_wait(attempt.client.into()) {
            return Err(SignInError::TooOften(wait));
        }
        let claims = self.entra.verify(attempt.token, now).await?;
        let (subject, client) = (claims.identity().subject(), claims.identity().client());
        *caller = Some((actor(subject, |name| claims.text(name)), client.to_owned()));
        // Within the leeway a token is valid, but its session would expire at once.
        if claims.identity().expires_at() <= now {
            return Err(EntraError::Rejected(TokenError::Expired).into());
        }
        if !attempt.has_allowed_origin {
            return Err(SignInError::ForeignOrigin);
        }
        self.external_access.check(subject, client)?;
        let grant = self.policy.grant(claims, now)?;
        Ok(SessionRecord::new(grant, attempt.token.fingerprint().to_string(), now))
    }

    fn check_again(&self, subject: Uuid, client: &str) -> Result<(), SignInError> {
        if !self.external_access.is_on() {
            return Err(SignInError::ExternalAccessOff);
        }
        Ok(self.external_access.check(subject, client)?)
    }

    /// Counts a failure of a client address and records the denial, with the limit as its reason once it is reached.
    async fn record_failure(&self, client: IpAddr, denied: Record) -> Option<Duration> {
        let wait = self.sessions.count_failure(client.into()).await;
        let reason = wait.map(|_| TOO_OFTEN.to_owned()).or(denied.reason.clone());
        self.activity.record_denial(Record { reason, ..denied });
        wait
    }
}

fn denied(subject: Option<String>, client: Option<String>, reason: &'static str) -> Record {
    Record { client, subject, ..Record::refused(EventKind::LoginDenied, reason) }
}

/// Subject of a verified token, by the claims that `text` returns.
fn actor<'a>(subject: Uuid, text: impl Fn(&str) -> Option<&'a str>) -> Actor {
    let name = text("name").map(str::to_owned);
    Actor { oid: Some(subject.to_string()), name, email: email(text) }
}

/// Records of the same subject's sessions that ended because of a login; `limit`: sessions the subject may have.
fn ended_by_login(
    subject: Uuid,
    replaced: Vec<EndedSession>,
    crowded_out: Vec<EndedSession>,
    limit: usize,
) -> impl Iterator<Item = Record> {
    let replaced = replaced.into_iter().map(|ended| (ended, EndReason::Replaced));
    let crowded_out =
        crowded_out.into_iter().map(move |ended| (ended, EndReason::TooMany { limit }));
    replaced.chain(crowded_out).map(move |(ended, reason)| Record {
        subject: Some(subject.to_string()),
        client: ended.of.map(|(_, client)| client),
        session: Some(ended.handle),
        ..Record::ended(reason)
    })
}
