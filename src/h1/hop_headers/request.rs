//! Request heads as they are sent to SimpleChat.

use std::{borrow::Cow, io::Write as _};

use opentelemetry::trace::SpanContext;

use super::{FieldRole, MAX_FORWARDS, line, nominated};
use crate::{
    authz::client_info::ClientInfo,
    h1::message::{Length, RequestHead, Version},
};

/// True if an `OPTIONS` request may not be forwarded (`Max-Forwards: 0`): the gateway answers it.
pub(crate) fn is_final_recipient(head: &RequestHead) -> bool {
    let is_zero = |value: &[u8]| !value.is_empty() && value.iter().all(|b| *b == b'0');
    head.method() == "OPTIONS" && head.fields.all("max-forwards").any(is_zero)
}

/// A `Max-Forwards` value minus one. A value that is not a number is unchanged; a number above 32 bits becomes
/// the greatest 32-bit number.
pub(super) fn one_less(value: &[u8]) -> Cow<'_, [u8]> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Cow::Borrowed(value);
    }
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
    let less = number.map_or(u32::MAX, |number| number.saturating_sub(1));
    Cow::Owned(less.to_string().into_bytes())
}

/// The protocol of an upgrade request (RFC 9110 §7.8): HTTP/1.1, without a body, one protocol line, not HTTP/2.
pub(crate) fn upgrade(head: &RequestHead, length: Length) -> Option<&[u8]> {
    let is_requested =
        head.fields.list("connection").any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = head.fields.all("upgrade");
    let may_ask = is_requested && length == Length::None && head.version == Version::Http11;
    let protocol = protocols.next().filter(|_| may_ask)?;
    let is_http2 = protocol
        .split(|b| *b == b',')
        .any(|one| one.trim_ascii().to_ascii_lowercase().starts_with(b"h2"));
    (protocols.next().is_none() && !is_http2).then_some(protocol)
}

/// Replacement for the `Cookie` fields of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CookieLine<'a> {
    /// The received field, if there is one.
    Unchanged,
    /// This value.
    Is(&'a [u8]),
    Removed,
}

/// Changes to a request head for upstream.
#[derive(Debug)]
pub(crate) struct UpstreamHead<'a> {
    pub(crate) target: &'a [u8],
    pub(crate) client_info: &'a ClientInfo,
    pub(crate) cookie: CookieLine<'a>,
    /// Replaces the caller's `Host`.
    pub(crate) host: Option<&'a str>,
    /// `Host` for a request without one (HTTP/1.0).
    pub(crate) default_host: &'a [u8],
    pub(crate) upgrade: Option<&'a [u8]>,
    /// Replaces the caller's trace context.
    pub(crate) trace: Option<&'a SpanContext>,
}

/// Serializes a request head for upstream.
pub(crate) fn request(head: &RequestHead, upward: &UpstreamHead<'_>) -> Vec<u8> {
    let UpstreamHead { target, client_info, cookie, host, default_host, upgrade, trace } = upward;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let nominated = nominated(&head.fields);
    let is_options = head.method() == "OPTIONS";
    let mut cookie = Some(*cookie);
    let mut has_host = false;
    for (name, value) in head.fields.iter() {
        match FieldRole::of(name) {
            FieldRole::Host => {
                has_host = true;
                line(&mut out, name, host.map_or(value, str::as_bytes));
            }
            FieldRole::Cookie => match cookie.take() {
                Some(CookieLine::Unchanged) => line(&mut out, name, value),
                Some(CookieLine::Is(changed)) => line(&mut out, name, changed),
                Some(CookieLine::Removed) | None => {}
            },
            FieldRole::TransferEncoding => line(&mut out, name, b"chunked"),
            FieldRole::Expect if value.eq_ignore_ascii_case(b"100-continue") => {}
            FieldRole::Trace if trace.is_some() || !client_info.peer_is_trusted => {}
            FieldRole::Baggage if !client_info.peer_is_trusted => {}
            FieldRole::Connection
            | FieldRole::HopByHop
            | FieldRole::Upgrade
            | FieldRole::Forwarding
            | FieldRole::Underscored => {}
            _ if nominated.iter().any(|n| n.eq_ignore_ascii_case(name)) => {}
            FieldRole::EndToEnd if is_options && name.eq_ignore_ascii_case(MAX_FORWARDS) => {
                line(&mut out, name, &one_less(value));
            }
            FieldRole::EndToEnd
            | FieldRole::Authorization
            | FieldRole::ContentLength
            | FieldRole::Expect
            | FieldRole::SetCookie
            | FieldRole::Trace
            | FieldRole::Baggage => line(&mut out, name, value),
        }
    }
    if !has_host {
        line(&mut out, b"Host", host.map_or(*default_host, str::as_bytes));
    }
    forwarding(&mut out, client_info);
    if let Some(trace) = trace {
        trace_context(&mut out, trace);
    }
    if let Some(protocol) = upgrade {
        line(&mut out, b"Connection", b"Upgrade");
        line(&mut out, b"Upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Writes the forwarding fields.
fn forwarding(out: &mut Vec<u8>, client_info: &ClientInfo) {
    // Writing into memory cannot fail.
    for (at, address) in client_info.chain.iter().enumerate() {
        let before = if at == 0 { "X-Forwarded-For: " } else { ", " };
        let _ = write!(out, "{before}{address}");
    }
    out.extend_from_slice(b"\r\n");
    line(out, b"X-Forwarded-Proto", client_info.scheme.as_str().as_bytes());
    if let Some(host) = client_info.public_host() {
        let _ = write!(out, "X-Forwarded-Host: {host}\r\n");
    }
}

/// Writes the trace context (W3C Trace Context, level 1).
fn trace_context(out: &mut Vec<u8>, trace: &SpanContext) {
    let (id, span, flags) = (trace.trace_id(), trace.span_id(), trace.trace_flags());
    // Writing into memory cannot fail.
    let _ = write!(out, "traceparent: 00-{id}-{span}-{flags:02x}\r\n");
    let state = trace.trace_state().header();
    if !state.is_empty() {
        line(out, b"tracestate", state.as_bytes());
    }
}
