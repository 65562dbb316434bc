//! How many connections and requests there is room for: by descriptors, and by the memory limit.
//!
//! Each connection needs a descriptor, and while upstream is asked for it another one. Half of them may ask
//! at a time. `docs/scaling.md` has the sum of what a memory limit is divided into.

use std::cell::Cell;

use super::memory::Memory;

/// Descriptors for everything that is no caller: listeners, the store, Entra, operators, files.
const OTHERS: u64 = 32;
/// Connections beyond the room, for health probes alone.
const RESERVE: u64 = 16;

/// Bytes of the process that are no connection's: code, stores, telemetry, the database.
const PROCESS: usize = 32 << 20;
/// Bytes of a thread: buffers that it lends, and its part of the allocator's waste.
const THREAD: usize = 6 << 20;
/// Most bytes of a connection without a share of the budget, the kernel's structures included: a head of
/// 8 KiB that is being answered, and 4 KiB held behind it. Measured: 26 KiB.
const CONNECTION: usize = 28 << 10;
/// Most further bytes while upstream is asked: its connection, and the head for it. Measured: 15 KiB.
const REQUEST: usize = 16 << 10;
/// The same for TLS to upstream.
const REQUEST_OVER_TLS: usize = 64 << 10;

/// What a process may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) descriptors: u64,
    /// In bytes.
    pub(crate) memory: Option<usize>,
    pub(crate) threads: usize,
    /// Whether connections to upstream use TLS.
    pub(crate) has_tls: bool,
}

impl Capacity {
    /// Memory for connections, requests and their bodies, in bytes.
    fn for_callers(self) -> Option<usize> {
        let limit = self.memory?;
        let process = PROCESS.saturating_add(THREAD.saturating_mul(self.threads));
        Some(limit - process.min(limit / 2))
    }

    /// The budget for unfinished heads, bodies and answers: a quarter.
    pub(crate) fn budget(self) -> Memory {
        self.for_callers().map_or_else(Memory::default, |bytes| Memory::of(bytes / 4))
    }
}

/// ConnectionLimit of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimit {
    /// Connections that are served.
    pub(crate) max: usize,
    /// Further ones, on which health probes alone are answered.
    reserve: usize,
    /// Requests that are at upstream at a time.
    requests: usize,
}

impl ConnectionLimit {
    /// For a few.
    pub(crate) const SMALL: Self = Self { max: 32, reserve: 0, requests: 32 };

    /// What each of a process's threads may take.
    pub(crate) fn of(capacity: Capacity) -> Self {
        let share = |all: usize| all.div_ceil(capacity.threads).max(1);
        let for_callers = capacity.descriptors.saturating_sub(OTHERS);
        let reserve = RESERVE.min(for_callers / 4);
        let by_descriptors = usize::try_from((for_callers - reserve) * 2 / 3).unwrap_or(usize::MAX);
        let of_request = if capacity.has_tls { REQUEST_OVER_TLS } else { REQUEST };
        // Five eighths and one eighth; the rest is the budget.
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

    pub(crate) fn with_reserve(self) -> usize {
        self.max + self.reserve
    }

    /// Connections of all of so many threads.
    pub(crate) fn connections(self, threads: usize) -> usize {
        self.max.saturating_mul(threads)
    }
}

/// Requests of one thread that are at upstream.
#[derive(Debug)]
pub(crate) struct Requests {
    max: usize,
    now: Cell<usize>,
}

impl Requests {
    pub(crate) fn of(bounds: ConnectionLimit) -> Self {
        Self { max: bounds.requests, now: Cell::new(0) }
    }

    /// Counts one more until the guard is dropped; `None`: there is no room.
    pub(crate) fn begin(&self) -> Option<AtUpstream<'_>> {
        let now = self.now.get();
        (now < self.max).then(|| {
            self.now.set(now + 1);
            AtUpstream(&self.now)
        })
    }
}

/// A request that is at upstream.
#[derive(Debug)]
pub(crate) struct AtUpstream<'a>(&'a Cell<usize>);

impl Drop for AtUpstream<'_> {
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
    fn three_descriptors_for_two_callers_leave_some_for_the_rest() {
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
    fn few_descriptors_count_whatever_the_memory() {
        let (scarce, ample) = (capacity(1024, None), capacity(1024, Some(1 << 40)));
        assert_eq!(ConnectionLimit::of(scarce).max, ConnectionLimit::of(ample).max);
    }

    #[test]
    fn requests_at_upstream_are_counted_until_they_end() {
        let requests = Requests { max: 1, now: Cell::new(0) };
        let one = requests.begin();
        assert!(one.is_some() && requests.begin().is_none());
        drop(one);
        assert!(requests.begin().is_some());
    }
}
