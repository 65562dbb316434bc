//! Blocks and instances as the administration page, the JSON API and the commands show them.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Actor, Block, Blocked, Instance};
use crate::clock;

/// Kind of blocked caller.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BlockKind {
    /// User or service principal.
    Subject,
    /// Client app.
    Client,
}

/// Temporary block of a caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockInForce {
    pub(crate) kind: BlockKind,
    /// Entra's object id, or the client application id.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) who: String,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) since: String,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) until: String,
    /// Administrator who decided it.
    pub(crate) by: Actor,
}

impl BlockInForce {
    /// `subject` or `client`.
    pub(crate) fn word(&self) -> &'static str {
        match self.kind {
            BlockKind::Subject => "subject",
            BlockKind::Client => "client",
        }
    }
}

impl From<Block> for BlockInForce {
    fn from(block: Block) -> Self {
        let kind = match &block.blocked {
            Blocked::Subject(_) => BlockKind::Subject,
            Blocked::Client(_) => BlockKind::Client,
        };
        Self {
            kind,
            who: block.blocked.who().to_owned(),
            since: clock::rfc3339(block.since),
            until: clock::rfc3339(block.until),
            by: block.by,
        }
    }
}

/// A running gateway instance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunningInstance {
    /// UUID generated at startup.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) id: String,
    /// Host name.
    #[schema(example = "gateway-7d9f", max_length = 255, pattern = "^[ -~]*$")]
    pub(crate) host: String,
    #[schema(example = "1.0.0", max_length = 64, pattern = "^[0-9A-Za-z.+-]+$")]
    pub(crate) version: String,
    /// True if external access is on at this instance.
    pub(crate) enabled: bool,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) started_at: String,
    /// Time of the last heartbeat.
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) seen_at: String,
    /// True for the instance that answered the request. Commands have none: `None`, not printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = true)]
    pub(crate) is_this: Option<bool>,
}

impl From<Instance> for RunningInstance {
    fn from(instance: Instance) -> Self {
        Self {
            id: instance.id,
            host: instance.host,
            version: instance.version,
            enabled: instance.is_on,
            started_at: clock::rfc3339(instance.started_at),
            seen_at: clock::rfc3339(instance.seen_at),
            is_this: None,
        }
    }
}
