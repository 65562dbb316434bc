//! SimpleChat Gateway: reverse proxy that lets external applications sign in to an unmodified SimpleChat with
//! Microsoft Entra access tokens.
//!
//! It exchanges access tokens for Flask sessions, guards `/external/*`, and forwards every other route unchanged.
//! `docs/architecture.md` describes the modules. Imports point one way:
//!
//! ```text
//! main → lib → cli · server → admin · openapi → http → canary · gateway → control · registration
//!      → sessions · entra · activity · upstream → h1 → flask → config → authz
//! ```

mod activity;
mod admin;
mod authz;
mod build_info;
mod canary;
mod cli;
mod clock;
mod config;
mod connect_fault;
mod control;
mod entra;
mod flask;
mod gateway;
mod h1;
mod http;
mod openapi;
mod registration;
mod server;
mod sessions;
mod telemetry;
mod timeouts;
mod tls;
mod upstream;

pub use crate::{
    build_info::VERSION,
    cli::{
        AccessCommand, ActivityCommand, BlockTarget, SessionSelector, SessionsCommand, access,
        activity,
        check::{check, healthcheck},
        doctor::doctor,
        exit::Failure,
        migrate,
        output::{print, print_error, print_error_in_time},
        sessions,
    },
    config::{Config, Problems},
    server::serve,
};

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> String {
    server::openapi_text()
}

/// Stops the clock, for tests: see `clock`. Debug builds alone have it.
#[cfg(debug_assertions)]
pub fn stop_clock(unix_seconds: i64) {
    clock::stopped::stop(unix_seconds);
}

/// Targets of libFuzzer: every parser of bytes from outside, by name (`make fuzz`).
#[cfg(fuzzing)]
pub mod fuzzing {
    use crate::{authz, config, entra, flask, h1::message, http};

    /// A target with its name.
    type Part = (&'static str, fn(&[u8]));

    /// All targets.
    pub const PARTS: &[Part] = &[
        ("wire", message::fuzzing::wire),
        ("target", authz::fuzzing::target),
        ("origin", authz::fuzzing::origin),
        ("token", authz::fuzzing::token),
        ("form", authz::fuzzing::form),
        ("keys", entra::fuzzing::keys),
        ("stored", flask::fuzzing::stored),
        ("pickle", flask::fuzzing::pickle),
        ("cookie", http::fuzzing::cookie),
        ("settings", config::fuzzing::settings),
    ];
}
