//! Why somebody does not administer.

/// Why somebody who is known is not let do it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminDenial {
    /// A machine's session.
    #[error(
        "A session that the gateway minted does not administer it; sign in to SimpleChat itself"
    )]
    MintedSession,
    /// Without the app role.
    #[error("Only users with SimpleChat's app role Admin may do this")]
    NotAnAdministrator,
    /// A page of another origin asks.
    #[error(
        "Pages of another origin may not ask this of your browser; if you are at the right address, the gateway takes it for another one: see GATEWAY_PUBLIC_URLS and GATEWAY_TRUSTED_PROXIES"
    )]
    ForeignOrigin,
    /// Not from a form of ours, or from one of another session.
    #[error("This form does not belong to your session; load the page again")]
    Csrf,
}

impl AdminDenial {
    /// For records, logs and metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::MintedSession => "minted_session",
            Self::NotAnAdministrator => "not_an_administrator",
            Self::ForeignOrigin => "foreign_origin",
            Self::Csrf => "csrf",
        }
    }
}
