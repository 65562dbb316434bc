//! `access`: the administrator's switch, and who is kept out.

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

/// What to do about external access.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Let machines in. Tenant and app ids become public.
    Enable {
        /// Who accepts that.
        #[arg(long, value_name = "NAME")]
        accepted_by: String,
        /// That it is understood.
        #[arg(long, required = true)]
        i_understand_ids_become_public: bool,
    },
    /// Let no machines in any more. Sessions live on: end them with `sessions end --all`.
    Disable {
        /// Who decides it.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// How it stands, on which instances, and who is kept out.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keep a user or a client app out for a while, and end its sessions.
    Block {
        /// Whom or what it is about.
        #[command(flatten)]
        whom: Whom,
        /// For how long, like 24h.
        #[arg(long = "for", value_name = "DURATION", value_parser = Block::span)]
        span: Duration,
        /// Who decides it.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Let a user or a client app in again.
    Unblock {
        /// Whom or what it is about.
        #[command(flatten)]
        whom: Whom,
        /// Who decides it.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// Whom it is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// A user or service principal: Entra's object id.
    #[arg(long, value_name = "OID")]
    subject: Option<Uuid>,
    /// A client app's id.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
}

impl Whom {
    fn blocked(&self) -> Option<Blocked> {
        let subject = self.subject.map(|oid| Blocked::Subject(oid.to_string()));
        subject.or(self.client.map(|id| Blocked::Client(id.to_string())))
    }
}

/// Does it.
///
/// # Errors
/// When there is no database, or it cannot be written: then nothing has changed. Disabling and blocking
/// need the database or the session store, either of them.
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
            refuse_where_a_setting_decides(config)?;
            if accepted_by.trim().is_empty() {
                return Err(Failure::Usage("--accepted-by: is empty".to_owned()));
            }
            let restrictions = waiting(config, activity).await.map_err(not_recorded_first)?;
            let text = exposure::text(&config.entra.authority, &config.resource);
            let author = author(Some(accepted_by));
            let turned = record_enabled(&restrictions, activity, text.clone(), author);
            let turned = turned.await.map_err(not_decided)?;
            print(if turned { "external access is on" } else { "external access was on already" });
            print(&text);
            advise_without_instances(activity).await;
            if config.external_access == ExternalAccessMode::Off {
                print(
                    "advice  GATEWAY_EXTERNAL_ACCESS: is off here; this counts for gateways where it is managed",
                );
            }
        }
        AccessCommand::Disable { by } => {
            refuse_where_a_setting_decides(config)?;
            let taken = decide(config, activity, Restriction::access(&author(by))).await?;
            print(match taken {
                Recording::Recorded(false) => "external access was off already",
                Recording::Recorded(true) | Recording::Waits(_) => "external access is off",
            });
            warn_of_record(&taken);
        }
        AccessCommand::Status { json } => status(config, activity, json).await?,
        AccessCommand::Block { whom, span, by } => {
            let Some(blocked) = whom.blocked() else { return Ok(()) };
            let (restriction, until) = blocked_for(blocked, span, &author(by));
            let taken = decide(config, activity, restriction).await?;
            print(&format!("blocked until {}; gateways end its sessions", clock::rfc3339(until)));
            warn_of_record(&taken);
            advise_without_instances(activity).await;
        }
        AccessCommand::Unblock { whom, by } => {
            let Some(blocked) = whom.blocked() else { return Ok(()) };
            let restrictions = waiting(config, activity).await.map_err(not_recorded_first)?;
            let was = record_unblocked(&restrictions, activity, blocked, author(by));
            let was = was.await.map_err(not_decided)?;
            print(if was { "not blocked any more" } else { "was not blocked" });
        }
    }
    Ok(())
}

/// Takes a restriction: by the database, or by the session store where the database cannot be written.
async fn decide(
    config: &Config,
    activity: &Activity,
    restriction: Restriction,
) -> Result<Recording, Failure> {
    let failed = match activity.restrict_in_time(&restriction).await {
        Ok(changed) => {
            if changed {
                restriction.emit();
            }
            return Ok(Recording::Recorded(changed));
        }
        Err(error) if error.is_of_the_settings() => return Err(error.into()),
        Err(error) => telemetry::chain(&error),
    };
    let stored = async {
        let sessions = Sessions::open_store(config.sessions.clone())?;
        let restrictions = Restrictions::new(activity, &sessions);
        twice(async || restrictions.leave(&restriction).await).await
    };
    match stored.await {
        Ok(()) => Ok(Recording::Waits(failed)),
        Err(error) => Err(Failure::Unavailable(format!(
            "nothing has changed: neither the database nor the session store can be written: {failed}; {}",
            telemetry::chain(&error)
        ))),
    }
}

fn warn_of_record(taken: &Recording) {
    if let Recording::Waits(why) = taken {
        print(&format!(
            "warning the database could not be written: {why}; the decision counts all the same, and a gateway records it as soon as it can"
        ));
    }
}

/// Restrictions that wait in the session store for their records.
async fn waiting(config: &Config, activity: &Activity) -> Result<Restrictions, SessionsError> {
    let sessions = Sessions::open_store(config.sessions.clone())?;
    let restrictions = Restrictions::new(activity, &sessions);
    twice(async || restrictions.follow().await).await?;
    Ok(restrictions)
}

/// Tries again once: the connection to the session store may not have been made yet.
async fn twice(attempt: impl AsyncFn() -> Result<(), SessionsError>) -> Result<(), SessionsError> {
    match attempt().await {
        Err(_) => attempt().await,
        done => done,
    }
}

fn not_decided(error: DecisionError) -> Failure {
    match error {
        DecisionError::Sessions(error) => not_recorded_first(error),
        DecisionError::Activity(error) => error.into(),
    }
}

/// Decisions that wait in the session store cannot be recorded before one that enables or unblocks.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_recorded_first(error: SessionsError) -> Failure {
    Failure::Unavailable(format!(
        "nothing has changed: decisions that wait in the session store are recorded first, and it cannot be read: {}",
        telemetry::chain(&error)
    ))
}

/// A decision in a database that no gateway reads must not look as if it counted.
async fn advise_without_instances(activity: &Activity) {
    if activity.instances().await.is_ok_and(|instances| instances.is_empty()) {
        print("advice  DATABASE_URL: no gateway runs over this database; is it the gateway's own?");
    }
}

/// A switch that turns nothing must not look as if it did.
fn refuse_where_a_setting_decides(config: &Config) -> Result<(), Failure> {
    if let ExternalAccessMode::On { .. } = config.external_access {
        return Err(Failure::Misconfigured(
            "GATEWAY_EXTERNAL_ACCESS: is on, and that decides; set it to managed to decide here, or to off"
                .to_owned(),
        ));
    }
    Ok(())
}

async fn status(config: &Config, activity: &Activity, as_json: bool) -> Result<(), Failure> {
    let (state, blocks) = activity.read().await?;
    let instances = activity.instances().await?;
    let (in_force, fault) = match waiting(config, activity).await {
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
        print("warning the database has not recorded this yet: a gateway does as soon as it can");
    }
    if let Some(fault) = fault {
        print(&format!(
            "advice  session store: not read, so decisions that wait there for their records are not shown: {fault}"
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
