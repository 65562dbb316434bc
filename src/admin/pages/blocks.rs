//! Forms that block and unblock a user or an app.

use axum::{extract::State, response::Response};

use super::{View, flash::Flash, form::Form};
use crate::{
    admin::api::blocks,
    control::{decisions, external_access::ExternalAccess, restrictions::Recording},
    http::error::Refusal,
};

/// Form that blocks. A custom duration takes precedence over one from the list.
pub(super) async fn post(
    State(external_access): State<ExternalAccess>,
    form: Form,
) -> Result<Response, Refusal> {
    let blocked = blocks::target(form.field("kind"), form.field("who"))?;
    let custom = form.field("own_span");
    let span = if custom.is_empty() { form.field("span") } else { custom };
    let author = form.admin.author();
    let flash = match decisions::block(&external_access, blocked, span, author).await? {
        Recording::Recorded(_) => Flash::Blocked,
        Recording::Pending(_) => Flash::BlockedUnrecorded,
    };
    Ok(flash.at(View::Access, None))
}

/// Form that unblocks.
pub(super) async fn post_remove(
    State(external_access): State<ExternalAccess>,
    form: Form,
) -> Result<Response, Refusal> {
    let blocked = blocks::target(form.field("kind"), form.field("who"))?;
    let author = form.admin.author().clone();
    let was = decisions::unblock(&external_access, blocked, author).await?;
    let flash = if was { Flash::Unblocked } else { Flash::NotBlocked };
    Ok(flash.at(View::Access, None))
}
