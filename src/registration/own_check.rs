//! SimpleChat's own check of bearer tokens, which decides about their version.

use std::time::Duration;

use tokio::time::timeout;

use crate::upstream::Upstream;

/// Where it is; not every version has it.
const CHECKED_BY_UPSTREAM: &str = "/external/public_documents";
/// For the question.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether upstream has its own check of bearer tokens, which takes version 1 alone; `None`: it did
/// not say.
pub(crate) async fn takes_version_1_alone(upstream: &Upstream) -> Option<bool> {
    let asked = timeout(UPSTREAM_TIMEOUT, upstream.ask("GET", CHECKED_BY_UPSTREAM, "")).await;
    match asked.ok()?.ok()?.status {
        401 => Some(true),
        400..500 => Some(false),
        _ => None,
    }
}
