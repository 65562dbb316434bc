//! App Service authentication ("Easy Auth") in front of the gateway, and the settings that it needs.

use crate::{
    cli::report::Report,
    config::{Config, ExternalAccessMode},
    registration::{
        Registration, RegistrationInputs,
        public_url_probe::{METADATA, ProbeOutcome, metadata_at},
    },
};

/// Detects App Service authentication by its environment variables and at each public URL. Where it is
/// in front of the gateway, prints the settings that it needs.
pub(super) async fn report_easy_auth(
    config: &Config,
    registration_inputs: &RegistrationInputs,
    registration: &Registration,
    report: &Report,
) {
    let version = registration.version;
    let mut is_in_front = config.platform.signs_in_itself;
    if is_in_front {
        report.warn("App Service authentication is enabled in front of the gateway (WEBSITE_AUTH_ENABLED): see the required settings below");
    }
    if let Some(scopes) = &config.platform.metadata_scopes {
        report.warn(&format!(
            "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES: unset it ({scopes:?}); App Service would serve the metadata in place of the gateway, with these scopes unchanged"
        ));
    }
    for origin in &config.edge.public_urls {
        let url = format!("{origin}{METADATA}");
        match metadata_at(origin).await {
            ProbeOutcome::Metadata { resource } if resource.as_deref() == Some(&format!("{origin}/external/login")) => {
                report.pass(&format!("metadata at {url}"));
            }
            ProbeOutcome::Metadata { resource } => report.warn(&format!(
                "metadata at {url} names the resource {}, which clients compare with the URL they used: check GATEWAY_PUBLIC_URLS, GATEWAY_TRUSTED_PROXIES and WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES",
                resource.as_deref().unwrap_or("(none)")
            )),
            ProbeOutcome::SignIn(description) => {
                is_in_front = true;
                report.warn(&format!(
                    "{url} is answered by a sign-in in front of the gateway ({description}): external applications cannot reach the gateway. See the required settings below"
                ));
            }
            ProbeOutcome::Other(404) if config.external_access == ExternalAccessMode::Off => {
                report.pass(&format!("no metadata at {url}: external access is off"));
            }
            ProbeOutcome::Other(status) => report.skip(&format!(
                "metadata at {url}: answered {status}; check that the gateway is running there"
            )),
            ProbeOutcome::Unavailable(reason) => report.skip(&format!("metadata at {url}: {reason}")),
        }
    }
    if config.edge.public_urls.is_empty() {
        report.skip("App Service authentication in front of the gateway: no public URL is known (GATEWAY_PUBLIC_URLS)");
    }
    if is_in_front {
        let issuer = registration_inputs.issuer(version);
        if let Some(accepted) = config.platform.issuer.as_ref().filter(|it| **it != issuer) {
            report.warn(&format!(
                "App Service accepts tokens of the issuer {accepted}; version {version} access tokens have the issuer {issuer}"
            ));
        }
        report.warn("behind App Service authentication every request to /api must carry the bearer token in addition to the session cookie; only the paths in excludedPaths do not need it");
        report.skip("current authentication settings of App Service: compare config/authsettingsV2 of the app with the settings below, and add missing entries");
        report.block(
            "App Service authentication: required settings in authsettingsV2",
            &format!("{:#}", registration.easy_auth(registration_inputs)),
        );
    } else if config.platform.is_app_service {
        report.pass("App Service authentication is off (WEBSITE_AUTH_ENABLED)");
    }
}
