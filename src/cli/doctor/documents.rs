//! OAuth documents of SimpleChat and of the gateway that clients find, with external access on and off.
//!
//! SimpleChat 0.250 and later has an MCP endpoint, `/api/mcp`, and publishes protected resource metadata (RFC 9728)
//! and authorization server metadata (RFC 8414) for it.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    cli::report::Report,
    config::{Config, RootMetadata},
    h1::message::ResponseHead,
    registration::public_url_probe::METADATA,
    telemetry,
    upstream::Upstream,
};

/// Timeout of one request.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Metadata path of the origin as a whole.
const ROOT: &str = "/.well-known/oauth-protected-resource";
/// Metadata path of SimpleChat's MCP endpoint.
const MCP: &str = "/.well-known/oauth-protected-resource/api/mcp";
/// Metadata path of the same endpoint under its short name.
const SHORT_MCP: &str = "/.well-known/oauth-protected-resource/mcp";
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
const ENDPOINT: &str = "/api/mcp";

/// Answer of upstream at a document's path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Document,
    Nothing,
    /// A redirect or 401, by its status.
    SignIn(u16),
    Other(u16),
    /// No answer, with the reason.
    Missing(String),
}

impl Answer {
    async fn of(upstream: &Upstream, path: &str) -> Self {
        match ask(upstream, "GET", path).await {
            Ok(head) => Self::in_head(&head),
            Err(problem) => Self::Missing(problem),
        }
    }

    fn in_head(head: &ResponseHead) -> Self {
        let is_json = head.fields.all("content-type").any(|it| it.starts_with(b"application/json"));
        match head.status {
            200 if is_json => Self::Document,
            404 => Self::Nothing,
            status if head.leads_to_sign_in() => Self::SignIn(status),
            status => Self::Other(status),
        }
    }

    /// The answer as a client gets it from SimpleChat, unchanged.
    fn unchanged(&self) -> String {
        match self {
            Self::Document => "SimpleChat's document".to_owned(),
            Self::Nothing => "404 of SimpleChat".to_owned(),
            Self::SignIn(status) => format!("{status} of SimpleChat, no document"),
            Self::Other(status) => format!("{status} of SimpleChat, not a JSON document"),
            Self::Missing(problem) => format!("unknown ({problem})"),
        }
    }

    /// The answer as a client gets it through the gateway while external access is on.
    fn through_gateway(&self, path: &str, root: RootMetadata) -> String {
        match self {
            _ if path == ROOT && root == RootMetadata::Gateway => {
                "the gateway's document".to_owned()
            }
            Self::SignIn(status) if path == AUTHORIZATION_SERVER => {
                format!("404, in place of SimpleChat's {status}")
            }
            answer => answer.unchanged(),
        }
    }
}

/// Requests all four documents from upstream and prints which ones clients find.
pub(super) async fn report_documents(config: &Config, upstream: &Upstream, report: &Report) {
    let root = config.resource.root_metadata;
    let mut lines = Vec::new();
    let mut answers = Vec::new();
    for path in [ROOT, MCP, SHORT_MCP, AUTHORIZATION_SERVER] {
        let answer = Answer::of(upstream, path).await;
        if let Answer::Missing(problem) = &answer {
            report.skip(&format!("GET {path} on SimpleChat: {problem}"));
        }
        lines.push(format!(
            "GET {path}\n    from SimpleChat itself, and with external access off: {}\n    with external access on: {}",
            answer.unchanged(),
            answer.through_gateway(path, root)
        ));
        answers.push(answer);
    }
    report.pass(&format!(
        "client of /external/login: its 401 names {METADATA}, the gateway's document; with external access off that path belongs to SimpleChat and login is 404"
    ));
    let [at_root, _, _, authorization_server] = &answers[..] else { return };
    endpoint(upstream, root, authorization_server, report).await;
    advise(config, at_root, &answers, report);
    report.block(
        &format!(
            "OAuth documents of SimpleChat, as clients find them (GATEWAY_ROOT_METADATA={}, GATEWAY_EXTERNAL_ACCESS={})",
            root.word(),
            config.external_access.word()
        ),
        &lines.join("\n"),
    );
}

/// Prints the documents that a client of SimpleChat's own MCP endpoint finds.
async fn endpoint(
    upstream: &Upstream,
    root: RootMetadata,
    authorization_server: &Answer,
    report: &Report,
) {
    let head = match ask(upstream, "POST", ENDPOINT).await {
        Ok(head) => head,
        Err(problem) => {
            report.skip(&format!("POST {ENDPOINT} on SimpleChat: {problem}"));
            return;
        }
    };
    let named = head.fields.all("www-authenticate").find_map(resource_metadata);
    let Some(path) = named.filter(|_| head.status == 401) else {
        report.pass(&format!(
            "client of {ENDPOINT}: none to serve; SimpleChat answers {} there, without a challenge that names a document (SimpleChat before 0.250, or its MCP server is disabled)",
            head.status
        ));
        return;
    };
    let answer = Answer::of(upstream, &path).await;
    if answer != Answer::Document {
        report.warn(&format!(
            "client of {ENDPOINT}: SimpleChat's 401 names {path}, which holds no document: {}. Update SimpleChat; the gateway forwards that path unchanged",
            answer.unchanged()
        ));
        return;
    }
    if path == ROOT && root == RootMetadata::Gateway {
        report.warn(&format!(
            "client of {ENDPOINT}: SimpleChat's 401 names {path}, where the gateway answers while external access is on. Set GATEWAY_ROOT_METADATA=upstream"
        ));
        return;
    }
    if *authorization_server == Answer::Document {
        report.pass(&format!(
            "client of {ENDPOINT}: its 401 names {path}; that and {AUTHORIZATION_SERVER} are SimpleChat's documents, with external access on and off"
        ));
    } else {
        report.warn(&format!(
            "client of {ENDPOINT}: its 401 names {path}, SimpleChat's document, but {AUTHORIZATION_SERVER} holds none: {}. Clients that take SimpleChat for the authorization server cannot sign in",
            authorization_server.unchanged()
        ));
    }
}

/// Prints advice on `GATEWAY_ROOT_METADATA` and `GATEWAY_UPSTREAM_HOST`.
fn advise(config: &Config, at_root: &Answer, answers: &[Answer], report: &Report) {
    match (at_root, config.resource.root_metadata) {
        (Answer::Document, RootMetadata::Gateway) => report.warn(&format!(
            "GATEWAY_ROOT_METADATA=gateway: SimpleChat has a document at {ROOT} as well. While external access is on, a client of {ENDPOINT} finds the gateway's there if it reads only this path, or goes on to it from {MCP} (PyPI mcp does where SimpleChat names api://CLIENT_ID as its resource). If such clients are in use, set GATEWAY_ROOT_METADATA=upstream; clients of /external/login find their own document by the 401"
        )),
        (Answer::Document, RootMetadata::Upstream) => report.pass(&format!(
            "{ROOT} is SimpleChat's document, with external access on and off (GATEWAY_ROOT_METADATA=upstream)"
        )),
        (Answer::Nothing | Answer::SignIn(_) | Answer::Other(_), RootMetadata::Upstream) => {
            report.warn(&format!(
                "GATEWAY_ROOT_METADATA=upstream: SimpleChat has no document at {ROOT}. A client that reads only this path finds none; set GATEWAY_ROOT_METADATA=gateway"
            ));
        }
        _ => {}
    }
    if let Some(host) = &config.upstream.host
        && answers.contains(&Answer::Document)
    {
        report.warn(&format!(
            "GATEWAY_UPSTREAM_HOST: SimpleChat's documents name the host that it is called by, {host}. Clients compare it with the public one: leave GATEWAY_UPSTREAM_HOST empty where {ENDPOINT} is in use"
        ));
    }
}

async fn ask(upstream: &Upstream, method: &str, path: &str) -> Result<ResponseHead, String> {
    let fields = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    match timeout(UPSTREAM_TIMEOUT, upstream.ask(method, path, fields)).await {
        Ok(Ok(head)) => Ok(head),
        Ok(Err(error)) => Err(telemetry::chain(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The path of the document that a challenge names (RFC 9728 §5.1).
fn resource_metadata(challenge: &[u8]) -> Option<String> {
    let challenge = std::str::from_utf8(challenge).ok()?;
    let (_, value) = challenge.split_once("resource_metadata=\"")?;
    let (url, _) = value.split_once('"')?;
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map(|(_, path)| format!("/{path}"))?,
        None => url.to_owned(),
    };
    let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    is_path.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_the_path_of_a_document() {
        for (challenge, path) in [
            (
                r#"Bearer resource_metadata="https://a.example/.well-known/x/api/mcp""#,
                Some("/.well-known/x/api/mcp"),
            ),
            (
                r#"Bearer realm="a", resource_metadata="/.well-known/x", scope="b""#,
                Some("/.well-known/x"),
            ),
            (r#"Bearer resource_metadata="https://a.example""#, None),
            (r#"Bearer resource_metadata="/a b""#, None),
            ("Bearer", None),
        ] {
            assert_eq!(resource_metadata(challenge.as_bytes()).as_deref(), path, "{challenge}");
        }
    }
}
