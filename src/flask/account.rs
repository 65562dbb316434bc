//! Flask-Session's own session ids, and the user of a session that SimpleChat wrote.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use crate::authz::session::email;

/// One of Flask-Session's own ids: `secrets.token_urlsafe(32)`, 43 characters of base64url. A minted id
/// never has this form. The id is a bearer credential: never logged.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FlaskId(String);

impl FlaskId {
    /// Parses exactly `[A-Za-z0-9_-]{43}`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        (text.len() == 43 && text.bytes().all(is_base64url)).then(|| Self(text.to_owned()))
    }

    /// Value of the cookie, and of the store's key after the prefix.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FlaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlaskId(..)")
    }
}

/// User of a SimpleChat session: claims of the ID token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Entra's object id.
    pub(crate) oid: Option<Uuid>,
    pub(crate) name: Option<String>,
    /// See [`email`].
    pub(crate) email: Option<String>,
    roles: Vec<String>,
}

impl Account {
    /// Reads the member `user` of a session.
    pub(super) fn of(user: &Value) -> Self {
        let text = |name| user.get(name).and_then(Value::as_str).map(str::to_owned);
        let roles = user.get("roles").and_then(Value::as_array).map(Vec::as_slice);
        Self {
            oid: text("oid").and_then(|oid| oid.parse().ok()),
            name: text("name"),
            email: email(|name| user.get(name).and_then(Value::as_str)),
            // In a string upstream would match a substring: "SuperUser" contains "User".
            roles: roles
                .unwrap_or_default()
                .iter()
                .filter_map(|role| role.as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// True if `roles` is a list that contains exactly `Admin`.
    pub(crate) fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "Admin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flask_ids_have_exactly_43_characters_of_base64url() {
        let id = FlaskId::parse(&"aB0_-".repeat(9)[..43]).unwrap();
        assert_eq!(id.as_str(), &"aB0_-".repeat(9)[..43]);
        assert_eq!(format!("{id:?}"), "FlaskId(..)");
        for odd in ["", &"a".repeat(42), &"a".repeat(44), &format!("{}.", "a".repeat(42))] {
            assert!(FlaskId::parse(odd).is_none(), "{odd}");
        }
        assert!(FlaskId::parse(&format!("{}é", "a".repeat(41))).is_none());
    }
}
