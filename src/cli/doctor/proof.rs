//! The canary's lines.

use tokio_util::sync::CancellationToken;

use crate::{
    canary::{Canary, Step, advice},
    cli::report::Report,
    config::Config,
    sessions::Sessions,
    telemetry,
    upstream::Upstream,
};

/// Makes the proof and tells each step.
pub(super) async fn run(
    config: &Config,
    upstream: &Upstream,
    sessions: &Sessions,
    stopping: &CancellationToken,
    report: &mut Report,
) {
    let findings = Canary { sessions, upstream, cookie: &config.cookie }.prove(stopping).await;
    for (step, finding) in findings {
        let advice =
            finding.as_ref().err().map(|doubt| advice(doubt, &config.sessions, &config.cookie));
        let advice = advice.unwrap_or_default();
        report.line(part(step), finding.map_err(|doubt| telemetry::chain(&doubt)), &advice);
    }
}

fn part(step: Step) -> &'static str {
    match step {
        Step::StrangerRefused => "canary: upstream refuses a stranger",
        Step::Minted => "canary: minted",
        Step::Honoured => "canary: upstream honours the session",
        Step::EndHonoured => "canary: upstream honours its end",
        Step::Removed => "canary: removed",
    }
}
