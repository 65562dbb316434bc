//! `sessions`: list and end minted sessions. Sessions of browser users are not affected.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{author, exit::Failure, print, report::block_on};
use crate::{
    activity::Activity,
    config::Config,
    control::{restrictions::Restrictions, revocation},
    sessions::{MintedSession, Sessions, Which},
};

/// Subcommands of `sessions`.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List active sessions, newest first.
    List {
        /// Only sessions of this user or service principal: its object ID in Entra.
        #[arg(long, value_name = "OID")]
        subject: Option<Uuid>,
        /// Only sessions of this client app: its application (client) ID.
        #[arg(long, value_name = "APPID", conflicts_with = "subject")]
        client: Option<Uuid>,
        /// Output JSON Lines.
        #[arg(long)]
        json: bool,
        /// Maximum number of sessions.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// End sessions permanently, on all instances within two seconds.
    ///
    /// With --subject, --client or --all, ends them again after that, for sign-ins in progress.
    End {
        /// Sessions to end.
        #[command(flatten)]
        which: SessionSelector,
        /// Name of the administrator, for the activity log [default: command line].
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// Sessions to end.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SessionSelector {
    /// Handles, as `sessions list` prints them, or complete session IDs.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All sessions of this user or service principal: its object ID in Entra.
    #[arg(long, value_name = "OID")]
    subject: Option<Uuid>,
    /// All sessions of this client app: its application (client) ID.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
    /// All gateway-issued sessions.
    #[arg(long)]
    all: bool,
}

impl SessionSelector {
    fn each(self) -> Vec<Which> {
        if self.all {
            return vec![Which::All];
        }
        let of_subject = self.subject.map(Which::Subject);
        let of_client = self.client.map(|id| Which::Client(id.to_string()));
        let ids = self.ids.into_iter().map(Which::Handle);
        ids.chain(of_subject).chain(of_client).collect()
    }
}

/// Runs `sessions`.
///
/// # Errors
/// When the session store cannot be reached.
pub fn sessions(config: &Config, command: SessionsCommand) -> Result<(), Failure> {
    block_on(async {
        let sessions = Sessions::connected(config.sessions.clone()).await?;
        match command {
            SessionsCommand::List { subject, client, json, limit } => {
                let of_client = || client.map(|id| Which::Client(id.to_string()));
                let which = subject.map(Which::Subject).or_else(of_client).unwrap_or(Which::All);
                let listed = sessions.list(&which, limit).await?;
                for one in listed.into_iter().map(MintedSession::from) {
                    print(&if json { as_json(&one)? } else { as_text(&one) });
                }
                Ok(())
            }
            SessionsCommand::End { which, by } => end(config, &sessions, which, by).await,
        }
    })?
}

async fn end(
    config: &Config,
    sessions: &Sessions,
    which: SessionSelector,
    by: Option<String>,
) -> Result<(), Failure> {
    let restrictions = Restrictions::new(&Activity::open_existing(&config.activity), sessions);
    let (mut count, mut unknown) = (0, 0);
    for which in which.each() {
        let author = author(by.clone());
        let mut ended = revocation::end(&restrictions, &which, &author, None).await?;
        if !matches!(which, Which::Handle(_)) {
            let late = revocation::end_again_after_propagation(
                restrictions.clone(),
                which.clone(),
                author,
            );
            ended += late.await?;
        }
        count += ended;
        if let (0, Which::Handle(_)) = (ended, &which) {
            unknown += 1;
        }
    }
    print(&format!("{count} ended"));
    if let Some(reason) = restrictions.unrecorded() {
        print(&format!(
            "warning the database could not be written: {reason}. A gateway records the change when the database is available"
        ));
    }
    if unknown > 0 {
        // Prints a number and no ID: a complete ID gives access to its session.
        print(&format!("{unknown} of the named sessions not found; they may have ended already"));
    }
    Ok(())
}

fn as_json(one: &MintedSession) -> Result<String, Failure> {
    serde_json::to_string(one).map_err(|error| Failure::Internal(error.to_string()))
}

fn as_text(one: &MintedSession) -> String {
    let MintedSession { id, subject, client, expires_at, .. } = one;
    let who = one.email.as_ref().or(one.name.as_ref());
    let who = who.map_or_else(String::new, |who| format!("  {}", who.escape_debug()));
    format!("{id}  subject={subject}  client={client}  until={expires_at}{who}")
}
