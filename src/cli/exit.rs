//! Exit codes of commands (`sysexits.h`), and the failures that lead to them.

use crate::{
    activity::ActivityError,
    sessions::SessionsError,
    telemetry::{self, TelemetryError},
};

/// Reason for which a command ends early. Its text goes to stderr.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Invalid command line.
    #[error("{0}")]
    Usage(String),
    /// A service that the command needs is unavailable.
    #[error("{0}")]
    Unavailable(String),
    /// The resource that a setting names cannot be used.
    #[error("{0}")]
    Misconfigured(String),
    /// Fault of the gateway itself.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// 64 (`EX_USAGE`), 69 (`EX_UNAVAILABLE`), 78 (`EX_CONFIG`) or 70 (`EX_SOFTWARE`).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Unavailable(_) => 69,
            Self::Misconfigured(_) => 78,
            Self::Internal(_) => 70,
        }
    }
}

impl From<ActivityError> for Failure {
    fn from(error: ActivityError) -> Self {
        let chain = telemetry::chain(&error);
        match error {
            ActivityError::Unusable(..) | ActivityError::Missing(_) => Self::Misconfigured(chain),
            _ => Self::Unavailable(chain),
        }
    }
}

impl From<SessionsError> for Failure {
    fn from(error: SessionsError) -> Self {
        Self::Unavailable(telemetry::chain(&error))
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        let text = error.to_string();
        match error {
            TelemetryError::Exporters(_) => Self::Unavailable(text),
            TelemetryError::Stderr(_) => Self::Internal(text),
        }
    }
}
