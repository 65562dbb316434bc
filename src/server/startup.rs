//! What must be done before the first request is served, and the background tasks.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cli::exit::Failure,
    config::{Config, ExternalAccessMode},
    control::{external_access::ExternalAccess, revocation, startup_audit},
    gateway::Gateway,
    telemetry,
};

/// How long the start may wait for the set of ended sessions. Until it has been read, requests that
/// bear a minted session are answered 503.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads what must be known before anybody is let in, and records the settings.
pub(super) async fn prepare(gateway: &Gateway, config: &Config) -> Result<(), Failure> {
    let Gateway { sessions, activity, external_access, .. } = gateway;
    if !matches!(timeout(START_TIMEOUT, sessions.read_revocations()).await, Ok(Ok(()))) {
        tracing::warn!(
            "the session store does not answer: minted sessions are refused until it does"
        );
    }
    if activity.has_database() {
        let _ = timeout(START_TIMEOUT, external_access.restrictions().follow()).await;
        try_database(external_access).await?;
    }
    startup_audit::record(activity, config, external_access.instance()).await;
    Ok(())
}

/// Starts the background tasks. The one that registers this instance in the database deregisters it when `stopping`
/// is cancelled; `tasks` waits for it.
pub(super) fn run_in_background(
    gateway: &Gateway,
    tasks: &TaskTracker,
    stopping: CancellationToken,
) {
    let Gateway { sessions, entra, upstream, activity, external_access, .. } = gateway;
    if activity.has_database() {
        tokio::spawn(external_access.clone().run());
        tokio::spawn(external_access.clone().follow_restrictions());
        tokio::spawn(external_access.clone().record_restrictions());
        tokio::spawn(external_access.clone().prune_loop());
        tokio::spawn(external_access.clone().enforce_size_loop());
        tasks.spawn(external_access.clone().heartbeat_loop(stopping));
    }
    tokio::spawn(sessions.clone().sync_loop());
    tokio::spawn(revocation::record_expired_loop(activity.clone(), sessions.clone()));
    tokio::spawn(sessions.clone().sweep_loop());
    tokio::spawn(entra.clone().refresh_loop());
    tokio::spawn(upstream.clone().wait_for_first_answer());
}

/// Reads and writes it once. One that is away may come back; one that cannot be used ends the start.
async fn try_database(external_access: &ExternalAccess) -> Result<(), Failure> {
    let usable = async {
        external_access.read().await?;
        external_access.heartbeat().await
    };
    match usable.await {
        Ok(()) => Ok(()),
        Err(error) if error.is_lasting() => Err(error.into_failure()),
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(
                error,
                "the database is away: external access under managed is off, and nobody may sign in until it has been read"
            );
            Ok(())
        }
    }
}

/// Lets this process have as many descriptors as it may, as servers do; how many it has.
pub(super) fn raise_descriptor_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

pub(super) fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.external_access.warn();
    let may_be_on = config.external_access != ExternalAccessMode::Off;
    if may_be_on && config.edge.public_urls.is_empty() {
        tracing::warn!(
            "GATEWAY_PUBLIC_URLS is empty: public URLs are derived from each request's Host"
        );
    }
}
