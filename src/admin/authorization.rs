//! Authorization of administrators: the user of a live SimpleChat session with the app role `Admin`.
//! Checked for each request; minted sessions and tokens are never accepted.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Method, request::Parts};

use crate::{
    activity::{Activity, Actor, Author, EventKind, Record},
    authz::{
        admin::AdminDenial,
        client_info::{ClientInfo, PublicOrigin},
        session::SessionId,
    },
    clock,
    flask::{account::Account, cookie::SessionCookie},
    gateway::Gateway,
    http::{context::RequestContext, endpoint::Endpoint, error::Refusal},
    sessions::{SessionStatus, Sessions, SessionsError},
};

/// Paths of the page's exports.
const FILES: [&str; 2] = ["/gateway/admin/activity.csv", "/gateway/admin/activity.jsonl"];

/// An authorized administrator, made only by [`check`].
pub(crate) struct Admin {
    account: Account,
    author: Author,
    /// Client address and public origin of the request.
    client_info: ClientInfo,
    key: hmac::Key,
}

/// Input of the CSRF token, which is an HMAC under the session ID: it discloses nothing about the ID.
const LABEL: &[u8] = b"simplechat-gateway: a form of the administrator's page";

impl Admin {
    /// CSRF token: binds a form to the session.
    pub(crate) fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, LABEL))
    }

    /// True if the CSRF token belongs to this session; compares in constant time.
    pub(crate) fn has_token(&self, token: &str) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(token);
        tag.is_ok_and(|tag| hmac::verify(&self.key, LABEL, &tag).is_ok())
    }

    /// Refuses the request and records the denial.
    pub(crate) async fn deny(&self, gateway: &Gateway, denial: AdminDenial) -> Refusal {
        deny(&gateway.sessions, &gateway.activity, denial, &self.author, None).await
    }

    /// Author of this administrator's decisions.
    pub(crate) fn author(&self) -> &Author {
        &self.author
    }

    /// Display name: name, e-mail address or object ID.
    pub(crate) fn name(&self) -> String {
        let Account { oid, name, email, .. } = &self.account;
        let name = name.clone().or_else(|| email.clone());
        name.or_else(|| oid.map(|oid| oid.to_string())).unwrap_or_else(|| "unnamed".to_owned())
    }

    /// E-mail address, unless it is the display name.
    pub(crate) fn email(&self) -> Option<String> {
        let name = self.name();
        self.account.email.clone().filter(|email| *email != name)
    }

    /// Public origin of the request.
    pub(crate) fn public_origin(&self) -> &PublicOrigin {
        &self.client_info.origin
    }

    /// Public origin of the request as text; a placeholder if it is unknown.
    pub(crate) fn origin(&self) -> String {
        match self.public_origin() {
            PublicOrigin::Known(origin) | PublicOrigin::Unlisted(origin) => origin.to_string(),
            PublicOrigin::Unnamed => "https://HOST".to_owned(),
        }
    }
}

impl FromRequestParts<Gateway> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Response> {
        let Some(context) = parts.extensions.get::<Arc<RequestContext>>().cloned() else {
            return Err(Refusal::Internal.into_response());
        };
        let path = parts.uri.path();
        let is_page = matches!(context.endpoint(), Endpoint::AdminPage(_));
        // Exports cost work: no page of another site may start one.
        let may_be_linked = is_page && !FILES.contains(&path);
        match check(gateway, &context, &parts.method, &parts.headers, may_be_linked).await {
            Ok(admin) => Ok(admin),
            Err(refusal) => Err(refusal.into_response()),
        }
    }
}

async fn check(
    gateway: &Gateway,
    context: &RequestContext,
    method: &Method,
    headers: &HeaderMap,
    may_be_linked: bool,
) -> Result<Admin, Refusal> {
    let Gateway { sessions, activity, cookie, .. } = gateway;
    let cookie = SessionCookie(cookie);
    let Some(id) = cookie.flask_id(headers) else {
        let author = context.author(Actor::default());
        let minted = cookie.minted_in(headers);
        return Err(refuse_minted(sessions, activity, &minted, &author).await?);
    };
    let account = sessions.account(&id).await?.ok_or(Refusal::NotSignedIn)?;
    let author = context.author(actor(&account));
    let denial = if !account.is_admin() {
        Some(AdminDenial::NotAnAdministrator)
    } else if !is_same_origin(method, headers, context.client_info(), may_be_linked) {
        Some(AdminDenial::ForeignOrigin)
    } else {
        None
    };
    if let Some(denial) = denial {
        return Err(deny(sessions, activity, denial, &author, None).await);
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

/// Reason for refusing a request that has minted sessions at most. Unknown and ended sessions are
/// ignored.
async fn refuse_minted(
    sessions: &Sessions,
    activity: &Activity,
    minted: &[SessionId],
    author: &Author,
) -> Result<Refusal, SessionsError> {
    for id in minted {
        let is_active = sessions.status(id, clock::now())? == SessionStatus::Active;
        if is_active && sessions.has(id).await? {
            let denial = AdminDenial::MintedSession;
            return Ok(deny(sessions, activity, denial, author, Some(id)).await);
        }
    }
    Ok(Refusal::NotSignedIn)
}

async fn deny(
    sessions: &Sessions,
    activity: &Activity,
    denial: AdminDenial,
    author: &Author,
    session: Option<&SessionId>,
) -> Refusal {
    let mut record = Record::refused(EventKind::AdminDenied, denial.reason()).by(author);
    if let Some(id) = session {
        let subject = sessions.subject_of(id).await.ok().flatten();
        record.subject = subject.map(|subject| subject.to_string());
        record.session = Some(id.handle());
        let account = sessions.minted_account(id).await.ok().flatten();
        record.actor = account.as_ref().map(actor).unwrap_or_default();
    }
    let caller = record.session.as_deref().or(record.actor.oid.as_deref());
    let key = format!("{} {}", denial.reason(), caller.unwrap_or_default());
    activity.record_repeated_denial(key, record);
    denial.into()
}

/// True unless the browser reports that a page of another origin sends the request (Fetch Metadata,
/// `Origin`). Programs send neither header. Another origin may link to the page (`may_be_linked`): it
/// cannot read the response.
fn is_same_origin(
    method: &Method,
    headers: &HeaderMap,
    client_info: &ClientInfo,
    may_be_linked: bool,
) -> bool {
    let all = |name: &str, is_allowed: &dyn Fn(&[u8]) -> bool| {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).all(is_allowed)
    };
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_document = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    let is_link = is_read && may_be_linked && is_document;
    let is_site_allowed =
        |site: &[u8]| site == b"same-origin" || is_read && site == b"none" || is_link;
    let is_origin_allowed = |origin: &[u8]| match &client_info.origin {
        PublicOrigin::Known(known) => known.to_string().as_bytes() == origin,
        PublicOrigin::Unlisted(_) | PublicOrigin::Unnamed => false,
    };
    // Only the browser sets Sec-Fetch-Site. With it, `Origin` may differ from the origin that the
    // gateway derives: an unlisted host, or a proxy that does not report TLS.
    let is_stated = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    all("sec-fetch-site", &is_site_allowed)
        && (is_read || is_stated || all("origin", &is_origin_allowed))
}
