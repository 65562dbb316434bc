//! HTTP/1.1 as bytes and connections (RFC 9112). Knows nothing of routes, refusals or sessions.

pub(crate) mod buffered;
pub(crate) mod caller;
pub(crate) mod connection_limit;
pub(crate) mod flow;
pub(crate) mod hop_headers;
pub(crate) mod inspected_body;
pub(crate) mod listener;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod min_rate;
pub(crate) mod timer;
