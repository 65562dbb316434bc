//! Refusals as pages: the cause, the next step, and links that do not lead back to the same refusal.

use askama::Template;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::View;
use crate::http::error::ProblemSummary;

/// SimpleChat's sign-in, which ends on SimpleChat's home page.
const SIGN_IN: Link = Link { href: "/login", text: "Sign in to SimpleChat" };
const SIMPLECHAT: Link = Link { href: "/", text: "SimpleChat’s home page" };

#[derive(Clone, Copy)]
struct Link {
    href: &'static str,
    text: &'static str,
}

#[derive(Template)]
#[template(path = "admin/refused.html")]
struct Refused {
    status: u16,
    title: &'static str,
    detail: Option<String>,
    advice: &'static [&'static str],
    /// URL to return to after the sign-in.
    return_to: Option<String>,
    links: Vec<Link>,
    request_id: String,
}

/// Turns the answer to a refused request at `path` into a page; other answers are returned unchanged.
pub(in crate::admin) fn page(answer: Response, path: &str) -> Response {
    let Some(summary) = answer.extensions().get::<ProblemSummary>().cloned() else {
        return answer;
    };
    let status = answer.status();
    let view = View::of(path);
    let open = |text| Link { href: view.path(), text };
    let (advice, links): (&'static [&'static str], Vec<Link>) = match summary.reason {
        "not_signed_in" => (
            &[
                "This page is for SimpleChat’s administrators. It uses your SimpleChat session, for 8 hours after you last used SimpleChat.",
                "If you sent a form, nothing has changed. Send it again after you sign in.",
            ],
            vec![SIGN_IN, open("I have signed in: open this page")],
        ),
        "minted_session" => (&[], vec![SIGN_IN, SIMPLECHAT]),
        "not_an_administrator" => (
            &[
                "Admin is an app role in Microsoft Entra. An administrator of SimpleChat’s enterprise application assigns it, under Users and groups.",
                "Roles are read at sign-in. After the role is assigned, sign out of SimpleChat and sign in again.",
            ],
            vec![SIMPLECHAT],
        ),
        "session_store" => (
            &[
                "The session store is unavailable, so your session cannot be verified. SimpleChat’s sign-in is affected as well. Try again in a few seconds. The gateway’s log contains the cause.",
            ],
            vec![open("Try again"), SIMPLECHAT],
        ),
        "activity_log" => (
            &["Sessions and Health are available without the database."],
            vec![
                open("Open the page again"),
                Link { href: View::Sessions.path(), text: View::Sessions.name() },
                Link { href: View::Health.path(), text: View::Health.name() },
            ],
        ),
        "method_not_allowed" => {
            (&["This URL accepts only submitted forms."], vec![open("Open the page"), SIMPLECHAT])
        }
        _ => (&[], vec![open("Open the page again"), SIMPLECHAT]),
    };
    let signs_in = links.iter().any(|link| link.href == SIGN_IN.href);
    let address = || summary.origin.clone().unwrap_or_default() + view.path();
    let refused = Refused {
        status: status.as_u16(),
        title: title(status),
        // The title contains it.
        detail: (status != StatusCode::UNAUTHORIZED).then_some(summary.detail),
        advice,
        return_to: signs_in.then(address),
        links,
        request_id: summary.request_id,
    };
    let Ok(html) = refused.render() else {
        return answer;
    };
    let (mut parts, _) = answer.into_parts();
    let html_type = HeaderValue::from_static("text/html; charset=utf-8");
    parts.headers.insert(header::CONTENT_TYPE, html_type);
    Response::from_parts(parts, html.into())
}

fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "Sign in, then return to this page",
        StatusCode::FORBIDDEN => "Access denied",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::CONFLICT => "Managed by configuration",
        StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
        _ => "Request failed",
    }
}
