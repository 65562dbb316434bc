//! Who is signed in to SimpleChat itself: what a session that Flask wrote says of its user.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use super::{Sessions, SessionsError, in_time};
use crate::{
    authz::session::{SessionId, email},
    clock,
};

/// How long nobody needs to have been at SimpleChat for the session to count no more here, in milliseconds:
/// SimpleChat itself keeps it for 31 days, unless its idle time-out is on.
const IDLE: i64 = 8 * 3_600_000;

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
    /// See [`email`].
    pub(crate) email: Option<String>,
    roles: Vec<String>,
}

impl Account {
    /// Of the member `user` of a session.
    pub(crate) fn of(user: &Value) -> Self {
        let text = |name| user.get(name).and_then(Value::as_str).map(str::to_owned);
        let roles = user.get("roles").and_then(Value::as_array).map(Vec::as_slice);
        Self {
            oid: text("oid").and_then(|oid| oid.parse().ok()),
            name: text("name"),
            email: email(|name| user.get(name).and_then(Value::as_str)),
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
    /// Who is signed in to SimpleChat under one of Flask's ids; `None`: nobody, or nobody who has been there
    /// lately. A record that cannot be read is [`SessionsError::Decoding`].
    pub(crate) async fn account(&self, id: &FlaskId) -> Result<Option<Account>, SessionsError> {
        let record = in_time(self.0.backend.record(id.as_str())).await?;
        let long_ago = clock::millis() - IDLE;
        let in_use = record.filter(|record| record.last_seen().is_none_or(|seen| seen >= long_ago));
        Ok(in_use.and_then(|record| record.account()))
    }

    /// Account of a minted session, from the claims of the token that it was created from; `None`: the store
    /// has no record of it.
    pub(crate) async fn minted_account(
        &self,
        id: &SessionId,
    ) -> Result<Option<Account>, SessionsError> {
        let record = in_time(self.0.backend.record(&id.to_string())).await?;
        Ok(record.and_then(|record| record.account()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::{
        flask::session_codec::to_file,
        sessions::test_support::{folders, instance},
    };

    /// SHA-256 and MD5 of `session:` and 43 times `a`; MD5 of cachelib's count file.
    const SHA_256: &str = "4efba00042fa896e174a6dd9a3d261e2ce2056bb1c72cee661bb604eb44a3985";
    const MD5: &str = "bf235d97d64be7a309765880296b0129";
    const MD5_OF_COUNT: &str = "2029240f6d1128be89ddc32729463129";

    #[tokio::test]
    async fn whoever_is_signed_in_is_read_from_flasks_file_by_either_name() {
        let folders = folders();
        let (sessions, flask) = (instance(folders.path()), folders.path().join("flask_session"));
        let id = FlaskId::parse(&"a".repeat(43)).unwrap();
        let session = |name: &str| json!({"user": {"name": name, "roles": ["Admin"]}});
        let put = |file: &str, name: &str, life: i64| {
            let expires_at = u32::try_from(clock::now() + life).unwrap();
            fs::write(flask.join(file), to_file(&session(name), expires_at).unwrap()).unwrap();
        };
        assert_eq!(sessions.account(&id).await.unwrap(), None);
        let left = |hours: i64| {
            let seen = clock::now() - hours * 3600;
            let left = json!({"user": {"name": "left"}, "last_activity_epoch": seen});
            fs::write(flask.join(SHA_256), to_file(&left, 0).unwrap()).unwrap();
        };
        left(9);
        assert_eq!(sessions.account(&id).await.unwrap(), None, "nobody has been there lately");
        left(7);
        assert!(sessions.account(&id).await.unwrap().is_some());
        put(SHA_256, "new", 60);
        let account = sessions.account(&id).await.unwrap().unwrap();
        assert_eq!((account.name.as_deref(), account.is_admin()), (Some("new"), true));
        put(SHA_256, "expired", -1);
        assert_eq!(sessions.account(&id).await.unwrap(), None);
        fs::write(flask.join(SHA_256), b"odd").unwrap();
        assert!(matches!(sessions.account(&id).await, Err(SessionsError::Decoding)));

        for file in fs::read_dir(&flask).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(flask.join(MD5_OF_COUNT), to_file(&json!(0), 0).unwrap()).unwrap();
        put(MD5, "old", 60);
        let account = sessions.account(&id).await.unwrap().unwrap();
        assert_eq!(account.name.as_deref(), Some("old"));
    }
}
