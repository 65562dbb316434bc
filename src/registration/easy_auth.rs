//! App Service's own sign-in ("Easy Auth"): what it must let pass.

use serde_json::{Value, json};

use super::inputs::RegistrationInputs;

/// What must reach the gateway without App Service's sign-in.
const EXCLUDED: [&str; 2] = ["/.well-known/oauth-protected-resource*", "/external/*"];

/// The part of authsettingsV2 that the gateway needs.
pub(super) fn settings(wanted: &RegistrationInputs, issuer: &str) -> Value {
    json!({
        "properties": {
            "globalValidation": { "excludedPaths": EXCLUDED },
            "identityProviders": {
                "azureActiveDirectory": {
                    "registration": { "clientId": wanted.client, "openIdIssuer": issuer },
                    "validation": { "allowedAudiences": wanted.audiences },
                },
            },
        },
    })
}
