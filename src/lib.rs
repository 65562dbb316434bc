//! SimpleChat Gateway: lets machines into SimpleChat.
//!
//! In front of an unmodified SimpleChat it exchanges Entra bearer tokens for Flask sessions, guards
//! `/external/*`, and proxies the rest. `docs/architecture.md` shows the rooms; imports point one way:
//! `lib → http → gateway → entra · sessions · upstream → config → access`.

mod about;
mod activity;
mod admin;
mod authz;
mod canary;
mod check;
mod clock;
mod commands;
mod config;
mod connect_fault;
mod doctor;
mod entra;
mod escape;
mod exit;
mod exposure;
mod external_access;
mod flask;
mod gateway;
mod h1;
mod health_registry;
mod http;
mod openapi;
mod output;
mod public_url_probe;
mod registration;
mod reload;
mod report;
mod restrictions;
mod revocation;
mod serve;
mod sessions;
mod shutdown;
mod startup_audit;
mod telemetry;
mod tls;
mod upstream;

pub use crate::{
    about::VERSION,
    check::{check, healthcheck},
    commands::{
        AccessCommand, ActivityCommand, SessionsCommand, WhichSessions, Whom, access, activity,
        migrate, sessions,
    },
    config::{Config, Problems},
    doctor::doctor,
    exit::Failure,
    output::{print, print_error, print_error_in_time},
    serve::serve,
};

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> String {
    http::openapi_text()
}

/// Stops the clock, for tests: see `clock`. Debug builds alone have it.
#[cfg(debug_assertions)]
pub fn stop_clock(unix_seconds: i64) {
    clock::stopped::stop(unix_seconds);
}

/// What libFuzzer is set upon: every reader of bytes from outside, by name. `make fuzz`.
#[cfg(fuzzing)]
pub mod fuzzing {
    use crate::{authz, config, entra, flask, h1::message, http};

    /// A part and its name.
    type Part = (&'static str, fn(&[u8]));

    /// All of them.
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
