//! What becomes public with external access, in plain words: what an administrator accepts.

use crate::config::ResourceConfig;

/// The text that is accepted, and recorded with who accepted it.
pub(crate) fn text(authority: &str, resource: &ResourceConfig) -> String {
    format!(
        "Anybody can read, without signing in: the authorization server {authority}, which names the tenant, and the scopes {}, which name SimpleChat's app registration (/.well-known/oauth-protected-resource, and WWW-Authenticate in answers).",
        resource.scopes.join(" ")
    )
}
