//! App Service's own sign-in ("Easy Auth"): whether it stands in front, and what it must let pass.

use std::time::Duration;

use reqwest::{Response, header, redirect};
use serde_json::{Value, json};

use crate::{
    config::{Config, ExternalAccess},
    report::Report,
    telemetry,
};

/// Where clients begin.
const METADATA: &str = "/.well-known/oauth-protected-resource/external/login";
/// What must reach the gateway without App Service's sign-in.
const EXCLUDED: [&str; 2] = ["/.well-known/oauth-protected-resource*", "/external/*"];
/// For one public URL.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a public URL answers where clients begin.
enum Seen {
    Metadata { resource: Option<String> },
    SignIn(String),
    Other(u16),
    Away(String),
}

/// Looks at what App Service says of itself and at each public URL; prints what its sign-in must hold
/// where it stands in front. `version`: of access tokens.
pub(super) async fn look(config: &Config, version: u8, report: &Report) {
    let mut stands_in_front = config.platform.signs_in_itself;
    if stands_in_front {
        report.advise("App Service signs users in before the gateway (WEBSITE_AUTH_ENABLED): see below for what it must let pass");
    }
    if let Some(scopes) = &config.platform.metadata_scopes {
        report.advise(&format!(
            "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES: unset it ({scopes:?}); App Service would answer the metadata in the gateway's place, with these scopes as they stand"
        ));
    }
    for origin in &config.surroundings.public_urls {
        let url = format!("{origin}{METADATA}");
        match ask(&url).await {
            Seen::Metadata { resource } if resource.as_deref() == Some(&format!("{origin}/external/login")) => {
                report.fine(&format!("metadata at {url}"));
            }
            Seen::Metadata { resource } => report.advise(&format!(
                "{url} answers metadata of {resource:?}, which clients compare with the URL they used: see GATEWAY_PUBLIC_URLS, GATEWAY_TRUSTED_PROXIES and WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES"
            )),
            Seen::SignIn(how) => {
                stands_in_front = true;
                report.advise(&format!(
                    "{url} is answered by a sign-in in front of the gateway ({how}): machines never get to it. See below for what it must let pass"
                ));
            }
            Seen::Other(404) if config.external_access == ExternalAccess::Off => {
                report.fine(&format!("no metadata at {url}: external access is off"));
            }
            Seen::Other(status) => report.untried(&format!(
                "the metadata at {url}: the answer is {status}; is the gateway running there?"
            )),
            Seen::Away(why) => report.untried(&format!("the metadata at {url} ({why})")),
        }
    }
    if config.surroundings.public_urls.is_empty() {
        report.untried("whether App Service's own sign-in stands in front: no public URL is known (GATEWAY_PUBLIC_URLS)");
    }
    if stands_in_front {
        let issuer = issuer(config, version);
        if let Some(given) = config.platform.issuer.as_ref().filter(|given| **given != issuer) {
            report.advise(&format!(
                "App Service takes tokens of {given}; version {version} access tokens have the issuer {issuer}"
            ));
        }
        report.advise("behind App Service's sign-in every call to /api must carry the bearer token beside the session cookie; only the paths in excludedPaths do without");
        report.untried("App Service's settings themselves: compare config/authsettingsV2 of the app with the part below, which adds to what is there");
        report.block(
            "App Service's sign-in: the part of authsettingsV2 that the gateway needs",
            &format!("{:#}", settings(config, &issuer)),
        );
    } else if config.platform.is_app_service {
        report.fine("App Service's own sign-in is off (WEBSITE_AUTH_ENABLED)");
    }
}

async fn ask(url: &str) -> Seen {
    let away = |error: reqwest::Error| Seen::Away(telemetry::chain(&error.without_url()));
    let client =
        reqwest::Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).build();
    let answer = match client {
        Ok(client) => client.get(url).send().await,
        Err(error) => return away(error),
    };
    match answer {
        Ok(answer) => seen(answer).await,
        Err(error) => away(error),
    }
}

async fn seen(answer: Response) -> Seen {
    let status = answer.status();
    if let Some(how) = sign_in(&answer) {
        return Seen::SignIn(how);
    }
    if !status.is_success() {
        return Seen::Other(status.as_u16());
    }
    let body = answer.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(document)) => {
            let resource = document.get("resource").and_then(Value::as_str).map(str::to_owned);
            Seen::Metadata { resource }
        }
        _ => Seen::SignIn("a page instead of the document".to_owned()),
    }
}

/// How App Service's sign-in, or one like it, shows itself.
fn sign_in(answer: &Response) -> Option<String> {
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let status = answer.status();
    if status.is_redirection() {
        let location = text(header::LOCATION.as_str()).unwrap_or_default();
        // Its query holds nonces.
        let place = location.split('?').next().unwrap_or_default();
        let is_sign_in = [
            "/.auth/login",
            "login.microsoftonline.",
            "login.partner.microsoftonline.",
            "login.windows.net",
            "/login",
        ]
        .iter()
        .any(|sign| place.contains(sign));
        return is_sign_in.then(|| format!("{} to {place}", status.as_u16()));
    }
    let is_refusal = matches!(status.as_u16(), 401 | 403);
    let has_its_mark = text("x-ms-middleware-request-id").is_some()
        || text("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer realm="));
    (is_refusal && has_its_mark).then(|| format!("{} of App Service", status.as_u16()))
}

/// That the tokens have.
fn issuer(config: &Config, version: u8) -> String {
    let tenant = config.entra.expected.tenant;
    match (version, config.entra.cloud) {
        (1, crate::config::Cloud::China) => format!("https://sts.chinacloudapi.cn/{tenant}/"),
        (1, _) => format!("https://sts.windows.net/{tenant}/"),
        _ => config.entra.authority.clone(),
    }
}

fn settings(config: &Config, issuer: &str) -> Value {
    let client = config.entra.expected.client_id;
    json!({
        "properties": {
            "globalValidation": { "excludedPaths": EXCLUDED },
            "identityProviders": {
                "azureActiveDirectory": {
                    "registration": { "clientId": client, "openIdIssuer": issuer },
                    "validation": {
                        "allowedAudiences": config.entra.expected.audiences,
                    },
                },
            },
        },
    })
}
