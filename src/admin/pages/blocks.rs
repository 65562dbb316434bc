//! Forms that keep somebody out, and let them in again.

use axum::{extract::State, response::Response};

use super::{View, flash::Flash, form::Form};
use crate::{
    admin::api::blocks, control::restrictions::Recording, gateway::Administered,
    http::error::Refusal,
};

/// Keeps somebody out. A time of one's own goes before one from the list.
pub(super) async fn post(
    State(administered): State<Administered>,
    form: Form,
) -> Result<Response, Refusal> {
    let blocked = blocks::whom(form.field("kind"), form.field("who"))?;
    let own = form.field("own_span");
    let span = if own.is_empty() { form.field("span") } else { own };
    let flash = match blocks::block(&administered, &form.admin, blocked, span).await? {
        Recording::Recorded(_) => Flash::Blocked,
        Recording::Waits(_) => Flash::BlockedUnrecorded,
    };
    Ok(flash.at(View::Access, None))
}

/// Lets somebody in again.
pub(super) async fn post_remove(
    State(administered): State<Administered>,
    form: Form,
) -> Result<Response, Refusal> {
    let blocked = blocks::whom(form.field("kind"), form.field("who"))?;
    let was = blocks::unblock(&administered, &form.admin, blocked).await?;
    let flash = if was { Flash::Unblocked } else { Flash::NotBlocked };
    Ok(flash.at(View::Access, None))
}
