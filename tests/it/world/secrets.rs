//! Secrets that must never be written: tokens, session ids, passwords, keys.

/// Secrets of one gateway, in addition to those recognized by their form.
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// The secrets among a gateway's settings.
    pub(crate) fn of(settings: &[(String, String)]) -> Self {
        let is_secret = |name: &str| {
            let name = name.strip_suffix("_FILE").unwrap_or(name);
            matches!(
                name,
                "REDIS_PASSWORD"
                    | "SECRET_KEY"
                    | "GATEWAY_FRONT_DOOR_ID"
                    | "IDENTITY_HEADER"
                    | "AZURE_FEDERATED_TOKEN"
                    | "OTEL_EXPORTER_OTLP_HEADERS"
                    | "APPLICATIONINSIGHTS_CONNECTION_STRING"
            )
        };
        let mut found = Vec::new();
        for (name, value) in settings {
            if is_secret(name) {
                let content = std::fs::read_to_string(value).unwrap_or_else(|_| value.clone());
                found.push(content.trim().to_owned());
            }
            // Password in a URL.
            let credentials = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
            if let Some((_, password)) = credentials.and_then(|(user, _)| user.split_once(':')) {
                found.push(password.to_owned());
            }
        }
        found.retain(|secret| !secret.is_empty());
        Self(found)
    }

    /// Kind of the first secret in a line.
    pub(crate) fn find(&self, line: &str) -> Option<&'static str> {
        let in_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let of_form = line.split(|c| !in_word(c)).find_map(form_of);
        let is_setting = self.0.iter().any(|secret| line.contains(secret.as_str()));
        of_form
            .or(is_setting.then_some("a secret setting"))
            .or(line.contains("PRIVATE KEY").then_some("a private key"))
    }

    /// Panics with the first line that holds a secret.
    pub(crate) fn assert_absent_in(&self, written: &str) {
        for line in written.lines() {
            let found = self.find(line);
            assert!(found.is_none(), "{} in the output: {line}", found.unwrap_or_default());
        }
    }
}

/// Kind of secret that a word's form suggests.
fn form_of(word: &str) -> Option<&'static str> {
    let in_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let parts: Vec<&str> = word.split('.').collect();
    match parts[..] {
        [header, payload, ..] if header.starts_with("eyJ") && payload.len() > 8 => Some("a token"),
        [id, end, ..]
            if id.len() == 22
                && id.bytes().all(in_id)
                && end.len() == 10
                && end.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Some("a minted session's id")
        }
        // Flask's session ids, and hashes of tokens.
        [id] if id.len() == 43 && id.bytes().all(in_id) => Some("a session's id"),
        _ => None,
    }
}

#[test]
fn secrets_are_recognized_by_form_and_by_value() {
    let settings = [
        ("REDIS_URL", "redis://user:hunter2@127.0.0.1:1/0"),
        ("SECRET_KEY", "correct horse"),
        ("GATEWAY_LISTEN", "127.0.0.1:0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let secrets = Secrets::of(&settings);
    for secret in [
        "authorization: Bearer eyJ0eXAiOiJKV1QiLCJhbGci.eyJhdWQiOiJhcGk6Ly9h.cjwUNufa3H4",
        r#"{"cookie":"session=URfDrEuKzgWg3bXogAhUAw.1795384800"}"#,
        "GET session:URfDrEuKzgWg3bXogAhUAw.1795384800",
        "session=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "AUTH user hunter2",
        "correct horse battery",
        "-----BEGIN PRIVATE KEY-----",
    ] {
        assert!(secrets.find(secret).is_some(), "{secret}");
    }
    for harmless in [
        r#"{"request_id":"019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10","url.path":"/api/x","duration_ms":1.2}"#,
        "listening on http://127.0.0.1:4711",
        "http://127.0.0.1:4711/aaaabbbb-0000-cccc-1111-dddd2222eeee/discovery/v2.0/keys: answered 500",
    ] {
        assert_eq!(secrets.find(harmless), None, "{harmless}");
    }
}
