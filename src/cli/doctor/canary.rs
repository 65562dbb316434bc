//! Canary of `doctor`: prints the result of each step.

use tokio_util::sync::CancellationToken;

use crate::{
    canary::{Canary, Step, advice},
    cli::report::Report,
    config::Config,
    sessions::Sessions,
    telemetry,
    upstream::Upstream,
};

/// Runs the canary and prints one line for each step.
pub(super) async fn run(
    config: &Config,
    upstream: &Upstream,
    sessions: &Sessions,
    stopping: &CancellationToken,
    report: &mut Report,
) {
    let findings = Canary { sessions, upstream, cookie: &config.cookie }.prove(stopping).await;
    for (step, finding) in findings {
        let fix =
            finding.as_ref().err().map(|failure| advice(failure, &config.sessions, &config.cookie));
        let fix = fix.unwrap_or_default();
        report.line(part(step), finding.map_err(|failure| telemetry::chain(&failure)), &fix);
    }
}

fn part(step: Step) -> &'static str {
    match step {
        Step::AnonymousRejected => "canary: anonymous request rejected",
        Step::Minted => "canary: session created",
        Step::Honoured => "canary: session accepted by SimpleChat",
        Step::EndHonoured => "canary: ended session rejected by SimpleChat",
        Step::Removed => "canary: session removed",
    }
}
