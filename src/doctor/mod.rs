//! `doctor`: `check`, then the live proof, then what App Service and the app registration must hold.

mod easy_auth;
mod entries;
mod graph;
mod identifier_uri;
mod neighbours;
mod proof;
mod registration;
mod wanted;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::{registration::Registration, wanted::Wanted};
use crate::{
    check::try_everything,
    config::Config,
    failure::Failure,
    report::{Report, block_on},
    upstream::Upstream,
};

/// Tries everything that the settings name, proves on upstream itself that it honours a minted session,
/// and prints what cannot be tried from here: the app registration, and App Service's own sign-in.
///
/// # Errors
/// [`Failure::Unavailable`] when the gateway could not serve like this, or the proof does not hold.
pub fn doctor(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut report = Report::default();
        let found = try_everything(config, &mut report).await;
        // From here on an interrupt waits until the canary is gone.
        let mut stopping = stop_signal()?;
        if let (Some(upstream), Some(sessions)) = (&found.upstream, &found.sessions) {
            proof::run(config, upstream, sessions, &stopping, &mut report).await;
        } else {
            report.untried("canary: upstream and the session store must be there first");
        }
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => {
                Err(Failure::Unavailable("interrupted".to_owned()))
            }
            () = look_around(config, found.upstream.as_ref(), &report) => report.finish(),
        }
    })?
}

/// What is advice alone.
async fn look_around(config: &Config, upstream: Option<&Upstream>, report: &Report) {
    let mut version_1_only = None;
    if let Some(upstream) = upstream {
        neighbours::reserved_paths(upstream, report).await;
        neighbours::other_ways_in(config, report).await;
        version_1_only = neighbours::takes_version_1_alone(upstream).await;
    } else {
        report.untried("whether upstream is reachable past the gateway, and answers at its paths");
    }
    let registration = Registration::new(&Wanted::of(config, version_1_only));
    easy_auth::look(config, registration.version(), report).await;
    registration.print(report);
}

/// Turns true at SIGINT or SIGTERM.
fn stop_signal() -> Result<watch::Receiver<bool>, Failure> {
    let cannot = |error: std::io::Error| Failure::Internal(error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = stop.send(true);
    });
    Ok(stopping)
}
