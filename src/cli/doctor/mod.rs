//! `doctor`: `check`, the canary, then the required settings of App Service and the app registration.

mod bypass;
mod canary;
mod documents;
mod easy_auth;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    check::run_tests,
    exit::Failure,
    report::{Report, block_on},
};
use crate::{
    config::Config,
    registration::{Registration, RegistrationInputs, requires_version_1},
    upstream::Upstream,
};

/// Tests every dependency, verifies on upstream that it accepts a minted session, and prints the required
/// app registration and App Service authentication, which cannot be tested from here.
///
/// # Errors
/// [`Failure::Unavailable`] when a test failed or the command was interrupted.
pub fn doctor(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut report = Report::default();
        let checked = run_tests(config, &mut report).await;
        // From here on an interrupt is handled after the canary session is removed.
        let stopping = stop_signal()?;
        if let (Some(upstream), Some(sessions)) = (&checked.upstream, &checked.sessions) {
            canary::run(config, upstream, sessions, &stopping, &mut report).await;
        } else {
            report.skip("canary: needs SimpleChat and the session store");
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {
                Err(Failure::Unavailable("interrupted".to_owned()))
            }
            () = run_advisory_tests(config, checked.upstream.as_ref(), &report) => report.finish(),
        }
    })?
}

/// Runs the tests that do not change the exit code.
async fn run_advisory_tests(config: &Config, upstream: Option<&Upstream>, report: &Report) {
    let mut version_1_only = None;
    if let Some(upstream) = upstream {
        bypass::reserved_paths(upstream, report).await;
        documents::report_documents(config, upstream, report).await;
        bypass::bypass_routes(config, report).await;
        version_1_only = requires_version_1(upstream).await;
    } else {
        report.skip("direct access to SimpleChat, and SimpleChat routes at the gateway's paths: SimpleChat is unavailable");
    }
    let registration_inputs = RegistrationInputs::of(config, version_1_only);
    let registration = Registration::new(&registration_inputs);
    easy_auth::report_easy_auth(config, &registration_inputs, &registration, report).await;
    print(&registration, report);
}

fn print(registration: &Registration, report: &Report) {
    registration.passed.iter().for_each(|line| report.pass(line));
    registration.advice.iter().for_each(|line| report.warn(line));
    registration.skipped.iter().for_each(|line| report.skip(line));
    report.block(
        "App registration: required manifest entries, in addition to existing ones",
        &format!("{:#}", registration.manifest),
    );
    report.block(
        "Equivalent az and jq commands, in the order that Entra requires (existing values are preserved)",
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
