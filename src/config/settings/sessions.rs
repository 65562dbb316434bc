//! Session store, session cookie, and checks of both.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "SESSION_TYPE",
        "redis, filesystem",
        "redis if REDIS_URL is set, else filesystem",
        "Session store of SimpleChat, as in Flask-Session",
    ),
    secret(
        "REDIS_URL",
        "URL or host",
        "URL of Redis: redis://, rediss://, redis-sentinel://, redis-cluster:// and their TLS forms. A bare host, as SimpleChat stores it, means rediss://HOST:6380/0, or port 10000 under *.redis.azure.net and *.redisenterprise.cache.azure.net",
    ),
    secret("REDIS_PASSWORD", "text", "Access key of Redis, if the URL holds none"),
    setting(
        "REDIS_AUTH",
        "key, managed_identity, key_vault",
        "key",
        "Redis authentication method: an access key; tokens of the app's identity in Azure, whose oid is the Redis user; or an access key stored in Key Vault",
    ),
    setting(
        "REDIS_TOKEN_SCOPE",
        "scope",
        "https://redis.azure.com/.default",
        "Scope of the token for managed_identity",
    ),
    setting(
        "REDIS_KEY_VAULT_SECRET_URL",
        "URL",
        "",
        "Secret for key_vault: https://VAULT.vault.azure.net/secrets/NAME, with /VERSION appended to pin a version",
    ),
    setting(
        "AZURE_CLIENT_ID",
        "GUID",
        "",
        "Identity for managed_identity and key_vault. Required if the app has several, and with Kubernetes workload identity, which sets it",
    ),
    setting(
        "REDIS_CA_FILE",
        "path",
        "",
        "PEM certificates trusted for Redis in addition to the system's",
    ),
    setting(
        "SESSION_FILE_DIR",
        "path",
        "/app/flask_session",
        "Directory of SimpleChat's sessions, for filesystem. SimpleChat creates it; both programs run as the same user",
    ),
    setting(
        "GATEWAY_STATE_DIR",
        "path",
        "$SESSION_FILE_DIR.gateway",
        "Directory of the gateway's own session records, for filesystem. Created if missing; must be outside SESSION_FILE_DIR",
    ),
    setting(
        "SESSION_KEY_PREFIX",
        "text",
        "session:",
        "Key prefix, same as SimpleChat's; not empty",
    ),
    setting("SESSION_COOKIE_NAME", "name", "session", "Cookie name, same as SimpleChat's"),
    setting("SESSION_COOKIE_PATH", "path", "/", "Cookie path, same as SimpleChat's"),
    setting("SESSION_COOKIE_DOMAIN", "domain", "", "Cookie domain, same as SimpleChat's"),
    setting(
        "SESSION_COOKIE_SAMESITE",
        "Lax, Strict, None",
        "Lax",
        "SameSite attribute of the cookie that login sets",
    )
    .live(),
    setting(
        "SESSION_COOKIE_SECURE",
        "auto, true, false",
        "auto",
        "Secure attribute of the cookie that login sets; auto: set for requests over https",
    )
    .live(),
    secret("SECRET_KEY", "text", "Not used; remove it from the gateway's environment"),
    setting(
        "GATEWAY_RETRY_ANONYMOUS",
        "on, off",
        "on",
        "Single retry of a GET or HEAD with an active gateway-issued session that SimpleChat treated as anonymous: a fresh worker does so with its first request",
    ),
    setting(
        "GATEWAY_CANARY_INTERVAL",
        "duration, off",
        "5m",
        "Canary interval: time between two tests that SimpleChat accepts gateway-issued sessions, while external access is on; 1s or more",
    ),
];
