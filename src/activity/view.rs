//! View of a block for the administrators' pages, the API and the commands.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Actor, Block, Blocked};
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
