//! `check` and `healthcheck`: what an operator asks before and while the gateway runs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    activity::{Activity, ActivityError},
    config::Config,
    entra::Entra,
    failure::Failure,
    reach::leads_to_a_gateway,
    report::{Report, block_on},
    sessions::Sessions,
    telemetry,
    upstream::{LONGEST_FIELD, Upstream},
};

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

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
pub(crate) struct Found {
    pub(crate) upstream: Option<Upstream>,
    pub(crate) sessions: Option<Sessions>,
}

/// `check`'s lines.
pub(crate) async fn try_everything(config: &Config, report: &mut Report) -> Found {
    let mut found = Found::default();
    report.line("settings", Ok(()), "");
    for warning in &config.warnings {
        report.advise(warning);
    }
    let upstream = check_upstream(config).await.map(|upstream| found.upstream = Some(upstream));
    report.line("upstream", upstream, "is SimpleChat running where GATEWAY_UPSTREAM_URL says?");
    if let Some(upstream) = &found.upstream {
        try_long_field(upstream, report).await;
    }
    let sessions = Sessions::connected(config.sessions.clone())
        .await
        .map_err(|error| telemetry::chain(&error))
        .map(|sessions| found.sessions = Some(sessions));
    report.line("session store", sessions, "see REDIS_URL, or SESSION_FILE_DIR");
    let keys = match Entra::new(config.entra.clone()) {
        Ok(entra) => entra.refresh().await.map_err(|error| telemetry::chain(&error)),
        Err(error) => Err(error.to_string()),
    };
    report.line(
        "signing keys",
        keys,
        "see TENANT_ID and AZURE_ENVIRONMENT; is there a way out to Entra?",
    );
    if config.activity.database.is_some() {
        report.line("database", check_database(config).await, "see DATABASE_URL");
    }
    if config.surroundings.public_urls.is_empty() {
        report.advise(
            "GATEWAY_PUBLIC_URLS: is empty; public URLs will be derived from each request's Host",
        );
    }
    for origin in &config.surroundings.public_urls {
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

async fn check_upstream(config: &Config) -> Result<Upstream, String> {
    let upstream = Upstream::new(config.upstream.clone()).map_err(|error| error.to_string())?;
    upstream.probe().await.map_err(|error| telemetry::chain(&error))?;
    Ok(upstream)
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
            reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(away)?;
        let url = format!("http://{address}/gateway/health/ready");
        let answer = client.get(url).send().await.map_err(away)?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(Failure::Unavailable(format!("not ready: {}", answer.status())))
        }
    })?
}
