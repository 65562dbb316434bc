//! Registry of the gateway's instances in the shared session store.

use super::{Sessions, SessionsError, in_time};
use crate::clock;

/// Seconds without a heartbeat after which an instance is no longer listed.
const STALE_AFTER: i64 = 15;

impl Sessions {
    /// Records a heartbeat of this instance and the database it writes to; returns the other instances with a recent
    /// heartbeat, each with its database. Neither may be a secret.
    pub(crate) async fn register(
        &self,
        instance: &str,
        database: &str,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let now = clock::now();
        let mut others =
            in_time(self.0.backend.register(instance, database, now, now - STALE_AFTER)).await?;
        others.retain(|(other, _)| other != instance);
        others.sort();
        Ok(others)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::sessions::test_support::{folders, instance};

    #[tokio::test]
    async fn instances_list_one_another_until_their_heartbeat_is_stale() {
        let folders = folders();
        let (one, other) = (instance(folders.path()), instance(folders.path()));
        let pair = |name: &str, database: &str| (name.to_owned(), database.to_owned());
        assert_eq!(one.register("one", "sqlite:/a b/c").await.unwrap(), []);
        assert_eq!(other.register("other", "d").await.unwrap(), [pair("one", "sqlite:/a b/c")]);
        assert_eq!(one.register("one", "e").await.unwrap(), [pair("other", "d")]);
        assert_eq!(
            other.register("other", "d").await.unwrap(),
            [pair("one", "e")],
            "the database changed"
        );

        let entries = std::fs::read_dir(folders.path().join("state/instances")).unwrap();
        let hours_ago = std::fs::metadata(folders.path()).unwrap().modified().unwrap()
            - Duration::from_hours(1);
        for entry in entries {
            let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(hours_ago).unwrap();
        }
        assert_eq!(one.register("one", "e").await.unwrap(), []);
        assert_eq!(other.register("other", "d").await.unwrap(), [pair("one", "e")]);
    }
}
