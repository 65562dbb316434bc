//! The tenant's signing keys and issuers: fetched from its own documents, kept, refreshed.
//!
//! Keys are replaced as a whole, so that one that was withdrawn stops counting at the next refresh.
//! They survive an outage for [`HARD_AGE`]. A token with an unknown key id causes one refresh for
//! all callers together, at most every [`COOLDOWN`].

mod documents;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Mutex, time::sleep};

pub(crate) use self::documents::DocumentError;
use self::documents::Documents;
use crate::{
    access::token::{BearerToken, Claims, Issuers, SigningKey, TokenError},
    config::EntraConfig,
};

/// How often keys are refreshed when all is well, give or take a tenth.
const REFRESH: Duration = Duration::from_hours(1);
/// How soon a refresh that failed is tried again while keys are known.
const RETRY: Duration = Duration::from_mins(1);
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

/// Verifies tokens with the tenant's keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Entra(Arc<Inner>);

struct Inner {
    config: EntraConfig,
    documents: Documents,
    known: ArcSwapOption<Known>,
    refreshing: Mutex<Refreshing>,
}

/// What the documents said.
struct Known {
    keys: HashMap<String, SigningKey>,
    issuers: Issuers,
    fetched: Instant,
    /// Counts refreshes, so that callers who waited for one notice it.
    version: u64,
}

#[derive(Default)]
struct Refreshing {
    last_for_unknown_key: Option<Instant>,
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
        Ok(Self(Arc::new(Inner {
            config,
            documents: Documents::new()?,
            known: ArcSwapOption::empty(),
            refreshing: Mutex::default(),
        })))
    }

    /// Refreshes for ever; to be spawned.
    pub(crate) async fn keep_fresh(self) {
        let mut failures: u32 = 0;
        loop {
            let pause = match self.refresh().await {
                Ok(()) => {
                    failures = 0;
                    let v1_is_missing =
                        self.known().is_some_and(|known| known.issuers.v1.is_none());
                    if v1_is_missing { RETRY } else { jittered(REFRESH) }
                }
                Err(error) => {
                    if failures.is_power_of_two() || failures == 0 {
                        tracing::warn!(error = %crate::telemetry::chain(&error), "signing keys could not be refreshed");
                    }
                    failures += 1;
                    if self.known().is_some() { RETRY } else { RETRY_EMPTY }
                }
            };
            sleep(pause).await;
        }
    }

    /// Fetches the documents once and replaces what was known. An outage leaves it as it was.
    pub(crate) async fn refresh(&self) -> Result<(), DocumentError> {
        let mut refreshing = self.0.refreshing.lock().await;
        self.fetch(&mut refreshing).await
    }

    async fn fetch(&self, _single_flight: &mut Refreshing) -> Result<(), DocumentError> {
        let Inner { config, documents, known, .. } = &*self.0;
        let tenant = config.expected.tenant.to_string();
        let v2 = documents.metadata(&config.metadata_v2).await?;
        let mut keys = documents.keys(&v2.jwks_uri).await?;
        // v1 and v2 have documents of their own. Version 2 tokens do not wait for version 1's.
        let issuer_v1 = match documents.metadata(&config.metadata_v1).await {
            Ok(v1) => {
                if v1.jwks_uri != v2.jwks_uri {
                    match documents.keys(&v1.jwks_uri).await {
                        Ok(more) => keys.extend(more),
                        Err(error) => {
                            tracing::warn!(error = %crate::telemetry::chain(&error), "the v1 keys could not be read");
                        }
                    }
                }
                Some(v1.issuer)
            }
            Err(DocumentError::Status { status: 404, .. })
                if config.issuer_v1_fallback.is_some() =>
            {
                config.issuer_v1_fallback.clone()
            }
            Err(error) => {
                tracing::warn!(error = %crate::telemetry::chain(&error), "the v1 metadata could not be read");
                known.load().as_ref().and_then(|known| known.issuers.v1.clone())
            }
        };
        // In reverse, so that the v2 document has the last word on an id that both name.
        let keys: HashMap<_, _> = keys.into_iter().rev().collect();
        let version = known.load().as_ref().map_or(1, |known| known.version + 1);
        tracing::info!(keys = keys.len(), "signing keys refreshed");
        known.store(Some(Arc::new(Known {
            keys,
            issuers: Issuers {
                v2: v2.issuer.replace("{tenantid}", &tenant),
                v1: issuer_v1.map(|issuer| issuer.replace("{tenantid}", &tenant)),
            },
            fetched: Instant::now(),
            version,
        })));
        Ok(())
    }

    /// What is known and not too old.
    fn known(&self) -> Option<Arc<Known>> {
        self.0.known.load_full().filter(|known| known.fetched.elapsed() < HARD_AGE)
    }

    /// Whether tokens can be verified at all.
    pub(crate) fn has_keys(&self) -> bool {
        self.known().is_some()
    }

    /// From the text a caller sent to claims that may be relied on; `now` in Unix seconds.
    pub(crate) async fn verify(&self, token: &BearerToken, now: i64) -> Result<Claims, EntraError> {
        let mut known = self.known().ok_or(EntraError::KeysUnavailable)?;
        let key_id = token.unverified_key_id().map_err(EntraError::Rejected)?;
        if !known.keys.contains_key(&key_id) {
            known = self.refreshed_for_unknown_key(&known).await;
        }
        let key = known.keys.get(&key_id).ok_or(EntraError::Rejected(TokenError::UnknownKey))?;
        token.verify(key, &known.issuers, &self.0.config.expected, now).map_err(|error| match error
        {
            TokenError::IssuerUnknownYet => EntraError::KeysUnavailable,
            error => EntraError::Rejected(error),
        })
    }

    /// One refresh for all who ask at once; nothing within [`COOLDOWN`] of the last.
    async fn refreshed_for_unknown_key(&self, seen: &Arc<Known>) -> Arc<Known> {
        let mut refreshing = self.0.refreshing.lock().await;
        let current = self.known();
        let was_refreshed = current.as_ref().is_some_and(|known| known.version != seen.version);
        let is_cooling =
            refreshing.last_for_unknown_key.is_some_and(|last| last.elapsed() < COOLDOWN);
        if !was_refreshed && !is_cooling {
            refreshing.last_for_unknown_key = Some(Instant::now());
            if let Err(error) = self.fetch(&mut refreshing).await {
                tracing::warn!(error = %crate::telemetry::chain(&error), "signing keys could not be refreshed for an unknown key id");
            }
        }
        self.known().unwrap_or_else(|| Arc::clone(seen))
    }
}

/// Within a tenth of `pause`, so that instances do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without randomness they ask in step, which hurts nobody.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause.mul_f64(0.9 + f64::from(byte[0]) / 1275.0)
}
