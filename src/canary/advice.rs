//! What to do about each doubt.

use super::Doubt;
use crate::config::{CookieConfig, SessionsConfig, StoreConfig};

/// What to do about a doubt, in plain words.
pub(crate) fn advice(doubt: &Doubt, sessions: &SessionsConfig, cookie: &CookieConfig) -> String {
    match doubt {
        Doubt::StrangerLetIn => {
            "SimpleChat needs a session there: what stands at GATEWAY_UPSTREAM_URL?".to_owned()
        }
        Doubt::NotSimpleChat(_) => {
            "does GATEWAY_UPSTREAM_URL lead to SimpleChat itself, and not to another gateway or sign-in in front of it?".to_owned()
        }
        Doubt::Upstream(_) => "see upstream's log; is one of its workers overloaded?".to_owned(),
        Doubt::Store(_) => "see REDIS_URL, or SESSION_FILE_DIR".to_owned(),
        Doubt::Refused { .. } => not_where_upstream_looks(sessions, cookie),
        Doubt::Failed(_) => {
            "see upstream's log: does its own session store answer, and is SESSION_SERIALIZATION_FORMAT the same in both?".to_owned()
        }
        Doubt::HonouredBySome { .. } => {
            "some of its workers keep sessions elsewhere: one that found no Redis when it started keeps to files for good; restart SimpleChat, or wait if it is just starting".to_owned()
        }
        Doubt::EndIgnored => {
            "does anything between the gateway and SimpleChat cache answers? Does SimpleChat keep a copy of its sessions?".to_owned()
        }
        Doubt::WrittenBack | Doubt::Unsettled => {
            "a request of it was still running; run doctor again".to_owned()
        }
        Doubt::Interrupted => "run doctor again".to_owned(),
    }
}

fn not_where_upstream_looks(sessions: &SessionsConfig, cookie: &CookieConfig) -> String {
    let place = match &sessions.store {
        StoreConfig::Redis { .. } => format!(
            "the same server in REDIS_URL and the same database (here {}, SimpleChat's own is 0), where SimpleChat has SESSION_TYPE=redis; a SimpleChat that found no Redis when it started keeps to files for good: restart it",
            sessions.store.database().unwrap_or_default()
        ),
        StoreConfig::Files { directory, .. } => format!(
            "the very same folder in SESSION_FILE_DIR (here {}), where SimpleChat has SESSION_TYPE=filesystem",
            directory.display()
        ),
    };
    let format = match &sessions.store {
        StoreConfig::Redis { .. } => ", SESSION_SERIALIZATION_FORMAT",
        StoreConfig::Files { .. } => "",
    };
    let signer = match &cookie.signing_key {
        Some(_) => "SESSION_USE_SIGNER (here on) with the same SECRET_KEY",
        None => "SESSION_USE_SIGNER (here off)",
    };
    format!(
        "upstream looks elsewhere. Both need {place}; and the same SESSION_KEY_PREFIX (here {:?}), SESSION_COOKIE_NAME (here {:?}), {signer}{format}",
        sessions.key_prefix, cookie.name
    )
}
