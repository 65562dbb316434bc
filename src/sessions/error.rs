//! Failures of the session store. None of them means "no session".

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use super::backend::redis_fault::RedisFault;
use crate::flask::FormatError;

/// A failure of the session store, or a login limit that is reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    #[error("Redis: {0}")]
    Redis(RedisFault),
    #[error("no connection to Redis: {0}")]
    RedisUnavailable(RedisFault),
    #[error("TLS setup for Redis failed")]
    Tls(#[source] io::Error),
    #[error("HTTP client setup for Azure failed")]
    Azure(#[source] reqwest::Error),
    #[error("session files")]
    Io(#[from] io::Error),
    #[error("{} does not exist: mount SimpleChat's SESSION_FILE_DIR here, one volume for both (SESSION_FILE_DIR)", .0.display())]
    FolderMissing(PathBuf),
    #[error("{} is not writable: give the gateway a folder of its own (GATEWAY_STATE_DIR)", .0.display())]
    StateFolder(PathBuf, #[source] Arc<io::Error>),
    #[error(
        "the gateway runs as user {ours}, SimpleChat as user {theirs}: session files need the same user for both"
    )]
    OtherUser {
        /// User id of the gateway.
        ours: u32,
        /// User id of SimpleChat.
        theirs: u32,
    },
    #[error("SimpleChat has not initialized SESSION_FILE_DIR yet")]
    UpstreamNotStarted,
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("the session store did not confirm in time")]
    TimedOut,
    #[error("the operation was interrupted")]
    Interrupted,
    #[error("no random bytes")]
    NoRandomBytes,
    #[error("too many logins")]
    TooOften(Duration),
    #[error("session status unknown: the session store is unavailable")]
    NotRead,
}

impl SessionsError {
    /// Value of `error.type` in metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::RedisUnavailable(_) => "redis_away",
            Self::Tls(_) => "tls",
            Self::Azure(_) => "azure",
            Self::Io(_) | Self::StateFolder(..) => "io",
            Self::FolderMissing(_) => "folder_missing",
            Self::OtherUser { .. } => "other_user",
            Self::UpstreamNotStarted => "upstream_not_started",
            Self::Format(FormatError::Encoding) => "encoding",
            Self::Format(FormatError::Decoding) => "decoding",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
            Self::NoRandomBytes => "no_random_bytes",
            Self::TooOften(_) => "too_often",
            Self::NotRead => "not_read",
        }
    }
}

/// Treats a malformed value as absent: for operations that end sessions, which one malformed record must not
/// prevent.
pub(super) fn malformed_as_none<T>(
    result: Result<Option<T>, SessionsError>,
) -> Result<Option<T>, SessionsError> {
    match result {
        Err(SessionsError::Format(FormatError::Decoding)) => Ok(None),
        result => result,
    }
}
