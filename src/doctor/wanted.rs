//! What an app registration depends on.

use uuid::Uuid;

use crate::{
    access::origin::Origin,
    config::{Cloud, Config},
};

/// Settings, and what upstream is.
pub(super) struct Wanted {
    pub(super) tenant: Uuid,
    pub(super) client: Uuid,
    pub(super) cloud: Cloud,
    pub(super) public_urls: Vec<Origin>,
    pub(super) scopes: Vec<String>,
    pub(super) login_scopes: Vec<String>,
    pub(super) allowed_clients: Vec<Uuid>,
    pub(super) audiences: Vec<String>,
    pub(super) version_1_only: Option<bool>,
}

impl Wanted {
    /// `version_1_only`: whether upstream checks some tokens itself, as version 1 alone; `None`: that
    /// is not known.
    pub(super) fn of(config: &Config, version_1_only: Option<bool>) -> Self {
        Self {
            tenant: config.entra.expected.tenant,
            client: config.entra.expected.client_id,
            cloud: config.entra.cloud,
            public_urls: config.surroundings.public_urls.clone(),
            scopes: config.resource.scopes.clone(),
            login_scopes: config.policy.login_scopes.clone(),
            allowed_clients: config.policy.allowed_clients.clone(),
            audiences: config.entra.expected.audiences.clone(),
            version_1_only,
        }
    }
}
