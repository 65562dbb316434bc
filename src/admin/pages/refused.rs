//! Refusals as pages: what happened, what to do next, and links that lead somewhere else than to the same
//! refusal.

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
    /// Address to return to after the sign-in.
    come_back: Option<String>,
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
                "This page is for SimpleChat’s administrators. It opens with the session of your sign-in to SimpleChat, for 8 hours after you last used SimpleChat.",
                "If you sent a form, nothing has changed: send it again after the sign-in.",
            ],
            vec![SIGN_IN, open("I have signed in: open this page")],
        ),
        "minted_session" => (&[], vec![SIGN_IN, SIMPLECHAT]),
        "not_an_administrator" => (
            &[
                "Admin is an app role in Microsoft Entra. Whoever manages SimpleChat’s enterprise application there assigns it, under Users and groups.",
                "Roles are read at the sign-in: once the role is assigned, sign out of SimpleChat and in again.",
            ],
            vec![SIMPLECHAT],
        ),
        "session_store" => (
            &[
                "The store that holds SimpleChat’s sessions does not answer, so nobody’s session can be read. Sign-in to SimpleChat is affected as well. Try again in a few seconds; operators find the cause in the gateway’s log.",
            ],
            vec![open("Try again"), SIMPLECHAT],
        ),
        "activity_log" => (
            &["Sessions and Health work without the database."],
            vec![
                open("Open the page again"),
                Link { href: View::Sessions.path(), text: View::Sessions.name() },
                Link { href: View::Health.path(), text: View::Health.name() },
            ],
        ),
        "method_not_allowed" => {
            (&["This address takes forms alone."], vec![open("Open the page"), SIMPLECHAT])
        }
        _ => (&[], vec![open("Open the page again"), SIMPLECHAT]),
    };
    let signs_in = links.iter().any(|link| link.href == SIGN_IN.href);
    let address = || summary.origin.clone().unwrap_or_default() + view.path();
    let refused = Refused {
        status: status.as_u16(),
        title: title(status),
        // The title is enough.
        detail: (status != StatusCode::UNAUTHORIZED).then_some(summary.detail),
        advice,
        come_back: signs_in.then(address),
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
        StatusCode::UNAUTHORIZED => "Sign in, then come back to this page",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::CONFLICT => "Not decided here",
        StatusCode::SERVICE_UNAVAILABLE => "Not at the moment",
        _ => "That did not work",
    }
}
