//! The tenant's signing keys and issuers: fetched from its own documents, kept, refreshed.
//!
//! A document's keys are replaced as a whole, so that one that was withdrawn stops counting at the next
//! refresh. They survive an outage for [`HARD_AGE`]. A token with an unknown key id causes one refresh for
//! all callers together, at most every [`COOLDOWN`]; where the tenant's documents do not hold it either, the
//! app's own are asked, at most as often. Keys found there are refreshed in the background from then on.

mod documents;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_entra.rs"]
pub(crate) mod fuzzing;
mod metrics;
mod token_cache;
#[cfg(test)]
mod wycheproof;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, time::sleep};
use url::Url;

pub(crate) use self::documents::DocumentError;
use self::{documents::Documents, metrics::EntraMetrics, token_cache::TokenCache};
use crate::{
    authz::token::{BearerToken, Claims, Identity, Issuers, SigningKey, TokenError},
    config::EntraConfig,
    telemetry,
};

/// How often keys are refreshed when all is well, give or take a tenth.
const REFRESH: Duration = Duration::from_hours(1);
/// How soon a refresh that failed is tried again while keys are known.
const RETRY: Duration = Duration::from_secs(30);
/// How soon while none are known.
const RETRY_EMPTY: Duration = Duration::from_secs(1);
/// How long keys count that could not be refreshed.
const HARD_AGE: Duration = Duration::from_hours(24);
/// How often an unknown key id may cause a refresh.
const COOLDOWN: Duration = Duration::from_secs(30);

/// Why a token could not be verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntraError {
    /// The token's fault.
    #[error(transparent)]
    Rejected(TokenError),
    /// Not the token's fault.
    #[error("the tenant's signing keys are not known")]
    KeysUnavailable,
}

impl EntraError {
    /// In one of a few words, for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::KeysUnavailable | Self::Rejected(TokenError::IssuerUnknownYet) => {
                "keys_unavailable"
            }
            Self::Rejected(TokenError::Malformed(_)) => "token_malformed",
            Self::Rejected(TokenError::UnknownKey) => "token_unknown_key",
            Self::Rejected(TokenError::Signature) => "token_signature",
            Self::Rejected(TokenError::Claim(_)) => "token_claim",
            Self::Rejected(TokenError::Expired) => "token_expired",
            Self::Rejected(TokenError::NotYetValid) => "token_not_yet_valid",
            Self::Rejected(TokenError::Issuer) => "token_issuer",
            Self::Rejected(TokenError::Audience) => "token_audience",
            Self::Rejected(TokenError::ForGraph) => "token_for_graph",
            Self::Rejected(TokenError::Tenant) => "token_tenant",
            Self::Rejected(TokenError::WrongType) => "token_wrong_type",
        }
    }
}

/// Verifies tokens with the tenant's keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Entra(Arc<Inner>);

struct Inner {
    config: EntraConfig,
    documents: Documents,
    keys_now: ArcSwap<TenantKeys>,
    refreshing: Mutex<Refreshing>,
    token_cache: TokenCache,
    metrics: EntraMetrics,
}

/// What the documents said. Version 1 and version 2 tokens have documents of their own; neither
/// waits for the other's.
#[derive(Clone, Default)]
struct TenantKeys {
    v2: Option<Arc<Published>>,
    v1: Option<Arc<Published>>,
    /// The keys that the app's own documents hold beyond the tenant's; `None` where there are none.
    of_app: Option<Arc<Published>>,
    /// Counts refreshes, so that callers who waited for one notice it.
    version: u64,
    /// Whether the last refresh could not have the v2 document. The keys of both are the same ones.
    is_stale: bool,
    /// The same for the app's own documents.
    is_app_stale: bool,
}

/// One metadata document and its keys.
struct Published {
    issuer: String,
    keys: HashMap<String, SigningKey>,
    fetched: Instant,
}

/// Times of the last refreshes. Held by the one refresh that runs.
#[derive(Default)]
struct Refreshing {
    /// Of the tenant's documents for an unknown key id.
    of_tenant: Option<Instant>,
    /// Of the app's own documents.
    of_app: Option<Instant>,
}

/// Whether an unknown key id may not cause a refresh yet.
fn is_cooling(last: Option<Instant>) -> bool {
    last.is_some_and(|last| last.elapsed() < COOLDOWN)
}

impl TenantKeys {
    /// Without what is too old.
    fn current(&self) -> Self {
        let fresh = |published: &Option<Arc<Published>>| {
            published.clone().filter(|published| published.fetched.elapsed() < HARD_AGE)
        };
        Self { v2: fresh(&self.v2), v1: fresh(&self.v1), of_app: fresh(&self.of_app), ..*self }
    }

    /// Since when the older of the documents has not been refreshed.
    fn age(&self) -> Option<Duration> {
        self.all().map(|published| published.fetched.elapsed()).max()
    }

    fn has_keys(&self) -> bool {
        self.all().any(|published| !published.keys.is_empty())
    }

    /// The v2 document has the last word on an id that several name.
    fn key(&self, id: &str) -> Option<&SigningKey> {
        self.all().find_map(|published| published.keys.get(id))
    }

    /// The tenant's documents, then the app's.
    fn all(&self) -> impl Iterator<Item = &Arc<Published>> {
        [&self.v2, &self.v1, &self.of_app].into_iter().flatten()
    }

    fn issuers(&self) -> Issuers {
        let issuer = |published: &Option<Arc<Published>>| {
            published.as_ref().map(|published| published.issuer.clone())
        };
        Issuers { v2: issuer(&self.v2), v1: issuer(&self.v1) }
    }
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entra(..)")
    }
}

impl Entra {
    /// Knows no keys until [`Self::refresh`] or [`Self::keep_fresh`] fetched them.
    ///
    /// # Errors
    /// When no TLS client can be built.
    pub(crate) fn new(config: EntraConfig) -> Result<Self, reqwest::Error> {
        let inner = Arc::new(Inner {
            config,
            documents: Documents::new()?,
            keys_now: ArcSwap::default(),
            refreshing: Mutex::default(),
            token_cache: TokenCache::new(),
            metrics: EntraMetrics::new(),
        });
        let entra = Arc::downgrade(&inner);
        metrics::observe_age(move || entra.upgrade()?.keys_now.load().age());
        Ok(Self(inner))
    }

    /// Refreshes for ever; to be spawned.
    pub(crate) async fn refresh_loop(self) {
        let mut failures: u32 = 0;
        loop {
            let pause = match self.refresh().await {
                Ok(()) => {
                    failures = 0;
                    jittered(REFRESH)
                }
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        tracing::warn!(error = %telemetry::chain(&error), "signing keys could not be refreshed");
                    }
                    let keys_now = self.0.keys_now.load().current();
                    let is_missing_one = keys_now.v2.is_none() || keys_now.v1.is_none();
                    match (keys_now.has_keys(), is_missing_one) {
                        (false, _) => RETRY_EMPTY,
                        (true, true) => RETRY.min(RETRY_EMPTY * 2_u32.pow(failures.min(5))),
                        (true, false) => RETRY,
                    }
                }
            };
            sleep(pause).await;
        }
    }

    /// Fetches the documents once and replaces what they say. What cannot be had stays as it was, and
    /// is the error.
    pub(crate) async fn refresh(&self) -> Result<(), DocumentError> {
        let mut refreshing = self.0.refreshing.lock().await;
        self.fetch(&mut refreshing).await
    }

    /// Fetches the tenant's documents, and the app's where they hold keys of its own or could not be had before.
    async fn fetch(&self, refreshing: &mut Refreshing) -> Result<(), DocumentError> {
        let fetched = self.fetch_documents().await;
        self.0.metrics.refreshed(&fetched);
        let keys_now = self.0.keys_now.load_full();
        if keys_now.of_app.is_some() || keys_now.is_app_stale {
            self.fetch_of_app(refreshing).await?;
        }
        fetched
    }

    /// Fetches the app's own documents.
    async fn fetch_of_app(&self, refreshing: &mut Refreshing) -> Result<(), DocumentError> {
        refreshing.of_app = Some(Instant::now());
        let fetched = self.app_keys().await;
        self.0.metrics.refreshed(&fetched);
        let before = self.0.keys_now.load_full();
        let mut keys_now = TenantKeys { version: before.version + 1, ..(*before).clone() };
        keys_now.is_app_stale = fetched.is_err();
        let failed = match fetched {
            Ok(keys) => {
                let of_tenant = [&keys_now.v2, &keys_now.v1].into_iter().flatten();
                let of_tenant: HashSet<&String> =
                    of_tenant.flat_map(|published| published.keys.keys()).collect();
                let keys: HashMap<_, _> =
                    keys.into_iter().filter(|(id, _)| !of_tenant.contains(id)).collect();
                tracing::info!(keys = keys.len(), "the app's own signing keys refreshed");
                keys_now.of_app = (!keys.is_empty()).then(|| {
                    Arc::new(Published { issuer: String::new(), keys, fetched: Instant::now() })
                });
                None
            }
            Err(error) => Some(error),
        };
        self.0.keys_now.store(Arc::new(keys_now));
        failed.map_or(Ok(()), Err)
    }

    /// The keys in the app's own documents. A document that the server refuses (4xx) does not exist; where only
    /// one of the two cannot be had, the keys of the other count, since both hold the same ones.
    async fn app_keys(&self) -> Result<HashMap<String, SigningKey>, DocumentError> {
        let (mut keys, mut failed, mut is_answered) = (HashMap::new(), None, false);
        let Some([v2, v1]) = &self.0.config.metadata_of_app else { return Ok(keys) };
        let (v2, v1) = tokio::join!(self.published(v2), self.published(v1));
        for published in [v2, v1] {
            match published {
                Ok(published) => {
                    is_answered = true;
                    for (id, key) in published.keys {
                        keys.entry(id).or_insert(key);
                    }
                }
                Err(DocumentError::Status { status: 400..=499, .. }) => is_answered = true,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !is_answered => Err(error),
            _ => Ok(keys),
        }
    }

    async fn fetch_documents(&self) -> Result<(), DocumentError> {
        let config = &self.0.config;
        let (v2, v1) =
            tokio::join!(self.published(&config.metadata_v2), self.published(&config.metadata_v1));
        let v1 = match (v1, &config.issuer_v1_fallback) {
            (Err(DocumentError::Status { status: 404, .. }), Some(issuer)) => {
                let (issuer, keys) = (issuer.clone(), HashMap::new());
                Ok(Published { issuer, keys, fetched: Instant::now() })
            }
            (v1, _) => v1,
        };
        let before = self.0.keys_now.load();
        let mut keys_now =
            TenantKeys { version: before.version + 1, is_stale: v2.is_err(), ..(**before).clone() };
        let mut failed = None;
        for (fetched, slot) in [(v1, &mut keys_now.v1), (v2, &mut keys_now.v2)] {
            match fetched {
                Ok(published) => *slot = Some(Arc::new(published)),
                Err(error) => failed = Some(error),
            }
        }
        let keys =
            [&keys_now.v2, &keys_now.v1].into_iter().flatten().map(|p| p.keys.len()).sum::<usize>();
        self.0.keys_now.store(Arc::new(keys_now));
        if let Some(error) = failed {
            return Err(error);
        }
        tracing::info!(keys, "signing keys refreshed");
        Ok(())
    }

    async fn published(&self, metadata: &Url) -> Result<Published, DocumentError> {
        let Inner { config, documents, .. } = &*self.0;
        let metadata = documents.metadata(metadata).await?;
        let keys = documents.keys(&metadata.jwks_uri).await?;
        Ok(Published {
            issuer: metadata.issuer.replace("{tenantid}", &config.expected.tenant.to_string()),
            keys: keys.into_iter().collect(),
            fetched: Instant::now(),
        })
    }

    /// Whether tokens can be verified at all.
    pub(crate) fn has_keys(&self) -> bool {
        self.0.keys_now.load().current().has_keys()
    }

    /// Whom a token speaks for; `now` in Unix seconds. One that was verified with the keys known now is
    /// remembered: a caller that sends it with every request costs one verification.
    pub(crate) async fn identify(
        &self,
        token: &BearerToken,
        now: i64,
    ) -> Result<Arc<Identity>, EntraError> {
        let fingerprint = token.fingerprint();
        let version = self.0.keys_now.load().version;
        if let Some(identity) = self.0.token_cache.find(&fingerprint, version)
            && self.has_keys()
        {
            identity.recheck(now).map_err(EntraError::Rejected)?;
            return Ok(identity);
        }
        let identity = Arc::new(self.verify(token, now).await?.into_identity());
        self.0.token_cache.add(fingerprint, version, Arc::clone(&identity));
        Ok(identity)
    }

    /// From the text a caller sent to claims that may be relied on; `now` in Unix seconds.
    pub(crate) async fn verify(&self, token: &BearerToken, now: i64) -> Result<Claims, EntraError> {
        let begun = Instant::now();
        let verified = self.verify_now(token, now).await.map_err(|error| match error {
            EntraError::Rejected(
                TokenError::Signature | TokenError::UnknownKey | TokenError::Audience,
            ) if token.is_for_graph() => EntraError::Rejected(TokenError::ForGraph),
            error => error,
        });
        self.0.metrics.verified(begun.elapsed(), &verified);
        verified
    }

    async fn verify_now(&self, token: &BearerToken, now: i64) -> Result<Claims, EntraError> {
        let mut keys_now = self.0.keys_now.load().current();
        if !keys_now.has_keys() {
            return Err(EntraError::KeysUnavailable);
        }
        let key_id = token.unverified_key_id().map_err(EntraError::Rejected)?;
        if keys_now.key(&key_id).is_none() {
            keys_now = self.refreshed_for_unknown_key(key_id.clone(), keys_now.version).await;
        }
        let Some(key) = keys_now.key(&key_id) else {
            // While Entra is away nobody can say that there is no such key.
            return Err(if keys_now.is_stale || keys_now.is_app_stale {
                EntraError::KeysUnavailable
            } else {
                EntraError::Rejected(TokenError::UnknownKey)
            });
        };
        token.verify(key, &keys_now.issuers(), &self.0.config.expected, now).map_err(|error| {
            match error {
                TokenError::IssuerUnknownYet => EntraError::KeysUnavailable,
                error => EntraError::Rejected(error),
            }
        })
    }

    /// One refresh for all callers that wait at once, and none within [`COOLDOWN`] of the last; the same for the
    /// app's own documents where the tenant's do not hold the key. It goes on when the caller hangs up:
    /// others wait for it.
    async fn refreshed_for_unknown_key(&self, key_id: String, seen: u64) -> TenantKeys {
        let entra = self.clone();
        let refreshed = tokio::spawn(async move {
            if let Err(error) = entra.refresh_for_unknown_key(&key_id, seen).await {
                tracing::warn!(error = %telemetry::chain(&error), "signing keys could not be refreshed for an unknown key id");
            }
        });
        // A panic in there is in the log; what is known is known.
        let _ = refreshed.await;
        self.0.keys_now.load().current()
    }

    async fn refresh_for_unknown_key(&self, key_id: &str, seen: u64) -> Result<(), DocumentError> {
        let mut refreshing = self.0.refreshing.lock().await;
        let was_refreshed = self.0.keys_now.load().version != seen;
        let mut refreshed = Ok(());
        if !was_refreshed && !is_cooling(refreshing.of_tenant) {
            refreshing.of_tenant = Some(Instant::now());
            refreshed = self.fetch(&mut refreshing).await;
        }
        let keys_now = self.0.keys_now.load().current();
        let is_open = keys_now.key(key_id).is_none() && !keys_now.is_stale;
        let has_documents = self.0.config.metadata_of_app.is_some();
        if is_open && has_documents && !is_cooling(refreshing.of_app) {
            return refreshed.and(self.fetch_of_app(&mut refreshing).await);
        }
        refreshed
    }
}

/// Within a tenth of `pause`, so that instances do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without randomness they ask in step, which hurts nobody.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause.mul_f64(0.9 + f64::from(byte[0]) / 1275.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_not_be_refreshed_for_a_day_count_no_more() {
        let published = |age: Duration| {
            let fetched = Instant::now().checked_sub(age).expect("a time");
            let key = SigningKey::new(&[0xff; 256], &[1, 0, 1], None).expect("a key");
            let keys = HashMap::from([("kid".to_owned(), key)]);
            Some(Arc::new(Published { issuer: "an issuer".to_owned(), keys, fetched }))
        };
        for (age, counts) in [(HARD_AGE / 2, true), (HARD_AGE, false)] {
            let keys_now = TenantKeys { v2: published(age), ..TenantKeys::default() }.current();
            assert_eq!(keys_now.has_keys(), counts, "{age:?}");
            assert_eq!(keys_now.issuers().v2.is_some(), counts);
        }
    }
}
