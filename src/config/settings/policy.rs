//! Accepted tokens, and the sessions issued for them.

use super::{Setting, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "GATEWAY_AUDIENCES",
        "audiences, comma-separated",
        "$CLIENT_ID,api://$CLIENT_ID",
        "Accepted aud of v1 tokens; aud of v2 tokens must be CLIENT_ID",
    ),
    setting(
        "GATEWAY_ALLOWED_CLIENTS",
        "GUIDs, comma-separated",
        "",
        "Accepted client apps (azp, appid); empty: any",
    )
    .live(),
    setting(
        "GATEWAY_ALLOWED_ORIGINS",
        "origins, comma-separated",
        "",
        "Browser origins that may call /external/login; empty: none",
    )
    .live(),
    setting(
        "GATEWAY_LOGIN_SCOPES",
        "scopes, comma-separated; none",
        "ExternalApi",
        "Delegated scopes (exact scp values) that permit sign-in, in addition to the app role ExternalApi",
    )
    .live(),
    setting(
        "GATEWAY_LOGIN_APP_ONLY",
        "true, false",
        "false",
        "Sign-in with app-only tokens",
    )
    .live(),
    setting(
        "GATEWAY_SESSION_ROLES",
        "roles, comma-separated; *",
        "User,ExternalApi,CreateGroups,CreatePublicWorkspaces",
        "Roles that gateway-issued sessions may carry; others are removed. *: all of the token's",
    )
    .live(),
    setting(
        "GATEWAY_SESSION_MAX_AGE",
        "duration",
        "8h",
        "Maximum lifetime of a gateway-issued session, 31d at most; it also ends with its token",
    )
    .live(),
    setting(
        "GATEWAY_SESSIONS_PER_SUBJECT",
        "1 or more",
        "16",
        "Maximum number of active gateway-issued sessions of one subject; above it the oldest is revoked",
    )
    .live(),
    setting(
        "GATEWAY_SESSION_BINDING",
        "when-present, required",
        "when-present",
        "Token check of gateway-issued sessions. when-present: a session beside another subject's valid token is refused; required: a valid token of its subject must accompany it",
    )
    .live(),
    setting(
        "GATEWAY_BIND_SUBJECT",
        "on, off",
        "on",
        "Check under /external/ that each user_id sent with a user's token (query, urlencoded or multipart body) is that user's oid; off: SimpleChat accepts any",
    )
    .live(),
];
