//! Start-up: preparation before the first request, and the background tasks.

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

/// Maximum time that the start waits for the revocation list. Until it is read, requests with a minted session get
/// 503.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads revocations, restrictions and the database, and records the configuration in the activity log.
///
/// # Errors
/// When the database can never be used as configured.
pub(super) async fn prepare(gateway: &Gateway, config: &Config) -> Result<(), Failure> {
    let Gateway { sessions, activity, external_access, .. } = gateway;
    if !matches!(timeout(START_TIMEOUT, sessions.read_revocations()).await, Ok(Ok(()))) {
        tracing::warn!("session store unavailable: minted sessions are refused until it responds");
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
    tokio::spawn(upstream.clone().wait_for_first_response());
}

/// Reads and writes the database once. A database that is unavailable may recover; one that cannot be used ends the
/// start.
async fn try_database(external_access: &ExternalAccess) -> Result<(), Failure> {
    let usable = async {
        external_access.read().await?;
        external_access.heartbeat().await
    };
    match usable.await {
        Ok(()) => Ok(()),
        Err(error) if error.is_lasting() => Err(error.into()),
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(
                error,
                "database unavailable: with managed, external access is off and sign-ins are refused until the database can be read"
            );
            Ok(())
        }
    }
}

/// Raises the soft limit of file descriptors to the hard limit. Returns the limit.
pub(super) fn raise_descriptor_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Logs the warnings of a configuration.
pub(super) fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.external_access.log();
    let may_be_on = config.external_access != ExternalAccessMode::Off;
    if may_be_on && config.edge.public_urls.is_empty() {
        tracing::warn!(
            "GATEWAY_PUBLIC_URLS is empty: public URLs are derived from each request's Host"
        );
    }
}
