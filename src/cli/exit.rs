//! How commands end early.

/// Why a command ended early; [`Failure::exit_code`] follows `sysexits.h`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A service that the command needs is not there.
    #[error("{0}")]
    Unavailable(String),
    /// What a setting names cannot be used.
    #[error("{0}")]
    Misconfigured(String),
    /// Our fault.
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
