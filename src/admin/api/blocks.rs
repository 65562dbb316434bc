//! Temporary blocks of users and apps: no login, no guarded route, live sessions end.

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

/// Blocks in force, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockList {
    #[schema(max_items = 10_000)]
    blocks: Vec<BlockInForce>,
}

/// A block of either a subject or a client.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockDecision {
    /// Object ID of a user or a service principal.
    #[serde(default)]
    #[schema(format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa")]
    subject: Option<String>,
    /// Client application ID.
    #[serde(default)]
    #[schema(format = "uuid", max_length = 36)]
    client: Option<String>,
    /// Duration, from 1s to 365d.
    #[serde(rename = "for")]
    #[schema(example = "24h", max_length = 16, pattern = "^[0-9]+(ms|s|m|h|d)$")]
    span: String,
}

/// Parses the target of a block.
pub(crate) fn target(kind: &str, who: &str) -> Result<Blocked, Refusal> {
    let who = Uuid::try_parse(who)
        .map_err(|_| Refusal::Input("The ID of the user or app must be a GUID"))?;
    match kind {
        "subject" => Ok(Blocked::Subject(who.to_string())),
        "client" => Ok(Blocked::Client(who.to_string())),
        _ => Err(Refusal::Input("The kind of a block must be subject or client")),
    }
}

/// Blocks in force, newest first.
pub(crate) async fn all(external_access: &ExternalAccess) -> Result<Vec<BlockInForce>, Refusal> {
    let blocks = decisions::blocks(external_access).await?;
    Ok(blocks.into_iter().map(BlockInForce::from).collect())
}

/// Returns the blocks.
#[utoipa::path(
    get,
    path = "/gateway/api/blocks",
    tag = "Administration",
    operation_id = "getBlocks",
    summary = "List blocks",
    description = "Users and client applications that may neither log in nor call guarded routes, and whose gateway-issued sessions were ended.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Blocks in force", body = BlockList, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No database is configured", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or database unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(external_access): State<ExternalAccess>,
    _: Admin,
) -> Result<Json<BlockList>, Refusal> {
    Ok(Json(BlockList { blocks: all(&external_access).await? }))
}

/// Adds a block.
#[utoipa::path(
    post,
    path = "/gateway/api/blocks",
    tag = "Administration",
    operation_id = "block",
    summary = "Block a user or app",
    description = "Denies login and guarded routes and ends gateway-issued sessions, on all instances within two seconds. Replaces an earlier block of the same user or app. Always takes effect, and is recorded as soon as the database can be written. Browser sessions are not affected.",
    request_body(content = BlockDecision, content_type = "application/json"),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Blocks in force", body = BlockList, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, a page of another origin, or the CSRF token of another session", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No database is configured", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body exceeds 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Neither subject nor client, or both; not a GUID; or an invalid duration", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable: nothing has changed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn post(
    State(external_access): State<ExternalAccess>,
    Call { admin, decision }: Call<BlockDecision>,
) -> Result<Json<BlockList>, Refusal> {
    let blocked = match (&decision.subject, &decision.client) {
        (Some(subject), None) => target("subject", subject)?,
        (None, Some(client)) => target("client", client)?,
        _ => return Err(Refusal::Input("Specify either subject or client")),
    };
    decisions::block(&external_access, blocked, &decision.span, admin.author()).await?;
    Ok(Json(BlockList { blocks: all(&external_access).await? }))
}

/// Removes a block.
#[utoipa::path(
    delete,
    path = "/gateway/api/blocks/{kind}/{who}",
    tag = "Administration",
    operation_id = "unblock",
    summary = "Unblock a user or app",
    description = "Applies to all instances within two seconds.",
    params(
        ("kind" = String, Path, description = "`subject` or `client`", example = "subject", max_length = 7, pattern = "^(subject|client)$"),
        ("who" = String, Path, description = "Object ID, or client application ID", format = "uuid", max_length = 36, example = "00000000-0000-0000-0000-0000000000aa"),
    ),
    security(("administrator" = [])),
    responses(
        (status = 204, description = "Unblocked"),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, a page of another origin, or the CSRF token of another session", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Not blocked", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No database is configured", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body exceeds 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not a GUID, or neither subject nor client", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or database unavailable. The change may not have been applied; check the blocks before retrying", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(external_access): State<ExternalAccess>,
    Decider(admin): Decider,
    named: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let Path((kind, who)) = named.map_err(|_| Refusal::NotFound)?;
    let blocked = target(&kind, &who)?;
    let was = decisions::unblock(&external_access, blocked, admin.author().clone()).await?;
    if was { Ok(StatusCode::NO_CONTENT) } else { Err(Refusal::NotFound) }
}
