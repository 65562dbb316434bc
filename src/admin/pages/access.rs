//! External access: how it stands, and turning it; blocks stand below.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};

use super::{Frame, View, flash::Flash, form::Form, page, timestamp::Timestamp};
use crate::{
    activity::BlockInForce,
    admin::{
        Admin,
        api::{
            access::{self, AccessStatus, Mode},
            blocks,
        },
        authorization::to_page,
    },
    control::restrictions::Recording,
    gateway::Administered,
    http::error::Refusal,
    telemetry,
};

/// What is shown of the switch.
struct Switch {
    status: AccessStatus,
    since: Option<Timestamp>,
    /// Who decided, as well as that is known.
    by: Option<String>,
    /// The document that becomes public.
    document: String,
    instances: Vec<InstanceView>,
    /// Instances on which it does not count yet.
    late: usize,
}

struct InstanceView {
    host: String,
    version: String,
    id: String,
    enabled: bool,
    is_this: bool,
    seen: Timestamp,
}

struct BlockView {
    word: &'static str,
    who: String,
    since: Timestamp,
    until: Timestamp,
    by: String,
}

#[derive(Template)]
#[template(path = "admin/access.html")]
struct AccessView {
    frame: Frame,
    /// Or why it cannot be told.
    switch: Result<Switch, String>,
    blocks: Vec<BlockView>,
    has_database: bool,
}

#[derive(Template)]
#[template(path = "admin/enable.html")]
struct EnableView {
    frame: Frame,
    switch: Switch,
}

impl Switch {
    fn of(status: AccessStatus) -> Self {
        let late = status.instances.iter().filter(|one| one.enabled != status.enabled).count();
        let named = status.by.name.clone().or_else(|| status.by.email.clone());
        Self {
            since: status.since.clone().map(Timestamp::of),
            by: named.or_else(|| status.by.oid.clone()),
            document: serde_json::to_string_pretty(&status.metadata).unwrap_or_default(),
            instances: status
                .instances
                .iter()
                .map(|one| InstanceView {
                    host: one.host.clone(),
                    version: one.version.clone(),
                    id: one.id.clone(),
                    enabled: one.enabled,
                    is_this: one.is_this,
                    seen: Timestamp::of(one.seen_at.clone()),
                })
                .collect(),
            late,
            status,
        }
    }

    fn is_managed(&self) -> bool {
        self.status.mode == Mode::Managed
    }

    fn is_on_by_setting(&self) -> bool {
        self.status.mode == Mode::On
    }
}

impl From<BlockInForce> for BlockView {
    fn from(block: BlockInForce) -> Self {
        let by = block.by.name.clone().or_else(|| block.by.email.clone());
        Self {
            word: block.word(),
            since: Timestamp::of(block.since),
            until: Timestamp::of(block.until),
            by: by.or(block.by.oid).unwrap_or_default(),
            who: block.who,
        }
    }
}

/// The view. Where the database is away it says so: how it stands is not known then.
pub(super) async fn get(
    State(administered): State<Administered>,
    admin: Admin,
    uri: Uri,
) -> Response {
    let has_database = administered.activity.has_database();
    let status = AccessStatus::read(&administered, &admin.origin()).await;
    let blocks = if has_database { blocks::all(&administered).await } else { Ok(Vec::new()) };
    let (code, switch, blocks) = match (status, blocks) {
        (Ok(status), Ok(blocks)) => {
            let blocks = blocks.into_iter().map(BlockView::from).collect();
            (StatusCode::OK, Ok(Switch::of(status)), blocks)
        }
        (Err(refusal), _) | (_, Err(refusal)) => {
            (StatusCode::SERVICE_UNAVAILABLE, Err(telemetry::chain(&refusal)), Vec::new())
        }
    };
    let frame = Frame::new(View::Access, &admin, Flash::in_address(&uri));
    page(code, &AccessView { frame, switch, blocks, has_database })
}

/// What enabling means, as a page of its own: for browsers that run no script.
pub(super) async fn get_enable(
    State(administered): State<Administered>,
    admin: Admin,
    uri: Uri,
) -> Result<Response, Refusal> {
    let status = AccessStatus::read(&administered, &admin.origin()).await?;
    if status.mode != Mode::Managed || status.enabled {
        return Ok(to_page(View::Access.path()));
    }
    let frame = Frame::new(View::Access, &admin, Flash::in_address(&uri));
    Ok(page(StatusCode::OK, &EnableView { frame, switch: Switch::of(status) }))
}

/// Lets machines in.
pub(super) async fn post_enable(
    State(administered): State<Administered>,
    form: Form,
) -> Result<Response, Refusal> {
    if !form.is_ticked("accept") {
        return Ok(Flash::NotAccepted.at(View::Access, None));
    }
    let turned = access::enable(&administered, &form.admin, true).await?;
    let flash = if turned { Flash::Enabled } else { Flash::WasOn };
    Ok(flash.at(View::Access, None))
}

/// Shuts machines out, and ends their sessions if asked to.
pub(super) async fn post_disable(
    State(administered): State<Administered>,
    form: Form,
) -> Result<Response, Refusal> {
    let flash = match access::disable(&administered, &form.admin).await? {
        Recording::Recorded(true) => Flash::Disabled,
        Recording::Recorded(false) => Flash::WasOff,
        Recording::Waits(_) => Flash::DisabledUnrecorded,
    };
    if !form.is_ticked("end_sessions") {
        return Ok(flash.at(View::Access, None).into_response());
    }
    Ok(match access::end_all(&administered, &form.admin).await {
        Ok(count) => flash.at(View::Access, Some(count)),
        Err(refusal) => {
            tracing::warn!(error = %telemetry::chain(&refusal), "sessions could not be ended");
            Flash::DisabledAlone.at(View::Access, None)
        }
    })
}
