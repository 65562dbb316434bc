//! Session binding: a minted session is a handle, not a credential; sent with a token, it is valid only for the
//! token's subject (MCP 2026-07-28, security considerations, "State Handle Hijacking").

use super::{bearer, error::Refusal};
use crate::{
    authz::{policy::SessionBinding, session::SessionId},
    clock,
    entra::Entra,
    h1::message::Fields,
    sessions::Sessions,
};

/// Check of a session against the token that is sent with it.
pub(crate) struct Binding<'a> {
    pub(crate) entra: &'a Entra,
    pub(crate) sessions: &'a Sessions,
    pub(crate) mode: SessionBinding,
}

impl Binding<'_> {
    /// Refuses a session that is sent with a valid token of another subject; under `required` also a session
    /// without a valid token.
    pub(crate) async fn check(&self, session: &SessionId, fields: &Fields) -> Result<(), Refusal> {
        let is_required = self.mode == SessionBinding::Required;
        if !is_required && !fields.has("authorization") {
            return Ok(());
        }
        let identity = match bearer::parse_lines(fields.all("authorization")) {
            Ok(token) => self.entra.identify(&token, clock::now()).await.map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        let identity = match identity {
            Ok(identity) => identity,
            Err(refusal) if is_required => return Err(refusal),
            // One of the tokens could belong to another subject.
            Err(refusal @ Refusal::RepeatedAuthorization) => return Err(refusal),
            // An invalid token is ignored: the session could have been sent without any.
            Err(_) => return Ok(()),
        };
        // An unknown session belongs to no subject.
        if self.sessions.subject_of(session).await? == Some(identity.subject()) {
            Ok(())
        } else {
            Err(Refusal::SessionSubjectMismatch)
        }
    }
}
