//! What a request is to telemetry: one of a few kinds and methods, whatever callers send.

use super::guard;

/// A kind of request, told as the pattern that its path fits (`http.route`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Login,
    Logout,
    Metadata,
    Health,
    /// All else that the gateway answers itself.
    Gateway,
    /// What the guard stands before.
    External,
    Api,
    Static,
    /// All else that upstream answers.
    Upstream,
    /// No path could be read.
    Unread,
}

impl Endpoint {
    /// By the path as the caller spelled it; `is_own`: whether the gateway answers it itself.
    pub(crate) fn of(path: &str, is_own: bool) -> Self {
        match path {
            "/external/login" if is_own => Self::Login,
            "/external/logout" if is_own => Self::Logout,
            _ if is_own && path.starts_with("/.well-known/") => Self::Metadata,
            _ if is_own && path.starts_with("/gateway/health/") => Self::Health,
            _ if is_own => Self::Gateway,
            _ if guard::covers(path) => Self::External,
            _ if path.starts_with("/api/") => Self::Api,
            _ if path.starts_with("/static/") => Self::Static,
            _ => Self::Upstream,
        }
    }

    /// True for requests that the gateway answers itself.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Login | Self::Logout | Self::Metadata | Self::Health | Self::Gateway)
    }

    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Login => "/external/login",
            Self::Logout => "/external/logout",
            Self::Metadata => "/.well-known/*",
            Self::Health => "/gateway/health/*",
            Self::Gateway => "/gateway/*",
            Self::External => "/external/*",
            Self::Api => "/api/*",
            Self::Static => "/static/*",
            Self::Upstream => "/*",
            Self::Unread => "unread",
        }
    }
}

/// A method that HTTP knows, or `_OTHER` (semantic conventions for HTTP).
pub(crate) fn method(method: &str) -> &'static str {
    const METHODS: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
