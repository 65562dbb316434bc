//! Paths that the gateway answers itself. Every other path belongs to upstream.

use super::resource_metadata;
use crate::{config::RootMetadata, gateway::Resource};

/// True for paths that the gateway answers itself; upstream answers all others. `path`: without the query, as the
/// caller spelled it. Other spellings of these paths go to upstream, as do other resources' documents:
/// SimpleChat 0.250 and later publishes its own below `/.well-known/`.
pub(crate) fn is_own(path: &str, resource: &Resource) -> bool {
    if let Some(described) = resource_metadata::described(path) {
        let is_upstreams =
            described.is_empty() && resource.config.root_metadata == RootMetadata::Upstream;
        return resource.is_on() && !is_upstreams;
    }
    matches!(path, "/external/login" | "/external/logout") || path.starts_with("/gateway/")
}

/// True for paths where clients look for an authorization server's metadata (RFC 8414 §3, OpenID Connect
/// Discovery 1.0 §4) or for dynamic registration (RFC 7591 §3): at the origin, or below a resource of the gateway
/// that they take for an issuer.
pub(crate) fn is_discovery(path: &str) -> bool {
    path == "/register"
        || ["/external/login", "/external", ""].into_iter().any(|issuer| {
            path.strip_prefix(issuer).is_some_and(|rest| {
                rest.starts_with("/.well-known/oauth-authorization-server")
                    || rest.starts_with("/.well-known/openid-configuration")
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ResourceConfig;

    const ROOT: &str = "/.well-known/oauth-protected-resource";

    fn resource(is_on: bool, root_metadata: RootMetadata) -> Resource {
        Resource {
            is_on: tokio::sync::watch::channel(is_on).1,
            authority: String::new(),
            config: ResourceConfig { root_metadata, ..ResourceConfig::default() },
        }
    }

    #[test]
    fn the_gateway_owns_exactly_the_paths_of_its_routes() {
        for (is_on, root) in [
            (false, RootMetadata::Gateway),
            (true, RootMetadata::Gateway),
            (true, RootMetadata::Upstream),
        ] {
            let resource = resource(is_on, root);
            let is_own = |path: &str| is_own(path, &resource);
            for path in ["/external/login", "/external/logout", "/gateway/", "/gateway/x"] {
                assert!(is_own(path), "{path}");
            }
            for path in ["/external", "/external/login"] {
                assert_eq!(is_own(&format!("{ROOT}{path}")), is_on, "{path}");
            }
            assert_eq!(is_own(ROOT), is_on && root == RootMetadata::Gateway);
            for path in [
                "/",
                "/external",
                "/external/login/",
                "/external/mcp",
                "/gateway",
                "/gateways",
                "//gateway/health/live",
                "/gateway%2Fhealth/live",
                "/mcp",
                "/api/mcp",
                "/register",
                "/.well-known/oauth-protected-resources",
                "/.well-known/oauth-protected-resource/",
                "/.well-known/oauth-protected-resource/mcp",
                "/.well-known/oauth-protected-resource/api/mcp",
                "/.well-known/oauth-protected-resource/external/",
                "/.well-known/oauth-protected-resource/external%2Flogin",
                "//.well-known/oauth-protected-resource",
                "/.well-known/oauth-authorization-server",
                "/.well-known/openid-configuration",
                "/external/.well-known/oauth-authorization-server",
                "/.well-known/security.txt",
            ] {
                assert!(!is_own(path), "{path}");
            }
        }
    }

    #[test]
    fn discovery_paths_are_those_of_the_origin_and_of_the_gateways_resources() {
        for path in [
            "/register",
            "/.well-known/openid-configuration/x",
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-authorization-server/api/mcp",
            "/external/.well-known/oauth-authorization-server",
            "/external/login/.well-known/openid-configuration",
        ] {
            assert!(is_discovery(path), "{path}");
        }
        for path in [
            "/registers",
            "/register/",
            "/.well-known/oauth-protected-resource",
            "/api/mcp/.well-known/openid-configuration",
            "/external/x/.well-known/openid-configuration",
        ] {
            assert!(!is_discovery(path), "{path}");
        }
    }
}
