//! Tokens that were verified, by their hash: bounded in number and time, and forgotten with the keys that
//! vouched for them.

use moka::sync::Cache;
use std::{sync::Arc, time::Duration};

use crate::authz::token::{Fingerprint, Identity};

/// Tokens remembered at a time; the least used give way.
const MAX: u64 = 4096;
/// How long: keys are refreshed about as often, and an identity is judged by its `exp` each time.
const LONGEST: Duration = Duration::from_hours(1);

/// What is known of tokens seen before.
pub(super) struct TokenCache(Cache<Fingerprint, (u64, Arc<Identity>)>);

impl TokenCache {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX).time_to_live(LONGEST).build())
    }

    /// Whom a token speaks for, if it was verified with the `version` of the keys.
    pub(super) fn find(&self, token: &Fingerprint, version: u64) -> Option<Arc<Identity>> {
        let (verified_with, identity) = self.0.get(token)?;
        (verified_with == version).then_some(identity)
    }

    /// Remembers a token that was verified with the `version` of the keys, or older ones.
    pub(super) fn add(&self, token: Fingerprint, version: u64, identity: Arc<Identity>) {
        self.0.insert(token, (version, identity));
    }
}
