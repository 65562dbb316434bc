//! Manifest entries of the app role and the scopes.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::authz::policy::EXTERNAL_API;

/// Id and description of SimpleChat's app role `ExternalApi`, from its `deployers/azurecli`.
const ROLE_ID: &str = "b0288440-5195-4264-9a33-cf9a4635d634";
const ROLE_DESCRIPTION: &str = "Allows External API access.";

/// Entry of SimpleChat's app role `ExternalApi`.
pub(super) fn role_entry() -> Value {
    json!({
        "id": ROLE_ID,
        "value": EXTERNAL_API,
        "displayName": EXTERNAL_API,
        "description": ROLE_DESCRIPTION,
        "isEnabled": true,
        "allowedMemberTypes": ["User", "Application"],
    })
}

/// Entry of a scope. Entra accepts a scope with the name of a role only if id, display name and description
/// are equal.
pub(super) fn scope_entry(scope: &str, client: Uuid) -> Value {
    let (name, description) = if scope == EXTERNAL_API {
        (EXTERNAL_API.to_owned(), ROLE_DESCRIPTION)
    } else {
        (format!("Sign in to SimpleChat ({scope})"), "Lets an app sign in to SimpleChat as you.")
    };
    json!({
        "id": scope_id(scope, client),
        "value": scope,
        "type": "Admin",
        "isEnabled": true,
        "adminConsentDisplayName": name,
        "adminConsentDescription": description,
        "userConsentDisplayName": name,
        "userConsentDescription": description,
    })
}

/// Id of a scope. Deterministic, so that a second run of the commands changes nothing.
pub(super) fn scope_id(scope: &str, client: Uuid) -> String {
    if scope == EXTERNAL_API {
        return ROLE_ID.to_owned();
    }
    let hash = digest(&SHA256, format!("{client}/{scope}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
