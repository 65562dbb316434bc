//! Byte formats of Flask, Werkzeug, gunicorn and cachelib, read as they read them. Pure: no I/O, no clock.

pub(crate) mod cookie;
pub(crate) mod forms;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_sessions.rs"]
pub(crate) mod fuzzing;
pub(crate) mod path;
pub(crate) mod pickle;
pub(crate) mod session_codec;
pub(crate) mod session_record;
