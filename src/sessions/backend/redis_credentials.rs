//! Short-lived credentials for Redis: fetched from Azure, renewed before they expire, and presented on open
//! connections. Failed requests are retried; credentials stay valid until they expire.

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

/// Time-out of one renewal with all its requests.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Delay after a failed request, and minimum between two renewals.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Renewal interval of a key without expiry.
const KEY_INTERVAL: Duration = Duration::from_mins(5);
/// Seconds before its expiry at which a token is renewed. `azure_identity` caches a token until 300 s before its
/// expiry, and Redis requires the next one 180 s before.
const RENEW_BEFORE: u64 = 290;

/// Source of credentials.
pub(crate) enum Source {
    /// Tokens of the app's identity.
    Identity {
        /// Requested scope.
        scope: String,
    },
    /// A key in Key Vault.
    Vault {
        /// Address of the secret.
        secret: VaultSecret,
        /// User of the key; `None` for the default user.
        user: Option<String>,
    },
}

/// User and password.
struct Credential {
    user: Option<String>,
    password: SecretString,
    /// Unix seconds.
    ends_at: Option<i64>,
}

impl Credential {
    fn has_expired(&self) -> bool {
        self.ends_at.is_some_and(|end| end <= clock::now())
    }
}

/// Current credentials.
#[derive(Clone, Default)]
struct CredentialState {
    credential: Option<Arc<Credential>>,
    /// Reason of the last failed renewal.
    warning: Option<Arc<str>>,
}

/// Credentials that a background task renews until this is dropped.
pub(crate) struct Credentials {
    state: watch::Receiver<CredentialState>,
    /// Notified when Redis rejects them.
    rejected: Arc<Notify>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Starts the background task; does not wait for the first credentials.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn start(identity: AzureIdentity, source: Source) -> reqwest::Result<Self> {
        let azure = Azure::new(identity)?;
        let (sender, state) = watch::channel(CredentialState::default());
        let rejected = Arc::new(Notify::new());
        tokio::spawn(renew(azure, source, sender, Arc::clone(&rejected)));
        Ok(Self { state, rejected })
    }

    /// Reason of the last failed renewal, until one succeeds.
    pub(crate) fn warning(&self) -> Option<Arc<str>> {
        self.state.borrow().warning.clone()
    }

    /// Presents renewed credentials on a client's connection, and requests a renewal when Redis rejects them. Runs
    /// until the client closes.
    pub(crate) async fn authenticate_loop(self: Arc<Self>, client: Client) {
        let (mut state, mut errors) = (self.state.clone(), client.error_rx());
        loop {
            tokio::select! {
                changed = state.changed() => {
                    let credential = state.borrow_and_update().credential.clone();
                    if changed.is_err() {
                        return;
                    }
                    if let Some(credential) = credential.filter(|_| client.is_connected()) {
                        self.present(&client, &credential).await;
                    }
                }
                error = errors.recv() => match error {
                    Ok((error, _)) if *error.kind() == ErrorKind::Auth => self.rejected.notify_one(),
                    Err(broadcast::error::RecvError::Closed) => return,
                    _ => {}
                },
            }
        }
    }

    async fn present(&self, client: &Client, credential: &Credential) {
        let password = credential.password.expose_secret();
        if let Err(error) = client.auth(credential.user.clone(), password).await {
            tracing::warn!(error = %error, "Redis rejected the renewed credentials");
            self.rejected.notify_one();
        }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    async fn fetch(&self, _: Option<&Server>) -> Result<(Option<String>, Option<String>), Error> {
        let mut state = self.state.clone();
        let is_settled =
            |state: &CredentialState| state.credential.is_some() || state.warning.is_some();
        let stopped = |_| Error::new(ErrorKind::Canceled, "credentials are no longer renewed");
        let CredentialState { credential, warning } =
            state.wait_for(is_settled).await.map_err(stopped)?.clone();
        match (credential, warning) {
            (Some(credential), warning) if warning.is_none() || !credential.has_expired() => {
                Ok((credential.user.clone(), Some(credential.password.expose_secret().to_owned())))
            }
            (_, warning) => Err(Error::new(
                ErrorKind::Auth,
                format!("{NO_CREDENTIALS}{}", warning.as_deref().unwrap_or_default()),
            )),
        }
    }
}

/// Renews until all receivers are dropped.
async fn renew(
    azure: Azure,
    source: Source,
    sender: watch::Sender<CredentialState>,
    rejected: Arc<Notify>,
) {
    loop {
        let fetched = timeout(FETCH_TIMEOUT, fetch(&azure, &source)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("Azure did not answer in time".to_owned()));
        let wait = match fetched {
            Ok(credential) => {
                let wait = credential.ends_at.map_or(KEY_INTERVAL, until_renewal);
                settle(&sender, credential);
                wait
            }
            Err(why) => {
                if sender.borrow().warning.is_none() {
                    tracing::warn!(error = why, "credentials for Redis could not be renewed");
                }
                sender.send_if_modified(|state| {
                    let is_first = state.credential.is_none();
                    state.warning = Some(why.into());
                    is_first
                });
                RETRY_DELAY
            }
        };
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(wait) => {}
            () = async { sleep(RETRY_DELAY).await; rejected.notified().await } => {}
        }
    }
}

fn settle(sender: &watch::Sender<CredentialState>, credential: Credential) {
    sender.send_if_modified(|state| {
        if state.warning.take().is_some() {
            tracing::info!("credentials for Redis are renewed again");
        }
        let is_same = state
            .credential
            .as_ref()
            .is_some_and(|old| old.password.expose_secret() == credential.password.expose_secret());
        if !is_same {
            tracing::info!(ends_at = credential.ends_at, "credentials for Redis renewed");
        }
        state.credential = Some(Arc::new(credential));
        !is_same
    });
}

/// Wait before the renewal. Half of the remaining life for a token that expires soon.
fn until_renewal(ends_at: i64) -> Duration {
    let remaining = u64::try_from(ends_at - clock::now()).unwrap_or_default();
    Duration::from_secs(remaining.checked_sub(RENEW_BEFORE).unwrap_or(remaining / 2).max(1))
}

async fn fetch(azure: &Azure, source: &Source) -> Result<Credential, String> {
    // The last line of Azure's messages links to its documentation.
    let azure_error = |from: &str, error: azure_core::Error| match ConnectFault::of(&error) {
        Some(fault) => format!("{from}: {fault}"),
        None => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    match source {
        Source::Identity { scope } => {
            let token = azure.token(scope).await;
            let token = token.map_err(|error| azure_error("Azure's identity endpoint", error))?;
            let text = token.token.secret();
            let oid = subject(text).ok_or("the identity's token names no oid")?;
            Ok(Credential {
                user: Some(oid),
                password: text.to_owned().into(),
                ends_at: Some(token.expires_on.unix_timestamp()),
            })
        }
        Source::Vault { secret, user } => {
            let password = azure.secret(secret).await;
            let password = password.map_err(|error| azure_error(&secret.vault, error))?;
            if password.expose_secret().is_empty() {
                return Err(format!("the secret {} is empty", secret.name));
            }
            Ok(Credential { user: user.clone(), password, ends_at: None })
        }
    }
}

/// `oid` of a token. Azure issued it over TLS; Redis verifies the signature.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OidClaim {
        oid: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<OidClaim>(&payload).ok().map(|claims| claims.oid)
}
