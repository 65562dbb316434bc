//! Every setting: its name, form, default and meaning. The reader, the `settings` command and the
//! table in the README all come from here.

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As in the environment and in the TOML file.
    pub(crate) name: &'static str,
    /// What a value looks like.
    pub(crate) form: &'static str,
    /// What counts when it is not set; empty: nothing.
    pub(crate) default: &'static str,
    /// What it decides.
    pub(crate) meaning: &'static str,
    /// Never shown; may come from a file named by `NAME_FILE`.
    pub(crate) secret: bool,
    /// Whether a change counts at SIGHUP; else at the next start.
    pub(crate) live: bool,
}

impl Setting {
    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

const fn setting(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, form, default, meaning, secret: false, live: false }
}

const fn secret(name: &'static str, form: &'static str, meaning: &'static str) -> Setting {
    Setting { name, form, default: "", meaning, secret: true, live: false }
}

/// In the order of the README.
pub(crate) static SETTINGS: &[Setting] = &[
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
    setting(
        "GATEWAY_LISTEN",
        "address:port",
        "0.0.0.0:8080",
        "Where callers come in; port 0 picks a free one",
    ),
    setting(
        "GATEWAY_OPS_LISTEN",
        "address:port, off",
        "127.0.0.1:9464",
        "Where operators look: /metrics, /health/live, and /health/ready with reasons",
    ),
    setting(
        "GATEWAY_UPSTREAM_URL",
        "http://, https://, unix:/path",
        "http://127.0.0.1:5000",
        "SimpleChat. Let it bind loopback (GUNICORN_BIND=127.0.0.1:5000): it must be reachable through the gateway alone",
    ),
    setting(
        "GATEWAY_UPSTREAM_HOST",
        "host[:port]",
        "",
        "The Host sent upstream; empty: the caller's",
    ),
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
        "GATEWAY_PUBLIC_URLS",
        "origins, comma-separated",
        "",
        "Public origins of this deployment, the canonical one first; empty: derived per request",
    ).live(),
    setting(
        "GATEWAY_TRUSTED_PROXIES",
        "private, none, everyone, CIDRs",
        "private",
        "Whose forwarding headers count. private: private addresses, for scheme, client address and listed hosts; a list of CIDRs, or everyone: for any host",
    ).live(),
    secret(
        "GATEWAY_FRONT_DOOR_ID",
        "GUID",
        "Azure Front Door's id: requests must carry it in X-Azure-FDID (else 403; probes excepted), and X-Azure-ClientIP is the client's address",
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
        "GATEWAY_LOGIN_LIMIT",
        "number/duration, off",
        "600/1m",
        "Logins of one subject; more are 429. Shared by all instances where Redis is the store",
    ).live(),
    setting(
        "GATEWAY_LOGIN_FAILURE_LIMIT",
        "number/duration, off",
        "60/1m",
        "Failed logins from one client address (IPv6: one /64); then its logins are 429 until the time is over. Shared likewise",
    ).live(),
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
    setting("GATEWAY_WORKERS", "1 or more", "cores", "Threads that serve"),
    setting(
        "GATEWAY_MEMORY_LIMIT",
        "size",
        "the container's, else none",
        "Memory the process may use, 32MiB at least. How many connections there are, and what unfinished heads, held bodies and slow readers' answers take together, follows from it; beyond that 503",
    ),
    setting(
        "GATEWAY_TIMEOUT_HEAD",
        "duration",
        "10s",
        "For a caller to send a request's head, once it has begun",
    ),
    setting(
        "GATEWAY_TIMEOUT_IDLE",
        "duration",
        "240s",
        "For a caller's connection to lie idle between requests",
    ),
    setting("GATEWAY_TIMEOUT_CONNECT", "duration", "5s", "For upstream to take a connection (502)"),
    setting(
        "GATEWAY_TIMEOUT_RESPONSE",
        "duration",
        "900s",
        "For upstream to begin its answer once it has the whole request (504)",
    ),
    setting(
        "GATEWAY_TIMEOUT_SEND",
        "duration",
        "60s",
        "For a caller to take some more of an answer; one that takes nothing is cut off",
    ),
    setting(
        "GATEWAY_TIMEOUT_SLOT",
        "duration",
        "30s",
        "For an upload to wait while GATEWAY_STREAMING_UPLOADS others are under way (503)",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD",
        "size",
        "256KiB",
        "A request's body is held until it ends, or this much is there, before upstream is asked for one of its few threads",
    ),
    setting(
        "GATEWAY_REQUEST_HOLD_TOTAL",
        "size",
        "64MiB",
        "All bodies held together; beyond that 503",
    ),
    setting(
        "GATEWAY_STREAMING_UPLOADS",
        "1 or more",
        "7",
        "Bodies longer than GATEWAY_REQUEST_HOLD that are passed on at a time: fewer than one gunicorn worker has threads (SimpleChat: 8), since it takes connections also while all of those are taken",
    ),
    setting(
        "GATEWAY_RETRY_ANONYMOUS",
        "on, off",
        "on",
        "Ask again, once, when a GET with a live minted session is answered as a stranger's: the first request of a fresh worker is",
    ),
    setting(
        "GATEWAY_WARMUP_WAIT",
        "duration",
        "180s",
        "How long GET /robots933456.txt waits for upstream's first answer before it is answered 200",
    ),
    setting(
        "GATEWAY_DRAIN_DELAY",
        "duration",
        "5s",
        "At SIGTERM: how long to go on taking connections while not ready",
    ),
    setting(
        "GATEWAY_DRAIN_TIMEOUT",
        "duration",
        "20s",
        "At SIGTERM, after the delay: how long requests in flight may take to finish",
    ),
    secret(
        "DATABASE_URL",
        "sqlite:/path, postgres://",
        "The activity log and what administrators decide; PostgreSQL where there are several instances. Required with managed. Without it the activity is told in the log and by telemetry alone",
    ),
    setting(
        "GATEWAY_MIGRATE",
        "auto, off",
        "auto",
        "Whether the gateway brings the database up to date at its start; off: the migrate command does. SQLite's is always brought up to date",
    ),
    setting(
        "GATEWAY_ACTIVITY_RETENTION",
        "duration",
        "365d",
        "How long activity records are kept; a day at least",
    ),
    setting(
        "GATEWAY_ACTIVITY_MAX_SIZE",
        "size",
        "1GiB",
        "Size of the activity log in the database beyond which the oldest records are removed: denials first, decisions last; 256KiB at least",
    ),
    setting(
        "GATEWAY_ACTIVITY_REQUIRED",
        "decisions, all, none",
        "decisions",
        "What is refused while the database is away: decisions that let more in, logins as well, or nothing",
    ),
    setting(
        "GATEWAY_UNKNOWN_SETTINGS",
        "error, warn",
        "error",
        "What an unknown GATEWAY_ name means; warn helps when rolling back",
    ).live(),
    setting(
        "GATEWAY_CANARY_INTERVAL",
        "duration, off",
        "5m",
        "How often it is tried on upstream itself, while external access is on, whether it still honours minted sessions",
    ),
    setting("GATEWAY_CONFIG", "path", "", "A TOML file with the same names; the environment wins"),
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
    setting("SESSION_COOKIE_SAMESITE", "Lax, Strict, None", "Lax", "Of the cookie set by login").live(),
    setting(
        "SESSION_COOKIE_SECURE",
        "auto, true, false",
        "auto",
        "Of the cookie set by login; auto: when the caller came over https",
    ).live(),
    setting("SESSION_USE_SIGNER", "true, false", "false", "As upstream has it"),
    setting("SESSION_SERIALIZATION_FORMAT", "msgpack, json", "msgpack", "As upstream has it"),
    secret(
        "SECRET_KEY",
        "text",
        "As upstream has it; needed with SESSION_USE_SIGNER, else ignored",
    ),
    setting(
        "OTEL_SDK_DISABLED",
        "true, false",
        "false",
        "Turns all exporters off, whatever else is set",
    ),
    setting("OTEL_SERVICE_NAME", "name", "simplechat-gateway", "service.name of what is exported"),
    setting(
        "OTEL_RESOURCE_ATTRIBUTES",
        "name=value, comma-separated",
        "",
        "Further attributes of what is exported, percent-encoded",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://, https://",
        "",
        "An OpenTelemetry collector (OTLP over HTTP): traces, metrics and logs go to /v1/… below it; empty: none",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "http://, https://",
        "",
        "Where traces go instead, as it stands",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "http://, https://",
        "",
        "Where metrics go instead, as it stands",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "http://, https://",
        "",
        "Where logs go instead, as it stands",
    ),
    secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "name=value, comma-separated",
        "Headers sent to the collector, values percent-encoded: a key, perhaps",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/protobuf, grpc",
        "http/protobuf",
        "How the collector is spoken to; with grpc, which some platforms set, nothing goes there",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "milliseconds",
        "10000",
        "For the collector to take one batch",
    ),
    setting(
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "path",
        "",
        "PEM certificates trusted for the collector beside the system's",
    ),
    setting("OTEL_TRACES_EXPORTER", "otlp, none", "otlp", "none: no traces to the collector"),
    setting("OTEL_METRICS_EXPORTER", "otlp, none", "otlp", "none: no metrics to the collector"),
    setting("OTEL_LOGS_EXPORTER", "otlp, none", "otlp", "none: no logs to the collector"),
    setting(
        "OTEL_TRACES_SAMPLER",
        "always_on, always_off, traceidratio, parentbased_…",
        "parentbased_always_on",
        "Which traces are recorded; parentbased: as the trusted peer decided, where it sent a traceparent",
    ),
    setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "0.0 to 1.0",
        "1.0",
        "For traceidratio: the share that is recorded",
    ),
    setting(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "1 or more",
        "2048",
        "Spans waiting to be exported; more are lost, and counted",
    ),
    setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1 or more", "512", "Most spans exported at once"),
    setting("OTEL_BSP_SCHEDULE_DELAY", "milliseconds", "5000", "How often spans are exported"),
    setting(
        "OTEL_BLRP_MAX_QUEUE_SIZE",
        "1 or more",
        "2048",
        "Log records waiting to be exported; more are lost, and counted",
    ),
    setting(
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
        "1 or more",
        "512",
        "Most log records exported at once",
    ),
    setting(
        "OTEL_BLRP_SCHEDULE_DELAY",
        "milliseconds",
        "1000",
        "How often log records are exported",
    ),
    setting(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "milliseconds",
        "60000",
        "How often metrics are exported",
    ),
    secret(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "InstrumentationKey=…;IngestionEndpoint=https://…",
        "Application Insights: traces, metrics and logs go there as well; empty: none",
    ),
    setting(
        "RUST_LOG",
        "filter",
        "info",
        "What is logged to stderr, as tracing-subscriber's EnvFilter reads it",
    ).live(),
];

/// Names that platforms put into every container: they join a list of public origins that the
/// operator began (App Service; Container Apps).
pub(crate) static PLATFORM_NAMES: &[&str] = &[
    "WEBSITE_HOSTNAME",
    "WEBSITE_AUTH_ENABLED",
    "WEBSITE_AUTH_OPENID_ISSUER",
    "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES",
    "AZURE_FEDERATED_TOKEN_FILE",
    "CONTAINER_APP_NAME",
    "CONTAINER_APP_ENV_DNS_SUFFIX",
];

/// Whether Kubernetes injected a name for a Service called `gateway` or `gateway-…`:
/// `GATEWAY_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?)`.
pub(crate) fn is_injected_by_kubernetes(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("GATEWAY_") else { return false };
    let is_service_variable = |tail: &str| {
        let numbered = |after: &str| {
            after
                .strip_prefix('_')
                .and_then(|after| after.split_once('_'))
                .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        tail == "SERVICE_HOST"
            || tail
                .strip_prefix("SERVICE_PORT")
                .is_some_and(|after| after.is_empty() || after.starts_with('_'))
            || tail.strip_prefix("PORT").is_some_and(|after| after.is_empty() || numbered(after))
    };
    is_service_variable(rest)
        || rest.match_indices('_').any(|(at, _)| is_service_variable(&rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_injects_is_told_from_a_typo() {
        for injected in [
            "GATEWAY_SERVICE_HOST",
            "GATEWAY_SERVICE_PORT",
            "GATEWAY_SERVICE_PORT_HTTP",
            "GATEWAY_PORT",
            "GATEWAY_PORT_8080_TCP_ADDR",
            "GATEWAY_STAGING_SERVICE_HOST",
            "GATEWAY_STAGING_PORT_443_TCP",
        ] {
            assert!(is_injected_by_kubernetes(injected), "{injected}");
        }
        for typo in ["GATEWAY_LISTEM", "GATEWAY_PORTS", "GATEWAY_PORT_TCP", "GATEWAY_LISTEN_PORT_"]
        {
            assert!(!is_injected_by_kubernetes(typo), "{typo}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
