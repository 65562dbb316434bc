//! Who is an administrator: whoever bears a live session of SimpleChat's own whose user has the app role
//! `Admin`. Asked anew for everything; a minted session never counts, nor does a token.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::{
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Method, request::Parts};

use super::{Administered, FILES};
use crate::{
    activity::{Actor, Author, EventKind, Record},
    authz::{
        admin::AdminDenial,
        client_info::{ClientInfo, PublicOrigin},
        session::SessionId,
    },
    clock,
    flask::cookie::SessionCookie,
    http::{context::RequestContext, endpoint::Endpoint, error::Refusal},
    sessions::{Account, SessionStatus, SessionsError},
};

/// An administrator who asks for something, from a page of ours or by a program.
pub(crate) struct Admin {
    pub(crate) account: Account,
    pub(crate) author: Author,
    /// Which way the request came.
    pub(crate) client_info: ClientInfo,
    key: hmac::Key,
}

/// What is signed with the session's id; with the form's purpose it says nothing of the id.
const LABEL: &[u8] = b"simplechat-gateway: a form of the administrator's page";

impl Admin {
    /// Binds a form to the session.
    pub(crate) fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, LABEL))
    }

    /// Whether a token is this session's; compared in constant time.
    pub(crate) fn has_token(&self, token: &str) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(token);
        tag.is_ok_and(|tag| hmac::verify(&self.key, LABEL, &tag).is_ok())
    }

    /// Refuses, and writes that down.
    pub(crate) async fn deny(&self, administered: &Administered, denial: AdminDenial) -> Refusal {
        deny(administered, denial, &self.author, None).await
    }

    /// How the administrator is called.
    pub(crate) fn name(&self) -> String {
        let Account { oid, name, email, .. } = &self.account;
        let named = name.clone().or_else(|| email.clone());
        named.or_else(|| oid.map(|oid| oid.to_string())).unwrap_or_else(|| "unnamed".to_owned())
    }

    /// The origin under which the administrator knows this deployment.
    pub(crate) fn origin(&self) -> String {
        match &self.client_info.origin {
            PublicOrigin::Known(origin) | PublicOrigin::Unlisted(origin) => origin.to_string(),
            PublicOrigin::Unnamed => "https://HOST".to_owned(),
        }
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Administered: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let administered = Administered::from_ref(state);
        let Some(context) = parts.extensions.get::<Arc<RequestContext>>().cloned() else {
            return Err(Refusal::Internal.into_response());
        };
        let path = parts.uri.path();
        let is_page = matches!(context.endpoint(), Endpoint::AdminPage(_));
        // A file is work, which no other page may cause.
        let may_be_linked = is_page && !FILES.contains(&path);
        match admit(&administered, &context, &parts.method, &parts.headers, may_be_linked).await {
            Ok(admin) => Ok(admin),
            Err(refusal) => Err(refusal.into_response()),
        }
    }
}

async fn admit(
    administered: &Administered,
    context: &RequestContext,
    method: &Method,
    headers: &HeaderMap,
    may_be_linked: bool,
) -> Result<Admin, Refusal> {
    let Administered { sessions, cookie, .. } = administered;
    let cookie = SessionCookie(cookie);
    let Some(id) = cookie.flask_id(headers) else {
        let author = context.author(Actor::default());
        return Err(refuse_minted(administered, &cookie.minted_in(headers), &author).await?);
    };
    let account = sessions.account(&id).await?.ok_or(Refusal::NotSignedIn)?;
    let author = context.author(actor(&account));
    if !account.is_admin() {
        return Err(deny(administered, AdminDenial::NotAnAdministrator, &author, None).await);
    }
    if !is_same_origin(method, headers, context.client_info(), may_be_linked) {
        return Err(deny(administered, AdminDenial::ForeignOrigin, &author, None).await);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, id.as_str().as_bytes());
    Ok(Admin { account, author, client_info: context.client_info().clone(), key })
}

fn actor(account: &Account) -> Actor {
    Actor {
        oid: account.oid.map(|oid| oid.to_string()),
        name: account.name.clone(),
        email: account.email.clone(),
    }
}

/// Why a request that bears minted sessions at most is refused. One that nobody knows, or that is over, is
/// none.
async fn refuse_minted(
    administered: &Administered,
    minted: &[SessionId],
    author: &Author,
) -> Result<Refusal, SessionsError> {
    let sessions = &administered.sessions;
    for id in minted {
        let is_live = sessions.status(id, clock::now())? == SessionStatus::Active;
        if is_live && sessions.has(id).await? {
            let denial = AdminDenial::MintedSession;
            return Ok(deny(administered, denial, author, Some(id)).await);
        }
    }
    Ok(Refusal::NotSignedIn)
}

async fn deny(
    administered: &Administered,
    denial: AdminDenial,
    author: &Author,
    session: Option<&SessionId>,
) -> Refusal {
    let mut record = Record::refused(EventKind::AdminDenied, denial.reason()).by(author);
    if let Some(id) = session {
        let subject = administered.sessions.subject_of(id).await.ok().flatten();
        record.subject = subject.map(|subject| subject.to_string());
        record.session = Some(id.handle());
        let account = administered.sessions.minted_account(id).await.ok().flatten();
        record.actor = account.as_ref().map(actor).unwrap_or_default();
    }
    let whose = record.session.as_deref().or(record.actor.oid.as_deref());
    let whose = format!("{} {}", denial.reason(), whose.unwrap_or_default());
    administered.activity.denied_again(whose, record);
    denial.into()
}

/// Whether a browser says that a page of this origin asks, or an address that was typed in. Programs say
/// nothing of it. A link from elsewhere may lead to the page (`may_be_linked`): what it shows, the other page does
/// not see.
fn is_same_origin(
    method: &Method,
    headers: &HeaderMap,
    client_info: &ClientInfo,
    may_be_linked: bool,
) -> bool {
    let all = |name: &str, is_fine: &dyn Fn(&[u8]) -> bool| {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).all(is_fine)
    };
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_document = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    let is_link = is_read && may_be_linked && is_document;
    let is_site_fine =
        |site: &[u8]| site == b"same-origin" || is_read && site == b"none" || is_link;
    let is_origin_fine = |origin: &[u8]| match &client_info.origin {
        PublicOrigin::Known(known) => known.to_string().as_bytes() == origin,
        PublicOrigin::Unlisted(_) | PublicOrigin::Unnamed => false,
    };
    // A browser says that itself, and no page can; an origin of ours that we do not know (an unlisted host, a
    // proxy that does not tell of TLS) is none of another's.
    let states_it = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    all("sec-fetch-site", &is_site_fine) && (is_read || states_it || all("origin", &is_origin_fine))
}

/// To a page of ours, to be got.
pub(crate) fn to_page(location: &str) -> Response {
    Redirect::to(location).into_response()
}
