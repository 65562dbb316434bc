//! `check`: tests of all dependencies before the gateway runs. `healthcheck`: readiness while it runs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    exit::Failure,
    report::{Report, block_on},
};
use crate::{
    activity::{Activity, ActivityError},
    config::{Cloud, Config, EntraConfig, StoreConfig},
    connect_fault::ConnectFault,
    entra::{DocumentError, Entra},
    registration::public_url_probe::{leads_to_a_gateway, request_fault},
    sessions::Sessions,
    telemetry,
    upstream::{LONGEST_FIELD, Upstream, UpstreamError},
};

/// Timeout of `healthcheck`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of all requests that measure the header limit of upstream.
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Tests every dependency that the settings name, and prints one line for each.
///
/// # Errors
/// [`Failure::Unavailable`] when a test failed.
pub fn check(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut report = Report::default();
        run_tests(config, &mut report).await;
        report.finish()
    })?
}

/// Services that passed their test, for further tests.
#[derive(Default)]
pub(crate) struct CheckedServices {
    pub(crate) upstream: Option<Upstream>,
    pub(crate) sessions: Option<Sessions>,
}

/// Tests of `check`, also the first part of `doctor`.
pub(crate) async fn run_tests(config: &Config, report: &mut Report) -> CheckedServices {
    let mut checked = CheckedServices::default();
    report.line("settings", Ok(()), "");
    for warning in &config.warnings {
        report.warn(warning);
    }
    match check_upstream(config).await {
        Ok(upstream) => {
            report.line("SimpleChat", Ok(()), "");
            checked.upstream = Some(upstream);
        }
        Err((problem, fix)) => report.line("SimpleChat", Err(problem), fix),
    }
    if let Some(upstream) = &checked.upstream {
        check_header_limit(upstream, report).await;
    }
    let sessions = Sessions::connected(config.sessions.clone())
        .await
        .map_err(|error| telemetry::chain(&error))
        .map(|sessions| checked.sessions = Some(sessions));
    report.line("session store", sessions, store_fix(&config.sessions.store));
    let (keys, fix) = check_keys(&config.entra).await;
    report.line("signing keys", keys, fix);
    if config.activity.database.is_some() {
        report.line("database", check_database(config).await, "check DATABASE_URL");
    }
    if config.edge.public_urls.is_empty() {
        report.warn(
            "GATEWAY_PUBLIC_URLS: is empty; public URLs will be derived from each request's Host",
        );
    }
    for origin in &config.edge.public_urls {
        match leads_to_a_gateway(origin).await {
            Ok(()) => report.line("public URL", Ok(()), ""),
            // Expected before the gateway runs, or where this host cannot reach the public URL.
            Err(problem) => report.warn(&format!(
                "GATEWAY_PUBLIC_URLS: {origin} does not lead to a running gateway from here ({problem})"
            )),
        }
    }
    checked
}

/// Sends upstream one request. The error is the failure and its remedy.
async fn check_upstream(config: &Config) -> Result<Upstream, (String, &'static str)> {
    const FIX: &str = "check GATEWAY_UPSTREAM_URL, and that SimpleChat is running";
    let upstream = Upstream::new(config.upstream.clone())
        .map_err(|error| (error.to_string(), "check GATEWAY_UPSTREAM_URL and SSL_CERT_FILE"))?;
    match upstream.probe().await {
        Ok(()) => Ok(upstream),
        // The error contains the address.
        Err(UpstreamError::Connect(error)) => {
            let fix = match error.fault() {
                Some(ConnectFault::NotTls) => "use http:// in GATEWAY_UPSTREAM_URL",
                Some(fault) if fault.is_certificate_error() => {
                    "add the certificate of its authority to SSL_CERT_FILE"
                }
                _ => FIX,
            };
            Err((error.to_string(), fix))
        }
        Err(error) => Err((format!("{}: {}", upstream.address(), telemetry::chain(&error)), FIX)),
    }
}

/// Remedy for a failed session store. Errors of Redis contain their own.
fn store_fix(store: &StoreConfig) -> &'static str {
    match store {
        StoreConfig::Redis { .. } => "",
        StoreConfig::Files { .. } => "check SESSION_FILE_DIR and GATEWAY_STATE_DIR",
    }
}

/// Fetches the signing keys. Returns the result and the remedy for a failure.
async fn check_keys(config: &EntraConfig) -> (Result<(), String>, &'static str) {
    let error = match Entra::new(config.clone()) {
        Ok(entra) => match entra.refresh().await {
            Ok(()) => return (Ok(()), ""),
            Err(error) => error,
        },
        Err(error) => return (Err(telemetry::chain(&error)), "check SSL_CERT_FILE"),
    };
    let fix = match (&error, config.cloud) {
        (DocumentError::Unreachable { fault: Some(fault), .. }, _)
            if fault.is_certificate_error() =>
        {
            "add the certificate of its authority to SSL_CERT_FILE; a proxy that inspects TLS has one of its own"
        }
        (DocumentError::Unreachable { .. }, Cloud::Custom) => {
            "check CUSTOM_OIDC_METADATA_URL_VALUE, and outbound access to it (HTTPS_PROXY)"
        }
        (DocumentError::Unreachable { .. }, _) => "check outbound access to Entra (HTTPS_PROXY)",
        (_, Cloud::Custom) => "check CUSTOM_OIDC_METADATA_URL_VALUE",
        (_, Cloud::Public | Cloud::UsGovernment | Cloud::China) => {
            "check TENANT_ID and AZURE_ENVIRONMENT"
        }
    };
    (Err(telemetry::chain(&error)), fix)
}

/// Measures the longest header field that upstream accepts. It limits the length of tokens in requests.
async fn check_header_limit(upstream: &Upstream, report: &Report) {
    match timeout(MEASUREMENT_TIMEOUT, upstream.longest_field()).await {
        Ok(Ok(longest)) if longest >= LONGEST_FIELD => {
            report.pass("SimpleChat accepts header fields as long as the longest token");
        }
        Ok(Ok(longest)) => report.warn(&format!(
            "SimpleChat accepts header fields of at most {longest} bytes: requests with a longer token (a user in many groups) get 431. Add --limit-request-field_size={LONGEST_FIELD} to GUNICORN_CMD_ARGS for SimpleChat"
        )),
        Ok(Err(error)) => report.skip(&format!(
            "longest header field that SimpleChat accepts: {}",
            telemetry::chain(&error)
        )),
        Err(_) => report.skip("longest header field that SimpleChat accepts: no answer in time"),
    }
}

async fn check_database(config: &Config) -> Result<(), String> {
    let activity = Activity::open_existing(&config.activity);
    let usable = async {
        activity.read().await?;
        activity.try_writing().await
    };
    match usable.await {
        // The gateway creates a missing file when it starts.
        Ok(()) | Err(ActivityError::Missing(_)) => Ok(()),
        Err(error) => Err(telemetry::chain(&error)),
    }
}

/// Requests the readiness of the gateway that runs with these settings.
///
/// # Errors
/// [`Failure::Unavailable`] when it is not ready or not reachable.
pub fn healthcheck(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut address = config.listen;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let unreachable = |error: reqwest::Error| {
            Failure::Unavailable(format!("Not ready: {address}: {}", request_fault(error)))
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(unreachable)?;
        let url = format!("http://{address}/gateway/health/ready");
        let answer = client.get(url).send().await.map_err(unreachable)?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(Failure::Unavailable(format!("Not ready: {address} answered {}", answer.status())))
        }
    })?
}
