//! Accounts of SimpleChat users, read from their sessions.

use super::{Sessions, SessionsError, in_time};
use crate::{
    authz::session::SessionId,
    clock,
    flask::account::{Account, FlaskId},
};

/// Longest idle time of a session that the gateway still accepts, in milliseconds. SimpleChat itself accepts
/// it for 31 days, unless its idle timeout is on.
const MAX_IDLE: i64 = 8 * 3_600_000;

impl Sessions {
    /// Account signed in to SimpleChat under one of Flask's ids; `None` when there is no user, or the session
    /// was idle for more than 8 hours. A malformed record is [`FormatError::Decoding`](crate::flask::FormatError).
    pub(crate) async fn account(&self, id: &FlaskId) -> Result<Option<Account>, SessionsError> {
        let record = in_time(self.0.backend.record(id.as_str())).await?;
        let oldest = clock::millis() - MAX_IDLE;
        let in_use = record.filter(|record| record.last_activity().is_none_or(|at| at >= oldest));
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
        flask::{FormatError, session_codec::to_file},
        sessions::test_support::{folders, instance},
    };

    /// SHA-256 and MD5 of `session:` and 43 times `a`; MD5 of cachelib's count file.
    const SHA_256: &str = "4efba00042fa896e174a6dd9a3d261e2ce2056bb1c72cee661bb604eb44a3985";
    const MD5: &str = "bf235d97d64be7a309765880296b0129";
    const MD5_OF_COUNT: &str = "2029240f6d1128be89ddc32729463129";

    #[tokio::test]
    async fn accounts_are_read_from_flask_files_named_by_sha_256_or_md5() {
        let folders = folders();
        let (sessions, flask) = (instance(folders.path()), folders.path().join("flask_session"));
        let id = FlaskId::parse(&"a".repeat(43)).unwrap();
        let session = |name: &str| json!({"user": {"name": name, "roles": ["Admin"]}});
        let put = |file: &str, name: &str, life: i64| {
            let expires_at = u32::try_from(clock::now() + life).unwrap();
            fs::write(flask.join(file), to_file(&session(name), expires_at).unwrap()).unwrap();
        };
        assert_eq!(sessions.account(&id).await.unwrap(), None);
        let put_idle = |hours: i64| {
            let last_activity = clock::now() - hours * 3600;
            let idle = json!({"user": {"name": "idle"}, "last_activity_epoch": last_activity});
            fs::write(flask.join(SHA_256), to_file(&idle, 0).unwrap()).unwrap();
        };
        put_idle(9);
        assert_eq!(sessions.account(&id).await.unwrap(), None, "idle for too long");
        put_idle(7);
        assert!(sessions.account(&id).await.unwrap().is_some());
        put(SHA_256, "new", 60);
        let account = sessions.account(&id).await.unwrap().unwrap();
        assert_eq!((account.name.as_deref(), account.is_admin()), (Some("new"), true));
        put(SHA_256, "expired", -1);
        assert_eq!(sessions.account(&id).await.unwrap(), None);
        fs::write(flask.join(SHA_256), b"malformed").unwrap();
        assert!(matches!(
            sessions.account(&id).await,
            Err(SessionsError::Format(FormatError::Decoding))
        ));

        for file in fs::read_dir(&flask).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(flask.join(MD5_OF_COUNT), to_file(&json!(0), 0).unwrap()).unwrap();
        put(MD5, "old", 60);
        let account = sessions.account(&id).await.unwrap().unwrap();
        assert_eq!(account.name.as_deref(), Some("old"));
    }
}
