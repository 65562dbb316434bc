//! Azure identity of the app: access tokens, and secrets of Key Vault.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use azure_core::{
    credentials::{AccessToken, TokenCredential},
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::{
    SecretClient, SecretClientOptions, models::SecretClientGetSecretOptions,
};
use reqwest::redirect::Policy;
use secrecy::SecretString;

use crate::config::{AzureIdentity, VaultSecret};

/// Time-out of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Azure identity of the app.
pub(crate) struct Azure {
    identity: AzureIdentity,
    /// Client without a proxy, for the platform's own endpoint.
    local: ClientOptions,
    /// Client for endpoints on the Internet.
    remote: ClientOptions,
    credential: OnceLock<Arc<dyn TokenCredential>>,
}

impl Azure {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(identity: AzureIdentity) -> reqwest::Result<Self> {
        let client =
            || reqwest::Client::builder().timeout(REQUEST_TIMEOUT).redirect(Policy::none());
        let options = |client: reqwest::Client| ClientOptions {
            // The caller retries.
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(client))),
            ..ClientOptions::default()
        };
        Ok(Self {
            identity,
            local: options(client().no_proxy().build()?),
            remote: options(client().build()?),
            credential: OnceLock::new(),
        })
    }

    /// Created on first use: Kubernetes may mount its token late.
    fn credential(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        if let Some(credential) = self.credential.get() {
            return Ok(Arc::clone(credential));
        }
        let credential = self.make_credential()?;
        Ok(Arc::clone(self.credential.get_or_init(|| credential)))
    }

    fn make_credential(&self) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_id = self.identity.client_id.clone();
        if self.identity.is_federated {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions {
                    client_options: self.remote.clone(),
                },
                client_id,
                ..WorkloadIdentityCredentialOptions::default()
            };
            return Ok(WorkloadIdentityCredential::new(Some(options))?);
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(UserAssignedId::ClientId),
            client_options: self.local.clone(),
        };
        Ok(ManagedIdentityCredential::new(Some(options))?)
    }

    /// Requests a token for a scope.
    pub(crate) async fn token(&self, scope: &str) -> azure_core::Result<AccessToken> {
        self.credential()?.get_token(&[scope], None).await
    }

    /// Reads the value of a secret.
    pub(crate) async fn secret(&self, secret: &VaultSecret) -> azure_core::Result<SecretString> {
        let options =
            SecretClientOptions { client_options: self.remote.clone(), ..Default::default() };
        let client = SecretClient::new(&secret.vault, self.credential()?, Some(options))?;
        let options = SecretClientGetSecretOptions {
            secret_version: secret.version.clone(),
            ..Default::default()
        };
        let found = client.get_secret(&secret.name, Some(options)).await?.into_model()?;
        Ok(found.value.unwrap_or_default().into())
    }
}
