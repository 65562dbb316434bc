//! Texts in the session store that every instance reads until the database has stored their content. The store does
//! not interpret them.

use super::{Outbox, Sessions, SessionsError, in_time};
use crate::clock;

impl Sessions {
    /// Adds a text, for all instances and for those that start later. Idempotent.
    pub(crate) async fn add_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError> {
        in_time(self.0.backend.add_waiting(of, text, clock::now())).await
    }

    /// Reads up to `max` waiting texts.
    pub(crate) async fn waiting(
        &self,
        of: Outbox,
        max: usize,
    ) -> Result<Vec<String>, SessionsError> {
        in_time(self.0.backend.waiting(of, max)).await
    }

    /// Removes a text after the database has stored it.
    pub(crate) async fn remove_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError> {
        in_time(self.0.backend.remove_waiting(of, text)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::test_support::{folders, instance};

    #[tokio::test]
    async fn texts_are_read_by_every_instance_until_one_removes_them() {
        let folders = folders();
        let (one, other) = (instance(folders.path()), instance(folders.path()));
        for text in ["a", "b", "a"] {
            one.add_waiting(Outbox::Decisions, text).await.unwrap();
        }
        let read = async |of| {
            let mut texts = other.waiting(of, 10).await.unwrap();
            texts.sort();
            texts
        };
        assert_eq!(read(Outbox::Decisions).await, ["a", "b"]);
        assert_eq!(other.waiting(Outbox::Decisions, 1).await.unwrap().len(), 1);
        assert!(read(Outbox::Records).await.is_empty());
        for _ in 0..2 {
            other.remove_waiting(Outbox::Decisions, "a").await.unwrap();
        }
        assert_eq!(read(Outbox::Decisions).await, ["b"]);
    }
}
