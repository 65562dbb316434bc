//! The administrator's page without a page: the same decisions, log and sessions, for pipelines and for
//! hosts where nobody can open a browser.

mod access;
mod activity;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod exit;
mod migrate;
pub(crate) mod output;
pub(crate) mod report;
mod sessions;

pub use self::{
    access::{AccessCommand, Whom, access},
    activity::{ActivityCommand, activity},
    migrate::migrate,
    sessions::{SessionsCommand, WhichSessions, sessions},
};
use self::{exit::Failure, output::print_line as print};
use crate::activity::{Actor, Author};

/// Who decides where no session says it.
fn author(name: Option<String>) -> Author {
    let name =
        name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "command line".to_owned());
    Author { actor: Actor { name: Some(name), ..Actor::default() }, ..Author::default() }
}

fn no_database() -> Failure {
    Failure::Misconfigured(
        "DATABASE_URL: is required for this command, as the gateway has it".to_owned(),
    )
}
