//! Bytes of Flask-Session 0.8.0: values in Redis, and cachelib's files.
//!
//! Redis (`flask_session/base.py`, `MsgSpecSerializer`): a msgpack map.
//!
//! ```text
//! 83 aa "_permanent" c3 a4 "user" de 0018 a3 "aud" d9 2a "api://…" … b3 "last_activity_epoch" ce …
//! ```
//!
//! Files (`cachelib/file.py`, up to 0.17.0): the expiry, then a pickle.
//!
//! ```text
//! ┌ u32, native order: Unix seconds, 0 = never
//! 00 00 00 00 | 80 03 7d … 2e
//! ```

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{FormatError, pickle};

/// A session to write: members in the order of writing.
pub(crate) struct SessionMembers<'a>(pub(crate) Vec<(&'a str, &'a Value)>);

impl Serialize for SessionMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// Maximum nesting of a stored session.
pub(super) const MAX_DEPTH: usize = 64;

/// Encodes a session for Redis.
pub(crate) fn to_redis(session: &impl Serialize) -> Result<Vec<u8>, FormatError> {
    rmp_serde::to_vec_named(session).map_err(|_| FormatError::Encoding)
}

/// Encodes a value for one of cachelib's files; `expires_at` in Unix seconds, 0 for never.
pub(crate) fn to_file(value: &impl Serialize, expires_at: u32) -> Result<Vec<u8>, FormatError> {
    let mut bytes = expires_at.to_ne_bytes().to_vec();
    let pickled = serde_pickle::to_vec(value, serde_pickle::SerOptions::new());
    bytes.extend(pickled.map_err(|_| FormatError::Encoding)?);
    Ok(bytes)
}

/// Decodes one of cachelib's files: expiry and pickled value.
pub(crate) fn from_file(bytes: &[u8]) -> Result<(u32, Value), FormatError> {
    let (expiry, pickled) = bytes.split_first_chunk().ok_or(FormatError::Decoding)?;
    let value = pickle::read(pickled, MAX_DEPTH).ok_or(FormatError::Decoding)?;
    Ok((u32::from_ne_bytes(*expiry), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session() -> Value {
        json!({"_permanent": true, "user": {"name": "Zoë", "roles": ["User"], "exp": 1_795_384_800,
            "big": u64::MAX, "score": 0.5, "none": null, "nested": {"a": [1, -2, [true]]}}})
    }

    #[test]
    fn msgpack_is_a_map_in_the_order_given() {
        let bytes = to_redis(&session()).unwrap();
        assert!(bytes.starts_with(b"\x82\xaa_permanent\xc3\xa4user\x87\xa4name\xa4Zo\xc3\xab"));
        assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), session());
    }

    #[test]
    fn files_read_back_as_written() {
        assert_eq!(from_file(&to_file(&session(), 7).unwrap()).unwrap(), (7, session()));
    }

    #[test]
    fn files_without_a_pickle_are_refused() {
        for odd in [b"".as_slice(), b"\0\0\0", b"\0\0\0\0", b"\0\0\0\0]"] {
            assert_eq!(from_file(odd), Err(FormatError::Decoding));
        }
    }
}
