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
pub(crate) enum Source {
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
struct Credential {
    user: Option<String>,
    password: SecretString,
    /// Unix seconds.
    ends_at: Option<i64>,
}

impl Credential {
    fn is_over(&self) -> bool {
        self.ends_at.is_some_and(|end| end <= clock::now())
    }
}

/// What is known.
#[derive(Clone, Default)]
struct CredentialState {
    credential: Option<Arc<Credential>>,
    /// Why the last attempt to renew it failed.
    trouble: Option<Arc<str>>,
}

/// Credentials that renew themselves for as long as anybody holds them.
pub(crate) struct Credentials {
    state: watch::Receiver<CredentialState>,
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
    pub(crate) fn start(identity: AzureIdentity, source: Source) -> reqwest::Result<Self> {
        let azure = Azure::new(identity)?;
        let (sender, state) = watch::channel(CredentialState::default());
        let doubt = Arc::new(Notify::new());
        tokio::spawn(renew(azure, source, sender, Arc::clone(&doubt)));
        Ok(Self { state, doubt })
    }

    /// Why they could not be renewed, where that is so.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        self.state.borrow().trouble.clone()
    }

    /// Shows a client's connection what is new, and notes what Redis does not believe; for as long as there
    /// is a client.
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
                        self.show(&client, &credential).await;
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

    async fn show(&self, client: &Client, credential: &Credential) {
        let password = credential.password.expose_secret();
        if let Err(error) = client.auth(credential.user.clone(), password).await {
            tracing::warn!(error = %error, "Redis does not take the new credentials yet");
            self.doubt.notify_one();
        }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    async fn fetch(&self, _: Option<&Server>) -> Result<(Option<String>, Option<String>), Error> {
        let mut state = self.state.clone();
        let is_settled =
            |state: &CredentialState| state.credential.is_some() || state.trouble.is_some();
        let stopped = |_| Error::new(ErrorKind::Canceled, "credentials are no longer renewed");
        let CredentialState { credential, trouble } =
            state.wait_for(is_settled).await.map_err(stopped)?.clone();
        match (credential, trouble) {
            (Some(credential), trouble) if trouble.is_none() || !credential.is_over() => {
                Ok((credential.user.clone(), Some(credential.password.expose_secret().to_owned())))
            }
            (_, trouble) => Err(Error::new(
                ErrorKind::Auth,
                format!("{NO_CREDENTIALS}{}", trouble.as_deref().unwrap_or_default()),
            )),
        }
    }
}

/// Renews for as long as anybody wants to know.
async fn renew(
    azure: Azure,
    source: Source,
    sender: watch::Sender<CredentialState>,
    doubt: Arc<Notify>,
) {
    loop {
        let fetched = timeout(FETCH_TIMEOUT, fetch(&azure, &source)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("Azure did not answer in time".to_owned()));
        let wait = match fetched {
            Ok(credential) => {
                let wait = credential.ends_at.map_or(LOOK_AGAIN, until_renewal);
                settle(&sender, credential);
                wait
            }
            Err(why) => {
                if sender.borrow().trouble.is_none() {
                    tracing::warn!(error = why, "credentials for Redis could not be renewed");
                }
                sender.send_if_modified(|state| {
                    let is_first = state.credential.is_none();
                    state.trouble = Some(why.into());
                    is_first
                });
                PAUSE
            }
        };
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(wait) => {}
            () = async { sleep(PAUSE).await; doubt.notified().await } => {}
        }
    }
}

fn settle(sender: &watch::Sender<CredentialState>, credential: Credential) {
    sender.send_if_modified(|state| {
        if state.trouble.take().is_some() {
            tracing::info!("credentials for Redis are renewed again");
        }
        let is_same = state
            .credential
            .as_ref()
            .is_some_and(|old| old.password.expose_secret() == credential.password.expose_secret());
        if !is_same {
            tracing::info!(ends_at = credential.ends_at, "new credentials for Redis");
        }
        state.credential = Some(Arc::new(credential));
        !is_same
    });
}

/// One that ends soon is renewed after half of what is left.
fn until_renewal(ends_at: i64) -> Duration {
    let left = u64::try_from(ends_at - clock::now()).unwrap_or_default();
    Duration::from_secs(left.checked_sub(AHEAD).unwrap_or(left / 2).max(1))
}

async fn fetch(azure: &Azure, source: &Source) -> Result<Credential, String> {
    // Azure's texts end in a line that leads to its own pages.
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

/// A token's `oid`. Azure gave it to us a moment ago: its signature is for Redis to look at.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OidClaim {
        oid: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<OidClaim>(&payload).ok().map(|claims| claims.oid)
}
