//! HTTP semantics of the gateway: endpoints, request context, refusals, handlers, guard and proxy.

pub(crate) mod bearer;
pub(crate) mod binding;
pub(crate) mod context;
pub(crate) mod cors;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod framing;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_http.rs"]
pub(crate) mod fuzzing;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod metrics;
pub(crate) mod proxy;
pub(crate) mod request_body;
pub(crate) mod resource_metadata;
pub(crate) mod security_headers;
pub(crate) mod sole_client;
pub(crate) mod traces;
