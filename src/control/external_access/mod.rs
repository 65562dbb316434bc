//! State of external access and the blocks in force. Every instance reads both from the database twice a second, so
//! that an administrator's decision applies everywhere within two seconds. Restrictions that the database may not
//! have yet apply in addition ([`Restrictions`]).

mod background;
mod instances;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustix::system::uname;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{
    decisions,
    health_registry::HealthRegistry,
    restrictions::{DecisionError, Recording, Restrictions},
};
use crate::{
    activity::{Activity, ActivityError, Actor, Author, Block, Blocked, Instance, Restriction},
    clock,
    config::{ActivityRequired, Config, DatabaseConfig, DatabaseTarget, ExternalAccessMode},
    sessions::Sessions,
    telemetry,
};

/// Interval between reads of the database.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum age of the last read, and maximum time without a successful write. After it, `managed` external access is
/// off until the database can be read and written again.
const MAX_STALENESS: Duration = Duration::from_secs(10);

/// Interval between measurements of the log's size; longer where measuring would take more than a twentieth of the
/// time.
const MEASURE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between removals of old records.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);
/// Component name of the database in the health registry.
const DATABASE: &str = "database";

/// Reasons for refusing a caller.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockError {
    /// An administrator blocked the caller.
    #[error("Temporarily blocked by an administrator")]
    Blocked,
    /// The blocks were never read.
    #[error("Block list unavailable; try again")]
    Unknown,
}

impl BlockError {
    /// `reason` in activity records, `error.type` in metrics and traces.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unknown => "blocks_unknown",
        }
    }
}

/// External access and blocks. Cheap to clone. Methods that read or write the database require one.
#[derive(Debug, Clone)]
pub(crate) struct ExternalAccess(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    activity: Activity,
    sessions: Sessions,
    restrictions: Restrictions,
    health: HealthRegistry,
    instance: Instance,
    retention: Duration,
    max_size: u64,
    mode: ArcSwap<ExternalAccessMode>,
    /// Decision of an administrator, from the database.
    is_enabled: AtomicBool,
    /// True if records of decisions can be written.
    is_writable: AtomicBool,
    /// Start of the first failed heartbeat since the last success.
    unwritable: ArcSwapOption<Instant>,
    /// Blocks whose sessions are being revoked, or have been.
    followed: Mutex<HashSet<(Blocked, i64)>>,
    /// Blocks in the database. `None`: never read, although they are required.
    blocks: ArcSwapOption<Vec<Block>>,
    is_on: watch::Sender<bool>,
    read_now: Notify,
    /// Error of the last heartbeat, if it failed.
    heartbeat_error: ArcSwapOption<String>,
    /// Id of the database, once it has been read.
    database: ArcSwapOption<String>,
    /// True if the database is a SQLite file.
    is_embedded: bool,
}

impl ExternalAccess {
    /// Creates the state before the first read.
    pub(crate) fn new(
        config: &Config,
        activity: &Activity,
        sessions: &Sessions,
        health: &HealthRegistry,
    ) -> Self {
        let now = clock::millis();
        let must_be_read =
            activity.has_database() && config.activity.required != ActivityRequired::None;
        let none_are_blocked = (!must_be_read).then(Vec::new);
        let instance = Instance {
            id: Uuid::now_v7().to_string(),
            host: uname().nodename().to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: now,
            seen_at: now,
            is_on: false,
        };
        let is_on =
            watch::Sender::new(matches!(config.external_access, ExternalAccessMode::On { .. }));
        let observed = is_on.subscribe();
        telemetry::meter()
            .u64_observable_gauge("simplechat.gateway.external_access")
            .with_description("External access on this instance: 1 if it is on, 0 if it is off")
            .with_callback(move |observer| observer.observe((*observed.borrow()).into(), &[]))
            .build();
        Self(Arc::new(Inner {
            activity: activity.clone(),
            sessions: sessions.clone(),
            restrictions: Restrictions::new(activity, sessions),
            health: health.clone(),
            instance,
            retention: config.activity.retention,
            max_size: config.activity.max_size,
            mode: ArcSwap::from_pointee(config.external_access.clone()),
            is_enabled: AtomicBool::default(),
            is_writable: AtomicBool::default(),
            unwritable: ArcSwapOption::empty(),
            followed: Mutex::default(),
            blocks: ArcSwapOption::from_pointee(none_are_blocked),
            is_on,
            read_now: Notify::new(),
            heartbeat_error: ArcSwapOption::empty(),
            database: ArcSwapOption::empty(),
            is_embedded: matches!(
                &config.activity.database,
                Some(DatabaseConfig { target: DatabaseTarget::Sqlite(_), .. })
            ),
        }))
    }

    /// True if external access is on: by the setting, or by an administrator's decision.
    pub(crate) fn is_on(&self) -> bool {
        *self.0.is_on.borrow()
    }

    /// Receiver of changes of [`Self::is_on`].
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.0.is_on.subscribe()
    }

    /// Replaces the setting.
    pub(crate) fn set(&self, mode: ExternalAccessMode) {
        self.0.mode.store(Arc::new(mode));
        self.apply();
    }

    /// The setting.
    pub(crate) fn mode(&self) -> Arc<ExternalAccessMode> {
        self.0.mode.load_full()
    }

    /// Id of this instance.
    pub(crate) fn instance(&self) -> &str {
        &self.0.instance.id
    }

    /// Makes [`Self::run`] read the database at once, after a decision on this instance.
    pub(crate) fn read_now(&self) {
        self.0.read_now.notify_one();
    }

    /// Activity log, and the database of decisions.
    pub(crate) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Decisions in force here that the database may not have yet.
    pub(crate) fn restrictions(&self) -> &Restrictions {
        &self.0.restrictions
    }

    /// Applies a decision that disables external access or blocks a caller on this instance at once, and records it.
    ///
    /// # Errors
    /// When there is no database, or not the right one; then the decision is not in force.
    pub(crate) async fn decide(
        &self,
        restriction: Restriction,
    ) -> Result<Recording, ActivityError> {
        self.0.activity.needs_database()?;
        // Even if access is disabled already: another instance may have recorded that, and enabled access since.
        let pending = self.0.restrictions.apply(restriction);
        self.apply();
        self.end_sessions_of_blocked();
        let recording = pending.record().await;
        self.apply();
        self.read_now();
        recording
    }

    /// Enables external access. False: it was enabled already. Records pending decisions first.
    ///
    /// # Errors
    /// When pending decisions cannot be read or recorded, or this one cannot be recorded.
    pub(crate) async fn enable(
        &self,
        accepted: String,
        author: Author,
    ) -> Result<bool, DecisionError> {
        let Inner { restrictions, activity, .. } = &*self.0;
        restrictions.follow().await?;
        let changed = decisions::record_enabled(restrictions, activity, accepted, author).await?;
        self.is_written();
        self.read_now();
        Ok(changed)
    }

    /// Unblocks a caller. False: the caller was not blocked. Records pending decisions first.
    ///
    /// # Errors
    /// As for [`Self::enable`].
    pub(crate) async fn unblock(
        &self,
        blocked: Blocked,
        author: Author,
    ) -> Result<bool, DecisionError> {
        let Inner { restrictions, activity, .. } = &*self.0;
        restrictions.follow().await?;
        let was = decisions::record_unblocked(restrictions, activity, blocked, author).await;
        self.read_now();
        was
    }

    /// Time (Unix milliseconds) and author of a decision that disables external access and may not be in the database
    /// yet.
    pub(crate) fn disabled(&self) -> Option<(i64, Actor)> {
        self.0.restrictions.in_force().disabled.clone()
    }

    /// Blocks in force here: those in the database at the last read, and those that it may not have yet.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let of_database = self.0.blocks.load_full().unwrap_or_default();
        self.0.restrictions.in_force().blocks_over(&of_database)
    }

    /// Checks that a caller is not blocked.
    pub(crate) fn check(&self, subject: Uuid, client: &str) -> Result<(), BlockError> {
        let blocks = self.0.blocks.load();
        let Some(blocks) = &*blocks else { return Err(BlockError::Unknown) };
        let in_force = self.0.restrictions.in_force();
        if blocks.is_empty() && in_force.blocks.is_empty() {
            return Ok(());
        }
        let (now, subject) = (clock::millis(), subject.to_string());
        let is_meant = |block: &Block| match &block.blocked {
            Blocked::Subject(oid) => oid.eq_ignore_ascii_case(&subject),
            Blocked::Client(id) => id.eq_ignore_ascii_case(client),
        };
        let all = blocks.iter().chain(&in_force.blocks);
        let is_blocked = all.into_iter().any(|block| block.until > now && is_meant(block));
        if is_blocked { Err(BlockError::Blocked) } else { Ok(()) }
    }

    fn apply(&self) {
        let is_on = match &**self.0.mode.load() {
            ExternalAccessMode::Off => false,
            ExternalAccessMode::On { .. } => true,
            ExternalAccessMode::Managed => {
                self.0.is_enabled.load(Ordering::Relaxed)
                    && self.0.is_writable.load(Ordering::Relaxed)
                    && self.0.restrictions.in_force().disabled.is_none()
            }
        };
        let changed = |was: &mut bool| std::mem::replace(was, is_on) != is_on;
        if self.0.is_on.send_if_modified(changed) {
            tracing::info!(is_on, "external access changed on this instance");
        }
    }

    /// Reads the database once; used at startup.
    pub(crate) async fn read(&self) -> Result<(), ActivityError> {
        let recorded = self.0.restrictions.recorded();
        let (state, blocks) = self.0.activity.read().await?;
        self.0.is_enabled.store(state.enabled, Ordering::Relaxed);
        self.0.blocks.store(Some(Arc::new(blocks)));
        self.0.database.store(Some(Arc::new(state.database)));
        self.0.restrictions.forget(recorded);
        self.apply();
        Ok(())
    }
}

/// True if `blocks` contains a caller's block that was decided at `since` (Unix milliseconds).
fn is_in_force(blocks: &[Block], blocked: &Blocked, since: i64) -> bool {
    let now = clock::millis();
    blocks
        .iter()
        .any(|block| block.blocked == *blocked && block.since == since && block.until > now)
}
