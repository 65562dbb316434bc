//! Instances of the gateway that share a store notice one another there.

use super::{Sessions, SessionsError, patiently};
use crate::clock;

/// One that has not been seen for so long is gone, in seconds.
const GONE_AFTER: i64 = 15;

impl Sessions {
    /// Says that this instance is there, and which database it writes to; the others that have said so
    /// lately, each with its database. Neither may be a secret.
    pub(crate) async fn register(
        &self,
        instance: &str,
        database: &str,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let now = clock::now();
        let mut others =
            patiently(self.0.shelf.register(instance, database, now, now - GONE_AFTER)).await?;
        others.retain(|(other, _)| other != instance);
        others.sort();
        Ok(others)
    }
}
