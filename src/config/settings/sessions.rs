//! Session store, session cookie, and checks of both.

use super::{Setting, secret, setting};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "SESSION_TYPE",
        "redis, filesystem",
        "redis if REDIS_URL is set, else filesystem",
        "As Flask-Session: where upstream keeps its sessions",
    ),
    secret(
        "REDIS_URL",
        "URL or host",
        "redis://, rediss://, redis-sentinel://, redis-cluster:// and their TLS forms; a bare host, as SimpleChat stores it, means rediss://HOST:6380/0, or port 10000 under *.redis.azure.net and *.redisenterprise.cache.azure.net",
    ),
    secret("REDIS_PASSWORD", "text", "Redis' access key, where the URL holds none"),
    setting(
        "REDIS_AUTH",
        "key, managed_identity, key_vault",
        "key",
        "How Redis lets the gateway in: by a key; by the app's identity in Azure, its tokens renewed and their oid the user; or by a key kept in Key Vault",
    ),
    setting(
        "REDIS_TOKEN_SCOPE",
        "scope",
        "https://redis.azure.com/.default",
        "For managed_identity: what the token is for",
    ),
    setting(
        "REDIS_KEY_VAULT_SECRET_URL",
        "URL",
        "",
        "For key_vault: https://VAULT.vault.azure.net/secrets/NAME, with /VERSION behind it to hold on to one",
    ),
    setting(
        "AZURE_CLIENT_ID",
        "GUID",
        "",
        "For managed_identity and key_vault: which identity, where the app has several or one of Kubernetes' (which sets it)",
    ),
    setting("REDIS_CA_FILE", "path", "", "PEM certificates trusted for Redis beside the system's"),
    setting(
        "SESSION_FILE_DIR",
        "path",
        "/app/flask_session",
        "For filesystem: upstream's own folder, same user; the gateway never creates it",
    ),
    setting(
        "GATEWAY_STATE_DIR",
        "path",
        "$SESSION_FILE_DIR.gateway",
        "For filesystem: where the gateway keeps its own notes; created when missing, never inside SESSION_FILE_DIR",
    ),
    setting("SESSION_KEY_PREFIX", "text", "session:", "As upstream has it; must not be empty"),
    setting("SESSION_COOKIE_NAME", "name", "session", "As upstream has it"),
    setting("SESSION_COOKIE_PATH", "path", "/", "As upstream has it"),
    setting("SESSION_COOKIE_DOMAIN", "domain", "", "As upstream has it"),
    setting("SESSION_COOKIE_SAMESITE", "Lax, Strict, None", "Lax", "Of the cookie set by login")
        .live(),
    setting(
        "SESSION_COOKIE_SECURE",
        "auto, true, false",
        "auto",
        "Of the cookie set by login; auto: when the caller came over https",
    )
    .live(),
    setting("SESSION_USE_SIGNER", "true, false", "false", "As upstream has it"),
    setting("SESSION_SERIALIZATION_FORMAT", "msgpack, json", "msgpack", "As upstream has it"),
    secret(
        "SECRET_KEY",
        "text",
        "As upstream has it; needed with SESSION_USE_SIGNER, else ignored",
    ),
    setting(
        "GATEWAY_RETRY_ANONYMOUS",
        "on, off",
        "on",
        "Ask again, once, when a GET with a live minted session is answered as a stranger's: the first request of a fresh worker is",
    ),
    setting(
        "GATEWAY_CANARY_INTERVAL",
        "duration, off",
        "5m",
        "How often it is tried on upstream itself, while external access is on, whether it still honours minted sessions",
    ),
];
