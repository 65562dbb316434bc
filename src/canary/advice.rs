//! Advice for each failure of the canary.

use super::CanaryFailure;
use crate::config::{CookieConfig, SessionsConfig, StoreConfig};

/// Advice for a failure, for operators.
pub(crate) fn advice(
    failure: &CanaryFailure,
    sessions: &SessionsConfig,
    cookie: &CookieConfig,
) -> String {
    match failure {
        CanaryFailure::AnonymousAccepted => {
            "check GATEWAY_UPSTREAM_URL: SimpleChat requires a session for this request".to_owned()
        }
        CanaryFailure::NotSimpleChat(_) => {
            "check that GATEWAY_UPSTREAM_URL is the address of SimpleChat itself, not of another gateway or sign-in in front of it".to_owned()
        }
        CanaryFailure::Upstream(_) => "check upstream's log; a worker may be overloaded".to_owned(),
        CanaryFailure::Store(_) => "check REDIS_URL, or SESSION_FILE_DIR".to_owned(),
        CanaryFailure::Refused { .. } => matching_settings(sessions, cookie),
        CanaryFailure::Failed(_) => {
            "check upstream's log: its session store may be unavailable. SESSION_SERIALIZATION_FORMAT must be unset in SimpleChat, or msgpack".to_owned()
        }
        CanaryFailure::HonouredBySome { .. } => {
            "some workers use another session store: a worker that found no Redis at startup uses files until it is restarted; restart SimpleChat, or wait if it is still starting".to_owned()
        }
        CanaryFailure::EndIgnored => {
            "check whether anything between the gateway and SimpleChat caches responses, and whether SimpleChat caches sessions".to_owned()
        }
        CanaryFailure::WrittenBack | CanaryFailure::Unsettled => {
            "a request with the session was still running; run doctor again".to_owned()
        }
        CanaryFailure::Interrupted => "run doctor again".to_owned(),
    }
}

fn matching_settings(sessions: &SessionsConfig, cookie: &CookieConfig) -> String {
    let place = match &sessions.store {
        StoreConfig::Redis { .. } => format!(
            "the same server in REDIS_URL and the same database (here {}, SimpleChat's own is 0), where SimpleChat has SESSION_TYPE=redis; a SimpleChat that found no Redis at startup uses files until it is restarted",
            sessions.store.database().unwrap_or_default()
        ),
        StoreConfig::Files { directory, .. } => format!(
            "the same folder in SESSION_FILE_DIR (here {}), where SimpleChat has SESSION_TYPE=filesystem",
            directory.display()
        ),
    };
    format!(
        "upstream does not find the session. The gateway and upstream need {place}; and the same SESSION_KEY_PREFIX (here {:?}), SESSION_COOKIE_NAME (here {:?}); SESSION_USE_SIGNER must be unset in SimpleChat, or false",
        sessions.key_prefix, cookie.name
    )
}
