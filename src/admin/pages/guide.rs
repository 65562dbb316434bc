//! Set-up guide page: steps with the values of this deployment, and checks of their progress.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Frame, View, page};
use crate::admin::{
    Admin,
    api::guide::{Check, CheckState, GuideSources, SetUpGuide},
};

#[derive(Template)]
#[template(path = "admin/guide.html")]
struct GuideView {
    frame: Frame,
    guide: SetUpGuide,
    manifest: String,
    easy_auth: String,
}

impl GuideView {
    fn checks<'a>(&'a self, ids: &'a [&str]) -> Vec<&'a Check> {
        let checks = self.guide.checks.iter();
        checks.filter(|check| ids.contains(&check.id)).collect()
    }

    fn passed(&self) -> usize {
        self.guide.checks.iter().filter(|check| check.state == CheckState::Ok).count()
    }
}

impl Check {
    fn class(&self) -> &'static str {
        match self.state {
            CheckState::Ok => "ok",
            CheckState::NotYet => "not-yet",
            CheckState::Unknown => "unknown",
        }
    }

    fn word(&self) -> &'static str {
        match self.state {
            CheckState::Ok => "Passed",
            CheckState::NotYet => "Action required",
            CheckState::Unknown => "Unknown",
        }
    }
}

/// Page with all steps and checks.
pub(super) async fn get(State(sources): State<GuideSources>, admin: Admin) -> Response {
    let guide = SetUpGuide::read(&sources, &admin).await;
    let frame = Frame::new(View::Guide, &admin, None);
    let manifest = format!("{:#}", guide.manifest);
    let easy_auth = format!("{:#}", guide.easy_auth);
    page(StatusCode::OK, &GuideView { frame, guide, manifest, easy_auth })
}
