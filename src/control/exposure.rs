//! Exposure text: the data that external access makes public.

use crate::config::ResourceConfig;

/// Text that an administrator accepts; it is recorded with the administrator's name.
pub(crate) fn text(authority: &str, resource: &ResourceConfig) -> String {
    format!(
        "Readable without signing in: the authorization server {authority}, which contains the tenant id, and the scopes {}, which contain the id of SimpleChat's app registration (at /.well-known/oauth-protected-resource and in the WWW-Authenticate header of responses).",
        resource.scopes.join(" ")
    )
}
