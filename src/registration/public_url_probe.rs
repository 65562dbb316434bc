//! Probe of a public URL of this deployment, from this host.

use std::time::Duration;

use reqwest::{Response, header, redirect};
use serde_json::Value;

use crate::{authz::client_info::Origin, connect_fault::ConnectFault, telemetry};

/// Path of the protected resource metadata of `/external/login` (RFC 9728), which clients read first.
pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource/external/login";
/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Answer of a public URL at [`METADATA`].
pub(crate) enum ProbeOutcome {
    Metadata {
        resource: Option<String>,
    },
    /// A sign-in in front of the gateway answered; how it was recognized.
    SignIn(String),
    /// Any other status.
    Other(u16),
    /// No answer, with the reason.
    Unavailable(String),
}

/// Tests that a gateway answers at a public origin. The error is the reason, in plain words.
pub(crate) async fn leads_to_a_gateway(origin: &Origin) -> Result<(), String> {
    // Follows no redirects: they may lead to a sign-in page, which answers 200.
    let client = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(request_fault)?;
    let live = client.get(format!("{origin}/gateway/health/live"));
    let answer = live.send().await.map_err(request_fault)?;
    if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
}

/// Requests [`METADATA`] from a public origin.
pub(crate) async fn metadata_at(origin: &Origin) -> ProbeOutcome {
    let url = format!("{origin}{METADATA}");
    let client = reqwest::Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => return ProbeOutcome::Unavailable(request_fault(error)),
    };
    match answer {
        Ok(answer) => outcome(answer).await,
        Err(error) => ProbeOutcome::Unavailable(request_fault(error)),
    }
}

/// Reason for which a request got no answer, in plain words and without the URL.
pub(crate) fn request_fault(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return ConnectFault::TimedOut.to_string();
    }
    match ConnectFault::of(&error) {
        Some(fault) => fault.to_string(),
        None => telemetry::chain(&error.without_url()),
    }
}

async fn outcome(answer: Response) -> ProbeOutcome {
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
        _ => ProbeOutcome::SignIn("a page in place of the document".to_owned()),
    }
}

/// Recognizes an answer of App Service authentication or a similar sign-in, and describes it.
fn sign_in(answer: &Response) -> Option<String> {
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let status = answer.status();
    if status.is_redirection() {
        let location = text(header::LOCATION.as_str()).unwrap_or_default();
        // The query is left out: it contains nonces.
        let target = location.split('?').next().unwrap_or_default();
        let is_sign_in = [
            "/.auth/login",
            "login.microsoftonline.",
            "login.partner.microsoftonline.",
            "login.windows.net",
            "/login",
        ]
        .iter()
        .any(|sign| target.contains(sign));
        return is_sign_in.then(|| format!("{} to {target}", status.as_u16()));
    }
    let is_refusal = matches!(status.as_u16(), 401 | 403);
    let is_app_service = text("x-ms-middleware-request-id").is_some()
        || text("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer realm="));
    (is_refusal && is_app_service).then(|| format!("{} of App Service", status.as_u16()))
}
