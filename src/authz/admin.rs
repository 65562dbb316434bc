//! Reasons for refusing administrative access.

/// Reason for refusing an administrative request of a known user.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminDenial {
    /// The session was issued by the gateway.
    #[error(
        "A gateway-issued session cannot administer the gateway; sign in to SimpleChat in a browser"
    )]
    MintedSession,
    /// The user lacks the app role `Admin`.
    #[error("SimpleChat's app role Admin is required")]
    NotAnAdministrator,
    /// The request came from a page of another origin.
    #[error(
        "Request from a page of another origin. If the address in your browser is correct, check GATEWAY_PUBLIC_URLS and GATEWAY_TRUSTED_PROXIES: the gateway derived another one"
    )]
    ForeignOrigin,
    /// The anti-forgery token is missing or belongs to another session.
    #[error("This form does not belong to your session; reload the page")]
    Csrf,
}

impl AdminDenial {
    /// Reason code for records, logs and metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::MintedSession => "minted_session",
            Self::NotAnAdministrator => "not_an_administrator",
            Self::ForeignOrigin => "foreign_origin",
            Self::Csrf => "csrf",
        }
    }
}
