//! `doctor`: `check`, then the live proof, then what App Service and the app registration must hold.

mod bypass;
mod documents;
mod easy_auth;
mod proof;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    check::try_everything,
    exit::Failure,
    report::{Report, block_on},
};
use crate::{
    config::Config,
    registration::{Registration, RegistrationInputs, takes_version_1_alone},
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
        let stopping = stop_signal()?;
        if let (Some(upstream), Some(sessions)) = (&found.upstream, &found.sessions) {
            proof::run(config, upstream, sessions, &stopping, &mut report).await;
        } else {
            report.untried("canary: upstream and the session store must be there first");
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {
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
        bypass::reserved_paths(upstream, report).await;
        documents::look(config, upstream, report).await;
        bypass::bypass_routes(config, report).await;
        version_1_only = takes_version_1_alone(upstream).await;
    } else {
        report.untried("whether upstream is reachable past the gateway, and answers at its paths");
    }
    let registration_inputs = RegistrationInputs::of(config, version_1_only);
    let registration = Registration::new(&registration_inputs);
    easy_auth::look(config, &registration_inputs, &registration, report).await;
    print(&registration, report);
}

fn print(registration: &Registration, report: &Report) {
    registration.fine.iter().for_each(|line| report.fine(line));
    registration.advice.iter().for_each(|line| report.advise(line));
    registration.untried.iter().for_each(|line| report.untried(line));
    report.block(
        "App registration: the part of its manifest that the gateway needs, beside what is there",
        &format!("{:#}", registration.manifest),
    );
    report.block(
        "The same by commands, in the order that Entra needs (they keep what is there; az and jq)",
        &registration.commands_as_text(),
    );
}

/// Token that SIGINT or SIGTERM cancels.
fn stop_signal() -> Result<CancellationToken, Failure> {
    let cannot = |error: std::io::Error| Failure::Internal(error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(stopping)
}
