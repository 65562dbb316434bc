//! The page itself: written here, whole without any script, and what it looks like.

mod access;
mod activity;
mod blocks;
pub(crate) mod csv;
mod flash;
pub(crate) mod form;
mod guide;
mod health;
pub(super) mod refused;
mod sessions;
mod timestamp;

use askama::Template;
use axum::{
    extract::FromRef,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;

use self::flash::Notice;
use super::{Admin, authorization::to_page};
use crate::{gateway::Administered, http::error::Refusal};

/// How pages of ours look, and what this one has beside that.
const STYLE: &str = concat!(
    include_str!("../../../templates/page.css"),
    include_str!("../../../templates/admin/page.css")
);
/// What makes it handier: nothing needs it.
const SCRIPT: &str = include_str!("../../../templates/admin/page.js");

/// Of the page and its forms. They are no part of the `OpenAPI` document: their twins are.
pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Administered: FromRef<S>,
{
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

    /// The view that a path of the page belongs to: the view itself, its files, and its forms.
    fn of(path: &str) -> Self {
        let view = Self::ALL.into_iter().rfind(|view| path.starts_with(view.path()));
        view.unwrap_or(Self::Access)
    }
}

/// What stands around every view.
struct Frame {
    view: View,
    /// The administrator.
    name: String,
    email: Option<String>,
    /// For forms.
    token: String,
    notice: Option<Notice>,
}

impl Frame {
    fn new(view: View, admin: &Admin, notice: Option<Notice>) -> Self {
        let name = admin.name();
        let email = admin.account.email.clone().filter(|email| *email != name);
        Self { view, name, email, token: admin.token(), notice }
    }

    fn version(&self) -> &'static str {
        let _ = self;
        env!("CARGO_PKG_VERSION")
    }

    fn views(&self) -> [(View, bool); 5] {
        View::ALL.map(|view| (view, view == self.view))
    }
}

/// A page as an answer.
fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let html_type = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(header::CONTENT_TYPE, html_type)], html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Refusal::Internal.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_forms_belong_to_their_view() {
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
