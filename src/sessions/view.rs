//! A minted session as administrators are told of it, by the page, as JSON, and by command.

use serde::Serialize;
use utoipa::ToSchema;

use super::Listed;
use crate::clock;

/// A live minted session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MintedSession {
    /// Its handle, which names it and opens nothing.
    #[schema(example = "5b477192a010a287", max_length = 16, pattern = "^[0-9a-f]{16}$")]
    pub(crate) id: String,
    /// Entra's object id of whoever logged in.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) subject: String,
    /// The client app's id.
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
    /// Null: that is not known any more.
    #[schema(required = true, format = DateTime, max_length = 30)]
    pub(crate) opened_at: Option<String>,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) expires_at: String,
    /// When SimpleChat last saw it in use.
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
            last_seen: listed.last_seen.map(clock::rfc3339),
        }
    }
}
