//! SimpleChat Gateway: lets machines into SimpleChat.
//!
//! In front of an unmodified SimpleChat it exchanges Entra bearer tokens for Flask sessions, guards
//! `/external/*`, and proxies the rest. `docs/architecture.md` shows the rooms; imports point one way:
//! `lib → http → gateway → entra · sessions · upstream → config → access`.

mod access;
mod check;
mod clock;
mod config;
mod entra;
mod gateway;
mod http;
mod serve;
mod sessions;
mod telemetry;
mod tls;
mod upstream;

pub use self::{
    check::{check, healthcheck},
    config::{Config, Problems},
    serve::serve,
};

/// Why a command ended early; [`Failure::exit_code`] follows `sysexits.h`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A service that the command needs is not there.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// 69 (`EX_UNAVAILABLE`) or 70 (`EX_SOFTWARE`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable(_) => 69,
            Self::Internal(_) => 70,
        }
    }
}

/// The `OpenAPI` document.
#[must_use]
pub fn openapi() -> String {
    http::openapi_text()
}
