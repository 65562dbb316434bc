//! What verified claims admit to: `/external/*` ([`Admission`]) or a session ([`Grant`]).

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::token::{Caller, Claims, Identity};
use crate::flask::forms::SubjectBinding;

/// The app role that lets machines in. Nothing else does: not `User`, not `Admin`.
pub(crate) const EXTERNAL_API: &str = "ExternalApi";

/// Why a good token is not enough.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    #[error("The app role ExternalApi is not assigned to this caller")]
    RoleMissing,
    /// Consent to a scope would cure it.
    #[error("The access token lacks a scope that admits to signing in")]
    ScopeMissing,
    #[error("This client app is not allowed")]
    ClientNotAllowed,
    #[error("App-only tokens may not sign in here")]
    AppOnlyNotAllowed,
}

impl Denial {
    /// `reason` in activity records, `error.type` in metrics and traces.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::RoleMissing => "role_missing",
            Self::ScopeMissing => "scope_missing",
            Self::ClientNotAllowed => "client_not_allowed",
            Self::AppOnlyNotAllowed => "app_only_not_allowed",
        }
    }
}

/// Which roles a minted session may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoleCeiling {
    /// `*`: whatever the token has.
    All,
    /// These, by exact name.
    Only(Vec<String>),
}

impl RoleCeiling {
    fn allows(&self, role: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(roles) => roles.iter().any(|allowed| allowed == role),
        }
    }
}

/// When a minted session counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionBinding {
    /// By itself; beside a valid token only if that is of the same subject.
    WhenPresent,
    /// Beside a valid token of its subject only.
    Required,
}

/// The operator's decisions about callers.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Accepted `azp`/`appid`; empty: any.
    pub(crate) allowed_clients: Vec<Uuid>,
    /// Delegated scopes that admit to login, beside the role.
    pub(crate) login_scopes: Vec<String>,
    /// Whether app-only tokens may log in.
    pub(crate) login_app_only: bool,
    /// Roles a minted session may carry.
    pub(crate) session_roles: RoleCeiling,
    /// Cap on a minted session's life.
    pub(crate) session_max_age: Duration,
    /// When a minted session counts.
    pub(crate) session_binding: SessionBinding,
    /// Whether a user's token reaches that user's documents alone.
    pub(crate) bind_subject: bool,
}

/// Proof that a caller may reach `/external/*`. Made by [`Policy::admit`] alone.
#[derive(Debug)]
pub(crate) struct Admission {
    binding: Option<SubjectBinding>,
}

impl Admission {
    /// What every `user_id` of the request must be; `None`: the caller may name anybody.
    pub(crate) fn into_binding(self) -> Option<SubjectBinding> {
        self.binding
    }
}

/// Whose the canary's sessions are: `canary` in ASCII. No object id of Entra's looks like it.
pub(crate) const CANARY: Uuid = Uuid::from_u128(0x6361_6e61_7279);
/// How long a canary's session lives, in seconds.
const CANARY_LIFE: i64 = 120;

/// Proof that a session may be minted, with what it may hold. Made by [`Policy::grant`], and by
/// [`Grant::canary`] for nobody.
#[derive(Debug)]
pub(crate) struct Grant {
    subject: Uuid,
    client: String,
    user: Map<String, Value>,
    expires_at: i64,
    upstream_will_refuse: bool,
}

impl Policy {
    /// Whether this caller reaches `/external/*`.
    pub(crate) fn admit(&self, identity: &Identity) -> Result<Admission, Denial> {
        self.check_client(identity)?;
        if !identity.has_role(EXTERNAL_API) {
            return Err(Denial::RoleMissing);
        }
        let is_bound = self.bind_subject && *identity.caller() != Caller::AppOnly;
        Ok(Admission { binding: is_bound.then(|| SubjectBinding::to(identity.subject())) })
    }

    /// Whether these claims may be exchanged for a session; `now` in Unix seconds.
    pub(crate) fn grant(&self, claims: Claims, now: i64) -> Result<Grant, Denial> {
        let identity = claims.identity();
        self.check_client(identity)?;
        let scope_admits = match identity.caller() {
            Caller::AppOnly if !self.login_app_only => return Err(Denial::AppOnlyNotAllowed),
            Caller::AppOnly => false,
            Caller::Delegated { scopes } => scopes.iter().any(|s| self.login_scopes.contains(s)),
        };
        if !scope_admits && !identity.has_role(EXTERNAL_API) {
            let curable = matches!(identity.caller(), Caller::Delegated { .. });
            return Err(if curable && !self.login_scopes.is_empty() {
                Denial::ScopeMissing
            } else {
                Denial::RoleMissing
            });
        }

        let max_age = i64::try_from(self.session_max_age.as_secs()).unwrap_or(i64::MAX);
        let expires_at = identity.expires_at().min(now.saturating_add(max_age));
        let mut roles = identity.roles().to_vec();
        roles.retain(|role| self.session_roles.allows(role));
        let upstream_will_refuse = !roles.iter().any(|role| role == "User" || role == "Admin");
        let (subject, client) = (identity.subject(), identity.client().to_owned());
        let mut user = claims.into_all();
        // Flask reads a string here as a list of letters: always a list. `insert` keeps the place
        // of a member that is already there.
        user.insert("roles".to_owned(), Value::from(roles));
        Ok(Grant { subject, client, user, expires_at, upstream_will_refuse })
    }

    fn check_client(&self, identity: &Identity) -> Result<(), Denial> {
        let is_allowed = |allowed: &Uuid| {
            Uuid::try_parse(identity.client()).is_ok_and(|client| client == *allowed)
        };
        if self.allowed_clients.is_empty() || self.allowed_clients.iter().any(is_allowed) {
            Ok(())
        } else {
            Err(Denial::ClientNotAllowed)
        }
    }
}

impl Grant {
    /// For the gateway's own proof that upstream reads what it writes: the session of a subject that
    /// does not exist, without any role, for two minutes. No caller ever gets its id. `now` in Unix
    /// seconds.
    pub(crate) fn canary(now: i64) -> Self {
        let mut user = Map::new();
        user.insert("oid".to_owned(), Value::from(CANARY.to_string()));
        user.insert("name".to_owned(), Value::from("SimpleChat Gateway's canary"));
        user.insert("roles".to_owned(), Value::Array(Vec::new()));
        Self {
            subject: CANARY,
            client: "canary".to_owned(),
            user,
            expires_at: now.saturating_add(CANARY_LIFE),
            upstream_will_refuse: true,
        }
    }

    /// Whose session it will be.
    pub(crate) fn subject(&self) -> Uuid {
        self.subject
    }

    /// The client app it was asked for by.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// The session's `user` map: the token's claims in their order, `roles` cut to the ceiling.
    pub(crate) fn into_user(self) -> Map<String, Value> {
        self.user
    }

    /// When the session ends, in Unix seconds.
    pub(crate) fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// True when nearly all of upstream's `/api` will answer 403: neither `User` nor `Admin` is
    /// among the stored roles.
    pub(crate) fn upstream_will_refuse(&self) -> bool {
        self.upstream_will_refuse
    }
}
