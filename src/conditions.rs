//! What is not as it should be, for operators.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What work in the background found to be not as it should be: a part's name, and the reason in plain
/// words. For operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Conditions {
    /// A part is not as it should be. Whether that is news.
    pub(crate) fn raise(&self, part: &'static str, reason: String) -> bool {
        let mut conditions = self.lock();
        let is_news = conditions.get(part) != Some(&reason);
        conditions.insert(part, reason);
        is_news
    }

    /// A part is well (again).
    pub(crate) fn clear(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
