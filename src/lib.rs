//! SimpleChat Gateway: lets machines into SimpleChat.
//!
//! In front of an unmodified SimpleChat it exchanges Entra bearer tokens for Flask sessions, guards
//! `/external/*`, and proxies the rest. `docs/architecture.md` shows the rooms; imports point one way:
//! `lib → http → gateway → entra · sessions · upstream → config → access`.

mod access;
mod canary;
mod check;
mod clock;
mod config;
mod doctor;
mod entra;
mod failure;
mod gateway;
mod http;
mod report;
mod serve;
mod sessions;
mod stream;
mod telemetry;
mod tls;
mod upstream;
mod wire;

pub use self::{
    check::{check, healthcheck},
    config::{Config, Problems},
    doctor::doctor,
    failure::Failure,
    serve::serve,
};

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> String {
    http::openapi_text()
}
