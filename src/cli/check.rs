//! `check` and `healthcheck`: what an operator asks before and while the gateway runs.

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
    registration::public_url_probe::leads_to_a_gateway,
    sessions::Sessions,
    telemetry,
    upstream::{LONGEST_FIELD, Upstream, UpstreamError},
};

/// How long the gateway may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for all requests that measure what upstream takes.
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries everything that the settings name, a line each.
///
/// # Errors
/// [`Failure::Unavailable`] when the gateway could not serve like this.
pub fn check(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut report = Report::default();
        try_everything(config, &mut report).await;
        report.finish()
    })?
}

/// What answered, to go on with.
#[derive(Default)]
pub(crate) struct CheckedServices {
    pub(crate) upstream: Option<Upstream>,
    pub(crate) sessions: Option<Sessions>,
}

/// `check`'s lines.
pub(crate) async fn try_everything(config: &Config, report: &mut Report) -> CheckedServices {
    let mut found = CheckedServices::default();
    report.line("settings", Ok(()), "");
    for warning in &config.warnings {
        report.advise(warning);
    }
    match check_upstream(config).await {
        Ok(upstream) => {
            report.line("upstream", Ok(()), "");
            found.upstream = Some(upstream);
        }
        Err((problem, advice)) => report.line("upstream", Err(problem), advice),
    }
    if let Some(upstream) = &found.upstream {
        try_long_field(upstream, report).await;
    }
    let sessions = Sessions::connected(config.sessions.clone())
        .await
        .map_err(|error| telemetry::chain(&error))
        .map(|sessions| found.sessions = Some(sessions));
    report.line("session store", sessions, store_advice(&config.sessions.store));
    let (keys, advice) = check_keys(&config.entra).await;
    report.line("signing keys", keys, advice);
    if config.activity.database.is_some() {
        report.line("database", check_database(config).await, "see DATABASE_URL");
    }
    if config.edge.public_urls.is_empty() {
        report.advise(
            "GATEWAY_PUBLIC_URLS: is empty; public URLs will be derived from each request's Host",
        );
    }
    for origin in &config.edge.public_urls {
        match leads_to_a_gateway(origin).await {
            Ok(()) => report.line("public URL", Ok(()), ""),
            // It cannot before the gateway runs, and perhaps not from here.
            Err(problem) => report.advise(&format!(
                "GATEWAY_PUBLIC_URLS: {origin} does not lead to a running gateway from here ({problem})"
            )),
        }
    }
    found
}

/// Asks upstream once; the failure, and what to do about it.
async fn check_upstream(config: &Config) -> Result<Upstream, (String, &'static str)> {
    const ADVICE: &str = "does SimpleChat run there? See GATEWAY_UPSTREAM_URL";
    let upstream = Upstream::new(config.upstream.clone())
        .map_err(|error| (error.to_string(), "see GATEWAY_UPSTREAM_URL and SSL_CERT_FILE"))?;
    match upstream.probe().await {
        Ok(()) => Ok(upstream),
        // It names the address itself.
        Err(UpstreamError::Connect(error)) => {
            let advice = match error.fault() {
                Some(ConnectFault::NotTls) => "write http:// in GATEWAY_UPSTREAM_URL",
                Some(fault) if fault.is_of_certificate() => "name its authority in SSL_CERT_FILE",
                _ => ADVICE,
            };
            Err((error.to_string(), advice))
        }
        Err(error) => {
            Err((format!("{}: {}", upstream.address(), telemetry::chain(&error)), ADVICE))
        }
    }
}

/// What to do where the store fails. Failures of Redis say so themselves.
fn store_advice(store: &StoreConfig) -> &'static str {
    match store {
        StoreConfig::Redis { .. } => "",
        StoreConfig::Files { .. } => "see SESSION_FILE_DIR and GATEWAY_STATE_DIR",
    }
}

/// Fetches the signing keys; the failure, and which setting to change.
async fn check_keys(config: &EntraConfig) -> (Result<(), String>, &'static str) {
    let error = match Entra::new(config.clone()) {
        Ok(entra) => match entra.refresh().await {
            Ok(()) => return (Ok(()), ""),
            Err(error) => error,
        },
        Err(error) => return (Err(telemetry::chain(&error)), "see SSL_CERT_FILE"),
    };
    let advice = match (&error, config.cloud) {
        (DocumentError::Unreachable { fault: Some(fault), .. }, _) if fault.is_of_certificate() => {
            "does something on the way inspect TLS? Name its authority in SSL_CERT_FILE"
        }
        (DocumentError::Unreachable { .. }, Cloud::Custom) => {
            "see CUSTOM_OIDC_METADATA_URL_VALUE; is there a way out to it (HTTPS_PROXY)?"
        }
        (DocumentError::Unreachable { .. }, _) => "is there a way out to Entra (HTTPS_PROXY)?",
        (_, Cloud::Custom) => "see CUSTOM_OIDC_METADATA_URL_VALUE",
        (_, Cloud::Public | Cloud::UsGovernment | Cloud::China) => {
            "see TENANT_ID and AZURE_ENVIRONMENT"
        }
    };
    (Err(telemetry::chain(&error)), advice)
}

/// Measures the longest header field that upstream takes, which bounds the tokens that calls may bear.
async fn try_long_field(upstream: &Upstream, report: &Report) {
    match timeout(MEASUREMENT_TIMEOUT, upstream.longest_field()).await {
        Ok(Ok(longest)) if longest >= LONGEST_FIELD => {
            report.fine("upstream takes header fields as long as the longest token");
        }
        Ok(Ok(longest)) => report.advise(&format!(
            "upstream takes header fields of at most {longest} bytes, so calls that bear a longer token (a user in many groups) are answered 431. Add --limit-request-field_size={LONGEST_FIELD} to GUNICORN_CMD_ARGS for SimpleChat"
        )),
        Ok(Err(error)) => report.untried(&format!(
            "the longest header field that upstream takes: {}",
            telemetry::chain(&error)
        )),
        Err(_) => report.untried("the longest header field that upstream takes: no answer in time"),
    }
}

async fn check_database(config: &Config) -> Result<(), String> {
    let activity = Activity::open_existing(&config.activity);
    let usable = async {
        activity.read().await?;
        activity.try_writing().await
    };
    match usable.await {
        // One that is missing the gateway makes at its start.
        Ok(()) | Err(ActivityError::Missing(_)) => Ok(()),
        Err(error) => Err(telemetry::chain(&error)),
    }
}

/// Asks the gateway that runs with these settings whether it is ready.
///
/// # Errors
/// [`Failure::Unavailable`] when it is not.
pub fn healthcheck(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut address = config.listen;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let away = |error: reqwest::Error| Failure::Unavailable(telemetry::chain(&error));
        let client =
            reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().map_err(away)?;
        let url = format!("http://{address}/gateway/health/ready");
        let answer = client.get(url).send().await.map_err(away)?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(Failure::Unavailable(format!("not ready: {}", answer.status())))
        }
    })?
}
