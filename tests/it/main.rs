//! The gateway as callers and operators meet it: the real binary between a real upstream and a real
//! store. One module a behaviour.
#![allow(missing_docs, reason = "a test's name is a sentence")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../entra/mod.rs"]
mod entra;
mod world;

mod commands;
mod docs_page;
mod every_route;
mod failures;
mod framing;
mod guard;
mod guard_spellings;
mod handshake;
mod keys;
mod lifetime;
mod mcp_server;
mod metadata;
mod openapi;
mod openapi_conformance;
mod proxying;
mod slow_callers;
mod smuggling;
mod soak;
mod store_formats;
mod tls_edge;
mod transparency;
mod upstream_connections;
mod websockets;
