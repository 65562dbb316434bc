//! `migrate`: applies database migrations, with any value of `GATEWAY_MIGRATE`.

use super::{exit::Failure, no_database, print, report::block_on};
use crate::{activity::Activity, config::Config};

/// Applies database migrations.
///
/// # Errors
/// When no database is set, or it cannot be reached or changed.
pub fn migrate(config: &Config) -> Result<(), Failure> {
    if config.activity.database.is_none() {
        return Err(no_database());
    }
    block_on(async {
        let activity = Activity::open_existing(&config.activity);
        activity.migrate().await?;
        print("the database is up to date");
        Ok(())
    })?
}
