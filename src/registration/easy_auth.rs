//! Settings of App Service authentication ("Easy Auth") that the gateway requires.

use serde_json::{Value, json};

use super::inputs::RegistrationInputs;

/// Paths that must reach the gateway without App Service authentication.
const EXCLUDED: [&str; 2] = ["/.well-known/oauth-protected-resource*", "/external/*"];

/// Required entries of authsettingsV2.
pub(super) fn settings(inputs: &RegistrationInputs, issuer: &str) -> Value {
    json!({
        "properties": {
            "globalValidation": { "excludedPaths": EXCLUDED },
            "identityProviders": {
                "azureActiveDirectory": {
                    "registration": { "clientId": inputs.client, "openIdIssuer": issuer },
                    "validation": { "allowedAudiences": inputs.audiences },
                },
            },
        },
    })
}
