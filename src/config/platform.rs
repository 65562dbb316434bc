//! What App Service says of its own sign-in ("Easy Auth"), in variables that it sets itself.

use super::Reader;

/// App Service's own sign-in, as far as an app is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Platform {
    /// Whether this runs on App Service.
    pub(crate) is_app_service: bool,
    /// Whether its own sign-in stands in front of this app.
    pub(crate) signs_in_itself: bool,
    /// The issuer that it takes tokens of.
    pub(crate) issuer: Option<String>,
    /// Scopes of metadata that it publishes itself.
    pub(crate) metadata_scopes: Option<String>,
}

pub(super) fn read(reader: &Reader) -> Platform {
    let is_true = |text: String| text.eq_ignore_ascii_case("true") || text == "1";
    Platform {
        is_app_service: reader.given("WEBSITE_HOSTNAME").is_some(),
        signs_in_itself: reader.given("WEBSITE_AUTH_ENABLED").is_some_and(is_true),
        issuer: reader.given("WEBSITE_AUTH_OPENID_ISSUER"),
        metadata_scopes: reader.given("WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES"),
    }
}
