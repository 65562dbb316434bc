//! Login limits: logins per subject, failures per client address. Counted in bounded memory; with Redis as the store,
//! Redis counts both for all instances together.
//!
//! A window begins with its first event.

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Sessions;
use crate::config::{Limit, SessionsConfig};

/// Maximum of subjects, and of addresses, that are counted; the least used are evicted.
const MAX_COUNTED: u64 = 20_000;
/// Longest wait of a caller whose login failed for the count of all instances.
const COUNT_TIMEOUT: Duration = Duration::from_millis(250);

/// Unit of counting: an IPv4 address or an IPv6 /64, the network of one caller (RFC 4291 §2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => match v6.segments() {
                // An IPv4 caller behind NAT64 (RFC 6052 §2.1).
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
                }
                [a, b, c, d, ..] => Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(),
            },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A window and its count.
#[derive(Debug, Clone, Copy)]
struct Window {
    count: u32,
    ends: Instant,
}

/// Counter with one window per key. Without a limit it counts nothing.
struct Counter<K> {
    limit: Option<Limit>,
    windows: Cache<K, Window>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Counter<K> {
    fn new(limit: Option<Limit>) -> Self {
        let longest = limit.map_or(Duration::ZERO, |limit| limit.per);
        let windows = Cache::builder().max_capacity(MAX_COUNTED).time_to_live(longest).build();
        Self { limit, windows }
    }

    /// Counts one event; returns the wait when it exceeds the limit.
    fn add(&self, key: K) -> Option<Duration> {
        let Limit { max, per } = self.limit?;
        let now = Instant::now();
        let counted = self.windows.entry(key).and_upsert_with(|before| {
            match before.map(moka::Entry::into_value).filter(|window| window.ends > now) {
                Some(window) => Window { count: window.count.saturating_add(1), ..window },
                None => Window { count: 1, ends: now + per },
            }
        });
        let window = counted.into_value();
        (window.count > max).then(|| window.ends - now)
    }

    /// Remaining wait when the limit is reached.
    fn wait(&self, key: &K) -> Option<Duration> {
        let max = self.limit?.max;
        let window = self.windows.get(key).filter(|window| window.count >= max)?;
        window.ends.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
    }

    /// Applies a limit that all instances together have reached, for `wait`.
    fn merge(&self, key: K, wait: Duration) {
        if let Some(Limit { max, .. }) = self.limit {
            self.windows.insert(key, Window { count: max, ends: Instant::now() + wait });
        }
    }
}

/// Both counters, and the maximum of live sessions per subject.
pub(super) struct LoginLimits {
    pub(super) per_subject: usize,
    logins: Counter<Uuid>,
    failures: Counter<Network>,
}

impl fmt::Debug for LoginLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoginLimits")
            .field(&self.per_subject)
            .field(&self.logins.limit)
            .field(&self.failures.limit)
            .finish()
    }
}

impl LoginLimits {
    /// Limits with empty counters.
    pub(super) fn new(config: &SessionsConfig) -> Self {
        Self {
            per_subject: config.per_subject,
            logins: Counter::new(config.login_limit),
            failures: Counter::new(config.failure_limit),
        }
    }

    /// Limits of logins and of failures.
    pub(super) fn both(&self) -> (Option<Limit>, Option<Limit>) {
        (self.logins.limit, self.failures.limit)
    }

    /// Counts a login; returns the wait when it exceeds the limit.
    pub(super) fn login(&self, subject: Uuid) -> Option<Duration> {
        self.logins.add(subject)
    }

    /// Counts a failed login; returns the wait when it exceeds the limit.
    pub(super) fn failure(&self, from: Network) -> Option<Duration> {
        self.failures.add(from)
    }

    /// Remaining wait of an address that has reached the limit of failures.
    pub(super) fn failure_limit_wait(&self, network: &Network) -> Option<Duration> {
        self.failures.wait(network)
    }

    /// Applies the limit of failures that all instances together have counted.
    pub(super) fn limit_failures(&self, network: Network, wait: Duration) {
        self.failures.merge(network, wait);
    }
}

impl Sessions {
    /// Replaces the limits and resets all counters.
    pub(crate) fn limit(&self, config: &SessionsConfig) {
        self.0.limits.store(Arc::new(LoginLimits::new(config)));
    }

    /// `GATEWAY_SESSIONS_PER_SUBJECT`.
    pub(crate) fn per_subject(&self) -> usize {
        self.0.limits.load().per_subject
    }

    /// Remaining wait of an address whose failures have reached the limit.
    pub(crate) fn failure_limit_wait(&self, from: Network) -> Option<Duration> {
        self.0.limits.load().failure_limit_wait(&from)
    }

    /// Counts a failed login; returns the wait when it exceeds the limit. While the store is unavailable the
    /// count of this instance applies.
    pub(crate) async fn count_failure(&self, from: Network) -> Option<Duration> {
        let limits = self.0.limits.load_full();
        let limit = limits.both().1?;
        let here = limits.failure(from);
        let shared = timeout(COUNT_TIMEOUT, self.0.backend.count_failure(from, limit)).await;
        let everywhere = shared.ok().and_then(Result::ok).flatten();
        if let Some(wait) = everywhere {
            limits.limit_failures(from, wait);
        }
        everywhere.or(here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_admits_up_to_its_limit_and_ends() {
        let limit = Limit { max: 2, per: Duration::from_mins(1) };
        let counter = Counter::new(Some(limit));
        assert_eq!((counter.add("a"), counter.wait(&"a")), (None, None));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(counter.add("a"), None);
        assert_eq!(counter.wait(&"a"), Some(Duration::from_secs(40)));
        assert_eq!(counter.add("a"), Some(Duration::from_secs(40)));
        assert_eq!(counter.add("b"), None, "keys are counted separately");
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!((counter.wait(&"a"), counter.add("a")), (None, None), "a new window");
        counter.merge("c", Duration::from_secs(5));
        assert_eq!(counter.wait(&"c"), Some(Duration::from_secs(5)));
        assert_eq!(Counter::new(None).add("a"), None);
    }

    #[test]
    fn ipv6_callers_are_counted_by_their_64_bit_network() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("64:ff9b::192.0.2.1"), "192.0.2.1");
    }
}
