//! Periodic canary in a running gateway: a SimpleChat worker that found no Redis at startup stores its sessions in
//! files until it is restarted, and nothing else shows this.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Canary, CanaryFailure, Step, advice};
use crate::{
    config::{Config, CookieConfig, SessionsConfig},
    control::health_registry::CANARY,
    gateway::Gateway,
    telemetry::{self, meter},
};

/// Maximum interval while the canary fails.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Gauge value before the first run, and while external access is off.
const UNKNOWN: u8 = 2;

/// Runs the canary after upstream's first response and then at an interval, while external access is on.
#[derive(Debug)]
pub(crate) struct Watch {
    interval: Duration,
    sessions: SessionsConfig,
    cookie: CookieConfig,
}

impl Watch {
    /// `None`: `GATEWAY_CANARY_INTERVAL` is off.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let interval = config.canary_interval?;
        Some(Self { interval, sessions: config.sessions.clone(), cookie: config.cookie.clone() })
    }

    /// Runs until `stop`; to be spawned.
    pub(crate) async fn run(self, gateway: Gateway, stop: CancellationToken) {
        let mut is_on = gateway.external_access.changes();
        tokio::select! {
            () = gateway.upstream.first_response() => {}
            () = stop.cancelled() => return,
        }
        let honoured = Arc::new(AtomicU8::new(UNKNOWN));
        let observed = Arc::clone(&honoured);
        meter()
            .u64_observable_gauge("simplechat.gateway.sessions.honoured")
            .with_description("Last canary: 1 if upstream accepted its session, 0 if it failed")
            .with_callback(move |observer| match observed.load(Ordering::Relaxed) {
                UNKNOWN => {}
                known => observer.observe(known.into(), &[]),
            })
            .build();
        let mut previous: Option<Result<(), String>> = None;
        loop {
            if !*is_on.borrow() {
                gateway.health.clear(CANARY);
                honoured.store(UNKNOWN, Ordering::Relaxed);
                previous = None;
            }
            tokio::select! {
                on = is_on.wait_for(|on| *on) => {
                    if on.is_err() {
                        return;
                    }
                }
                () = stop.cancelled() => return,
            }
            if gateway.draining.has_begun() {
                return;
            }
            let canary = Canary {
                sessions: &gateway.sessions,
                upstream: &gateway.upstream,
                cookie: &gateway.cookie,
            };
            let findings = canary.prove(&stop).await;
            if stop.is_cancelled() || gateway.draining.has_begun() {
                return;
            }
            // A failed removal is no failure of upstream; the sweep removes the session later.
            let mut doubts = findings.into_iter().filter(|(step, _)| *step != Step::Removed);
            let result = doubts.find_map(|(_, finding)| finding.err());
            let result = result.map_or(Ok(()), |failure| Err(self.describe(&failure)));
            honoured.store(result.is_ok().into(), Ordering::Relaxed);
            if previous.as_ref() != Some(&result) {
                match &result {
                    Ok(()) => tracing::info!("upstream accepts gateway-issued sessions"),
                    Err(reason) => {
                        tracing::warn!(reason, "upstream may not accept gateway-issued sessions");
                    }
                }
            }
            match &result {
                Ok(()) => gateway.health.mark_healthy(CANARY),
                Err(reason) => drop(gateway.health.raise(CANARY, reason.clone())),
            }
            let pause =
                if result.is_ok() { self.interval } else { self.interval.min(MAX_RETRY_INTERVAL) };
            previous = Some(result);
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn describe(&self, failure: &CanaryFailure) -> String {
        let advice = advice(failure, &self.sessions, &self.cookie);
        format!("{}: {advice}", telemetry::chain(failure))
    }
}
