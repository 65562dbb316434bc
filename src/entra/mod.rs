//! Token verification with the tenant's signing keys and issuers, which are fetched from its metadata documents and
//! refreshed.
//!
//! A refresh replaces all keys of a document, so that a withdrawn key is invalid after the next refresh. Keys survive
//! an outage for [`HARD_AGE`]. A token with an unknown key id causes one refresh for all callers together, at most
//! every [`COOLDOWN`]; if the tenant's documents do not contain the key, the app's own documents are fetched, at most
//! as often. Keys found there are refreshed in the background from then on.

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

/// Interval between refreshes, plus or minus a tenth.
const REFRESH: Duration = Duration::from_hours(1);
/// Retry interval after a failed refresh while keys are known.
const RETRY: Duration = Duration::from_secs(30);
/// Retry interval while no keys are known.
const RETRY_EMPTY: Duration = Duration::from_secs(1);
/// Maximum age of keys that could not be refreshed.
const HARD_AGE: Duration = Duration::from_hours(24);
/// Minimum interval between refreshes that unknown key ids cause.
const COOLDOWN: Duration = Duration::from_secs(30);

/// Failures of a verification.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntraError {
    /// The token is invalid.
    #[error(transparent)]
    Rejected(TokenError),
    /// The keys are missing, or too old to reject a key id; the token may be valid.
    #[error("the tenant's signing keys are unavailable")]
    KeysUnavailable,
}

impl EntraError {
    /// Value of `error.type`.
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

/// Keys and issuers of the fetched documents. Version 1 and version 2 tokens have separate documents; neither waits
/// for the other.
#[derive(Clone, Default)]
struct TenantKeys {
    v2: Option<Arc<Published>>,
    v1: Option<Arc<Published>>,
    /// Keys in the app's own documents that the tenant's do not contain; `None`: there are none.
    of_app: Option<Arc<Published>>,
    /// Number of refreshes, by which callers that waited for one detect it.
    version: u64,
    /// True if the last refresh could not fetch the v2 document. Both documents contain the same keys.
    is_stale: bool,
    /// True if the last refresh could not fetch the app's own documents.
    is_app_stale: bool,
}

/// Metadata document and its keys.
struct Published {
    issuer: String,
    keys: HashMap<String, SigningKey>,
    fetched: Instant,
}

/// Times of the last refreshes. The running refresh holds the lock.
#[derive(Default)]
struct Refreshing {
    /// Last refresh of the tenant's documents for an unknown key id.
    of_tenant: Option<Instant>,
    /// Last refresh of the app's own documents.
    of_app: Option<Instant>,
}

/// True while an unknown key id may not cause another refresh.
fn is_cooling(last: Option<Instant>) -> bool {
    last.is_some_and(|last| last.elapsed() < COOLDOWN)
}

impl TenantKeys {
    /// Copy without documents older than [`HARD_AGE`].
    fn current(&self) -> Self {
        let fresh = |published: &Option<Arc<Published>>| {
            published.clone().filter(|published| published.fetched.elapsed() < HARD_AGE)
        };
        Self { v2: fresh(&self.v2), v1: fresh(&self.v1), of_app: fresh(&self.of_app), ..*self }
    }

    /// Age of the oldest document.
    fn age(&self) -> Option<Duration> {
        self.all().map(|published| published.fetched.elapsed()).max()
    }

    fn has_keys(&self) -> bool {
        self.all().any(|published| !published.keys.is_empty())
    }

    /// Key with an id; if several documents contain the id, the v2 document takes precedence.
    fn key(&self, id: &str) -> Option<&SigningKey> {
        self.all().find_map(|published| published.keys.get(id))
    }

    /// Tenant's documents, then the app's.
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
    /// Creates the verifier without keys; [`Self::refresh`] or [`Self::refresh_loop`] fetches them.
    ///
    /// # Errors
    /// When the TLS client cannot be built.
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

    /// Refreshes the keys; runs forever, to be spawned.
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

    /// Fetches the documents once and replaces their keys and issuers.
    ///
    /// # Errors
    /// When a document cannot be fetched; its earlier keys and issuer remain.
    pub(crate) async fn refresh(&self) -> Result<(), DocumentError> {
        let mut refreshing = self.0.refreshing.lock().await;
        self.fetch(&mut refreshing).await
    }

    /// Fetches the tenant's documents, and the app's if they contain keys of their own or could not be fetched before.
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

    /// Fetches the keys in the app's own documents. A status 4xx means that a document does not exist. If only one of
    /// the two cannot be fetched, the keys of the other are used, because both contain the same ones.
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

    /// True if keys are known that are not too old.
    pub(crate) fn has_keys(&self) -> bool {
        self.0.keys_now.load().current().has_keys()
    }

    /// Identity of a token; `now` in Unix seconds. The result is cached until the keys change, so that a token that is
    /// sent with every request is verified once.
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

    /// Verifies a token and returns its claims; `now` in Unix seconds.
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
            // Without a successful refresh the key may exist.
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

    /// Refreshes the keys once for all callers that wait, and not within [`COOLDOWN`] of the last refresh; the same
    /// for the app's own documents if the tenant's do not contain the key. Continues if the caller hangs up, because
    /// others wait for it.
    async fn refreshed_for_unknown_key(&self, key_id: String, known_version: u64) -> TenantKeys {
        let entra = self.clone();
        let refreshed = tokio::spawn(async move {
            if let Err(error) = entra.refresh_for_unknown_key(&key_id, known_version).await {
                tracing::warn!(error = %telemetry::chain(&error), "signing keys could not be refreshed for an unknown key id");
            }
        });
        // A panic in the task was logged; the known keys remain.
        let _ = refreshed.await;
        self.0.keys_now.load().current()
    }

    async fn refresh_for_unknown_key(
        &self,
        key_id: &str,
        known_version: u64,
    ) -> Result<(), DocumentError> {
        let mut refreshing = self.0.refreshing.lock().await;
        let was_refreshed = self.0.keys_now.load().version != known_version;
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

/// `pause` plus or minus a tenth, so that instances do not refresh at the same time.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without randomness instances refresh at the same time, which is harmless.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause.mul_f64(0.9 + f64::from(byte[0]) / 1275.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_not_be_refreshed_for_a_day_are_discarded() {
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
