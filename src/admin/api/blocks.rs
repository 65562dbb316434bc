//! Who is kept out for a while: no login, no guarded route, and live sessions end.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::call::{Call, Decider};
use crate::{
    activity::{BlockInForce, Blocked},
    admin::Admin,
    control::{decisions, external_access::ExternalAccess},
    http::error::{Problem, Refusal},
};

/// Who is kept out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockList {
    #[schema(max_items = 10_000)]
    blocks: Vec<BlockInForce>,
}

/// Whom to keep out: a subject or a client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockDecision {
    /// A user or a service principal: Entra's object id.
    #[serde(default)]
    #[schema(format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa")]
    subject: Option<String>,
    /// A client app's id.
    #[serde(default)]
    #[schema(format = "uuid", max_length = 36)]
    client: Option<String>,
    /// For how long: 1s to 365d.
    #[serde(rename = "for")]
    #[schema(example = "24h", max_length = 16, pattern = "^[0-9]+(ms|s|m|h|d)$")]
    span: String,
}

/// Whom a form or a decision means.
pub(crate) fn whom(kind: &str, who: &str) -> Result<Blocked, Refusal> {
    let who = Uuid::try_parse(who).map_err(|_| Refusal::Input("Whom to block is not a GUID"))?;
    match kind {
        "subject" => Ok(Blocked::Subject(who.to_string())),
        "client" => Ok(Blocked::Client(who.to_string())),
        _ => Err(Refusal::Input("A block is of a subject or of a client")),
    }
}

/// Blocks in force, newest first.
pub(crate) async fn all(external_access: &ExternalAccess) -> Result<Vec<BlockInForce>, Refusal> {
    let blocks = decisions::blocks(external_access).await?;
    Ok(blocks.into_iter().map(BlockInForce::from).collect())
}

/// Lists them.
#[utoipa::path(
    get,
    path = "/gateway/api/blocks",
    tag = "Administration",
    operation_id = "getBlocks",
    summary = "Who is kept out for a while",
    description = "Subjects and client apps that may neither log in nor call what is guarded, and whose minted sessions were ended.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "They are", body = BlockList, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no database", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(external_access): State<ExternalAccess>,
    _: Admin,
) -> Result<Json<BlockList>, Refusal> {
    Ok(Json(BlockList { blocks: all(&external_access).await? }))
}

/// Adds one.
#[utoipa::path(
    post,
    path = "/gateway/api/blocks",
    tag = "Administration",
    operation_id = "block",
    summary = "Keep somebody out for a while",
    description = "A subject or a client app: no login, no guarded route, and live minted sessions end, on all instances within two seconds. What was decided before about them counts no more. Always takes effect, and is written down as soon as the database can be. Sessions of browser users are left alone.",
    request_body(content = BlockDecision, content_type = "application/json"),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "All who are kept out now", body = BlockList, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, a page of another origin, or a form's token that is not this session's", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no database", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Neither a subject nor a client, or both; no GUID; no such time", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store is away: nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn post(
    State(external_access): State<ExternalAccess>,
    Call { admin, decision }: Call<BlockDecision>,
) -> Result<Json<BlockList>, Refusal> {
    let blocked = match (&decision.subject, &decision.client) {
        (Some(subject), None) => whom("subject", subject)?,
        (None, Some(client)) => whom("client", client)?,
        _ => return Err(Refusal::Input("Name a subject or a client")),
    };
    decisions::block(&external_access, blocked, &decision.span, admin.author()).await?;
    Ok(Json(BlockList { blocks: all(&external_access).await? }))
}

/// Removes one.
#[utoipa::path(
    delete,
    path = "/gateway/api/blocks/{kind}/{who}",
    tag = "Administration",
    operation_id = "unblock",
    summary = "Let somebody in again",
    description = "On all instances within two seconds.",
    params(
        ("kind" = String, Path, description = "`subject` or `client`", example = "subject", max_length = 7, pattern = "^(subject|client)$"),
        ("who" = String, Path, description = "Entra's object id, or the client app's id", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
    ),
    security(("administrator" = [])),
    responses(
        (status = 204, description = "Nobody keeps them out any more"),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, a page of another origin, or a form's token that is not this session's", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nobody kept them out", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no database", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No GUID, or neither a subject nor a client", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the database is away: nothing has changed, or it is not known whether it has", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(external_access): State<ExternalAccess>,
    Decider(admin): Decider,
    named: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let Path((kind, who)) = named.map_err(|_| Refusal::NotFound)?;
    let blocked = whom(&kind, &who)?;
    let was = decisions::unblock(&external_access, blocked, admin.author().clone()).await?;
    if was { Ok(StatusCode::NO_CONTENT) } else { Err(Refusal::NotFound) }
}
