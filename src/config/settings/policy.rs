//! Accepted tokens, and the sessions issued for them.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_AUDIENCES",
        "audiences, comma-separated",
        "$CLIENT_ID,api://$CLIENT_ID",
        "Accepted aud of v1 tokens; of v2 tokens it is always CLIENT_ID",
    ),
    setting(
        "GATEWAY_ALLOWED_CLIENTS",
        "GUIDs, comma-separated",
        "",
        "Client apps (azp, appid) that are let in; empty: any",
    ).live(),
    setting(
        "GATEWAY_ALLOWED_ORIGINS",
        "origins, comma-separated",
        "",
        "Browser origins that may call /external/login; empty: none",
    ).live(),
    setting(
        "GATEWAY_LOGIN_SCOPES",
        "scopes, comma-separated; none",
        "ExternalApi",
        "Delegated scopes (exact scp values) that admit to login, beside the role ExternalApi",
    ).live(),
    setting("GATEWAY_LOGIN_APP_ONLY", "true, false", "false", "Whether app-only tokens may log in").live(),
    setting(
        "GATEWAY_SESSION_ROLES",
        "roles, comma-separated; *",
        "User,ExternalApi,CreateGroups,CreatePublicWorkspaces",
        "Roles a minted session may carry; others are left out; * keeps all",
    ).live(),
    setting(
        "GATEWAY_SESSION_MAX_AGE",
        "duration",
        "8h",
        "Cap on a minted session's life; it never outlives the token either",
    ).live(),
    setting(
        "GATEWAY_SESSIONS_PER_SUBJECT",
        "1 or more",
        "16",
        "Live minted sessions of one subject; beyond that the oldest goes",
    ).live(),
    setting(
        "GATEWAY_SESSION_BINDING",
        "when-present, required",
        "when-present",
        "A minted session beside a valid token of somebody else is refused; required: also one without a valid token of its subject",
    ).live(),
    setting(
        "GATEWAY_BIND_SUBJECT",
        "on, off",
        "on",
        "Under /external/ every user_id that comes with a user's token (query, urlencoded or multipart body) must be that user's own oid; off: SimpleChat takes any",
    ).live(),
];
