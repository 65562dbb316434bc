//! Live minted sessions: listed, and ended. Sessions of browser users are left alone.

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

/// Most that are listed.
pub(crate) const MANY: usize = 1000;

/// Live minted sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    #[schema(max_items = 1000)]
    sessions: Vec<MintedSession>,
    /// Whether there are more than are listed.
    truncated: bool,
}

/// How many sessions were ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionsEnded {
    #[schema(value_type = i64, example = 1, minimum = 0, maximum = 4_294_967_295_i64)]
    ended: usize,
}

/// Lists them; and how many there are of all subjects and clients, where there are more than are listed.
pub(crate) async fn list(
    sessions: &Sessions,
    which: &Which,
) -> Result<(Vec<MintedSession>, Option<u64>), Refusal> {
    let mut listed = sessions.list(which, MANY + 1).await?;
    let is_cut = listed.len() > MANY;
    listed.truncate(MANY);
    let count = if is_cut { Some(sessions.count().await?) } else { None };
    Ok((listed.into_iter().map(MintedSession::from).collect(), count))
}

/// Which sessions a query or a form means: at most one of a subject and a client.
pub(crate) fn which(subject: &str, client: &str) -> Result<Option<Which>, Refusal> {
    match (subject, client) {
        ("", "") => Ok(None),
        (subject, "") => {
            let subject = Uuid::try_parse(subject);
            let subject = subject.map_err(|_| Refusal::Input("The subject is not an object id"))?;
            Ok(Some(Which::Subject(subject)))
        }
        ("", client) => Ok(Some(Which::Client(client.to_owned()))),
        _ => Err(Refusal::Input("Name a subject or a client, not both")),
    }
}

/// By its handle or its whole id.
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

/// Lists them.
#[utoipa::path(
    get,
    path = "/gateway/api/sessions",
    tag = "Administration",
    operation_id = "getSessions",
    summary = "Live minted sessions",
    description = "Newest first, by their handles. Sessions of browser users are not among them.",
    params(
        ("subject" = Option<String>, Query, description = "Of this user or service principal alone: Entra's object id", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
        ("client" = Option<String>, Query, description = "Of this client app alone", max_length = 256, pattern = "^[ -~]+$", example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
    ),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "They are", body = SessionList, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The subject is not an object id, or both are named", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store is away", body = Problem, content_type = "application/problem+json"),
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

/// Ends many.
#[utoipa::path(
    delete,
    path = "/gateway/api/sessions",
    tag = "Administration",
    operation_id = "endSessions",
    summary = "End minted sessions",
    description = "Of a subject, of a client app, or all: one of the three must be asked for. Each is ended for good, on all instances within two seconds, and written down: before, or as soon as the database can be. Sessions of browser users are left alone.",
    params(
        ("subject" = Option<String>, Query, description = "Those of this user or service principal: Entra's object id", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
        ("client" = Option<String>, Query, description = "Those of this client app", max_length = 256, pattern = "^[ -~]+$", example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
        ("all" = Option<bool>, Query, description = "All of them", example = true),
    ),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "They have ended", body = SessionsEnded, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, a page of another origin, or a form's token that is not this session's", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "None of the three is asked for, or more than one", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store is away: some may have ended", body = Problem, content_type = "application/problem+json"),
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
        _ => return Err(Refusal::Input("Name a subject, or a client, or say all=true")),
    };
    let restrictions = external_access.restrictions();
    let ended = revocation::end(restrictions, &which, admin.author(), None).await?;
    Ok(Json(SessionsEnded { ended }))
}

/// Ends one.
#[utoipa::path(
    delete,
    path = "/gateway/api/sessions/{id}",
    tag = "Administration",
    operation_id = "endSession",
    summary = "End a minted session",
    description = "By its handle, or by its whole id. It is written down, then ended for good, on all instances within two seconds.",
    params(("id" = String, Path, description = "The session's handle", example = "5b477192a010a287", max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "It has ended", body = SessionsEnded, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, a page of another origin, or a form's token that is not this session's", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No minted session of that name lives", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the database is away", body = Problem, content_type = "application/problem+json"),
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
