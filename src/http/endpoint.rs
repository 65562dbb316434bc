//! Classification of requests: each path is matched once, and everything that depends on it is a method here.
//!
//! A new route of the gateway is registered in `src/server/routes.rs` and, unless it is below `/gateway/`, gets a
//! variant here.

use crate::flask::path::Target;

/// Path of the metadata of the origin as a whole (RFC 9728 §3.1); that of a resource follows it.
pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource";

/// The gateway's resources beside the origin itself, by the path that follows [`METADATA`].
pub(crate) const RESOURCES: [&str; 2] = ["external", "external/login"];

/// Health probes of SimpleChat that need no token: platforms call them without one. `healthcheckz` is the
/// probe of SimpleChat 0.24x and later.
pub(crate) const HEALTHCHECKS: [&str; 2] = ["/external/healthcheck", "/external/healthcheckz"];

/// Path that App Service requests from a new instance until it gets a response.
const WARMUP: &str = "/robots933456.txt";

/// Forms of the administrators' page.
const PAGE_FORMS: [&str; 5] = [
    "/gateway/admin/access/disable",
    "/gateway/admin/access/enable",
    "/gateway/admin/blocks",
    "/gateway/admin/blocks/remove",
    "/gateway/admin/sessions/end",
];

/// Decisions of the administrators' API that are sent as a body with POST.
const API_POSTS: [&str; 2] = ["/gateway/api/access", "/gateway/api/blocks"];

/// Path of one session in the administrators' API; the id follows.
const ONE_SESSION: &str = "/gateway/api/sessions/";

/// Metadata that the gateway publishes at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnMetadata {
    /// True while external access is on.
    pub(crate) is_on: bool,
    /// False if the metadata of the origin as a whole is SimpleChat's (`GATEWAY_ROOT_METADATA=upstream`).
    pub(crate) has_root: bool,
}

/// Method whose request body the gateway reads. All other bodies sent to the gateway itself are discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BodyMethod {
    None,
    Post,
    Delete,
}

/// Destination of a request, by its path as the caller spelled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// Protected resource metadata of a resource of the gateway.
    Metadata,
    Login,
    Logout,
    /// Health for platforms' probes.
    Health,
    /// The administrators' page and its files.
    AdminPage(BodyMethod),
    /// The administrators' API.
    AdminApi(BodyMethod),
    /// Any other path below `/gateway/`.
    Gateway,
    /// SimpleChat's health probes.
    Healthcheck,
    /// Path of SimpleChat where clients look for an authorization server's metadata or for dynamic registration,
    /// while external access is on.
    Discovery(Target),
    /// Path of SimpleChat below `/external/`, by some reading; never [`Target::Open`].
    External(Target),
    Api,
    Static,
    /// App Service's warm-up request.
    Warmup,
    /// Any other path of SimpleChat.
    Other,
    /// The request could not be parsed as far as its path.
    Unread,
}

impl Endpoint {
    /// Endpoint of a path without its query. Spellings other than the exact ones go to SimpleChat.
    pub(crate) fn of(path: &str, own_metadata: OwnMetadata) -> Self {
        if let Some(own) = Self::own(path, own_metadata) {
            return own;
        }
        let target = Target::read(path);
        if own_metadata.is_on && is_discovery(path) {
            return Self::Discovery(target);
        }
        match target {
            Target::Guarded if HEALTHCHECKS.contains(&path) => Self::Healthcheck,
            Target::Guarded | Target::NonCanonical => Self::External(target),
            Target::Open if path.starts_with("/api/") => Self::Api,
            Target::Open if path.starts_with("/static/") => Self::Static,
            Target::Open if path == WARMUP => Self::Warmup,
            Target::Open => Self::Other,
        }
    }

    /// Endpoint of a path that the gateway serves itself.
    fn own(path: &str, own_metadata: OwnMetadata) -> Option<Self> {
        if let Some(resource) = described(path) {
            let is_own = own_metadata.is_on && (own_metadata.has_root || !resource.is_empty());
            return is_own.then_some(Self::Metadata);
        }
        match path {
            "/external/login" => return Some(Self::Login),
            "/external/logout" => return Some(Self::Logout),
            _ => {}
        }
        let rest = path.strip_prefix("/gateway/")?;
        Some(match rest.split('/').next().unwrap_or_default() {
            "health" if rest.starts_with("health/") => Self::Health,
            "admin" if PAGE_FORMS.contains(&path) => Self::AdminPage(BodyMethod::Post),
            "admin" => Self::AdminPage(BodyMethod::None),
            "api" if API_POSTS.contains(&path) => Self::AdminApi(BodyMethod::Post),
            "api" if path == "/gateway/api/sessions" || path.starts_with(ONE_SESSION) => {
                Self::AdminApi(BodyMethod::Delete)
            }
            "api" if rest.starts_with("api/blocks/") => Self::AdminApi(BodyMethod::Delete),
            "api" => Self::AdminApi(BodyMethod::None),
            _ => Self::Gateway,
        })
    }

    /// True if the gateway serves the request itself.
    pub(crate) fn is_own(self) -> bool {
        match self {
            Self::Metadata
            | Self::Login
            | Self::Logout
            | Self::Health
            | Self::AdminPage(_)
            | Self::AdminApi(_)
            | Self::Gateway => true,
            Self::Healthcheck
            | Self::Discovery(_)
            | Self::External(_)
            | Self::Api
            | Self::Static
            | Self::Warmup
            | Self::Other
            | Self::Unread => false,
        }
    }

    /// Label in metrics and traces (`http.route`).
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Metadata => "/.well-known/*",
            Self::Login => "/external/login",
            Self::Logout => "/external/logout",
            Self::Health => "/gateway/health/*",
            Self::AdminPage(_) | Self::AdminApi(_) | Self::Gateway => "/gateway/*",
            Self::Healthcheck
            | Self::External(_)
            | Self::Discovery(Target::Guarded | Target::NonCanonical) => "/external/*",
            Self::Api => "/api/*",
            Self::Static => "/static/*",
            Self::Discovery(Target::Open) | Self::Warmup | Self::Other => "/*",
            Self::Unread => "unread",
        }
    }

    /// Decision of the guard that the path alone allows.
    pub(crate) fn target(self) -> Target {
        match self {
            Self::Discovery(target) | Self::External(target) => target,
            Self::Healthcheck => Target::Guarded,
            Self::Metadata
            | Self::Login
            | Self::Logout
            | Self::Health
            | Self::AdminPage(_)
            | Self::AdminApi(_)
            | Self::Gateway
            | Self::Api
            | Self::Static
            | Self::Warmup
            | Self::Other
            | Self::Unread => Target::Open,
        }
    }

    /// True for requests of the platform itself, which reach each replica without passing the front door.
    pub(crate) fn is_probe(self, method: &str) -> bool {
        matches!(method, "GET" | "HEAD")
            && matches!(self, Self::Health | Self::Warmup | Self::Healthcheck)
    }

    /// True if the gateway reads the request's body.
    pub(crate) fn reads_body(self, method: &str) -> bool {
        match self {
            Self::AdminPage(body) | Self::AdminApi(body) => match body {
                BodyMethod::None => false,
                BodyMethod::Post => method == "POST",
                BodyMethod::Delete => method == "DELETE",
            },
            _ => false,
        }
    }

    /// The path for logs and traces, without session ids: a request that ends a session names it, perhaps at a
    /// mistyped path.
    pub(crate) fn redact(self, path: &str) -> &str {
        match self {
            Self::AdminApi(_)
                if path.strip_prefix(ONE_SESSION).is_some_and(|rest| !rest.is_empty()) =>
            {
                "/gateway/api/sessions/{id}"
            }
            Self::AdminApi(_) | Self::AdminPage(_) | Self::Gateway | Self::Health
                if holds_session_id(path) =>
            {
                "/gateway/{id}"
            }
            _ => path,
        }
    }
}

/// Path of a resource's metadata (RFC 9728 §3.1).
pub(crate) fn metadata_path(resource: &str) -> String {
    format!("{METADATA}/{resource}")
}

/// Resource of the gateway whose metadata a path names; empty: the origin as a whole. `None`: the path names none.
pub(crate) fn described(path: &str) -> Option<&str> {
    match path.strip_prefix(METADATA)? {
        "" => Some(""),
        rest => rest.strip_prefix('/').filter(|resource| RESOURCES.contains(resource)),
    }
}

/// True for paths where clients look for an authorization server's metadata (RFC 8414 §3, OpenID Connect Discovery
/// 1.0 §4) or for dynamic registration (RFC 7591 §3): at the origin, or below a resource of the gateway that they
/// take for an issuer.
fn is_discovery(path: &str) -> bool {
    path == "/register"
        || ["/external/login", "/external", ""].into_iter().any(|issuer| {
            path.strip_prefix(issuer).is_some_and(|rest| {
                rest.starts_with("/.well-known/oauth-authorization-server")
                    || rest.starts_with("/.well-known/openid-configuration")
            })
        })
}

/// True if a part of a text could be a minted session's id: 22 characters, a dot, digits.
fn holds_session_id(text: &str) -> bool {
    let is_of_id = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'.', bytes).any(|dot| {
        bytes[..dot].iter().rev().take_while(|b| is_of_id(b)).count() >= 22
            && bytes.get(dot + 1).is_some_and(u8::is_ascii_digit)
    })
}

/// A method that HTTP defines, or `_OTHER` (OpenTelemetry semantic conventions for HTTP).
pub(crate) fn method(method: &str) -> &'static str {
    const METHODS: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    METHODS.into_iter().find(|defined| *defined == method).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests;
