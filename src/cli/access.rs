//! `access`: external access and blocks.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{author, exit::Failure, no_database, print, report::block_on};
use crate::{
    activity::{AccessState, Activity, Block, BlockInForce, Blocked, Restriction, RunningInstance},
    clock,
    config::{Config, ExternalAccessMode},
    control::{
        decisions::{blocked_for, record_enabled, record_unblocked},
        exposure,
        restrictions::{DecisionError, Recording, Restrictions},
    },
    sessions::{Sessions, SessionsError},
    telemetry,
};

/// Subcommands of `access`.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Enable external access. Tenant and app IDs become public.
    Enable {
        /// Name of the approver.
        #[arg(long, value_name = "NAME")]
        accepted_by: String,
        /// Confirm that tenant and app IDs become public.
        #[arg(long, required = true)]
        i_understand_ids_become_public: bool,
    },
    /// Disable external access. Sessions remain valid: end them with `sessions end --all`.
    Disable {
        /// Name of the administrator, for the activity log [default: command line].
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Show status, instances and blocks.
    Status {
        /// Output JSON.
        #[arg(long)]
        json: bool,
    },
    /// Block a user or client app temporarily and end its sessions.
    Block {
        /// Caller to block or unblock.
        #[command(flatten)]
        whom: BlockTarget,
        /// Duration of the block, such as 24h.
        #[arg(long = "for", value_name = "DURATION", value_parser = Block::span)]
        span: Duration,
        /// Name of the administrator, for the activity log [default: command line].
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Remove a block.
    Unblock {
        /// Caller to block or unblock.
        #[command(flatten)]
        whom: BlockTarget,
        /// Name of the administrator, for the activity log [default: command line].
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// User or client app.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct BlockTarget {
    /// Object ID of a user or service principal in Entra.
    #[arg(long, value_name = "OID")]
    subject: Option<Uuid>,
    /// Application (client) ID of a client app.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
}

impl BlockTarget {
    fn blocked(&self) -> Option<Blocked> {
        let subject = self.subject.map(|oid| Blocked::Subject(oid.to_string()));
        subject.or(self.client.map(|id| Blocked::Client(id.to_string())))
    }
}

/// Runs `access`.
///
/// # Errors
/// When no database is set, or it cannot be written: then nothing has changed. `disable` and `block`
/// need either the database or the session store.
pub fn access(config: &Config, command: AccessCommand) -> Result<(), Failure> {
    if config.activity.database.is_none() {
        return Err(no_database());
    }
    block_on(async {
        let activity = Activity::open_existing(&config.activity);
        run(config, &activity, command).await
    })?
}

async fn run(config: &Config, activity: &Activity, command: AccessCommand) -> Result<(), Failure> {
    match command {
        AccessCommand::Enable { accepted_by, .. } => {
            check_not_overridden_by_setting(config)?;
            if accepted_by.trim().is_empty() {
                return Err(Failure::Usage("--accepted-by: is empty".to_owned()));
            }
            let restrictions = pending(config, activity).await.map_err(not_recorded_first)?;
            let text = exposure::text(&config.entra.authority, &config.resource);
            let author = author(Some(accepted_by));
            let changed = record_enabled(&restrictions, activity, text.clone(), author);
            let changed = changed.await.map_err(not_decided)?;
            print(if changed { "external access is on" } else { "external access was already on" });
            print(&text);
            warn_without_instances(activity).await;
            if config.external_access == ExternalAccessMode::Off {
                print(
                    "warning GATEWAY_EXTERNAL_ACCESS: is off here; the change applies to gateways where it is managed",
                );
            }
        }
        AccessCommand::Disable { by } => {
            check_not_overridden_by_setting(config)?;
            let recording = decide(config, activity, Restriction::access(&author(by))).await?;
            print(match recording {
                Recording::Recorded(false) => "external access was already off",
                Recording::Recorded(true) | Recording::Pending(_) => "external access is off",
            });
            warn_of_record(&recording);
        }
        AccessCommand::Status { json } => status(config, activity, json).await?,
        AccessCommand::Block { whom, span, by } => {
            let Some(blocked) = whom.blocked() else { return Ok(()) };
            let (restriction, until) = blocked_for(blocked, span, &author(by));
            let recording = decide(config, activity, restriction).await?;
            print(&format!(
                "blocked until {}; gateways end the caller's sessions",
                clock::rfc3339(until)
            ));
            warn_of_record(&recording);
            warn_without_instances(activity).await;
        }
        AccessCommand::Unblock { whom, by } => {
            let Some(blocked) = whom.blocked() else { return Ok(()) };
            let restrictions = pending(config, activity).await.map_err(not_recorded_first)?;
            let changed = record_unblocked(&restrictions, activity, blocked, author(by));
            let changed = changed.await.map_err(not_decided)?;
            print(if changed { "unblocked" } else { "was not blocked" });
        }
    }
    Ok(())
}

/// Records a restriction in the database, or in the session store if the database cannot be written.
async fn decide(
    config: &Config,
    activity: &Activity,
    restriction: Restriction,
) -> Result<Recording, Failure> {
    let database_error = match activity.restrict_in_time(&restriction).await {
        Ok(changed) => {
            if changed {
                restriction.emit();
            }
            return Ok(Recording::Recorded(changed));
        }
        Err(error) if error.is_misconfiguration() => return Err(error.into()),
        Err(error) => telemetry::chain(&error),
    };
    let stored = async {
        let sessions = Sessions::open_store(config.sessions.clone())?;
        let restrictions = Restrictions::new(activity, &sessions);
        with_retry(async || restrictions.store_pending(&restriction).await).await
    };
    match stored.await {
        Ok(()) => Ok(Recording::Pending(database_error)),
        Err(error) => Err(Failure::Unavailable(format!(
            "nothing has changed: neither the database nor the session store can be written: {database_error}; {}",
            telemetry::chain(&error)
        ))),
    }
}

fn warn_of_record(recording: &Recording) {
    if let Recording::Pending(reason) = recording {
        print(&format!(
            "warning the database could not be written: {reason}. The change applies now; a gateway records it when the database is available"
        ));
    }
}

/// Reads the restrictions in the session store that the database has not recorded yet.
async fn pending(config: &Config, activity: &Activity) -> Result<Restrictions, SessionsError> {
    let sessions = Sessions::open_store(config.sessions.clone())?;
    let restrictions = Restrictions::new(activity, &sessions);
    with_retry(async || restrictions.follow().await).await?;
    Ok(restrictions)
}

/// Retries once: the first attempt fails if the session store is not connected yet.
async fn with_retry(
    attempt: impl AsyncFn() -> Result<(), SessionsError>,
) -> Result<(), SessionsError> {
    match attempt().await {
        Err(_) => attempt().await,
        success => success,
    }
}

/// Failure of `enable` or `unblock`.
fn not_decided(error: DecisionError) -> Failure {
    match error {
        DecisionError::Sessions(error) => not_recorded_first(error),
        DecisionError::Activity(error) => error.into(),
    }
}

/// Failure to read the pending decisions of the session store, which must be recorded before `enable` and
/// `unblock`.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_recorded_first(error: SessionsError) -> Failure {
    Failure::Unavailable(format!(
        "nothing has changed: decisions in the session store must be recorded first, and it cannot be read: {}",
        telemetry::chain(&error)
    ))
}

/// Warns that no gateway reads this database, so that the change has no effect.
async fn warn_without_instances(activity: &Activity) {
    if activity.instances().await.is_ok_and(|instances| instances.is_empty()) {
        print(
            "warning DATABASE_URL: no running gateway uses this database; check that it is the gateway's",
        );
    }
}

/// Refuses a change that has no effect, because the setting overrides it.
fn check_not_overridden_by_setting(config: &Config) -> Result<(), Failure> {
    if let ExternalAccessMode::On { .. } = config.external_access {
        return Err(Failure::Misconfigured(
            "GATEWAY_EXTERNAL_ACCESS: is on and overrides this command; set it to managed to use the command, or to off"
                .to_owned(),
        ));
    }
    Ok(())
}

async fn status(config: &Config, activity: &Activity, as_json: bool) -> Result<(), Failure> {
    let (state, blocks) = activity.read().await?;
    let instances = activity.instances().await?;
    let (in_force, fault) = match pending(config, activity).await {
        Ok(restrictions) => (restrictions.in_force(), None),
        Err(error) => (Arc::default(), Some(telemetry::chain(&error))),
    };
    let disabled = in_force.disabled.clone();
    let state = match disabled.clone() {
        Some((since, by)) => AccessState { enabled: false, since: Some(since), by, ..state },
        None => state,
    };
    let blocks = in_force.blocks_over(&blocks).into_iter().map(BlockInForce::from);
    let blocks: Vec<_> = blocks.collect();
    let instances: Vec<_> = instances.into_iter().map(RunningInstance::from).collect();
    let mode = config.external_access.word();
    if as_json {
        let status = json!({
            "mode": mode, "enabled": state.enabled, "since": state.since.map(clock::rfc3339), "by": state.by,
            "blocks": blocks, "instances": instances,
        });
        print(&status.to_string());
        return Ok(());
    }
    let since =
        state.since.map_or_else(String::new, |since| format!(" since {}", clock::rfc3339(since)));
    let by = state
        .by
        .name
        .as_deref()
        .map_or_else(String::new, |name| format!(" by {}", name.escape_debug()));
    let word = if state.enabled { "on" } else { "off" };
    print(&format!("external access   {word}{since}{by} (GATEWAY_EXTERNAL_ACCESS here: {mode})"));
    if disabled.is_some() {
        print(
            "warning not recorded in the database yet; a gateway records it when the database is available",
        );
    }
    if let Some(fault) = fault {
        print(&format!(
            "warning session store: cannot be read, so decisions that are not recorded yet are not shown: {fault}"
        ));
    }
    for one in &instances {
        let word = if one.enabled { "on" } else { "off" };
        print(&format!("instance          {word} on {}, version {}", one.host, one.version));
    }
    for block in &blocks {
        let (kind, who, until) = (block.word(), &block.who, &block.until);
        print(&format!("blocked           {kind} {who} until {until}"));
    }
    Ok(())
}
