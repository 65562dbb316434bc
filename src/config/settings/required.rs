//! Tenant, app and cloud; source and strictness of the settings.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting("TENANT_ID", "GUID", "", "Entra tenant. Required"),
    setting("CLIENT_ID", "GUID", "", "SimpleChat's app registration. Required"),
    setting(
        "AZURE_ENVIRONMENT",
        "public, usgovernment, china, custom",
        "public",
        "Cloud that issues the tokens",
    ),
    setting(
        "CUSTOM_IDENTITY_URL_VALUE",
        "URL",
        "",
        "Authority of a custom cloud, as in SimpleChat; the metadata names it followed by /TENANT_ID/v2.0. Required with custom",
    ),
    setting(
        "CUSTOM_OIDC_METADATA_URL_VALUE",
        "URL",
        "",
        "URL of the tenant's v2 OpenID Connect metadata in a custom cloud, as in SimpleChat; http:// on loopback only. Required with custom",
    ),
    setting(
        "GATEWAY_CONFIG",
        "path",
        "",
        "TOML file with the same names; the environment has precedence",
    ),
    setting(
        "GATEWAY_UNKNOWN_SETTINGS",
        "error, warn",
        "error",
        "Treatment of unknown names that begin with GATEWAY_; warn is meant for rollbacks",
    )
    .live(),
];
