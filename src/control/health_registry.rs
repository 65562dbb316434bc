//! Health of components that work in the background, for operators.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Component name of the canary.
pub(crate) const CANARY: &str = "canary";

/// Failures of background work: component name and reason. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthRegistry(Arc<Mutex<ComponentState>>);

#[derive(Debug, Default)]
struct ComponentState {
    failures: BTreeMap<&'static str, String>,
    /// Components whose last check succeeded.
    healthy: BTreeSet<&'static str>,
}

impl HealthRegistry {
    /// Reports a failure of a component. True if the component was healthy or the reason is another one.
    pub(crate) fn raise(&self, component: &'static str, reason: String) -> bool {
        let mut known = self.lock();
        known.healthy.remove(component);
        let is_new = known.failures.get(component) != Some(&reason);
        known.failures.insert(component, reason);
        is_new
    }

    /// Removes a component's failure and its last successful check.
    pub(crate) fn clear(&self, component: &'static str) {
        let mut known = self.lock();
        known.failures.remove(component);
        known.healthy.remove(component);
    }

    /// Reports a successful check of a component.
    pub(crate) fn mark_healthy(&self, component: &'static str) {
        let mut known = self.lock();
        known.failures.remove(component);
        known.healthy.insert(component);
    }

    /// True if a component's last check succeeded.
    pub(crate) fn is_healthy(&self, component: &str) -> bool {
        self.lock().healthy.contains(component)
    }

    /// All failures: reasons by component.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, String> {
        self.lock().failures.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ComponentState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
