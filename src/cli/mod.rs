//! Commands of the program. `access`, `activity` and `sessions` offer the functions of the administration
//! pages to pipelines and to hosts without a browser.

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
    access::{AccessCommand, BlockTarget, access},
    activity::{ActivityCommand, activity},
    migrate::migrate,
    sessions::{SessionSelector, SessionsCommand, sessions},
};
use self::{exit::Failure, output::print_line as print};
use crate::activity::{Actor, Author};

/// Author of a change made on the command line.
fn author(name: Option<String>) -> Author {
    let name =
        name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "command line".to_owned());
    Author { actor: Actor { name: Some(name), ..Actor::default() }, ..Author::default() }
}

fn no_database() -> Failure {
    Failure::Misconfigured(
        "DATABASE_URL: is required for this command; use the value of the gateway".to_owned(),
    )
}
