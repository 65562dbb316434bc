//! OpenID Connect metadata and signing keys, fetched from Entra with limits on time, size and redirects.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use url::Url;

use crate::{authz::token::SigningKey, connect_fault::ConnectFault};

/// Maximum size of a document, in bytes. Entra's key documents have about 10 KB.
const MAX_SIZE: usize = 256 * 1024;

/// Failures to fetch a document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// Connection refused, timed out or closed early.
    #[error("{url}: {}", .fault.map_or_else(|| "unreachable".to_owned(), |fault| fault.to_string()))]
    Unreachable {
        /// URL of the document.
        url: Url,
        /// Cause, if it is a common one.
        fault: Option<ConnectFault>,
        /// Error of the client library, otherwise.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// Any status other than 200; redirects are not followed.
    #[error("{url}: answered {status}")]
    Status {
        /// URL of the document.
        url: Url,
        /// Status of the response.
        status: u16,
    },
    #[error("{url}: longer than 256 KiB")]
    TooLarge {
        /// URL of the document.
        url: Url,
    },
    #[error("{url}: {problem}")]
    Malformed {
        /// URL of the document.
        url: Url,
        /// Defect of the document.
        problem: String,
    },
}

/// Members of the metadata that the gateway uses (OpenID Connect Discovery 1.0 §3).
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) issuer: String,
    pub(super) jwks_uri: Url,
}

/// HTTP client for documents: no redirects, 5 s in total, at most [`MAX_SIZE`] bytes.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    client: reqwest::Client,
}

impl Documents {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(5))
            .user_agent(concat!("simplechat-gateway/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client })
    }

    pub(super) async fn metadata(&self, url: &Url) -> Result<Metadata, DocumentError> {
        let metadata: Metadata = self.json(url).await?;
        let malformed = |problem: &str| DocumentError::Malformed {
            url: url.clone(),
            problem: problem.to_owned(),
        };
        if metadata.issuer.is_empty() {
            return Err(malformed("the issuer is empty"));
        }
        // If the metadata came over TLS, the keys must as well.
        if metadata.jwks_uri.scheme() != "https" && url.scheme() == "https" {
            return Err(malformed("jwks_uri is not https"));
        }
        Ok(metadata)
    }

    /// Fetches the usable keys of a key document, with their key ids.
    pub(super) async fn keys(&self, url: &Url) -> Result<Vec<(String, SigningKey)>, DocumentError> {
        let set: KeySet = self.json(url).await?;
        let keys = usable(set.keys);
        if keys.is_empty() {
            return Err(DocumentError::Malformed {
                url: url.clone(),
                problem: "contains no RSA signing key of 2048 bits or more".to_owned(),
            });
        }
        Ok(keys)
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, url: &Url) -> Result<T, DocumentError> {
        let unreachable = |source: reqwest::Error| {
            let timed_out = source.is_timeout().then_some(ConnectFault::TimedOut);
            let fault = timed_out.or_else(|| ConnectFault::of(&source));
            let source = fault.is_none().then(|| source.without_url());
            DocumentError::Unreachable { url: url.clone(), fault, source }
        };
        let mut answer = self.client.get(url.clone()).send().await.map_err(unreachable)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(DocumentError::Status {
                url: url.clone(),
                status: answer.status().as_u16(),
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_SIZE {
                return Err(DocumentError::TooLarge { url: url.clone() });
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| DocumentError::Malformed {
            url: url.clone(),
            problem: error.to_string(),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct KeySet {
    pub(super) keys: Vec<serde_json::Value>,
}

/// A key as Entra publishes it (RFC 7517 §4), with its own `issuer` and without `alg`.
#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    #[serde(rename = "key_ops")]
    operations: Option<Vec<String>>,
    issuer: Option<String>,
}

/// RSA keys of 2048 to 8192 bits for RS256 signatures. Skips other keys, and all keys whose id occurs more than
/// once: such an id does not identify a key.
pub(super) fn usable(keys: Vec<serde_json::Value>) -> Vec<(String, SigningKey)> {
    let mut known_ids = HashSet::new();
    let mut repeated = HashSet::new();
    let mut usable = Vec::new();
    for key in keys {
        let Ok(key) = serde_json::from_value::<Key>(key) else { continue };
        let Some(kid) = key.kid.clone().filter(|kid| !kid.is_empty()) else { continue };
        if !known_ids.insert(kid.clone()) {
            repeated.insert(kid);
            continue;
        }
        if let Some(signing_key) = key.into_signing_key() {
            usable.push((kid, signing_key));
        }
    }
    usable.retain(|(kid, _)| !repeated.contains(kid));
    usable
}

impl Key {
    fn into_signing_key(self) -> Option<SigningKey> {
        let is_for_signatures = self.kty == "RSA"
            && self.usage.is_none_or(|usage| usage == "sig")
            && self.alg.is_none_or(|alg| alg == "RS256")
            && self.operations.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let modulus = URL_SAFE_NO_PAD.decode(self.n?).ok()?;
        let exponent = URL_SAFE_NO_PAD.decode(self.e?).ok()?;
        let is_strong = (2048..=8192).contains(&bits(&modulus))
            && (17..=64).contains(&bits(&exponent))
            && exponent.last().is_some_and(|last| last % 2 == 1);
        if is_for_signatures && is_strong {
            SigningKey::new(&modulus, &exponent, self.issuer)
        } else {
            None
        }
    }
}

/// Length of a big-endian number in bits, without leading zeros.
fn bits(number: &[u8]) -> usize {
    let leading_zeros = number.iter().take_while(|byte| **byte == 0).count();
    let significant = &number[leading_zeros..];
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn modulus(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xC5; bytes])
    }

    fn ids(keys: Vec<serde_json::Value>) -> Vec<String> {
        usable(keys).into_iter().map(|(kid, _)| kid).collect()
    }

    #[test]
    fn keys_as_entra_publishes_them_are_usable() {
        let entra = json!({"kty":"RSA","use":"sig","kid":"a","x5t":"a","n":modulus(256),"e":"AQAB","x5c":["MII"],
            "issuer":"https://login.microsoftonline.com/{tenantid}/v2.0"});
        assert_eq!(ids(vec![entra]), ["a"]);
    }

    #[test]
    fn weak_keys_keys_of_other_kinds_and_repeated_ids_are_skipped() {
        let key = |more: serde_json::Value| {
            let mut key = json!({"kty":"RSA","kid":"a","n":modulus(256),"e":"AQAB"});
            for (name, value) in more.as_object().unwrap() {
                key[name] = value.clone();
            }
            key
        };
        for odd in [
            key(json!({"n": modulus(128)})),
            key(json!({"e": "AQ"})),
            key(json!({"e": "AQAA"})),
            key(json!({"use": "enc"})),
            key(json!({"alg": "PS256"})),
            key(json!({"key_ops": ["encrypt"]})),
            key(json!({"kty": "oct"})),
            key(json!({"kid": null})),
            key(json!({"n": 5})),
        ] {
            assert_eq!(ids(vec![odd.clone()]), [""; 0], "{odd}");
        }
        let twice = vec![key(json!({})), key(json!({})), key(json!({"kid": "b"}))];
        assert_eq!(ids(twice), ["b"]);
    }
}
