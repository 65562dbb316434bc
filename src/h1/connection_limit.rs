//! Limits of connections and of concurrent requests at upstream, from file descriptors and the memory limit.
//!
//! Each connection needs a descriptor, and a second one while its request is at upstream. Half of the
//! connections may have a request at upstream at a time. `docs/scaling.md` shows the division of a memory limit.

use std::cell::Cell;

use super::memory::MemoryBudget;

/// Descriptors for everything else: listeners, session store, Entra, management port, files.
const OTHERS: u64 = 32;
/// Connections above the limit, for health probes only.
const RESERVE: u64 = 16;

/// Bytes of the process that belong to no connection: code, session store, telemetry, database.
const PROCESS: usize = 32 << 20;
/// Bytes of a thread: its pool of read buffers, and its part of the allocator's fragmentation.
const THREAD: usize = 6 << 20;
/// Maximum of bytes of a connection without a share of the budget, kernel structures included: a head of 8 KiB
/// that is being served, and 4 KiB buffered behind it. Measured: 26 KiB.
const CONNECTION: usize = 28 << 10;
/// Maximum of further bytes for a request at upstream: the connection and its request head. Measured: 15 KiB.
const REQUEST: usize = 16 << 10;
/// The same with TLS to upstream.
const REQUEST_OVER_TLS: usize = 64 << 10;

/// Resources of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) descriptors: u64,
    /// Memory limit in bytes; `None`: no limit.
    pub(crate) memory: Option<usize>,
    pub(crate) threads: usize,
    /// True if connections to upstream use TLS.
    pub(crate) has_tls: bool,
}

impl Capacity {
    /// Memory for connections, requests and their bodies, in bytes.
    fn for_callers(self) -> Option<usize> {
        let limit = self.memory?;
        let process = PROCESS.saturating_add(THREAD.saturating_mul(self.threads));
        Some(limit - process.min(limit / 2))
    }

    /// The budget for unfinished heads, bodies and responses: a quarter of the memory for callers.
    pub(crate) fn budget(self) -> MemoryBudget {
        self.for_callers().map_or_else(MemoryBudget::default, |bytes| MemoryBudget::of(bytes / 4))
    }
}

/// Connection limit of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimit {
    /// Maximum of connections that are served.
    pub(crate) max: usize,
    /// Further connections, on which only health probes are answered.
    reserve: usize,
    /// Maximum of concurrent requests at upstream.
    requests: usize,
}

impl ConnectionLimit {
    /// Limit of a listener with few clients.
    pub(crate) const SMALL: Self = Self { max: 32, reserve: 0, requests: 32 };

    /// The limit of each thread of a process.
    pub(crate) fn of(capacity: Capacity) -> Self {
        let share = |all: usize| all.div_ceil(capacity.threads).max(1);
        let for_callers = capacity.descriptors.saturating_sub(OTHERS);
        let reserve = RESERVE.min(for_callers / 4);
        let by_descriptors = usize::try_from((for_callers - reserve) * 2 / 3).unwrap_or(usize::MAX);
        let of_request = if capacity.has_tls { REQUEST_OVER_TLS } else { REQUEST };
        // Five eighths for connections, one eighth for requests; a quarter is the budget.
        let (connections, requests) = match capacity.for_callers() {
            Some(bytes) => (bytes / 8 * 5 / CONNECTION, bytes / 8 / of_request),
            None => (usize::MAX, usize::MAX),
        };
        Self {
            max: share(by_descriptors.min(connections)),
            reserve: share(usize::try_from(reserve).unwrap_or(usize::MAX)),
            requests: share(requests),
        }
    }

    /// Maximum of connections, those for health probes included.
    pub(crate) fn with_reserve(self) -> usize {
        self.max + self.reserve
    }

    /// Maximum of connections of `threads` threads.
    pub(crate) fn connections(self, threads: usize) -> usize {
        self.max.saturating_mul(threads)
    }
}

/// Counter of the requests of one thread that are at upstream.
#[derive(Debug)]
pub(crate) struct UpstreamRequestLimit {
    max: usize,
    now: Cell<usize>,
}

impl UpstreamRequestLimit {
    pub(crate) fn of(bounds: ConnectionLimit) -> Self {
        Self { max: bounds.requests, now: Cell::new(0) }
    }

    /// Counts one more request until the guard is dropped; `None`: the limit is reached.
    pub(crate) fn begin(&self) -> Option<UpstreamRequest<'_>> {
        let now = self.now.get();
        (now < self.max).then(|| {
            self.now.set(now + 1);
            UpstreamRequest(&self.now)
        })
    }
}

/// Guard that counts one request at upstream.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a>(&'a Cell<usize>);

impl Drop for UpstreamRequest<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(descriptors: u64, memory: Option<usize>) -> Capacity {
        Capacity { descriptors, memory, threads: 2, has_tls: false }
    }

    #[test]
    fn connections_and_reserve_leave_descriptors_for_the_rest() {
        let bounds = ConnectionLimit::of(capacity(1024, None));
        assert!((bounds.max * 3 / 2 + bounds.reserve) * 2 + 32 <= 1024 + 4, "{bounds:?}");
        let tiny = ConnectionLimit::of(capacity(20, None));
        assert_eq!((tiny.max, tiny.reserve), (1, 1));
    }

    #[test]
    fn connections_requests_and_budget_fit_into_the_memory_limit() {
        for megabytes in [32, 64, 128, 256, 512, 4096] {
            let limit = megabytes << 20;
            let capacity = capacity(1 << 20, Some(limit));
            let bounds = ConnectionLimit::of(capacity);
            let callers = limit - (PROCESS + 2 * THREAD).min(limit / 2);
            let used = 2 * (bounds.max * CONNECTION + bounds.requests * REQUEST) + callers / 4;
            assert!(used <= callers + 2 * (CONNECTION + REQUEST), "{megabytes} MiB: {bounds:?}");
        }
    }

    #[test]
    fn the_descriptor_limit_applies_with_ample_memory() {
        let (scarce, ample) = (capacity(1024, None), capacity(1024, Some(1 << 40)));
        assert_eq!(ConnectionLimit::of(scarce).max, ConnectionLimit::of(ample).max);
    }

    #[test]
    fn requests_at_upstream_are_counted_until_they_end() {
        let requests = UpstreamRequestLimit { max: 1, now: Cell::new(0) };
        let one = requests.begin();
        assert!(one.is_some() && requests.begin().is_none());
        drop(one);
        assert!(requests.begin().is_some());
    }
}
