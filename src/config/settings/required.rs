//! The tenant, the app, the cloud, and the source of the settings.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting("TENANT_ID", "GUID", "", "The Entra tenant. Required"),
    setting("CLIENT_ID", "GUID", "", "SimpleChat's app registration. Required"),
    setting(
        "AZURE_ENVIRONMENT",
        "public, usgovernment, china, custom",
        "public",
        "The cloud that issues tokens",
    ),
    setting(
        "CUSTOM_IDENTITY_URL_VALUE",
        "URL",
        "",
        "For custom, as in SimpleChat: the authority; metadata names it followed by /TENANT_ID/v2.0",
    ),
    setting(
        "CUSTOM_OIDC_METADATA_URL_VALUE",
        "URL",
        "",
        "For custom, as in SimpleChat: the tenant's v2 OpenID Connect metadata. http:// on loopback only",
    ),
    setting("GATEWAY_CONFIG", "path", "", "A TOML file with the same names; the environment wins"),
    setting(
        "GATEWAY_UNKNOWN_SETTINGS",
        "error, warn",
        "error",
        "What an unknown GATEWAY_ name means; warn helps when rolling back",
    )
    .live(),
];
