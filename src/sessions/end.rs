//! Ending of sessions before their expiry: revocation first, then removal.

use uuid::Uuid;

use super::{Sessions, SessionsError, backend::SessionMeta, in_time};
use crate::authz::session::SessionId;

/// A session that was ended.
pub(crate) struct EndedSession {
    /// [`SessionId::handle`].
    pub(crate) handle: String,
    /// Entra's object id, and the client app's id; `None` if the store lost the metadata.
    pub(crate) of: Option<(Uuid, String)>,
}

impl EndedSession {
    pub(super) fn of(id: &SessionId, meta: Option<SessionMeta>) -> Self {
        Self { handle: id.handle(), of: meta.map(|meta| (meta.subject, meta.client)) }
    }
}

impl Sessions {
    /// Ends sessions, and returns those that existed. `Ok` after the store has confirmed it.
    pub(crate) async fn end(&self, ids: &[SessionId]) -> Result<Vec<EndedSession>, SessionsError> {
        in_time(async {
            let mut ended = Vec::new();
            for id in ids {
                match self.meta(id).await? {
                    Some(meta) => {
                        self.end_of(id, meta.subject).await?;
                        ended.push(EndedSession::of(id, Some(meta)));
                    }
                    // A store that lost its data may hold a record that Flask wrote back. Without either
                    // nothing is revoked: a caller may have made the id up.
                    None if self.0.backend.has(id).await? => {
                        self.revoke(id).await?;
                        self.0.backend.remove(&[*id]).await?;
                        ended.push(EndedSession::of(id, None));
                    }
                    None => {}
                }
            }
            Ok(ended)
        })
        .await
    }

    /// Ends all sessions that were minted from one token, and returns them. `now` in Unix seconds.
    pub(crate) async fn end_of_token(
        &self,
        subject: Uuid,
        fingerprint: &str,
        now: i64,
    ) -> Result<Vec<EndedSession>, SessionsError> {
        in_time(async {
            let mut ended = Vec::new();
            for id in self.0.backend.sessions_of(subject, now).await? {
                let meta = self.0.backend.meta(id.id()).await?;
                if let Some(meta) = meta.filter(|meta| meta.token == fingerprint) {
                    self.end_of(&id, subject).await?;
                    ended.push(EndedSession::of(&id, Some(meta)));
                }
            }
            Ok(ended)
        })
        .await
    }

    /// Removes all traces of a session that was ended, its revocation included. Only for a session whose id no
    /// caller received and of which no request can be in flight.
    pub(crate) async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        in_time(self.0.backend.erase(id)).await?;
        // Otherwise the next full read would write it back.
        self.0.revocations.remove(id);
        Ok(())
    }

    /// Ends one session of a subject.
    pub(super) async fn end_of(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        self.revoke(id).await?;
        let (backend, ids) = (&self.0.backend, [*id]);
        tokio::try_join!(backend.remove(&ids), backend.remove_meta(id, subject)).map(drop)
    }
}
