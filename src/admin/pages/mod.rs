//! The administration page: views rendered on the server, complete without scripts.

mod access;
mod activity;
mod blocks;
pub(crate) mod csv;
#[expect(
    unreachable_pub,
    clippy::inline_always,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "generated and required by askama::filter_fn"
)]
mod filters;
mod flash;
pub(crate) mod form;
mod guide;
mod health;
pub(super) mod refused;
mod sessions;

use askama::Template;
use axum::{
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;

use self::flash::Notice;
use super::Admin;
use crate::{activity::Actor, gateway::Gateway, http::error::Refusal};

/// Style sheet shared with the API reference, and the page's own.
const STYLE: &str = concat!(
    include_str!("../../../templates/page.css"),
    include_str!("../../../templates/admin/page.css")
);
/// Optional script: dialogs, copy buttons, refresh.
const SCRIPT: &str = include_str!("../../../templates/admin/page.js");

/// Routes of the page and its forms. The `OpenAPI` document describes the JSON API in their place.
pub(super) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .route("/gateway/admin", get(access::get))
        .route("/gateway/admin/", get(async || to_page(View::Access.path())))
        .route("/gateway/admin/access/enable", get(access::get_enable).post(access::post_enable))
        .route("/gateway/admin/access/disable", post(access::post_disable))
        .route("/gateway/admin/blocks", post(blocks::post))
        .route("/gateway/admin/blocks/remove", post(blocks::post_remove))
        .route("/gateway/admin/guide", get(guide::get))
        .route("/gateway/admin/sessions", get(sessions::get))
        .route("/gateway/admin/sessions/end", post(sessions::post_end))
        .route("/gateway/admin/activity", get(activity::get))
        .route("/gateway/admin/activity.csv", get(activity::get_csv))
        .route("/gateway/admin/activity.jsonl", get(activity::get_jsonl))
        .route("/gateway/admin/health", get(health::get))
        .route("/gateway/admin/page.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route(
            "/gateway/admin/page.js",
            get(async || asset("text/javascript; charset=utf-8", SCRIPT)),
        )
}

fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

/// A view of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Access,
    Guide,
    Sessions,
    Activity,
    Health,
}

impl View {
    const ALL: [Self; 5] =
        [Self::Access, Self::Guide, Self::Sessions, Self::Activity, Self::Health];

    fn name(self) -> &'static str {
        match self {
            Self::Access => "External access",
            Self::Guide => "Set-up guide",
            Self::Sessions => "Sessions",
            Self::Activity => "Activity",
            Self::Health => "Health",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Access => "/gateway/admin",
            Self::Guide => "/gateway/admin/guide",
            Self::Sessions => "/gateway/admin/sessions",
            Self::Activity => "/gateway/admin/activity",
            Self::Health => "/gateway/admin/health",
        }
    }

    /// View of a path: the view itself, its exports and its forms.
    fn of(path: &str) -> Self {
        let view = Self::ALL.into_iter().rfind(|view| path.starts_with(view.path()));
        view.unwrap_or(Self::Access)
    }
}

/// Frame around every view.
struct Frame {
    view: View,
    /// Display name of the administrator.
    name: String,
    email: Option<String>,
    /// CSRF token for forms.
    token: String,
    notice: Option<Notice>,
}

impl Frame {
    fn new(view: View, admin: &Admin, notice: Option<Notice>) -> Self {
        Self { view, name: admin.name(), email: admin.email(), token: admin.token(), notice }
    }

    fn version(&self) -> &'static str {
        let _ = self;
        env!("CARGO_PKG_VERSION")
    }

    fn views(&self) -> [(View, bool); 5] {
        View::ALL.map(|view| (view, view == self.view))
    }
}

/// Display name of an actor: name, e-mail address or object ID.
fn actor_name(actor: &Actor) -> Option<&str> {
    let name = actor.name.as_deref().or(actor.email.as_deref());
    name.or(actor.oid.as_deref())
}

/// Renders a page as a response.
fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let html_type = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(header::CONTENT_TYPE, html_type)], html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            Refusal::Internal.into_response()
        }
    }
}

/// Redirects the browser to a page, with `GET`.
fn to_page(location: &str) -> Response {
    Redirect::to(location).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_and_forms_belong_to_their_view() {
        for (path, view) in [
            ("/gateway/admin", View::Access),
            ("/gateway/admin/access/enable", View::Access),
            ("/gateway/admin/blocks/remove", View::Access),
            ("/gateway/admin/sessions/end", View::Sessions),
            ("/gateway/admin/activity.csv", View::Activity),
            ("/gateway/admin/guide", View::Guide),
            ("/gateway/admin/health", View::Health),
        ] {
            assert_eq!(View::of(path), view, "{path}");
        }
    }
}
