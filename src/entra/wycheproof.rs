//! Tests with Project Wycheproof's vectors of JWS, JWK and RSA signatures (C2SP/wycheproof, Apache-2.0), if `CORPORA`
//! names the folder that contains them.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::documents::usable;
use crate::authz::token::{BearerToken, SigningKey};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// Key, or object with `keys`.
    public: Option<Value>,
    /// Key of RSA signatures.
    key_jwk: Option<Value>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: u32,
    comment: String,
    /// Compact serialization (RFC 7515 §7.1).
    jws: Option<String>,
    /// Hexadecimal.
    msg: Option<String>,
    sig: Option<String>,
    result: String,
}

fn read(name: &str) -> Option<Vectors> {
    let folder = std::env::vars_os().find(|(name, _)| name == "CORPORA").map(|(_, folder)| folder);
    let folder = folder.filter(|folder| !folder.is_empty());
    let Some(folder) = folder else {
        println!("skipped: CORPORA names no folder");
        return None;
    };
    let file = Path::new(&folder).join("public").join(name);
    Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
}

/// Keys of a group: one, or a set.
fn keys(public: &Value) -> Vec<Value> {
    match public.get("keys") {
        Some(Value::Array(keys)) => keys.clone(),
        _ => vec![public.clone()],
    }
}

/// True if a usable key of these verifies the signature. Entra gives each key an id; these vectors do not.
fn is_signed(jws: &str, keys: Vec<Value>) -> bool {
    let named = keys.into_iter().enumerate().map(|(at, mut key)| {
        if key.get("kid").is_none() {
            key["kid"] = format!("key {at}").into();
        }
        key
    });
    let Some(token) = BearerToken::parse(jws) else { return false };
    let Ok(header) = token.unverified_header() else { return false };
    usable(named.collect())
        .iter()
        .filter(|(kid, _)| header.kid.as_ref().is_none_or(|key_id| key_id == kid))
        .any(|(_, key)| token.payload_signed_by(key).is_ok())
}

/// True for keys such as Entra's: RSA keys for RS256 signatures.
fn is_for_rs256(key: &Value) -> bool {
    let is = |name: &str, expected: &str| key.get(name).is_none_or(|value| value == expected);
    let verifies = key.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"))
    });
    key["kty"] == "RSA" && is("alg", "RS256") && is("use", "sig") && verifies
}

#[test]
fn jws_vectors_are_accepted_when_the_signature_is_valid_and_the_key_is_for_rs256() {
    let Some(vectors) = read("wycheproof_json_web_signature.json") else { return };
    let (mut count, mut accepted) = (0, 0);
    for group in &vectors.test_groups {
        let Some(public) = &group.public else {
            // A shared secret: no signature made with one is accepted.
            for vector in &group.tests {
                assert!(!is_signed(vector.jws.as_ref().unwrap(), Vec::new()), "{}", vector.tc_id);
                count += 1;
            }
            continue;
        };
        for vector in &group.tests {
            let expected = vector.result == "valid" && is_for_rs256(public);
            let checked = is_signed(vector.jws.as_ref().unwrap(), keys(public));
            assert_eq!(checked, expected, "{} {}", vector.tc_id, vector.comment);
            count += 1;
            accepted += usize::from(checked);
        }
    }
    println!("{count} JWS vectors: {accepted} accepted");
    assert!(count == 401 && accepted >= 8, "{count} {accepted}");
}

#[test]
fn jwk_vectors_with_invalid_keys_are_not_accepted() {
    let Some(vectors) = read("wycheproof_json_web_key.json") else { return };
    let (mut count, mut accepted) = (0, 0);
    for group in &vectors.test_groups {
        for vector in &group.tests {
            let set = group.public.as_ref().map(keys).unwrap_or_default();
            let checked = is_signed(vector.jws.as_ref().unwrap(), set);
            // Keys come from Entra over TLS: weak key generation (ROCA, CVE-2017-15361) is not detected.
            let is_weak_key = vector.comment == "rejectsKeyWithRocaVulnerability";
            if vector.result == "invalid" && !is_weak_key {
                assert!(!checked, "{} {}", vector.tc_id, vector.comment);
            }
            count += 1;
            accepted += usize::from(checked);
        }
    }
    println!("{count} JWK vectors: {accepted} accepted");
    assert!(count == 26 && accepted >= 1, "{count} {accepted}");
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn rsa_vectors_are_accepted_exactly_when_they_are_valid() {
    let Some(vectors) = read("wycheproof_rsa_signature_2048_sha256.json") else { return };
    let (mut count, mut accepted) = (0, 0);
    for group in &vectors.test_groups {
        let Some(jwk) = &group.key_jwk else { continue };
        let key: Vec<(String, SigningKey)> = usable(vec![jwk.clone()]);
        for vector in &group.tests {
            let message = bytes(vector.msg.as_ref().unwrap());
            let signature = bytes(vector.sig.as_ref().unwrap());
            let checked = key.iter().any(|(_, key)| key.has_signed(&message, &signature));
            // Keys with the exponent 3 are not usable.
            let expected = vector.result == "valid" && jwk["e"] == "AQAB";
            assert_eq!(checked, expected, "{} {}", vector.tc_id, vector.comment);
            count += 1;
            accepted += usize::from(checked);
        }
    }
    println!("{count} RSA vectors: {accepted} accepted");
    assert!(count == 259 && accepted >= 5, "{count} {accepted}");
}
