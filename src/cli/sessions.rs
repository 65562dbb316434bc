//! `sessions`: minted sessions, listed and ended. Sessions of browser users are left alone.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{author, exit::Failure, print, report::block_on};
use crate::{
    activity::Activity,
    config::Config,
    control::{restrictions::Restrictions, revocation},
    sessions::{MintedSession, Sessions, Which},
};

/// What to do about minted sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Those that live, newest first.
    List {
        /// Of this user or service principal alone.
        #[arg(long, value_name = "OID")]
        subject: Option<Uuid>,
        /// Of this client app alone.
        #[arg(long, value_name = "APPID", conflicts_with = "subject")]
        client: Option<Uuid>,
        /// A line of JSON each.
        #[arg(long)]
        json: bool,
        /// How many at most.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// End sessions for good, on all instances within two seconds. Those of many are ended once more after
    /// that: logins may be under way.
    End {
        /// Whom or what it is about.
        #[command(flatten)]
        which: WhichSessions,
        /// Who decides it.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// Which sessions.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct WhichSessions {
    /// These: handles, as `sessions list` has them, or ids.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of this user or service principal.
    #[arg(long, value_name = "OID")]
    subject: Option<Uuid>,
    /// All of this client app.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
    /// All.
    #[arg(long)]
    all: bool,
}

impl WhichSessions {
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

/// Does it.
///
/// # Errors
/// When the store cannot be reached.
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
    which: WhichSessions,
    by: Option<String>,
) -> Result<(), Failure> {
    let restrictions = Restrictions::new(&Activity::open_existing(&config.activity), sessions);
    let (mut count, mut unknown) = (0, 0);
    for which in which.each() {
        let author = author(by.clone());
        let mut ended = revocation::end(&restrictions, &which, &author, None).await?;
        if !matches!(which, Which::Handle(_)) {
            let late = revocation::end_latecomers(restrictions.clone(), which.clone(), author);
            ended += late.await?;
        }
        count += ended;
        if let (0, Which::Handle(_)) = (ended, &which) {
            unknown += 1;
        }
    }
    print(&format!("{count} ended"));
    if let Some(why) = restrictions.unrecorded() {
        print(&format!(
            "warning the database could not be written: {why}; a gateway records it as soon as it can"
        ));
    }
    if unknown > 0 {
        // By number: a whole id opens a session, or did.
        print(&format!("{unknown} of the named ones do not live (any more)"));
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
