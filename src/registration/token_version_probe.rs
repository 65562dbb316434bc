//! SimpleChat's own check of bearer tokens, which determines the required token version.

use std::time::Duration;

use tokio::time::timeout;

use crate::upstream::Upstream;

/// Path with the check. Not every version of SimpleChat has it.
const CHECKED_BY_UPSTREAM: &str = "/external/public_documents";
/// Timeout of the request.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// True if upstream has its own check of bearer tokens, which accepts version 1 only; `None`: unknown.
pub(crate) async fn requires_version_1(upstream: &Upstream) -> Option<bool> {
    let response = timeout(UPSTREAM_TIMEOUT, upstream.ask("GET", CHECKED_BY_UPSTREAM, "")).await;
    match response.ok()?.ok()?.status {
        401 => Some(true),
        400..500 => Some(false),
        _ => None,
    }
}
