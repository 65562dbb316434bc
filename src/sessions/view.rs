//! View of a minted session for the administrators' pages, the API and the commands.

use serde::Serialize;
use utoipa::ToSchema;

use super::Listed;
use crate::clock;

/// Active session that the gateway issued.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MintedSession {
    /// Handle of the session: identifies it and grants no access.
    #[schema(example = "5b477192a010a287", max_length = 16, pattern = "^[0-9a-f]{16}$")]
    pub(crate) id: String,
    /// Entra's object id of the user or service principal that logged in.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) subject: String,
    /// Client application id.
    #[schema(
        example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        max_length = 256,
        pattern = "^[ -~]*$"
    )]
    pub(crate) client: String,
    #[schema(required = true, max_length = 16_384)]
    pub(crate) name: Option<String>,
    #[schema(required = true, max_length = 16_384)]
    pub(crate) email: Option<String>,
    /// Time of the login; null: unknown.
    #[schema(required = true, format = DateTime, max_length = 30)]
    pub(crate) opened_at: Option<String>,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) expires_at: String,
    /// Time of the last request of the session to SimpleChat; null: unknown.
    #[schema(required = true, format = DateTime, max_length = 30)]
    pub(crate) last_seen: Option<String>,
}

impl From<Listed> for MintedSession {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id.handle(),
            subject: listed.subject.to_string(),
            client: listed.client,
            name: listed.name,
            email: listed.email,
            opened_at: (listed.opened_at > 0).then(|| clock::rfc3339(listed.opened_at)),
            expires_at: clock::rfc3339(listed.id.expires_at().saturating_mul(1000)),
            last_seen: listed.last_activity.map(clock::rfc3339),
        }
    }
}
