//! Sessions page: live minted sessions, and forms that end them.

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use http::StatusCode;

use super::{
    Frame, View, filters,
    flash::{Flash, FlashQuery},
    form::Form,
    page,
};
use crate::{
    admin::{
        Admin,
        api::sessions::{self, SessionsQuery},
    },
    control::{external_access::ExternalAccess, revocation},
    http::error::Refusal,
    sessions::{MintedSession, Sessions, Which},
};

#[derive(Template)]
#[template(path = "admin/sessions.html")]
struct SessionsView {
    frame: Frame,
    query: SessionsQuery,
    rows: Vec<MintedSession>,
    /// Number of all sessions, if not all are shown.
    count: Option<u64>,
}

impl SessionsView {
    fn is_filtered(&self) -> bool {
        !(self.query.subject.is_empty() && self.query.client.is_empty())
    }
}

impl MintedSession {
    /// Display name of its user: name, e-mail address or object ID.
    fn who(&self) -> &str {
        self.name.as_deref().or(self.email.as_deref()).unwrap_or(&self.subject)
    }
}

/// Page with the sessions that match the query.
pub(super) async fn get(
    State(sessions): State<Sessions>,
    admin: Admin,
    Query(query): Query<SessionsQuery>,
    Query(flash): Query<FlashQuery>,
) -> Result<Response, Refusal> {
    let which = query.which()?.unwrap_or(Which::All);
    let (rows, count) = sessions::list(&sessions, &which).await?;
    let frame = Frame::new(View::Sessions, &admin, flash.notice);
    Ok(page(StatusCode::OK, &SessionsView { frame, query, rows, count }))
}

/// Form that ends one session, those of a user or an app, or all.
pub(super) async fn post_end(
    State(external_access): State<ExternalAccess>,
    form: Form,
) -> Result<Response, Refusal> {
    let named = sessions::which(form.field("subject"), form.field("client"))?;
    let which = match (form.field("session"), named) {
        ("", Some(which)) => which,
        ("", None) if form.is_ticked("all") => Which::All,
        ("", None) => return Ok(Flash::NotTicked.at(View::Sessions, None)),
        (handle, _) => sessions::one(handle)?,
    };
    let (restrictions, author) = (external_access.restrictions(), form.admin.author());
    Ok(match revocation::end(restrictions, &which, author, None).await? {
        0 => Flash::NoneEnded.at(View::Sessions, None),
        count => Flash::Ended.at(View::Sessions, Some(count)),
    })
}
