//! External access page: its state, the decision, instances and blocks.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use http::StatusCode;

use super::{
    Frame, View, actor_name, filters,
    flash::{Flash, FlashQuery},
    form::Form,
    page,
};
use crate::{
    activity::{BlockInForce, BlockKind},
    admin::{
        Admin,
        api::{
            access::{AccessStatus, Mode, exposure_of},
            blocks,
        },
    },
    control::{decisions, external_access::ExternalAccess, restrictions::Recording},
    gateway::Resource,
    http::error::Refusal,
    telemetry,
};

#[derive(Template)]
#[template(path = "admin/access.html")]
struct AccessView {
    frame: Frame,
    /// Or the reason why it is unknown.
    status: Result<AccessStatus, String>,
    blocks: Vec<BlockInForce>,
    has_database: bool,
}

#[derive(Template)]
#[template(path = "admin/enable.html")]
struct EnableView {
    frame: Frame,
    status: AccessStatus,
}

impl AccessStatus {
    /// Display name of the administrator who decided, or of the approver named by the setting.
    fn decided_by(&self) -> Option<&str> {
        actor_name(&self.by)
    }

    /// Metadata document that becomes public.
    fn document(&self) -> String {
        serde_json::to_string_pretty(&self.metadata).unwrap_or_default()
    }

    /// Number of instances on which the decision does not apply yet.
    fn pending(&self) -> usize {
        self.instances.iter().filter(|one| one.enabled != self.enabled).count()
    }

    fn is_managed(&self) -> bool {
        self.mode == Mode::Managed
    }

    fn is_on_by_setting(&self) -> bool {
        self.mode == Mode::On
    }
}

impl BlockInForce {
    /// Kind in words.
    fn label(&self) -> &'static str {
        match self.kind {
            BlockKind::Subject => "user",
            BlockKind::Client => "app",
        }
    }

    /// Display name of the administrator who decided.
    fn decided_by(&self) -> Option<&str> {
        actor_name(&self.by)
    }
}

/// Page with the state and the decision. 503 while the database is unavailable: the state is unknown.
pub(super) async fn get(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    admin: Admin,
    Query(flash): Query<FlashQuery>,
) -> Response {
    let has_database = external_access.activity().has_database();
    let status = AccessStatus::read(&external_access, &resource, &admin.origin()).await;
    let blocks = if has_database { blocks::all(&external_access).await } else { Ok(Vec::new()) };
    let (code, status, blocks) = match (status, blocks) {
        (Ok(status), Ok(blocks)) => (StatusCode::OK, Ok(status), blocks),
        (Err(refusal), _) | (_, Err(refusal)) => {
            (StatusCode::SERVICE_UNAVAILABLE, Err(telemetry::chain(&refusal)), Vec::new())
        }
    };
    let frame = Frame::new(View::Access, &admin, flash.notice);
    page(code, &AccessView { frame, status, blocks, has_database })
}

/// Consent to the exposure as a page of its own, for browsers without scripts.
pub(super) async fn get_enable(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    admin: Admin,
    Query(flash): Query<FlashQuery>,
) -> Result<Response, Refusal> {
    let status = AccessStatus::read(&external_access, &resource, &admin.origin()).await?;
    if status.mode != Mode::Managed || status.enabled {
        return Ok(super::to_page(View::Access.path()));
    }
    let frame = Frame::new(View::Access, &admin, flash.notice);
    Ok(page(StatusCode::OK, &EnableView { frame, status }))
}

/// Form that enables external access.
pub(super) async fn post_enable(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    form: Form,
) -> Result<Response, Refusal> {
    if !form.is_ticked("accept") {
        return Ok(Flash::NotAccepted.at(View::Access, None));
    }
    let accepted = Some(exposure_of(&resource));
    let author = form.admin.author().clone();
    let is_new = decisions::enable(&external_access, accepted, author).await?;
    let flash = if is_new { Flash::Enabled } else { Flash::WasOn };
    Ok(flash.at(View::Access, None))
}

/// Form that disables external access and, if selected, ends all minted sessions.
pub(super) async fn post_disable(
    State(external_access): State<ExternalAccess>,
    form: Form,
) -> Result<Response, Refusal> {
    let author = form.admin.author();
    let flash = match decisions::disable(&external_access, author).await? {
        Recording::Recorded(true) => Flash::Disabled,
        Recording::Recorded(false) => Flash::WasOff,
        Recording::Pending(_) => Flash::DisabledUnrecorded,
    };
    if !form.is_ticked("end_sessions") {
        return Ok(flash.at(View::Access, None));
    }
    Ok(match decisions::end_all_sessions(external_access.restrictions(), author).await {
        Ok(count) => flash.at(View::Access, Some(count)),
        Err(error) => {
            tracing::warn!(error = %telemetry::chain(&error), "sessions could not be ended");
            Flash::DisabledAlone.at(View::Access, None)
        }
    })
}
