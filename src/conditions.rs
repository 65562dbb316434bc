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
    /// A part is not as it should be.
    pub(crate) fn raise(&self, part: &'static str, reason: String) {
        self.lock().insert(part, reason);
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
