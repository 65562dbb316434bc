//! HTTP/1.1 as bytes (RFC 9112): heads, and where bodies end. Pure: no I/O, nothing of ours.
//!
//! A head is kept as it came and read where it lies, so that what is passed on is what was judged.
//! Whatever two readers could take for two different things is [`Malformed`].

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

/// Most bytes in a head: the first line, the fields and the empty line.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Most fields in a head.
pub(crate) const MAX_FIELDS: usize = 256;

/// Bytes that are not plainly one HTTP/1.1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Why a head cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it has more fields than are taken")]
    TooManyFields,
}
