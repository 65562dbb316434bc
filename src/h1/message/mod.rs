//! Parser of HTTP/1.1 messages (RFC 9112): heads and the ends of bodies. Pure: no I/O, no rules of the gateway.
//!
//! A head stays in its received bytes and is parsed in place, so that the forwarded bytes are the checked bytes.
//! A message that two parsers could interpret differently is [`Malformed`].

pub(crate) mod body;
mod chunks;
mod fields;
#[cfg(fuzzing)]
#[path = "../../../tests/fuzz/of_wire.rs"]
pub(crate) mod fuzzing;
mod head;

pub(crate) use self::{
    body::{Body, Length},
    fields::Fields,
    head::{RequestHead, ResponseHead, Version, find_end, is_blank_line},
};

/// Maximum size of a head in bytes: the first line, the fields and the empty line.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Maximum number of fields in a head.
pub(crate) const MAX_FIELDS: usize = 256;

/// Bytes that are not unambiguously one HTTP/1.1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Reasons for rejecting a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the head has more than 256 fields")]
    TooManyFields,
}
