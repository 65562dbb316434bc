//! Notices when every request comes from one public address: then it is likely an edge that hides who
//! its callers are, and what is counted by address shuts all of them out together.

use std::{
    cell::Cell,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::authz::client_info::is_private;

/// Disposition so many requests it is no accident any more.
const MANY: u32 = 100;

/// What one thread has seen; the warning is for all threads together.
#[derive(Debug)]
pub(crate) struct SoleClient {
    observed: Cell<Observed>,
    has_warned: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Observed {
    Nobody,
    One(IpAddr, u32),
    /// Or one that is not public, or the operator was told.
    Several,
}

impl SoleClient {
    pub(crate) fn new(has_warned: Arc<AtomicBool>) -> Self {
        Self { observed: Cell::new(Observed::Nobody), has_warned }
    }

    /// A request came from a client.
    pub(crate) fn observe(&self, client: IpAddr) {
        let observed = match self.observed.get() {
            Observed::Several => return,
            Observed::Nobody if !is_private(client) => Observed::One(client, 1),
            Observed::One(address, count) if address == client && count < MANY => {
                Observed::One(address, count + 1)
            }
            Observed::One(address, _) if address == client => {
                self.warn(address);
                Observed::Several
            }
            Observed::Nobody | Observed::One(..) => Observed::Several,
        };
        self.observed.set(observed);
    }

    fn warn(&self, address: IpAddr) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                client.address = %address,
                "every request so far comes from one public address: if that is a proxy, name it in GATEWAY_TRUSTED_PROXIES; if it is Azure Front Door, set GATEWAY_FRONT_DOOR_ID. GATEWAY_LOGIN_FAILURE_LIMIT counts by client address"
            );
        }
    }
}
