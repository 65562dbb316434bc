//! Targets, forwarding headers, hosts, tokens, forms.

use std::net::IpAddr;

use serde_json::Value;
use uuid::Uuid;

use super::{
    client_info::{Authority, EdgePolicy, Forwarding, Origin, PublicOrigin, TrustedProxies},
    policy::{Policy, RoleCeiling, SessionBinding},
    token::{BearerToken, Claims, ExpectedClaims, Issuers, SigningKey, UniqueMembers},
};
use crate::flask::{
    forms::{SubjectBinding, SubjectFault},
    path::{Target, upstream_path},
};

const OID: &str = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb";

/// Guard's parsing of a target: everything that upstream would route under `/external/` is guarded.
pub(crate) fn target(data: &[u8]) {
    // Raw bytes: the gateway forwards targets without control bytes, spaces, `#`, `<` and `>`.
    let is_passed = |b: &u8| *b > b' ' && *b != 0x7f && !b"#<>?".contains(b);
    let path: Vec<u8> = [b"/", data].concat();
    if !path.iter().all(is_passed) {
        return;
    }
    let read = Target::read(&String::from_utf8_lossy(&path));
    let mut merged = upstream_path(&path);
    merged.dedup_by(|b, a| *a == b'/' && *b == b'/');
    if merged == b"/external" || merged.starts_with(b"/external/") {
        assert_ne!(read, Target::Open, "{}", path.escape_ascii());
    }
    if read == Target::Guarded {
        assert!(path.starts_with(b"/external"), "{}", path.escape_ascii());
    }
}

/// Forwarding headers and hosts: an untrusted peer's values are ignored, unlisted hosts are not
/// echoed.
pub(crate) fn origin(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let listed = Origin::parse("https://chat.example").into_iter().collect();
    let edge = EdgePolicy {
        public_urls: if kind & 1 == 0 { listed } else { Vec::new() },
        trusted: match kind >> 1 & 3 {
            0 => TrustedProxies::None,
            1 => TrustedProxies::Private,
            _ => TrustedProxies::Networks("10.0.0.0/8".parse().into_iter().collect()),
        },
        front_door: (kind & 16 != 0).then(Uuid::nil),
    };
    let mut headers = Forwarding::default();
    for line in text.split('\n') {
        let Some((first, value)) = line.split_at_checked(1) else { continue };
        match first {
            "h" => headers.host = Some(value),
            "f" => headers.x_for.push(value),
            "p" => headers.x_proto.push(value),
            "o" => headers.x_host.push(value),
            "d" => headers.front_door.push(value),
            "c" => headers.front_door_client.push(value),
            _ => {}
        }
    }
    let peer: IpAddr = if kind & 32 == 0 { [10, 0, 0, 2] } else { [203, 0, 113, 9] }.into();
    let Ok(route) = edge.resolve(peer, &headers) else { return };
    assert_eq!(route.chain.first(), Some(&route.client));
    assert_eq!(route.chain.last(), Some(&peer));
    if !route.peer_is_trusted && !(edge.front_door.is_some() && route.is_via_front_door) {
        assert_eq!(route.client, peer);
    }
    match (&route.origin, edge.public_urls.first()) {
        (PublicOrigin::Known(origin), Some(canonical)) => assert_eq!(origin, canonical),
        (PublicOrigin::Known(origin), None) => {
            let shown = origin.to_string();
            assert_eq!(Origin::parse(&shown).as_ref(), Some(origin), "{shown}");
            assert!(shown.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{shown}");
        }
        (PublicOrigin::Unlisted(origin), canonical) => assert_eq!(Some(origin), canonical),
        (PublicOrigin::Unnamed, listed) => assert_eq!(listed, None),
    }
    if let Some(authority) = headers.host.and_then(Authority::parse) {
        assert_eq!(Authority::parse(&authority.to_string()), Some(authority));
    }
}

/// Parts of a token, and claims that are validated as if they had been signed.
pub(crate) fn token(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let modulus: Vec<u8> = (0..=255).map(|n: u8| !n | 1).collect();
    let Some(key) = SigningKey::new(&modulus, &[1, 0, 1], None) else { panic!("no key") };
    let id: Uuid = OID.parse().unwrap_or_default();
    let issuers = Issuers { v2: Some("two".to_owned()), v1: Some("one".to_owned()) };
    let expected = ExpectedClaims { tenant: id, client_id: id, audiences: vec![OID.to_owned()] };
    let now = 1_800_000_000;
    if kind & 1 == 0 {
        let Some(token) = std::str::from_utf8(bytes).ok().and_then(BearerToken::parse) else {
            return;
        };
        let _ = token.unverified_key_id();
        assert!(token.verify(&key, &issuers, &expected, now).is_err(), "this is not signed");
        return;
    }
    let Ok(UniqueMembers(all)) = serde_json::from_slice(bytes) else { return };
    let Ok(claims) = Claims::validate(all.clone(), &key, &issuers, &expected, now) else { return };
    let text = |name: &str| all.get(name).and_then(Value::as_str);
    assert!(matches!(text("iss"), Some("one" | "two")) && text("tid") == Some(OID));
    assert!(text("aud").is_some() && text("oid").is_some());
    let identity = claims.identity();
    assert!(identity.expires_at() > now - 61 && identity.expires_at() < now + 40 * 3600);
    let is_listed = |role: &str| {
        all.get("roles").and_then(Value::as_array).is_some_and(|all| all.iter().any(|r| r == role))
    };
    let policy = Policy {
        allowed_clients: Vec::new(),
        login_scopes: vec!["ExternalApi".to_owned()],
        login_app_only: true,
        session_roles: RoleCeiling::Only(vec!["User".to_owned()]),
        session_max_age: std::time::Duration::from_hours(8),
        session_binding: SessionBinding::Required,
        bind_subject: true,
    };
    assert_eq!(policy.admit(identity).is_ok(), is_listed("ExternalApi"));
    if let Ok(grant) = policy.grant(claims, now) {
        let user = grant.into_user();
        let roles = user.get("roles").and_then(Value::as_array).map(Vec::as_slice);
        assert!(roles.is_some_and(|roles| roles.iter().all(|role| role == "User")));
    }
}

/// Forms: the result does not depend on how the bytes are cut, and a simple second parser finds no
/// other user in an accepted form.
pub(crate) fn form(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    let binding = SubjectBinding::to(OID.parse().unwrap_or_default());
    let is_multipart = kind & 1 == 0;
    let content_type: &[u8] = if is_multipart {
        b"multipart/form-data; boundary=B"
    } else {
        b"application/x-www-form-urlencoded"
    };
    let judge = |step: usize| -> Result<(), SubjectFault> {
        let Some(mut reader) = binding.reader([content_type].into_iter())? else { return Ok(()) };
        body.chunks(step).try_for_each(|part| reader.read(part))?;
        reader.end()
    };
    let judged = judge(usize::MAX);
    let cut = judge(usize::from(kind >> 1) + 1);
    assert_eq!(judged.is_ok(), cut.is_ok(), "{judged:?} {cut:?}");
    if judged.is_err() {
        return;
    }
    let text = String::from_utf8_lossy(body);
    let users: Vec<String> = if is_multipart {
        // Every possible delimiter is treated as one.
        let is_user = |line: &str| {
            line.to_ascii_lowercase().starts_with("content-disposition:")
                && line.contains(" name=\"user_id\"")
        };
        let parts = text.split("--B").filter(|part| {
            part.split("\r\n\r\n").next().unwrap_or_default().split("\r\n").any(is_user)
        });
        let value = |part: &str| Some(part.split_once("\r\n\r\n")?.1.trim_end().to_owned());
        parts.filter_map(value).collect()
    } else {
        let pairs = url::form_urlencoded::parse(body);
        pairs.filter(|(name, _)| name == "user_id").map(|(_, value)| value.into_owned()).collect()
    };
    for user in users {
        assert_eq!(user, OID, "{}", body.escape_ascii());
    }
}
