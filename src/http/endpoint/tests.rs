//! Unit tests of the parent module.

use super::*;

const ON: OwnMetadata = OwnMetadata { is_on: true, has_root: true };
const OFF: OwnMetadata = OwnMetadata { is_on: false, has_root: true };

#[test]
fn the_gateway_owns_exactly_the_paths_of_its_routes() {
    for own_metadata in [OFF, ON, OwnMetadata { is_on: true, has_root: false }] {
        let is_own = |path: &str| Endpoint::of(path, own_metadata).is_own();
        for path in ["/external/login", "/external/logout", "/gateway/", "/gateway/x"] {
            assert!(is_own(path), "{path}");
        }
        for path in ["/external", "/external/login"] {
            assert_eq!(is_own(&format!("{METADATA}{path}")), own_metadata.is_on, "{path}");
        }
        assert_eq!(is_own(METADATA), own_metadata.is_on && own_metadata.has_root);
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
    let is_discovery =
        |path, own_metadata| matches!(Endpoint::of(path, own_metadata), Endpoint::Discovery(_));
    for path in [
        "/register",
        "/.well-known/openid-configuration/x",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/api/mcp",
        "/external/.well-known/oauth-authorization-server",
        "/external/login/.well-known/openid-configuration",
    ] {
        assert!(is_discovery(path, ON) && !is_discovery(path, OFF), "{path}");
    }
    for path in [
        "/registers",
        "/register/",
        "/.well-known/oauth-protected-resource",
        "/api/mcp/.well-known/openid-configuration",
        "/external/x/.well-known/openid-configuration",
    ] {
        assert!(!is_discovery(path, ON), "{path}");
    }
}

#[test]
fn every_path_below_external_is_guarded_also_as_another_endpoint() {
    for own_metadata in [ON, OFF] {
        for path in [
            "/external",
            "/external/public_documents",
            "/external/healthcheck",
            "/external/.well-known/oauth-authorization-server",
        ] {
            assert_eq!(Endpoint::of(path, own_metadata).target(), Target::Guarded, "{path}");
        }
        for path in
            ["/x/../external/y", "/%65xternal/y", "/external/.well-known/openid-configuration/../y"]
        {
            assert_eq!(Endpoint::of(path, own_metadata).target(), Target::NonCanonical, "{path}");
        }
    }
}

#[test]
fn a_session_id_is_redacted_from_a_path() {
    let redact = |path: &str| Endpoint::of(path, ON).redact(path).to_owned();
    let whole = "/gateway/api/sessions/URfDrEuKzgWg3bXogAhUAw.1795384800";
    assert_eq!(redact(whole), "/gateway/api/sessions/{id}");
    for odd in ["api//sessions/", "api/sessions%2f", "admin/sessions/", "health/", "x/"] {
        let path = format!("/gateway/{odd}URfDrEuKzgWg3bXogAhUAw.1795384800");
        assert!(!redact(&path).contains("URfDrEuKzgWg3bXogAhUAw"), "{path}");
    }
    for path in [
        "/gateway/api/sessions",
        "/gateway/api/sessions/",
        "/gateway/api/blocks/a/b",
        "/gateway/admin/activity.csv",
    ] {
        assert_eq!(redact(path), path);
    }
}

#[test]
fn only_decisions_of_administrators_have_bodies() {
    let reads_body = |method: &str, path: &str| Endpoint::of(path, ON).reads_body(method);
    assert!(PAGE_FORMS.into_iter().chain(API_POSTS).all(|path| reads_body("POST", path)));
    assert!(reads_body("DELETE", "/gateway/api/sessions"));
    assert!(reads_body("DELETE", "/gateway/api/sessions/x"));
    assert!(reads_body("DELETE", "/gateway/api/blocks/subject/a"));
    for (method, path) in [
        ("GET", "/gateway/api/access"),
        ("POST", "/gateway/admin"),
        ("DELETE", "/gateway/api/access"),
        ("PUT", "/gateway/api/access"),
        ("POST", "/gateway/administrators"),
        ("POST", "/external/login"),
    ] {
        assert!(!reads_body(method, path), "{method} {path}");
    }
}

#[test]
fn probes_are_read_with_get_or_head() {
    for path in [
        "/gateway/health/live",
        "/robots933456.txt",
        "/external/healthcheck",
        "/external/healthcheckz",
    ] {
        let endpoint = Endpoint::of(path, OFF);
        assert!(endpoint.is_probe("GET") && endpoint.is_probe("HEAD"), "{path}");
        assert!(!endpoint.is_probe("POST"), "{path}");
    }
    assert!(!Endpoint::of("/external/healthcheck/", OFF).is_probe("GET"));
}

#[test]
fn every_form_of_the_pages_is_read_with_its_body() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/admin");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for form in text.split("<form").skip(1) {
            let tag = form.split('>').next().unwrap();
            if tag.contains("method=\"post\"") {
                let action = tag.split("action=\"").nth(1).unwrap().split('"').next().unwrap();
                assert!(Endpoint::of(action, ON).reads_body("POST"), "{action}");
                count += 1;
            }
        }
    }
    assert!(count >= PAGE_FORMS.len(), "{count}");
}
