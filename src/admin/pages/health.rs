//! Health page: the gateway and its dependencies.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Frame, View, page};
use crate::{
    activity::Activity,
    admin::{
        Admin,
        api::{cause, health::HealthSources},
    },
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
        ("upstream", "SimpleChat", "Responds at GATEWAY_UPSTREAM_URL", true),
        (
            CANARY,
            "Gateway-issued sessions",
            "Accepted by SimpleChat, and rejected once revoked",
            is_accepted,
        ),
        ("sessions", "Session store", "Stores SimpleChat’s sessions", true),
        ("entra", "Signing keys", "Verify access tokens of the tenant", true),
        (
            "database",
            "Database",
            "Stores the activity log and administrators’ decisions",
            has_database,
        ),
    ] {
        let found = detail.degraded.iter().position(|one| one.part == part);
        let problem = found.map(|at| detail.degraded.remove(at).reason);
        let problem = problem.map(|problem| cause::in_words(&problem));
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
