//! Cache of verified tokens by their hash: bounded in number and time, and invalidated when the keys change.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use crate::authz::token::{Fingerprint, Identity};

/// Maximum number of cached tokens; the least used are evicted.
const MAX: u64 = 4096;
/// Time to live: keys are refreshed about as often, and `exp` of an identity is checked at each use.
const TIME_TO_LIVE: Duration = Duration::from_hours(1);

/// Identities of verified tokens, with the version of the keys that verified them.
pub(super) struct TokenCache(Cache<Fingerprint, (u64, Arc<Identity>)>);

impl TokenCache {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX).time_to_live(TIME_TO_LIVE).build())
    }

    /// Identity of a token, if it was verified with this `version` of the keys.
    pub(super) fn find(&self, token: &Fingerprint, version: u64) -> Option<Arc<Identity>> {
        let (verified_with, identity) = self.0.get(token)?;
        (verified_with == version).then_some(identity)
    }

    /// Adds a token that was verified with this `version` of the keys, or a newer one.
    pub(super) fn add(&self, token: Fingerprint, version: u64, identity: Arc<Identity>) {
        self.0.insert(token, (version, identity));
    }
}
