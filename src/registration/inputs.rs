//! What an app registration and App Service's sign-in depend on.

use uuid::Uuid;

use crate::{
    authz::client_info::Origin,
    config::{Cloud, Config},
};

/// Settings, and what upstream is.
#[derive(Debug, Clone)]
pub(crate) struct RegistrationInputs {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) cloud: Cloud,
    /// Where users sign in.
    pub(crate) authority: String,
    pub(crate) public_urls: Vec<Origin>,
    pub(crate) scopes: Vec<String>,
    pub(crate) login_scopes: Vec<String>,
    pub(crate) allowed_clients: Vec<Uuid>,
    pub(crate) audiences: Vec<String>,
    pub(crate) version_1_only: Option<bool>,
    /// Whether App Service signs users in before the gateway.
    pub(crate) app_service_signs_in: bool,
}

impl RegistrationInputs {
    /// `version_1_only`: whether upstream checks some tokens itself, as version 1 alone; `None`: that
    /// is not known.
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

    /// That tokens of a version have.
    pub(crate) fn issuer(&self, version: u8) -> String {
        let tenant = self.tenant;
        match (version, self.cloud) {
            (1, Cloud::China) => format!("https://sts.chinacloudapi.cn/{tenant}/"),
            (1, _) => format!("https://sts.windows.net/{tenant}/"),
            _ => self.authority.clone(),
        }
    }
}
