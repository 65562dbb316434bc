//! App Service authentication ("Easy Auth"), from the variables that App Service sets.

use super::Reader;

/// App Service authentication, as far as the app's environment shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Platform {
    /// True on App Service.
    pub(crate) is_app_service: bool,
    /// True if App Service authentication is enabled for this app.
    pub(crate) signs_in_itself: bool,
    /// Issuer whose tokens it accepts.
    pub(crate) issuer: Option<String>,
    /// Scopes in the metadata that it publishes itself.
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
