//! Who is signed in to SimpleChat itself: what a session that Flask wrote says of its user.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use super::{Sessions, SessionsError, patiently};

/// One of Flask-Session's own ids: `secrets.token_urlsafe(32)`, 43 characters of base64url. A minted id
/// is never one. Whoever knows it holds the session: never logged.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FlaskId(String);

impl FlaskId {
    /// Exactly `[A-Za-z0-9_-]{43}`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        (text.len() == 43 && text.bytes().all(is_base64url)).then(|| Self(text.to_owned()))
    }

    /// As the cookie has it, and the store behind the prefix.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FlaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlaskId(..)")
    }
}

/// What a session of SimpleChat's says of its user: claims of the ID token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Entra's object id.
    pub(crate) oid: Option<Uuid>,
    pub(crate) name: Option<String>,
    /// `preferred_username`, else `email`.
    pub(crate) email: Option<String>,
    roles: Vec<String>,
}

impl Account {
    /// Of the member `user` of a session.
    pub(super) fn of(user: &Value) -> Self {
        let text = |name| user.get(name).and_then(Value::as_str).map(str::to_owned);
        let roles = user.get("roles").and_then(Value::as_array).map(Vec::as_slice);
        Self {
            oid: text("oid").and_then(|oid| oid.parse().ok()),
            name: text("name"),
            email: text("preferred_username").or_else(|| text("email")),
            // In a text upstream would look for a part of it: "SuperUser" has "User".
            roles: roles
                .unwrap_or_default()
                .iter()
                .filter_map(|role| role.as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// Whether its roles are a list that holds exactly `Admin`.
    pub(crate) fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "Admin")
    }
}

impl Sessions {
    /// Who is signed in to SimpleChat under one of Flask's ids; `None`: nobody. A record that cannot be
    /// read is [`SessionsError::Decoding`].
    pub(crate) async fn account(&self, id: &FlaskId) -> Result<Option<Account>, SessionsError> {
        let record = patiently(self.0.shelf.record(id.as_str())).await?;
        Ok(record.and_then(|record| record.account()))
    }
}
