//! What is not as it should be, for operators.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether upstream honours minted sessions: that part's name.
pub(crate) const CANARY: &str = "canary";

/// What work in the background found to be not as it should be: a part's name, and the reason in plain
/// words. For operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthRegistry(Arc<Mutex<ComponentState>>);

#[derive(Debug, Default)]
struct ComponentState {
    troubles: BTreeMap<&'static str, String>,
    /// Parts that were tried and found well.
    proven: BTreeSet<&'static str>,
}

impl HealthRegistry {
    /// A part is not as it should be. Whether that is news.
    pub(crate) fn raise(&self, part: &'static str, reason: String) -> bool {
        let mut known = self.lock();
        known.proven.remove(part);
        let is_news = known.troubles.get(part) != Some(&reason);
        known.troubles.insert(part, reason);
        is_news
    }

    /// Nothing is known against a part (any more).
    pub(crate) fn clear(&self, part: &'static str) {
        let mut known = self.lock();
        known.troubles.remove(part);
        known.proven.remove(part);
    }

    /// A part was tried, and is well.
    pub(crate) fn mark_healthy(&self, part: &'static str) {
        let mut known = self.lock();
        known.troubles.remove(part);
        known.proven.insert(part);
    }

    /// Whether a part was tried and found well.
    pub(crate) fn is_healthy(&self, part: &str) -> bool {
        self.lock().proven.contains(part)
    }

    /// All that is not as it should be.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, String> {
        self.lock().troubles.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ComponentState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
