//! App Service's own sign-in ("Easy Auth"): whether it stands in front, and what it must let pass.

use crate::{
    cli::report::Report,
    config::{Config, ExternalAccessMode},
    registration::{
        Registration, RegistrationInputs,
        public_url_probe::{METADATA, ProbeOutcome, metadata_at},
    },
};

/// Looks at what App Service says of itself and at each public URL; prints what its sign-in must hold
/// where it stands in front.
pub(super) async fn look(
    config: &Config,
    registration_inputs: &RegistrationInputs,
    registration: &Registration,
    report: &Report,
) {
    let version = registration.version;
    let mut is_in_front = config.platform.signs_in_itself;
    if is_in_front {
        report.advise("App Service signs users in before the gateway (WEBSITE_AUTH_ENABLED): see below for what it must let pass");
    }
    if let Some(scopes) = &config.platform.metadata_scopes {
        report.advise(&format!(
            "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES: unset it ({scopes:?}); App Service would answer the metadata in the gateway's place, with these scopes as they stand"
        ));
    }
    for origin in &config.edge.public_urls {
        let url = format!("{origin}{METADATA}");
        match metadata_at(origin).await {
            ProbeOutcome::Metadata { resource } if resource.as_deref() == Some(&format!("{origin}/external/login")) => {
                report.fine(&format!("metadata at {url}"));
            }
            ProbeOutcome::Metadata { resource } => report.advise(&format!(
                "{url} answers metadata of {resource:?}, which clients compare with the URL they used: see GATEWAY_PUBLIC_URLS, GATEWAY_TRUSTED_PROXIES and WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES"
            )),
            ProbeOutcome::SignIn(how) => {
                is_in_front = true;
                report.advise(&format!(
                    "{url} is answered by a sign-in in front of the gateway ({how}): machines never get to it. See below for what it must let pass"
                ));
            }
            ProbeOutcome::Other(404) if config.external_access == ExternalAccessMode::Off => {
                report.fine(&format!("no metadata at {url}: external access is off"));
            }
            ProbeOutcome::Other(status) => report.untried(&format!(
                "the metadata at {url}: the answer is {status}; is the gateway running there?"
            )),
            ProbeOutcome::Away(why) => report.untried(&format!("the metadata at {url} ({why})")),
        }
    }
    if config.edge.public_urls.is_empty() {
        report.untried("whether App Service's own sign-in stands in front: no public URL is known (GATEWAY_PUBLIC_URLS)");
    }
    if is_in_front {
        let issuer = registration_inputs.issuer(version);
        if let Some(given) = config.platform.issuer.as_ref().filter(|given| **given != issuer) {
            report.advise(&format!(
                "App Service takes tokens of {given}; version {version} access tokens have the issuer {issuer}"
            ));
        }
        report.advise("behind App Service's sign-in every call to /api must carry the bearer token beside the session cookie; only the paths in excludedPaths do without");
        report.untried("App Service's settings themselves: compare config/authsettingsV2 of the app with the part below, which adds to what is there");
        report.block(
            "App Service's sign-in: the part of authsettingsV2 that the gateway needs",
            &format!("{:#}", registration.easy_auth(registration_inputs)),
        );
    } else if config.platform.is_app_service {
        report.fine("App Service's own sign-in is off (WEBSITE_AUTH_ENABLED)");
    }
}
