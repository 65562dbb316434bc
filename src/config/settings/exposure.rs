//! External access, and the metadata published for it.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_EXTERNAL_ACCESS",
        "off, on, managed",
        "off",
        "Sign-in of external applications: metadata and login answer only while it is on. managed: administrators enable it at /gateway/admin or with the access command",
    )
    .live(),
    setting(
        "GATEWAY_EXPOSURE_ACCEPTED_BY",
        "name",
        "",
        "Name of the person who accepted that tenant and app ids become public; recorded at each start. Required with GATEWAY_EXTERNAL_ACCESS=on",
    )
    .live(),
    setting(
        "GATEWAY_SCOPES",
        "scopes, comma-separated",
        "api://$CLIENT_ID/.default",
        "Scopes that clients request from Entra: scopes_supported of the metadata, and the challenge's scope",
    )
    .live(),
    setting(
        "GATEWAY_ROOT_METADATA",
        "gateway, upstream",
        "gateway",
        "Program that answers /.well-known/oauth-protected-resource, without a path, while external access is on. SimpleChat 0.250 and later has its own document there; doctor prints the one that clients get",
    )
    .live(),
];
