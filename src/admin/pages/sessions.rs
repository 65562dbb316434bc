//! Live minted sessions, and their end.

use askama::Template;
use axum::{extract::State, response::Response};
use http::{StatusCode, Uri};

use super::{Frame, View, flash::Flash, form::Form, page, timestamp::Timestamp};
use crate::{
    admin::{
        Admin,
        api::{access::end_sessions, sessions},
    },
    gateway::Administered,
    http::error::Refusal,
    sessions::{MintedSession, Which},
};

struct SessionRow {
    handle: String,
    subject: String,
    who: String,
    client: String,
    since: Option<Timestamp>,
    until: Timestamp,
    seen: Option<Timestamp>,
}

impl From<MintedSession> for SessionRow {
    fn from(session: MintedSession) -> Self {
        Self {
            handle: session.id,
            who: session.name.or(session.email).unwrap_or_else(|| session.subject.clone()),
            subject: session.subject,
            client: session.client,
            since: session.opened_at.map(Timestamp::of),
            until: Timestamp::of(session.expires_at),
            seen: session.last_seen.map(Timestamp::of),
        }
    }
}

#[derive(Template)]
#[template(path = "admin/sessions.html")]
struct SessionsView {
    frame: Frame,
    subject: String,
    client: String,
    rows: Vec<SessionRow>,
    /// How many there are in all, where not all are shown.
    count: Option<u64>,
}

impl SessionsView {
    fn is_filtered(&self) -> bool {
        !(self.subject.is_empty() && self.client.is_empty())
    }
}

/// The view.
pub(super) async fn get(
    State(administered): State<Administered>,
    admin: Admin,
    uri: Uri,
) -> Result<Response, Refusal> {
    let (mut subject, mut client) = (String::new(), String::new());
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "subject" => value.trim().clone_into(&mut subject),
            "client" => value.trim().clone_into(&mut client),
            _ => {}
        }
    }
    let which = sessions::which(&subject, &client)?.unwrap_or(Which::All);
    let (listed, count) = sessions::list(&administered, &which).await?;
    let rows = listed.into_iter().map(SessionRow::from).collect();
    let frame = Frame::new(View::Sessions, &admin, Flash::in_address(&uri));
    Ok(page(StatusCode::OK, &SessionsView { frame, subject, client, rows, count }))
}

/// Ends one, those of a subject or a client, or all.
pub(super) async fn post_end(
    State(administered): State<Administered>,
    form: Form,
) -> Result<Response, Refusal> {
    let named = sessions::which(form.field("subject"), form.field("client"))?;
    let which = match (form.field("session"), named) {
        ("", Some(which)) => which,
        ("", None) if form.is_ticked("all") => Which::All,
        ("", None) => return Ok(Flash::NotTicked.at(View::Sessions, None)),
        (handle, _) => sessions::one(handle)?,
    };
    Ok(match end_sessions(&administered, &form.admin, &which).await? {
        0 => Flash::NoneEnded.at(View::Sessions, None),
        count => Flash::Ended.at(View::Sessions, Some(count)),
    })
}
