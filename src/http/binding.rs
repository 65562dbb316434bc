//! A minted session is a handle, not a credential: beside a token it counts only for the token's subject
//! (MCP 2026-07-28, security considerations, "State Handle Hijacking").

use super::{bearer, error::Refusal};
use crate::{
    authz::{policy::SessionBinding, session::SessionId},
    clock,
    entra::Entra,
    h1::message::Fields,
    sessions::Sessions,
};

/// Judges a session by the token that comes with it.
pub(crate) struct Binding<'a> {
    pub(crate) entra: &'a Entra,
    pub(crate) sessions: &'a Sessions,
    pub(crate) mode: SessionBinding,
}

impl Binding<'_> {
    /// Refuses a session beside a valid token of somebody else; where binding is required, also one
    /// without a valid token.
    pub(crate) async fn check(&self, session: &SessionId, fields: &Fields) -> Result<(), Refusal> {
        let is_required = self.mode == SessionBinding::Required;
        if !is_required && !fields.has("authorization") {
            return Ok(());
        }
        let identity = match bearer::of_lines(fields.all("authorization")) {
            Ok(token) => self.entra.identify(&token, clock::now()).await.map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        let identity = match identity {
            Ok(identity) => identity,
            Err(refusal) if is_required => return Err(refusal),
            // One of them could be somebody else's.
            Err(refusal @ Refusal::RepeatedAuthorization) => return Err(refusal),
            // Whoever has the session could have sent it without a token.
            Err(_) => return Ok(()),
        };
        // A session that nobody knows of is nobody's: not this subject's either.
        if self.sessions.subject_of(session).await? == Some(identity.subject()) {
            Ok(())
        } else {
            Err(Refusal::SessionSubjectMismatch)
        }
    }
}
