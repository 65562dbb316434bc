//! How the gateway and its neighbours are.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Frame, View, page};
use crate::{
    admin::{Admin, api::health},
    control::health_registry::CANARY,
    gateway::Administered,
    http::health::Detail,
};

/// A part, what it is to people, and what is wrong with it.
struct Part {
    name: &'static str,
    about: &'static str,
    /// `None`: nothing.
    trouble: Option<String>,
    /// Whether it was looked at.
    is_known: bool,
}

#[derive(Template)]
#[template(path = "admin/health.html")]
struct HealthView {
    frame: Frame,
    detail: Detail,
    parts: Vec<Part>,
}

/// The view.
pub(super) async fn get(State(administered): State<Administered>, admin: Admin) -> Response {
    let mut detail = health::look(&administered).await;
    let has_database = administered.activity.has_database();
    let is_healthy = administered.health.is_healthy(CANARY);
    let mut parts = Vec::new();
    for (part, name, about, is_known) in [
        ("upstream", "SimpleChat", "Answers where GATEWAY_UPSTREAM_URL says", true),
        (CANARY, "Minted sessions", "SimpleChat honours them, and not after their end", is_healthy),
        ("sessions", "Session store", "Where SimpleChat keeps its sessions", true),
        ("entra", "Signing keys", "Of the tenant, to verify tokens with", true),
        ("database", "Database", "Activity log and the administrator's switch", has_database),
    ] {
        let found = detail.degraded.iter().position(|one| one.part == part);
        let trouble = found.map(|at| detail.degraded.remove(at).reason);
        parts.push(Part { name, about, is_known: is_known || trouble.is_some(), trouble });
    }
    // Whatever else there is to say.
    for more in std::mem::take(&mut detail.degraded) {
        let (name, about) = (more.part, "");
        parts.push(Part { name, about, trouble: Some(more.reason), is_known: true });
    }
    let frame = Frame::new(View::Health, &admin, None);
    page(StatusCode::OK, &HealthView { frame, detail, parts })
}
