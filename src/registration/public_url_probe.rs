//! What a public origin of this deployment answers, seen from here.

use std::time::Duration;

use reqwest::{Response, header, redirect};
use serde_json::Value;

use crate::{authz::client_info::Origin, telemetry};

/// Where clients begin.
pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource/external/login";
/// For one public URL.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What a public URL answers where clients begin.
pub(crate) enum ProbeOutcome {
    Metadata {
        resource: Option<String>,
    },
    /// Something signs users in before the gateway; how that shows.
    SignIn(String),
    Other(u16),
    Away(String),
}

/// Whether a gateway answers at a public origin.
pub(crate) async fn leads_to_a_gateway(origin: &Origin) -> Result<(), String> {
    let away = |error: reqwest::Error| telemetry::chain(&error.without_url());
    // A sign-in page at the end of redirects is no gateway.
    let client = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(away)?;
    let answer = client.get(format!("{origin}/gateway/health/live")).send().await.map_err(away)?;
    if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
}

/// Asks a public origin for what clients begin with.
pub(crate) async fn metadata_at(origin: &Origin) -> ProbeOutcome {
    let url = format!("{origin}{METADATA}");
    let away = |error: reqwest::Error| ProbeOutcome::Away(telemetry::chain(&error.without_url()));
    let client = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => return away(error),
    };
    match answer {
        Ok(answer) => seen(answer).await,
        Err(error) => away(error),
    }
}

async fn seen(answer: Response) -> ProbeOutcome {
    let status = answer.status();
    if let Some(how) = sign_in(&answer) {
        return ProbeOutcome::SignIn(how);
    }
    if !status.is_success() {
        return ProbeOutcome::Other(status.as_u16());
    }
    let body = answer.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(document)) => {
            let resource = document.get("resource").and_then(Value::as_str).map(str::to_owned);
            ProbeOutcome::Metadata { resource }
        }
        _ => ProbeOutcome::SignIn("a page instead of the document".to_owned()),
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
    let is_metadata_document = text("x-ms-middleware-request-id").is_some()
        || text("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer realm="));
    (is_refusal && is_metadata_document).then(|| format!("{} of App Service", status.as_u16()))
}
