//! External access, and the metadata published for it.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_EXTERNAL_ACCESS",
        "off, on, managed",
        "off",
        "Whether machines may sign in: metadata and login answer only when on. managed: administrators decide at /gateway/admin, or by the access command",
    ).live(),
    setting(
        "GATEWAY_EXPOSURE_ACCEPTED_BY",
        "name",
        "",
        "Who accepted that tenant and app ids become public. Required with on; logged at each start",
    ).live(),
    setting(
        "GATEWAY_SCOPES",
        "scopes, comma-separated",
        "api://$CLIENT_ID/.default",
        "What clients are told to ask Entra for: scopes_supported and the challenge's scope",
    ).live(),
    setting(
        "GATEWAY_ROOT_METADATA",
        "gateway, upstream",
        "gateway",
        "Which program answers /.well-known/oauth-protected-resource, without a path, while external access is on. SimpleChat 0.250 and later has a document of its own there; doctor prints what clients find",
    ).live(),
];
