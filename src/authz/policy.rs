//! Policy: access of verified claims to `/external/*` ([`Admission`]) and to a session ([`Grant`]).

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::token::{Claims, Identity, TokenKind};

/// App role of external applications. No other role replaces it: not `User`, not `Admin`.
pub(crate) const EXTERNAL_API: &str = "ExternalApi";

/// Reasons for refusing a caller with a valid token.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    #[error("The app role ExternalApi is not assigned to this caller")]
    RoleMissing,
    /// Curable: the client can request the scope.
    #[error("Missing a scope required to sign in")]
    ScopeMissing,
    #[error("This client app is not allowed")]
    ClientNotAllowed,
    #[error("Sign-in with app-only tokens is disabled")]
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

/// Roles that a minted session may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoleCeiling {
    /// `*`: all roles of the token.
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

/// Token that must accompany a minted session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionBinding {
    /// None; a valid token beside the session must be of the same subject.
    WhenPresent,
    /// A valid token of the session's subject.
    Required,
}

/// Settings of accepted callers and of their sessions.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Accepted `azp`/`appid`; empty: any.
    pub(crate) allowed_clients: Vec<Uuid>,
    /// Delegated scopes that permit login, in addition to the role.
    pub(crate) login_scopes: Vec<String>,
    /// True if app-only tokens may log in.
    pub(crate) login_app_only: bool,
    /// Roles a minted session may carry.
    pub(crate) session_roles: RoleCeiling,
    /// Maximum lifetime of a minted session.
    pub(crate) session_max_age: Duration,
    /// Token that must accompany a minted session.
    pub(crate) session_binding: SessionBinding,
    /// True if a user's token gives access to that user's documents only.
    pub(crate) bind_subject: bool,
}

/// Proof of access to `/external/*`. Made by [`Policy::admit`] only.
#[derive(Debug)]
pub(crate) struct Admission {
    bound_subject: Option<Uuid>,
}

impl Admission {
    /// Required value of every `user_id` in the request; `None`: any value.
    pub(crate) fn into_bound_subject(self) -> Option<Uuid> {
        self.bound_subject
    }
}

/// Subject of canary sessions: `canary` in ASCII. Entra does not issue such an object id.
pub(crate) const CANARY: Uuid = Uuid::from_u128(0x6361_6e61_7279);
/// Lifetime of a canary session, in seconds.
const CANARY_LIFE: i64 = 120;

/// Proof that a session may be minted, with its contents. Made by [`Policy::grant`] for a caller and by
/// [`Grant::canary`] for the canary.
#[derive(Debug)]
pub(crate) struct Grant {
    subject: Uuid,
    client: String,
    user: Map<String, Value>,
    expires_at: i64,
    lacks_user_role: bool,
}

impl Policy {
    /// Decides access to `/external/*`.
    pub(crate) fn admit(&self, identity: &Identity) -> Result<Admission, Denial> {
        self.check_client(identity)?;
        if !identity.has_role(EXTERNAL_API) {
            return Err(Denial::RoleMissing);
        }
        let is_bound = self.bind_subject && *identity.caller() != TokenKind::AppOnly;
        Ok(Admission { bound_subject: is_bound.then(|| identity.subject()) })
    }

    /// Decides on the exchange of claims for a session. `now`: Unix seconds.
    pub(crate) fn grant(&self, claims: Claims, now: i64) -> Result<Grant, Denial> {
        let identity = claims.identity();
        self.check_client(identity)?;
        let scope_admits = match identity.caller() {
            TokenKind::AppOnly if !self.login_app_only => return Err(Denial::AppOnlyNotAllowed),
            TokenKind::AppOnly => false,
            TokenKind::Delegated { scopes } => scopes.iter().any(|s| self.login_scopes.contains(s)),
        };
        if !scope_admits && !identity.has_role(EXTERNAL_API) {
            let curable = matches!(identity.caller(), TokenKind::Delegated { .. });
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
        let lacks_user_role = !roles.iter().any(|role| role == "User" || role == "Admin");
        let (subject, client) = (identity.subject(), identity.client().to_owned());
        let mut user = claims.into_all();
        // Always a list: Flask would read a string as a list of letters. `insert` preserves the position of an
        // existing member.
        user.insert("roles".to_owned(), Value::from(roles));
        Ok(Grant { subject, client, user, expires_at, lacks_user_role })
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
    /// Grant of the canary, which tests that upstream reads the gateway's records: a subject that does not
    /// exist, no role, two minutes. No caller receives the session id. `now`: Unix seconds.
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
            lacks_user_role: true,
        }
    }

    /// Subject of the session.
    pub(crate) fn subject(&self) -> Uuid {
        self.subject
    }

    /// Client app that requested the session.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// The session's `user` map: the token's claims in their order, `roles` limited to the ceiling.
    pub(crate) fn into_user(self) -> Map<String, Value> {
        self.user
    }

    /// End of the session, in Unix seconds.
    pub(crate) fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// True if upstream will answer 403 to nearly all of `/api`: the stored roles hold neither `User` nor
    /// `Admin`.
    pub(crate) fn lacks_user_role(&self) -> bool {
        self.lacks_user_role
    }
}
