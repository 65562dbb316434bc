//! Tests of whole configurations: defaults, problems, spellings and sources.

use secrecy::ExposeSecret;

use super::*;
use crate::authz::client_info::Origin;

const GUID: &str = "11111111-2222-3333-4444-555555555555";

fn read(more: &[(&str, &str)]) -> Result<Config, String> {
    let required = [("TENANT_ID", GUID), ("CLIENT_ID", GUID)];
    let pairs = required.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Config::read(pairs, None).map_err(|problems| problems.to_string())
}

#[test]
fn two_ids_are_enough_and_the_rest_has_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config.external_access, ExternalAccessMode::Off);
    assert_eq!(
        config.entra.metadata_v2.as_str(),
        format!("https://login.microsoftonline.com/{GUID}/v2.0/.well-known/openid-configuration")
    );
    assert_eq!(config.resource.scopes, [format!("api://{GUID}/.default")]);
    let StoreConfig::Files { directory, state } = config.sessions.store else { panic!() };
    assert_eq!(directory, Path::new("/app/flask_session"));
    assert_eq!(state, Path::new("/app/flask_session.gateway"));
}

#[test]
fn all_problems_are_reported_together() {
    let problems = Config::read(
        [
            ("GATEWAY_LISTEM", "1"),
            ("GATEWAY_SOMETHING_ELSE", "1"),
            ("GATEWAY_DRAIN_DELAY", "soon"),
            ("GATEWAY_EXTERNAL_ACCESS", "yes"),
            ("GATEWAY_ALLOWED_CLIENTS", "11111111-2222-3333-4444-555555555555,ada"),
            ("SESSION_KEY_PREFIX", ""),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned())),
        None,
    )
    .unwrap_err()
    .to_string();
    for expected in [
        "TENANT_ID: is required",
        "CLIENT_ID: is required",
        "GATEWAY_LISTEM: unknown setting; did you mean GATEWAY_LISTEN?",
        "GATEWAY_SOMETHING_ELSE: unknown setting\n",
        "GATEWAY_DRAIN_DELAY: invalid value \"soon\" (expected a duration such as 30s, 15m, 8h or 365d)",
        "GATEWAY_EXTERNAL_ACCESS: invalid value \"yes\" (expected off, on, managed)",
        "GATEWAY_ALLOWED_CLIENTS: invalid value \"11111111-2222-3333-4444-555555555555,ada\" (\"ada\": expected a GUID)",
        "SESSION_KEY_PREFIX: is empty",
    ] {
        assert!(problems.contains(expected), "{expected} in {problems}");
    }
}

#[test]
fn each_wrong_value_is_refused() {
    for (name, value) in [
        ("TENANT_ID", "contoso.com"),
        ("AZURE_ENVIRONMENT", "mars"),
        ("AZURE_ENVIRONMENT", "custom"),
        ("GATEWAY_EXTERNAL_ACCESS", "on"),
        ("GATEWAY_EXTERNAL_ACCESS", "yes please"),
        ("GATEWAY_EXTERNAL_ACCESS", "managed"),
        ("DATABASE_URL", "sqlite:relative.db"),
        ("DATABASE_URL", "mysql://u:p@h/d"),
        ("GATEWAY_ACTIVITY_RETENTION", "23h"),
        ("GATEWAY_ACTIVITY_MAX_SIZE", "255KiB"),
        ("GATEWAY_ACTIVITY_REQUIRED", "some"),
        ("GATEWAY_MIGRATE", "maybe"),
        ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:8080"),
        ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:5000/path"),
        ("GATEWAY_UPSTREAM_URL", "ftp://127.0.0.1"),
        ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/0"),
        ("GATEWAY_TRUSTED_PROXIES", "::/0"),
        ("GATEWAY_TRUSTED_PROXIES", "anyone"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,everyone"),
        ("GATEWAY_UNKNOWN_SETTINGS", "maybe"),
        ("REDIS_URL", "cache.redis.cache.windows.net:6380,password=x=,ssl=True,abortConnect=False"),
        ("GATEWAY_PUBLIC_URLS", "https://chat.example/path"),
        ("GATEWAY_SCOPES", "a\"b"),
        ("GATEWAY_SCOPES", " , "),
        ("GATEWAY_SESSIONS_PER_SUBJECT", "0"),
        ("GATEWAY_SESSION_MAX_AGE", "32d"),
        ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1"),
        ("GATEWAY_ALLOWED_CLIENTS", "\u{fffd}"),
        ("GATEWAY_EXPOSURE_ACCEPTED_BY", "\u{fffd}"),
        ("GATEWAY_OPS_LISTEN", "0.0.0.0:8080"),
        ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:9464"),
        ("GATEWAY_TIMEOUT_RESPONSE", "0s"),
        ("GATEWAY_WORKERS", "99999"),
        ("GATEWAY_MEMORY_LIMIT", "256M"),
        ("GATEWAY_MEMORY_LIMIT", "31MiB"),
        ("GATEWAY_LOGIN_LIMIT", "600"),
        ("GATEWAY_LOGIN_LIMIT", "0/1m"),
        ("GATEWAY_LOGIN_FAILURE_LIMIT", "60/0s"),
        ("GATEWAY_SESSION_BINDING", "sometimes"),
        ("GATEWAY_FRONT_DOOR_ID", "contoso.azurefd.net"),
        ("RUST_LOG", "[[["),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", "hunter2"),
        ("SESSION_KEY_PREFIX", "gateway:session:"),
        ("SESSION_KEY_PREFIX", "gate"),
        ("GATEWAY_STATE_DIR", "/app/other/../flask_session/x"),
        ("GATEWAY_STATE_DIR", "/app"),
        ("SESSION_TYPE", "memcached"),
        ("SESSION_TYPE", "redis"),
        ("SESSION_USE_SIGNER", "true"),
        ("SESSION_SERIALIZATION_FORMAT", "json"),
        ("SESSION_COOKIE_NAME", "a b"),
        ("REDIS_URL", "http://redis"),
        ("REDIS_URL", "redis://redis:port/0"),
        ("REDIS_PASSWORD_FILE", "/does/not/exist"),
        ("GATEWAY_STATE_DIR", "/app/flask_session/inside"),
        ("GATEWAY_FRONT_DOOR_ID_FILE", "/dev/null"),
    ] {
        let problems = read(&[(name, value)]).expect_err(&format!("{name}={value}"));
        assert!(problems.contains('_'), "{problems}");
    }
}

/// SimpleChat since 0.261.010 has port 10000 for Azure Managed Redis.
#[test]
fn a_bare_redis_host_has_the_port_of_its_azure_service_over_tls() {
    for (given, expected) in [
        ("cache.redis.cache.windows.net", "cache.redis.cache.windows.net:6380"),
        ("cache.redis.cache.usgovcloudapi.net", "cache.redis.cache.usgovcloudapi.net:6380"),
        ("c.westeurope.redis.azure.net", "c.westeurope.redis.azure.net:10000"),
        ("C.WestEurope.Redis.Azure.NET", "C.WestEurope.Redis.Azure.NET:10000"),
        (
            "c.eastus.redisenterprise.cache.azure.net",
            "c.eastus.redisenterprise.cache.azure.net:10000",
        ),
        ("c.westeurope.redis.azure.net:6380", "c.westeurope.redis.azure.net:6380"),
        ("redis.azure.net", "redis.azure.net:6380"),
        ("c.redis.azure.net.example", "c.redis.azure.net.example:6380"),
        ("notredis.azure.net", "notredis.azure.net:6380"),
        // As copied from a file or a portal.
        (" c.westeurope.redis.azure.net \r\n", "c.westeurope.redis.azure.net:10000"),
    ] {
        let config = read(&[("REDIS_URL", given)]).unwrap();
        let StoreConfig::Redis { url, .. } = config.sessions.store else { panic!() };
        assert_eq!(url.expose_secret(), format!("rediss://{expected}/0"), "{given:?}");
    }
}

/// Azure's portal hands out connection strings of StackExchange.Redis.
#[test]
fn a_redis_connection_string_is_refused_with_the_settings_to_use_instead() {
    let given = "c.redis.cache.windows.net:6380,password=hunter2=,ssl=True,abortConnect=False";
    let problems = read(&[("REDIS_URL", given)]).unwrap_err();
    assert!(problems.contains("the host name alone"), "{problems}");
    assert!(problems.contains("in REDIS_PASSWORD") && !problems.contains("hunter2"));
}

/// Operators write `Off` and `OFF` as well as `off`.
#[test]
fn words_are_read_in_any_case_and_with_blanks_around_them() {
    use crate::authz::{client_info::TrustedProxies, policy::RoleCeiling};
    for spelling in ["Off", " OFF ", "off\n"] {
        let off = read(&[
            ("GATEWAY_OPS_LISTEN", spelling),
            ("GATEWAY_CANARY_INTERVAL", spelling),
            ("GATEWAY_LOGIN_LIMIT", spelling),
            ("GATEWAY_LOGIN_FAILURE_LIMIT", spelling),
            ("GATEWAY_BIND_SUBJECT", spelling),
            ("GATEWAY_MIGRATE", spelling),
        ])
        .unwrap();
        assert!(off.ops_listen.is_none() && off.canary_interval.is_none());
        assert!(off.sessions.login_limit.is_none() && off.sessions.failure_limit.is_none());
        assert!(!off.policy.bind_subject);
    }
    for (spelling, expected) in [
        (" Private,", TrustedProxies::Private),
        ("NONE", TrustedProxies::None),
        (
            "Everyone",
            TrustedProxies::Networks(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]),
        ),
    ] {
        let config = read(&[("GATEWAY_TRUSTED_PROXIES", spelling)]).unwrap();
        assert_eq!(config.edge.trusted, expected, "{spelling:?}");
    }
    let config = read(&[
        ("GATEWAY_LOGIN_SCOPES", "None "),
        ("GATEWAY_SESSION_ROLES", " *,"),
        ("GATEWAY_UNKNOWN_SETTINGS", " Warn"),
        ("GATEWAY_LISTEM", "1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/Protobuf"),
        ("OTEL_TRACES_EXPORTER", "OTLP"),
        ("OTEL_LOGS_EXPORTER", "None"),
    ])
    .unwrap();
    assert!(config.policy.login_scopes.is_empty());
    assert!(matches!(config.policy.session_roles, RoleCeiling::All));
    let otlp = config.telemetry.otlp.unwrap();
    assert!(otlp.traces.is_some() && otlp.logs.is_none());
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

/// PowerShell writes UTF-8 with a byte order mark.
#[test]
fn a_byte_order_mark_in_a_file_is_not_part_of_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let text = path.display().to_string();
    let password = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let config = read(&[("REDIS_URL", "redis://h/0"), ("REDIS_PASSWORD_FILE", &text)])?;
        let StoreConfig::Redis { auth: RedisAuth::Key(Some(key)), .. } = config.sessions.store
        else {
            panic!()
        };
        Ok::<_, String>(key.expose_secret().to_owned())
    };
    assert_eq!(password("\u{feff}hunter2\r\n".as_bytes()).unwrap(), "hunter2");
    assert_eq!(password("hunter2 \u{feff}".as_bytes()).unwrap(), "hunter2 \u{feff}");
    assert!(password("\u{feff}\n".as_bytes()).unwrap_err().contains("is empty"));
    let utf16: Vec<u8> = "\u{feff}hunter2".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let problem = password(&utf16).unwrap_err();
    assert!(problem.contains("UTF-16") && problem.contains("utf8"), "{problem}");
    assert!(password(b"hunter\xff").unwrap_err().contains("is not UTF-8"));

    std::fs::write(&path, format!("\u{feff}TENANT_ID = \"{GUID}\"\nCLIENT_ID = \"{GUID}\"\n"))
        .unwrap();
    assert!(Config::read(Vec::new(), Some(&path)).is_ok());
}

#[test]
fn telemetry_variables_of_a_platforms_agent_never_prevent_a_start() {
    let injected = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let config = read(&injected).unwrap();
    assert!(config.telemetry.otlp.is_none());
    assert!(config.warnings[0].starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: "));
    assert!(read(&injected[..1]).unwrap().telemetry.otlp.is_some());
    let unsupported = [injected[0], ("OTEL_TRACES_EXPORTER", "console")];
    let config = read(&unsupported).unwrap();
    assert!(config.warnings[0].starts_with("OTEL_TRACES_EXPORTER: "));
    let otlp = config.telemetry.otlp.unwrap();
    assert!(otlp.traces.is_none() && otlp.logs.is_some());
    assert!(read(&[("OTEL_TRACES_EXPORTER", "console")]).unwrap().warnings.is_empty());
}

#[test]
fn platform_host_names_are_added_to_listed_public_urls() {
    let platform = [
        ("WEBSITE_HOSTNAME", "chat.azurewebsites.net"),
        ("CONTAINER_APP_NAME", "chat"),
        ("CONTAINER_APP_ENV_DNS_SUFFIX", "blue.region.azurecontainerapps.io"),
    ];
    assert!(read(&platform).unwrap().edge.public_urls.is_empty());
    let mut listed = vec![("GATEWAY_PUBLIC_URLS", "https://chat.example")];
    listed.extend(platform);
    let urls: Vec<_> =
        read(&listed).unwrap().edge.public_urls.iter().map(Origin::to_string).collect();
    assert_eq!(
        urls,
        [
            "https://chat.example",
            "https://chat.azurewebsites.net",
            "https://chat.blue.region.azurecontainerapps.io"
        ]
    );
}

#[test]
fn a_removed_setting_is_refused_with_the_action_to_take() {
    for (name, value, instead) in [
        ("GATEWAY_FORWARDED_HEADER", "both", "only X-Forwarded-For, -Proto and -Host"),
        ("GATEWAY_FORWARDED_HEADER", "forwarded", "only X-Forwarded-For, -Proto and -Host"),
        ("GATEWAY_TRUST_EVERYONE", "yes", "set GATEWAY_TRUSTED_PROXIES=everyone"),
        ("GATEWAY_TRUST_EVERYONE", "maybe", "remove this setting"),
    ] {
        for more in [&[][..], &[("GATEWAY_UNKNOWN_SETTINGS", "warn")]] {
            let problems = read(&[&[(name, value)], more].concat()).unwrap_err();
            assert!(problems.contains(&format!("{name}: was removed: ")), "{problems}");
            assert!(problems.contains(instead), "{problems}");
            assert!(problems.starts_with("1 problem "), "{problems}");
        }
        assert!(read(&[(name, "")]).is_ok(), "an empty value counts as unset");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        let ids = format!("TENANT_ID = \"{GUID}\"\nCLIENT_ID = \"{GUID}\"\n");
        std::fs::write(&path, format!("{ids}{name} = \"{value}\"\n")).unwrap();
        let problems = Config::read(Vec::new(), Some(&path)).unwrap_err().to_string();
        assert!(problems.contains(instead), "{problems}");
    }
}

#[test]
fn every_address_is_trusted_by_the_word_everyone_only() {
    for networks in ["0.0.0.0/0", "::/0", "10.0.0.0/8,::/0", "0.0.0.0/1,128.0.0.0/1"] {
        let problems = read(&[("GATEWAY_TRUSTED_PROXIES", networks)]).unwrap_err();
        assert!(problems.contains("GATEWAY_TRUSTED_PROXIES=everyone"), "{problems}");
    }
    assert!(read(&[("GATEWAY_TRUSTED_PROXIES", "everyone")]).is_ok());
}

#[test]
fn secrets_are_masked_in_the_table() {
    let pairs = [("REDIS_URL", "redis://:hunter2@cache:6379")];
    let table = Config::table(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())), None);
    let (table, checked) = table.unwrap();
    assert!(table.contains("REDIS_URL=********"));
    assert!(!table.contains("hunter2"));
    assert!(checked.unwrap_err().to_string().contains("TENANT_ID: is required"));
    for (name, value) in [
        ("GATEWAY_UPSTREAM_URL", "http://u:hunter2@h:5"),
        ("GATEWAY_PUBLIC_URLS", "https://u:hunter2@chat.example"),
        ("GATEWAY_PUBLIC_URLS", "https://chat.example,https://u:hunter2@chat.example"),
        ("GATEWAY_ALLOWED_ORIGINS", "https://u:hunter2@chat.example"),
    ] {
        let problems = read(&[(name, value)]).unwrap_err();
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn removed_settings_are_refused_with_one_sentence_unless_they_ask_for_the_supported() {
    let sentence = "Flask-Session's signer and JSON serialization are not supported, and SimpleChat uses neither; remove this setting";
    for (name, value) in [
        ("SESSION_USE_SIGNER", "true"),
        ("SESSION_USE_SIGNER", "1"),
        ("SESSION_SERIALIZATION_FORMAT", "json"),
    ] {
        let problems = read(&[(name, value)]).unwrap_err();
        let expected = format!("1 problem with the settings:\n  {name}: {sentence}");
        assert_eq!(problems, expected);
    }
    for (name, value) in [
        ("SESSION_USE_SIGNER", "false"),
        ("SESSION_USE_SIGNER", "0"),
        ("SESSION_SERIALIZATION_FORMAT", "msgpack"),
    ] {
        assert_eq!(read(&[(name, value)]).unwrap().warnings, [""; 0], "{name}={value}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    let required = format!("TENANT_ID = \"{GUID}\"\nCLIENT_ID = \"{GUID}\"\n");
    std::fs::write(&path, format!("{required}SESSION_USE_SIGNER = true\n")).unwrap();
    let problems = Config::read(Vec::new(), Some(&path)).unwrap_err().to_string();
    assert_eq!(problems, format!("1 problem with the settings:\n  SESSION_USE_SIGNER: {sentence}"));
    std::fs::write(&path, format!("{required}SESSION_USE_SIGNER = false\n")).unwrap();
    assert!(Config::read(Vec::new(), Some(&path)).is_ok());
}

#[test]
fn secret_key_is_ignored_with_advice_to_remove_it() {
    let warnings = read(&[("SECRET_KEY", "hunter2")]).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "SECRET_KEY: is not used; remove it from the gateway's environment (SimpleChat's Bicep puts the client secret there)"
        ]
    );
}
