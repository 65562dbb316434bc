//! The proof made again and again while the gateway runs: a SimpleChat worker that found no Redis when it
//! started keeps its sessions in files for good, and nothing else shows it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{Canary, Doubt, Step, advice};
use crate::{
    config::{Config, CookieConfig, SessionsConfig},
    control::health_registry::CANARY,
    gateway::Gateway,
    telemetry::{self, meter},
};

/// How soon it is tried again while there is a doubt.
const AGAIN: Duration = Duration::from_secs(30);
/// Nothing has been tried, or access is off.
const UNKNOWN: u8 = 2;

/// Makes the proof after upstream's first answer and every so often, while external access is on.
#[derive(Debug)]
pub(crate) struct Watch {
    interval: Duration,
    sessions: SessionsConfig,
    cookie: CookieConfig,
}

impl Watch {
    /// `None`: the operator wants none.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let interval = config.canary_interval?;
        Some(Self { interval, sessions: config.sessions.clone(), cookie: config.cookie.clone() })
    }

    /// To be spawned.
    pub(crate) async fn run(self, gateway: Gateway, mut stop: watch::Receiver<bool>) {
        let mut is_on = gateway.external_access.changes();
        tokio::select! {
            () = gateway.upstream.first_answer() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let honoured = Arc::new(AtomicU8::new(UNKNOWN));
        let observed = Arc::clone(&honoured);
        meter()
            .u64_observable_gauge("simplechat.gateway.sessions.honoured")
            .with_description("1: upstream honoured the last canary's session; 0: there is a doubt")
            .with_callback(move |observer| match observed.load(Ordering::Relaxed) {
                UNKNOWN => {}
                known => observer.observe(known.into(), &[]),
            })
            .build();
        let mut was: Option<Result<(), String>> = None;
        loop {
            if !*is_on.borrow() {
                gateway.health.clear(CANARY);
                honoured.store(UNKNOWN, Ordering::Relaxed);
                was = None;
            }
            tokio::select! {
                on = is_on.wait_for(|on| *on) => {
                    if on.is_err() {
                        return;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return,
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
            if *stop.borrow() || gateway.draining.has_begun() {
                return;
            }
            // Whether the record went in time says nothing about upstream; the sweep sees to it.
            let mut doubts = findings.into_iter().filter(|(step, _)| *step != Step::Removed);
            let is = doubts.find_map(|(_, finding)| finding.err());
            let is = is.map_or(Ok(()), |doubt| Err(self.in_plain_words(&doubt)));
            honoured.store(is.is_ok().into(), Ordering::Relaxed);
            if was.as_ref() != Some(&is) {
                match &is {
                    Ok(()) => tracing::info!("upstream honours minted sessions"),
                    Err(reason) => {
                        tracing::warn!(reason, "upstream may not honour minted sessions");
                    }
                }
            }
            match &is {
                Ok(()) => gateway.health.mark_healthy(CANARY),
                Err(reason) => drop(gateway.health.raise(CANARY, reason.clone())),
            }
            let pause = if is.is_ok() { self.interval } else { self.interval.min(AGAIN) };
            was = Some(is);
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn in_plain_words(&self, doubt: &Doubt) -> String {
        let advice = advice(doubt, &self.sessions, &self.cookie);
        format!("{}: {advice}", telemetry::chain(doubt))
    }
}
