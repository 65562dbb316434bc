//! Byte formats of Flask, Werkzeug, gunicorn and cachelib, read as they read them. Pure: no I/O, no clock.

pub(crate) mod account;
pub(crate) mod cookie;
pub(crate) mod forms;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_sessions.rs"]
pub(crate) mod fuzzing;
pub(crate) mod path;
mod pickle;
pub(crate) mod session_codec;
pub(crate) mod session_record;

/// Failure to write or read a stored session. Neither means "no session".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("a session could not be encoded")]
    Encoding,
    #[error("a stored session could not be decoded")]
    Decoding,
}
