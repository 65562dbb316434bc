//! Inputs of the app registration and of App Service authentication.

use uuid::Uuid;

use crate::{
    authz::client_info::Origin,
    config::{Cloud, Config},
};

/// Settings and properties of upstream.
#[derive(Debug, Clone)]
pub(crate) struct RegistrationInputs {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) cloud: Cloud,
    /// URL at which users sign in.
    pub(crate) authority: String,
    pub(crate) public_urls: Vec<Origin>,
    pub(crate) scopes: Vec<String>,
    pub(crate) login_scopes: Vec<String>,
    pub(crate) allowed_clients: Vec<Uuid>,
    pub(crate) audiences: Vec<String>,
    pub(crate) version_1_only: Option<bool>,
    /// App Service authentication is enabled in front of the gateway.
    pub(crate) app_service_signs_in: bool,
}

impl RegistrationInputs {
    /// `version_1_only`: true if upstream checks some tokens itself and accepts version 1 only; `None`:
    /// unknown.
    pub(crate) fn of(config: &Config, version_1_only: Option<bool>) -> Self {
        Self {
            tenant: config.entra.expected.tenant,
            client: config.entra.expected.client_id,
            cloud: config.entra.cloud,
            authority: config.entra.authority.clone(),
            public_urls: config.edge.public_urls.clone(),
            scopes: config.resource.scopes.clone(),
            login_scopes: config.policy.login_scopes.clone(),
            allowed_clients: config.policy.allowed_clients.clone(),
            audiences: config.entra.expected.audiences.clone(),
            version_1_only,
            app_service_signs_in: config.platform.signs_in_itself,
        }
    }

    /// Issuer of tokens of a version.
    pub(crate) fn issuer(&self, version: u8) -> String {
        let tenant = self.tenant;
        match (version, self.cloud) {
            (1, Cloud::China) => format!("https://sts.chinacloudapi.cn/{tenant}/"),
            (1, _) => format!("https://sts.windows.net/{tenant}/"),
            _ => self.authority.clone(),
        }
    }
}
