//! Response heads as they are sent to clients.

use super::{FieldRole, line, nominated};
use crate::h1::message::{Length, ResponseHead, Version};

/// Changes to a response head for the caller.
pub(crate) struct ClientHead<'a> {
    /// True for the value of a `Set-Cookie` field that is not forwarded.
    pub(crate) withholds: &'a dyn Fn(&[u8]) -> bool,
    /// Length of the body that the caller receives.
    pub(crate) length: Length,
    /// The caller's version: HTTP/1.0 has no transfer codings (RFC 9112 §6.1).
    pub(crate) caller: Version,
    /// `Connection` option, where the version's default does not apply.
    pub(crate) connection: Option<&'static str>,
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// Serializes a response head for the caller.
pub(crate) fn response(head: &ResponseHead, downward: &ClientHead<'_>) -> Vec<u8> {
    let ClientHead { withholds, length, caller, connection, upgrade } = downward;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status_and_reason());
    out.extend_from_slice(b"\r\n");
    let nominated = nominated(&head.fields);
    let has_no_body = matches!(head.status, 100..=199 | 204);
    for (name, value) in head.fields.iter() {
        match FieldRole::of(name) {
            FieldRole::TransferEncoding if *caller == Version::Http11 && !has_no_body => {
                line(&mut out, name, b"chunked");
            }
            // The chunked coding overrides a length, also in a response to HEAD or a 304, which only announces
            // it. Where no body is possible, neither is valid (RFC 9110 §8.6, RFC 9112 §6.1, §6.2).
            FieldRole::ContentLength
                if has_no_body
                    || *length == Length::Chunked
                    || *length == Length::None && head.fields.has("transfer-encoding") => {}
            FieldRole::SetCookie if withholds(value) => {}
            FieldRole::Connection
            | FieldRole::HopByHop
            | FieldRole::Upgrade
            | FieldRole::TransferEncoding => {}
            // Forwarded even if `Connection` names it: without it the response would have another length.
            FieldRole::ContentLength => line(&mut out, name, value),
            _ if nominated.iter().any(|n| n.eq_ignore_ascii_case(name)) => {}
            _ => line(&mut out, name, value),
        }
    }
    if let Some(protocol) = upgrade {
        line(&mut out, b"Connection", b"Upgrade");
        line(&mut out, b"Upgrade", protocol);
    }
    if let Some(option) = connection {
        line(&mut out, b"Connection", option.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}
