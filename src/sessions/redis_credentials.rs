//! Credentials for Redis that do not last: had from Azure, renewed before they end, and shown on
//! connections that stand. What Azure does not answer is asked again; what was had counts until it ends.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fred::{
    error::{Error, ErrorKind},
    interfaces::{AuthInterface, ClientLike, EventInterface},
    prelude::Client,
    types::config::{CredentialProvider, Server},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{sleep, timeout},
};

use super::{azure::Azure, redis_fault::NO_CREDENTIALS};
use crate::{
    clock,
    config::{AzureIdentity, VaultSecret},
    connect_fault::ConnectFault,
};

/// For all that is asked for one renewal.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Disposition Azure did not answer, and at least between two renewals.
const PAUSE: Duration = Duration::from_secs(2);
/// Between looks at a key that says nothing of its end.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
/// So long before its end a token is renewed, in seconds. `azure_identity` keeps one until 300 s before,
/// and Redis wants to see the next 180 s before.
const AHEAD: u64 = 290;

/// Where they come from.
pub(super) enum Source {
    /// Tokens of the app's identity.
    Identity {
        /// What for.
        scope: String,
    },
    /// A key in Key Vault.
    Vault {
        /// Where.
        secret: VaultSecret,
        /// Whose key it is; `None`: the default user's.
        user: Option<String>,
    },
}

/// A user and what lets him in.
struct Pair {
    user: Option<String>,
    password: SecretString,
    /// Unix seconds.
    ends_at: Option<i64>,
}

impl Pair {
    fn is_over(&self) -> bool {
        self.ends_at.is_some_and(|end| end <= clock::now())
    }
}

/// What is known.
#[derive(Clone, Default)]
struct Known {
    pair: Option<Arc<Pair>>,
    /// Why the last attempt to renew it failed.
    trouble: Option<Arc<str>>,
}

/// Credentials that renew themselves for as long as anybody holds them.
pub(super) struct Credentials {
    known: watch::Receiver<Known>,
    /// Redis does not believe them.
    doubt: Arc<Notify>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Begins to fetch them; waits for nothing.
    ///
    /// # Errors
    /// When there can be no TLS.
    pub(super) fn keep(identity: AzureIdentity, source: Source) -> reqwest::Result<Self> {
        let azure = Azure::new(identity)?;
        let (tell, known) = watch::channel(Known::default());
        let doubt = Arc::new(Notify::new());
        tokio::spawn(renew(azure, source, tell, Arc::clone(&doubt)));
        Ok(Self { known, doubt })
    }

    /// Why they could not be renewed, where that is so.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.known.borrow().trouble.clone()
    }

    /// Shows a client's connection what is new, and notes what Redis does not believe; for as long as there
    /// is a client.
    pub(super) async fn follow(self: Arc<Self>, client: Client) {
        let (mut known, mut errors) = (self.known.clone(), client.error_rx());
        loop {
            tokio::select! {
                changed = known.changed() => {
                    let pair = known.borrow_and_update().pair.clone();
                    if changed.is_err() {
                        return;
                    }
                    if let Some(pair) = pair.filter(|_| client.is_connected()) {
                        self.show(&client, &pair).await;
                    }
                }
                error = errors.recv() => match error {
                    Ok((error, _)) if *error.kind() == ErrorKind::Auth => self.doubt.notify_one(),
                    Err(broadcast::error::RecvError::Closed) => return,
                    _ => {}
                },
            }
        }
    }

    async fn show(&self, client: &Client, pair: &Pair) {
        let password = pair.password.expose_secret();
        if let Err(error) = client.auth(pair.user.clone(), password).await {
            tracing::warn!(error = %error, "Redis does not take the new credentials yet");
            self.doubt.notify_one();
        }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    async fn fetch(&self, _: Option<&Server>) -> Result<(Option<String>, Option<String>), Error> {
        let mut known = self.known.clone();
        let is_told = |known: &Known| known.pair.is_some() || known.trouble.is_some();
        let gone = |_| Error::new(ErrorKind::Canceled, "credentials are no longer renewed");
        let Known { pair, trouble } = known.wait_for(is_told).await.map_err(gone)?.clone();
        match (pair, trouble) {
            (Some(pair), trouble) if trouble.is_none() || !pair.is_over() => {
                Ok((pair.user.clone(), Some(pair.password.expose_secret().to_owned())))
            }
            (_, trouble) => Err(Error::new(
                ErrorKind::Auth,
                format!("{NO_CREDENTIALS}{}", trouble.as_deref().unwrap_or_default()),
            )),
        }
    }
}

/// Renews for as long as anybody wants to know.
async fn renew(azure: Azure, source: Source, tell: watch::Sender<Known>, doubt: Arc<Notify>) {
    loop {
        let fetched = timeout(FETCH_TIMEOUT, fetch(&azure, &source)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("Azure did not answer in time".to_owned()));
        let wait = match fetched {
            Ok(pair) => {
                let wait = pair.ends_at.map_or(LOOK_AGAIN, until_renewal);
                settle(&tell, pair);
                wait
            }
            Err(why) => {
                if tell.borrow().trouble.is_none() {
                    tracing::warn!(error = why, "credentials for Redis could not be renewed");
                }
                tell.send_if_modified(|known| {
                    let is_first = known.pair.is_none();
                    known.trouble = Some(why.into());
                    is_first
                });
                PAUSE
            }
        };
        tokio::select! {
            () = tell.closed() => return,
            () = sleep(wait) => {}
            () = async { sleep(PAUSE).await; doubt.notified().await } => {}
        }
    }
}

fn settle(tell: &watch::Sender<Known>, pair: Pair) {
    tell.send_if_modified(|known| {
        if known.trouble.take().is_some() {
            tracing::info!("credentials for Redis are renewed again");
        }
        let is_same = known
            .pair
            .as_ref()
            .is_some_and(|old| old.password.expose_secret() == pair.password.expose_secret());
        if !is_same {
            tracing::info!(ends_at = pair.ends_at, "new credentials for Redis");
        }
        known.pair = Some(Arc::new(pair));
        !is_same
    });
}

/// One that ends soon is renewed after half of what is left.
fn until_renewal(ends_at: i64) -> Duration {
    let left = u64::try_from(ends_at - clock::now()).unwrap_or_default();
    Duration::from_secs(left.checked_sub(AHEAD).unwrap_or(left / 2).max(1))
}

async fn fetch(azure: &Azure, source: &Source) -> Result<Pair, String> {
    // Azure's texts end in a line that leads to its own pages.
    let told = |from: &str, error: azure_core::Error| match ConnectFault::of(&error) {
        Some(fault) => format!("{from}: {fault}"),
        None => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    match source {
        Source::Identity { scope } => {
            let token = azure.token(scope).await;
            let token = token.map_err(|error| told("Azure's identity endpoint", error))?;
            let text = token.token.secret();
            let oid = subject(text).ok_or("the identity's token names no oid")?;
            Ok(Pair {
                user: Some(oid),
                password: text.to_owned().into(),
                ends_at: Some(token.expires_on.unix_timestamp()),
            })
        }
        Source::Vault { secret, user } => {
            let password = azure.secret(secret).await;
            let password = password.map_err(|error| told(&secret.vault, error))?;
            if password.expose_secret().is_empty() {
                return Err(format!("the secret {} is empty", secret.name));
            }
            Ok(Pair { user: user.clone(), password, ends_at: None })
        }
    }
}

/// A token's `oid`. Azure gave it to us a moment ago: its signature is for Redis to look at.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        oid: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.oid)
}
