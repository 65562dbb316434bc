//! Live minted sessions: listing and revocation. Browser sessions are not affected.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::call::Decider;
use crate::{
    admin::Admin,
    authz::session::SessionId,
    control::{external_access::ExternalAccess, revocation},
    http::error::{Problem, Refusal},
    sessions::{MintedSession, Sessions, Which},
};

/// Maximum number of sessions in a list.
const MAX_LISTED: usize = 1000;

/// Active gateway-issued sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    #[schema(max_items = 1000)]
    sessions: Vec<MintedSession>,
    /// True if there are more sessions than listed.
    truncated: bool,
}

/// Result of ending sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionsEnded {
    /// Number of sessions ended.
    #[schema(value_type = i64, example = 1, minimum = 0, maximum = 4_294_967_295_i64)]
    ended: usize,
}

/// Lists sessions; with the number of all sessions if there are more than listed.
pub(crate) async fn list(
    sessions: &Sessions,
    which: &Which,
) -> Result<(Vec<MintedSession>, Option<u64>), Refusal> {
    let mut listed = sessions.list(which, MAX_LISTED + 1).await?;
    let is_cut = listed.len() > MAX_LISTED;
    listed.truncate(MAX_LISTED);
    let count = if is_cut { Some(sessions.count().await?) } else { None };
    Ok((listed.into_iter().map(MintedSession::from).collect(), count))
}

/// Sessions of a subject or of a client; `None` if neither is given.
pub(crate) fn which(subject: &str, client: &str) -> Result<Option<Which>, Refusal> {
    match (subject, client) {
        ("", "") => Ok(None),
        (subject, "") => {
            let subject = Uuid::try_parse(subject);
            let subject =
                subject.map_err(|_| Refusal::Input("The subject must be an object ID (GUID)"))?;
            Ok(Some(Which::Subject(subject)))
        }
        ("", client) => Ok(Some(Which::Client(client.to_owned()))),
        _ => Err(Refusal::Input("Specify subject or client, not both")),
    }
}

/// One session, by its handle or its whole ID.
pub(crate) fn one(id: &str) -> Result<Which, Refusal> {
    let is_handle = id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_handle || SessionId::parse(id).is_some() {
        Ok(Which::Handle(id.to_owned()))
    } else {
        Err(Refusal::NotFound)
    }
}

/// Query parameters, trimmed. Read from pairs, because a reader derived for the struct refuses a
/// repeated parameter, which is accepted here: the last one applies. Unknown ones are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Vec<(String, String)>")]
pub(crate) struct SessionsQuery {
    pub(crate) subject: String,
    pub(crate) client: String,
    all: bool,
}

impl From<Vec<(String, String)>> for SessionsQuery {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            match &*name {
                "subject" => value.trim().clone_into(&mut query.subject),
                "client" => value.trim().clone_into(&mut query.client),
                "all" => query.all = value == "true",
                _ => {}
            }
        }
        query
    }
}

impl SessionsQuery {
    /// Sessions to which the query is limited; `None`: neither subject nor client is given.
    pub(crate) fn which(&self) -> Result<Option<Which>, Refusal> {
        which(&self.subject, &self.client)
    }
}

/// Returns the sessions.
#[utoipa::path(
    get,
    path = "/gateway/api/sessions",
    tag = "Administration",
    operation_id = "getSessions",
    summary = "List gateway-issued sessions",
    description = "Active sessions, newest first, by handle. Browser sessions are not included.",
    params(
        ("subject" = Option<String>, Query, description = "Object ID of a user or service principal", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
        ("client" = Option<String>, Query, description = "Client application ID", max_length = 256, pattern = "^[ -~]+$", example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
    ),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Active sessions", body = SessionList, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The subject is not a GUID, or both are given", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(sessions): State<Sessions>,
    _: Admin,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<SessionList>, Refusal> {
    let which = query.which()?.unwrap_or(Which::All);
    let (sessions, count) = list(&sessions, &which).await?;
    Ok(Json(SessionList { sessions, truncated: count.is_some() }))
}

/// Ends sessions of a subject, of a client, or all.
#[utoipa::path(
    delete,
    path = "/gateway/api/sessions",
    tag = "Administration",
    operation_id = "endSessions",
    summary = "End gateway-issued sessions",
    description = "Of a user, of a client application, or all: specify one of the three. Each session is revoked on all instances within two seconds, and recorded before that or as soon as the database can be written. Browser sessions are not affected.",
    params(
        ("subject" = Option<String>, Query, description = "Object ID of a user or service principal", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
        ("client" = Option<String>, Query, description = "Client application ID", max_length = 256, pattern = "^[ -~]+$", example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
        ("all" = Option<bool>, Query, description = "All sessions", example = true),
    ),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Number of sessions ended", body = SessionsEnded, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, a page of another origin, or the CSRF token of another session", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body exceeds 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "None or more than one of the three is given", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable: some sessions may have ended", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(external_access): State<ExternalAccess>,
    Decider(admin): Decider,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<SessionsEnded>, Refusal> {
    let which = match (query.which()?, query.all) {
        (Some(which), false) => which,
        (None, true) => Which::All,
        _ => return Err(Refusal::Input("Specify subject, client or all=true")),
    };
    let restrictions = external_access.restrictions();
    let ended = revocation::end(restrictions, &which, admin.author(), None).await?;
    Ok(Json(SessionsEnded { ended }))
}

/// Ends one session.
#[utoipa::path(
    delete,
    path = "/gateway/api/sessions/{id}",
    tag = "Administration",
    operation_id = "endSession",
    summary = "End a gateway-issued session",
    description = "By its handle or its whole ID. The session is recorded and then revoked, on all instances within two seconds.",
    params(("id" = String, Path, description = "Session handle", example = "5b477192a010a287", max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "The session ended", body = SessionsEnded, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, a page of another origin, or the CSRF token of another session", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No active session with this handle", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body exceeds 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or database unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete_one(
    State(external_access): State<ExternalAccess>,
    Decider(admin): Decider,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<SessionsEnded>, Refusal> {
    let Path(id) = id.map_err(|_| Refusal::NotFound)?;
    let (restrictions, which) = (external_access.restrictions(), one(&id)?);
    match revocation::end(restrictions, &which, admin.author(), None).await? {
        0 => Err(Refusal::NotFound),
        ended => Ok(Json(SessionsEnded { ended })),
    }
}
