//! Instances of the gateway that share a store notice one another there.

use super::{Sessions, SessionsError, in_time};
use crate::clock;

/// One that has not been seen for so long is gone, in seconds.
const STALE_AFTER: i64 = 15;

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
    async fn instances_see_one_another_until_they_are_gone() {
        let folders = folders();
        let (one, other) = (instance(folders.path()), instance(folders.path()));
        let pair = |name: &str, database: &str| (name.to_owned(), database.to_owned());
        assert_eq!(one.register("one", "sqlite:/a b/c").await.unwrap(), []);
        assert_eq!(other.register("other", "d").await.unwrap(), [pair("one", "sqlite:/a b/c")]);
        assert_eq!(one.register("one", "e").await.unwrap(), [pair("other", "d")]);
        assert_eq!(other.register("other", "d").await.unwrap(), [pair("one", "e")], "it moved");

        let seen = std::fs::read_dir(folders.path().join("state/instances")).unwrap();
        let hours_ago = std::fs::metadata(folders.path()).unwrap().modified().unwrap()
            - Duration::from_hours(1);
        for entry in seen {
            let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(hours_ago).unwrap();
        }
        assert_eq!(one.register("one", "e").await.unwrap(), []);
        assert_eq!(other.register("other", "d").await.unwrap(), [pair("one", "e")]);
    }
}
