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

use crate::access::origin::is_private;

/// Disposition so many requests it is no accident any more.
const MANY: u32 = 100;

/// What one thread has seen; the warning is for all threads together.
#[derive(Debug)]
pub(super) struct SoleClient {
    seen: Cell<Seen>,
    was_told: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Nobody,
    One(IpAddr, u32),
    /// Or one that is not public, or the operator was told.
    Several,
}

impl SoleClient {
    pub(super) fn new(was_told: Arc<AtomicBool>) -> Self {
        Self { seen: Cell::new(Seen::Nobody), was_told }
    }

    /// A request came from a client.
    pub(super) fn came(&self, client: IpAddr) {
        let seen = match self.seen.get() {
            Seen::Several => return,
            Seen::Nobody if !is_private(client) => Seen::One(client, 1),
            Seen::One(address, count) if address == client && count < MANY => {
                Seen::One(address, count + 1)
            }
            Seen::One(address, _) if address == client => {
                self.tell(address);
                Seen::Several
            }
            Seen::Nobody | Seen::One(..) => Seen::Several,
        };
        self.seen.set(seen);
    }

    fn tell(&self, address: IpAddr) {
        if !self.was_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                client.address = %address,
                "every request so far comes from one public address: if that is a proxy, name it in GATEWAY_TRUSTED_PROXIES; if it is Azure Front Door, set GATEWAY_FRONT_DOOR_ID. GATEWAY_LOGIN_FAILURE_LIMIT counts by client address"
            );
        }
    }
}
