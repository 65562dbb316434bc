//! Detection of a proxy that is not listed in `GATEWAY_TRUSTED_PROXIES`: all requests have one public client
//! address, and limits by address apply to all callers together.

use std::{
    cell::Cell,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::authz::client_info::is_private;

/// Requests from one address before the warning; fewer may be a coincidence.
const WARN_AFTER: u32 = 100;

/// Client addresses that one thread has observed. All threads together warn once.
#[derive(Debug)]
pub(crate) struct SoleClient {
    observed: Cell<Observed>,
    has_warned: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum Observed {
    None,
    One(IpAddr, u32),
    /// Several addresses or a private one, or the warning was logged: nothing is left to detect.
    Several,
}

impl SoleClient {
    pub(crate) fn new(has_warned: Arc<AtomicBool>) -> Self {
        Self { observed: Cell::new(Observed::None), has_warned }
    }

    /// Records the client address of a request.
    pub(crate) fn observe(&self, client: IpAddr) {
        let observed = match self.observed.get() {
            Observed::Several => return,
            Observed::None if !is_private(client) => Observed::One(client, 1),
            Observed::One(address, count) if address == client && count < WARN_AFTER => {
                Observed::One(address, count + 1)
            }
            Observed::One(address, _) if address == client => {
                self.warn(address);
                Observed::Several
            }
            Observed::None | Observed::One(..) => Observed::Several,
        };
        self.observed.set(observed);
    }

    fn warn(&self, address: IpAddr) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                client.address = %address,
                "all requests so far have the same public client address, and GATEWAY_LOGIN_FAILURE_LIMIT counts by client address. If the address is a proxy, list it in GATEWAY_TRUSTED_PROXIES; if it is Azure Front Door, set GATEWAY_FRONT_DOOR_ID"
            );
        }
    }
}
