//! `doctor`: `check`, then the live proof, then what App Service and the app registration must hold.

mod easy_auth;
mod identifier_uri;
mod neighbours;
mod proof;
mod registration;

use self::registration::{Registration, Wanted};
use crate::{
    check::try_everything,
    config::Config,
    failure::Failure,
    report::{Report, block_on},
};

/// Tries everything that the settings name, proves on upstream itself that it honours a minted session,
/// and prints what cannot be tried from here: the app registration, and App Service's own sign-in.
///
/// # Errors
/// [`Failure::Unavailable`] when the gateway could not serve like this, or the proof does not hold.
pub fn doctor(config: &Config) -> Result<(), Failure> {
    block_on(async {
        let mut report = Report::default();
        let found = try_everything(config, &mut report).await;
        match (&found.upstream, &found.sessions) {
            (Some(upstream), Some(sessions)) => {
                proof::run(config, upstream, sessions, &mut report).await?;
            }
            _ => report.untried("canary: upstream and the session store must be there first"),
        }
        let mut version_1_only = None;
        if let Some(upstream) = &found.upstream {
            neighbours::reserved_paths(upstream, &report).await;
            neighbours::other_ways_in(config, &report).await;
            version_1_only = neighbours::takes_version_1_alone(upstream).await;
        } else {
            report.untried(
                "whether upstream is reachable past the gateway, and answers at its paths",
            );
        }
        let registration = Registration::new(&Wanted::of(config, version_1_only));
        easy_auth::look(config, registration.version(), &report).await;
        registration.print(&report);
        report.finish()
    })?
}
