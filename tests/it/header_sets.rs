//! Sets of headers that can mislead gunicorn or Flask, sent by a trusted and by an untrusted peer:
//! upstream uses the values that the gateway accepts.

use serde::Deserialize;
use serde_json::Value;

use crate::world::{Kind, World, flask::in_repository};

#[derive(Deserialize)]
struct HeaderSet {
    name: String,
    headers: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Corpus {
    cases: Vec<HeaderSet>,
}

impl HeaderSet {
    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// Scheme that the gateway accepts from a trusted peer. `None`: the request is refused.
    fn scheme_of_trusted(&self) -> Option<&'static str> {
        let mut protos = self.headers.iter().filter(|(name, _)| name == "X-Forwarded-Proto");
        match (protos.next(), protos.next()) {
            (None, _) => Some("http"),
            (Some((_, value)), None) if value.eq_ignore_ascii_case("https") => Some("https"),
            // Two lines, or more entries than there are proxies.
            _ => None,
        }
    }
}

async fn replay(trusted: &str) -> usize {
    let file = std::fs::read(in_repository("tests/data/header_sets.json")).unwrap();
    let corpus: Corpus = serde_json::from_slice(&file).unwrap();
    let is_trusted = trusted == "private";
    let world = World::with(Kind::Files, &[("GATEWAY_TRUSTED_PROXIES", trusted)]).await;
    for set in &corpus.cases {
        let mut request =
            b"GET /test/echo HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n".to_vec();
        for (name, value) in &set.headers {
            request.extend(format!("{name}: ").bytes());
            // Encoding with which the corpus was measured: Latin-1.
            request.extend(value.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
            request.extend(b"\r\n");
        }
        request.extend(b"\r\n");
        let answer = world.gateway.raw(&request).await;
        let case = format!("{}, trusting {trusted}: {answer}", set.name);
        let scheme = if is_trusted { set.scheme_of_trusted() } else { Some("http") };
        // Two hosts; contradictions of a trusted peer; an expectation that gunicorn does not meet.
        let expected = match (set.has("Host"), scheme) {
            (true, _) | (_, None) => "400",
            _ if set.name == "Expect other" => "417",
            _ => "200",
        };
        assert_eq!(&answer[9..12], expected, "{case}");
        if expected != "200" {
            continue;
        }
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let echo: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {case}"));
        assert_eq!(echo["path"], "/test/echo", "{case}");
        assert_eq!(echo["scheme"], scheme.unwrap(), "{case}");
        let headers = |name: &str| -> Vec<String> {
            let all = echo["headers"].as_array().unwrap().iter();
            all.filter(|header| header[0] == name)
                .map(|header| header[1].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(headers("host"), ["gw.example"], "{case}");
        assert_eq!(headers("x-forwarded-proto"), [scheme.unwrap()], "{case}");
        assert_eq!(headers("x-forwarded-host"), ["gw.example"], "{case}");
        let addresses = if is_trusted && set.has("X-Forwarded-For") {
            "1.2.3.4, 127.0.0.1"
        } else {
            "127.0.0.1"
        };
        assert_eq!(headers("x-forwarded-for"), [addresses], "{case}");
        for never in [
            "forwarded",
            "x-forwarded-protocol",
            "x-forwarded-ssl",
            "x-forwarded-prefix",
            "x-forwarded-client-cert",
            "path-info",
            "content-length",
            "transfer-encoding",
            "expect",
        ] {
            assert!(headers(never).is_empty(), "{never}: {case}");
        }
        // Names with underscores are dropped; the same names with hyphens are the caller's own
        // headers.
        for (name, value) in &set.headers {
            if name == "Remote-User" || name == "Script-Name" || name == "Max-Forwards" {
                assert_eq!(
                    headers(&name.to_ascii_lowercase()),
                    std::slice::from_ref(value),
                    "{case}"
                );
            }
            if name.contains('_') {
                let hyphened = name.replace('_', "-").to_ascii_lowercase();
                let ours = ["x-forwarded-proto"].contains(&&*hyphened);
                assert!(ours || headers(&hyphened).is_empty(), "{case}");
            }
        }
    }
    corpus.cases.len()
}

#[tokio::test]
async fn upstream_gets_the_forwarding_values_that_the_gateway_accepts_from_a_trusted_peer() {
    println!("{} header sets of a trusted peer", replay("private").await);
}

#[tokio::test]
async fn upstream_gets_no_forwarding_values_of_an_untrusted_peer() {
    println!("{} header sets of an untrusted peer", replay("none").await);
}
