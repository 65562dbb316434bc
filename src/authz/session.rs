//! Minted sessions: content, and ids that carry their expiry.
//!
//! ```text
//! URfDrEuKzgWg3bXogAhUAw . 1795384800
//! └ tower-sessions' id ─┘   └ expiry, Unix seconds
//!   128 random bits, 22 characters of base64url
//! ```
//!
//! Flask extends a session by 31 days on every request and never reads `exp`. With the expiry in the id, every
//! instance knows it on every request without a read.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value};
use tower_sessions_core::session::Id;
use uuid::{Builder, Uuid};

use super::policy::Grant;

/// Id of a minted session. A bearer credential: never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId {
    id: Id,
    expires_at: i64,
}

impl SessionId {
    /// `expires_at` in Unix seconds.
    pub(crate) fn new(id: Id, expires_at: i64) -> Self {
        Self { id, expires_at }
    }

    /// Parses an id in exactly the form that [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, expires_at) = text.split_once('.')?;
        let parsed = Self { id: id.parse().ok()?, expires_at: expires_at.parse().ok()? };
        (parsed.to_string() == text).then_some(parsed)
    }

    /// True if a text has the outer form of a minted id, even if it does not parse. Upstream's own ids (43
    /// characters) never have it.
    pub(crate) fn is_formed_like_one(text: &str) -> bool {
        text.split_once('.').is_some_and(|(id, expires_at)| {
            id.len() == 22
                && !expires_at.is_empty()
                && expires_at.bytes().all(|b| b.is_ascii_digit())
        })
    }

    /// tower-sessions' part of the id.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// Expiry, in Unix seconds.
    pub(crate) fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// Name of the session in pages and records, which must not contain the id: the first 16 hex digits of the
    /// SHA-256 of the id's text.
    pub(crate) fn handle(&self) -> String {
        let digest = digest(&SHA256, self.to_string().as_bytes());
        hex::encode(&digest.as_ref()[..8])
    }

    /// Record id of an event that happens to a session at most once, equal for every instance and attempt. From
    /// the SHA-256 of `EVENT:ID`; version 8 (RFC 9562 §5.8).
    pub(crate) fn record_id(&self, event: &str) -> Uuid {
        let digest = digest(&SHA256, format!("{event}:{self}").as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_ref()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.expires_at)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// E-mail address of a user: the first of these claims of a token or a session that is not blank. The token of a
/// guest may have only `unique_name`.
pub(crate) fn email<'a>(claim: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let names = ["preferred_username", "email", "upn", "unique_name"];
    names.into_iter().filter_map(claim).find(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// A session that may be minted. Made only from a [`Grant`].
#[derive(Debug)]
pub(crate) struct SessionRecord {
    grant: Grant,
    token_fingerprint: String,
    opened_at: i64,
}

impl SessionRecord {
    /// `opened_at` in Unix seconds.
    pub(crate) fn new(grant: Grant, token_fingerprint: String, opened_at: i64) -> Self {
        Self { grant, token_fingerprint, opened_at }
    }

    /// Subject of the session.
    pub(crate) fn subject(&self) -> Uuid {
        self.grant.subject()
    }

    /// Client app that requested the session.
    pub(crate) fn client(&self) -> &str {
        self.grant.client()
    }

    /// SHA-256 of the token from which the session is minted.
    pub(crate) fn token_fingerprint(&self) -> &str {
        &self.token_fingerprint
    }

    /// Opening time, in Unix seconds.
    pub(crate) fn opened_at(&self) -> i64 {
        self.opened_at
    }

    /// Expiry, in Unix seconds.
    pub(crate) fn expires_at(&self) -> i64 {
        self.grant.expires_at()
    }

    /// Claims for upstream.
    pub(crate) fn into_user(self) -> Map<String, Value> {
        self.grant.into_user()
    }

    /// True if upstream will answer 403 to nearly all of its API.
    pub(crate) fn lacks_user_role(&self) -> bool {
        self.grant.lacks_user_role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_back_from_their_text() {
        let id = SessionId::new(Id::default(), 1_795_384_800);
        let text = id.to_string();
        assert_eq!(text.len(), 22 + 1 + 10);
        assert_eq!(SessionId::parse(&text), Some(id));
        assert_eq!(format!("{id:?}"), "SessionId(..)");
    }

    #[test]
    fn a_handle_is_the_first_16_digits_of_the_digest_of_the_id() {
        // printf AAAAAAAAAAAAAAAAAAAAAA.1795384800 | sha256sum
        let id = SessionId::new(Id(0), 1_795_384_800);
        assert_eq!(id.handle(), "5b477192a010a287");
    }

    #[test]
    fn other_spellings_are_not_ids_but_may_have_their_outer_form() {
        let id = SessionId::new(Id::default(), 1_795_384_800).to_string();
        for odd in [
            id.replace(".1", ".01"),
            id.replace(".1", ".+1"),
            format!("{id}0000000000000"),
            format!(" {id}"),
            "a".repeat(43),
        ] {
            assert_eq!(SessionId::parse(&odd), None, "{odd}");
        }
        assert!(SessionId::is_formed_like_one(&format!("{id}0000000000000")));
        assert!(!SessionId::is_formed_like_one(&"a".repeat(43)));
    }
}
