//! Health page: the gateway and its dependencies.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Frame, View, page};
use crate::{
    activity::Activity,
    admin::{Admin, api::health::HealthSources},
    control::health_registry::CANARY,
    http::health::Detail,
};

/// A part, its description, and its problem.
struct Part {
    name: &'static str,
    about: &'static str,
    /// `None`: healthy, or not checked.
    problem: Option<String>,
    is_checked: bool,
}

#[derive(Template)]
#[template(path = "admin/health.html")]
struct HealthView {
    frame: Frame,
    detail: Detail,
    parts: Vec<Part>,
}

/// Page with the result of a check of every part.
pub(super) async fn get(
    State(sources): State<HealthSources>,
    State(activity): State<Activity>,
    admin: Admin,
) -> Response {
    let mut detail = sources.check().await;
    let has_database = activity.has_database();
    let is_accepted = sources.registry.is_healthy(CANARY);
    let mut parts = Vec::new();
    for (part, name, about, is_checked) in [
        ("upstream", "SimpleChat", "Answers where GATEWAY_UPSTREAM_URL says", true),
        (
            CANARY,
            "Minted sessions",
            "SimpleChat honours them, and not after their end",
            is_accepted,
        ),
        ("sessions", "Session store", "Where SimpleChat keeps its sessions", true),
        ("entra", "Signing keys", "Of the tenant, to verify tokens with", true),
        ("database", "Database", "Activity log and the administrator's switch", has_database),
    ] {
        let found = detail.degraded.iter().position(|one| one.part == part);
        let problem = found.map(|at| detail.degraded.remove(at).reason);
        parts.push(Part { name, about, is_checked: is_checked || problem.is_some(), problem });
    }
    // Parts without a fixed row.
    for more in std::mem::take(&mut detail.degraded) {
        let (name, about) = (more.part, "");
        parts.push(Part { name, about, problem: Some(more.reason), is_checked: true });
    }
    let frame = Frame::new(View::Health, &admin, None);
    page(StatusCode::OK, &HealthView { frame, detail, parts })
}
