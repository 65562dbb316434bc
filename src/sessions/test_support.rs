//! Test sessions stored directly in a backend: without a grant, with any times.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    Sessions,
    backend::{Added, Quota, SessionMeta},
    mint::fresh_id,
};
use crate::{
    authz::session::SessionId,
    clock,
    config::{SessionsConfig, StoreConfig},
    flask::session_codec::{self, SessionMembers},
};

/// Two folders that upstream has initialized.
pub(super) fn folders() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let flask = folder.path().join("flask_session");
    fs::create_dir(&flask).unwrap();
    // SHA-256 of cachelib's count file.
    let count = "79bc207ee04a581ab2348ca1f3494e64cd0ec36128735b8c6bc85ddd8fe1938c";
    fs::write(flask.join(count), session_codec::to_file(&json!(0), 0).unwrap()).unwrap();
    folder
}

/// An instance of the gateway over these folders.
pub(super) fn instance(folders: &Path) -> Sessions {
    let (directory, state) = (folders.join("flask_session"), folders.join("state"));
    open_store(StoreConfig::Files { directory, state })
}

pub(super) fn open_store(store: StoreConfig) -> Sessions {
    let key_prefix = "session:".to_owned();
    let (login_limit, failure_limit) = (None, None);
    let config = SessionsConfig { store, key_prefix, per_subject: 16, login_limit, failure_limit };
    Sessions::open_store(config).unwrap()
}

/// Stores a session that expires in `life` seconds; `opened_at` in Unix milliseconds.
pub(super) async fn put(
    sessions: &Sessions,
    (subject, client): (Uuid, &str),
    opened_at: i64,
    life: i64,
) -> SessionId {
    let now = clock::now();
    let meta = SessionMeta {
        id: fresh_id().unwrap(),
        expires_at: now + life,
        opened_at,
        subject,
        client: client.to_owned(),
        token: "fingerprint".to_owned(),
    };
    let (backend, quota) = (&sessions.0.backend, Quota { logins: None, failures: None });
    let added = backend.add_meta(&meta, &quota, now).await.unwrap();
    assert!(matches!(added, Added::New { .. }));
    let (last_activity, user) = (json!(opened_at / 1000 + 7), user(subject, client));
    let members = SessionMembers(vec![("user", &user), ("last_activity_epoch", &last_activity)]);
    assert!(backend.create(&meta.session_id(), &members, now).await.unwrap());
    meta.session_id()
}

fn user(subject: Uuid, client: &str) -> Value {
    json!({"oid": subject, "azp": client, "name": "Zoë", "email": "zoe@example.org", "roles": ["User"]})
}
