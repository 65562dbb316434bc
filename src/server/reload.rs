//! Reload at SIGHUP: settings marked as reloadable apply from the next request on.

use tokio::sync::watch;

use super::app::App;
use crate::{
    config::{Config, Problems},
    telemetry::Telemetry,
};

/// Name of the component in the health registry.
const PART: &str = "settings";

/// Applies settings that were read again. An invalid configuration changes nothing and is reported in the log and in
/// health. Returns the settings in force.
pub(crate) fn reload(
    current: Config,
    read: Result<Config, Problems>,
    apps: &watch::Sender<App>,
    telemetry: &Telemetry,
) -> Config {
    let reloaded = read.and_then(|later| current.reloaded(&later));
    let health = apps.borrow().gateway().health.clone();
    let (config, changed) = match reloaded {
        Ok(reloaded) => reloaded,
        Err(problems) => {
            tracing::error!(%problems, "settings not reloaded: the old ones stay");
            health.raise(PART, format!("not reloaded, the old ones stay: {problems}"));
            return current;
        }
    };
    health.clear(PART);
    telemetry.filter(&config.log_filter);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let (live, fixed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|setting| setting.live);
    for setting in fixed {
        tracing::warn!(setting = setting.name, "changed setting requires a restart");
    }
    let names: Vec<_> = live.iter().map(|setting| setting.name).collect();
    tracing::info!(changed = names.join(","), "settings reloaded");
    if names.is_empty() {
        return current;
    }
    if config.external_access != current.external_access {
        config.external_access.log();
        apps.borrow().gateway().external_access.set(config.external_access.clone());
    }
    if config.sessions.limits_differ(&current.sessions) {
        apps.borrow().gateway().sessions.limit(&config.sessions);
    }
    apps.send_modify(|app| *app = app.reloaded(app.gateway().reloaded(&config)));
    config
}
