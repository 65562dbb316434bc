//! Unit tests of the parent module.

use super::*;

fn edge(urls: &[&str], trusted: TrustedProxies) -> EdgePolicy {
    EdgePolicy {
        public_urls: urls.iter().map(|u| Origin::parse(u).unwrap()).collect(),
        trusted,
        front_door: None,
    }
}

fn networks(text: &[&str]) -> TrustedProxies {
    TrustedProxies::Networks(text.iter().map(|n| n.parse().unwrap()).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn known(client_info: &ClientInfo) -> String {
    match &client_info.origin {
        PublicOrigin::Known(origin) => origin.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_untrusted_peer_is_the_client_regardless_of_its_headers() {
    let headers = Forwarding {
        host: Some("gw.example"),
        x_for: vec!["10.0.0.1"],
        x_proto: vec!["https", "nonsense"],
        x_host: vec!["evil.example"],
        ..Forwarding::default()
    };
    let client_info =
        edge(&[], TrustedProxies::Private).resolve(ip("203.0.113.9"), &headers).unwrap();
    assert_eq!(client_info.client, ip("203.0.113.9"));
    assert_eq!(known(&client_info), "http://gw.example");
}

#[test]
fn a_private_proxy_sets_scheme_and_client_but_not_an_unlisted_host() {
    let headers = Forwarding {
        host: Some("gw.example"),
        x_for: vec!["not an address, 198.51.100.7:4711"],
        x_proto: vec!["https"],
        x_host: vec!["evil.example"],
        ..Forwarding::default()
    };
    let client_info = edge(&[], TrustedProxies::Private).resolve(ip("10.0.0.2"), &headers).unwrap();
    assert_eq!(client_info.client, ip("198.51.100.7"));
    assert_eq!(known(&client_info), "https://gw.example");
    assert_eq!(client_info.chain, [ip("198.51.100.7"), ip("10.0.0.2")]);
}

#[test]
fn listed_proxies_set_any_host_with_its_port() {
    let headers = Forwarding {
        host: Some("10.0.0.9:8080"),
        x_proto: vec!["https"],
        x_host: vec!["Chat.Example:8443"],
        ..Forwarding::default()
    };
    let client_info =
        edge(&[], networks(&["10.0.0.0/8"])).resolve(ip("10.0.0.2"), &headers).unwrap();
    assert_eq!(known(&client_info), "https://chat.example:8443");
}

#[test]
fn of_two_proxies_the_outer_one_sets_scheme_and_client() {
    let headers = Forwarding {
        host: Some("gw.example"),
        x_for: vec!["198.51.100.7", "10.0.0.4"],
        x_proto: vec!["https, http"],
        ..Forwarding::default()
    };
    let at = edge(&[], TrustedProxies::Private);
    let client_info = at.resolve(ip("10.0.0.2"), &headers).unwrap();
    assert_eq!(client_info.client, ip("198.51.100.7"));
    assert_eq!(known(&client_info), "https://gw.example");
    // With one proxy the same list holds an entry that the client wrote.
    let headers = Forwarding { x_for: vec!["198.51.100.7"], ..headers };
    assert_eq!(at.resolve(ip("10.0.0.2"), &headers), Err(OriginError::ForwardedProto));
}

#[test]
fn a_listed_origin_is_found_by_forwarded_host_then_host_and_no_other_host_is_echoed() {
    let at = edge(&["https://chat.example", "http://[2001:db8::1]:8080"], TrustedProxies::Private);
    let peer = ip("10.0.0.2");
    let origin = |host, x_host| {
        let headers = Forwarding { host: Some(host), x_host, ..Forwarding::default() };
        at.resolve(peer, &headers).unwrap().origin
    };
    let first = PublicOrigin::Known(Origin::parse("https://chat.example").unwrap());
    let second = PublicOrigin::Known(Origin::parse("http://[2001:DB8::1]:8080").unwrap());
    assert_eq!(origin("internal", vec!["chat.example"]), first);
    assert_eq!(origin("CHAT.example:443", vec!["unlisted.example"]), first);
    assert_eq!(origin("[2001:db8::1]:8080", vec![]), second);
    let unlisted = PublicOrigin::Unlisted(Origin::parse("https://chat.example").unwrap());
    assert_eq!(origin("evil.example", vec![]), unlisted);
    assert_eq!(origin("chat.example:8443", vec![]), unlisted);
}

#[test]
fn malformed_values_of_headers_that_are_read_are_refused() {
    let at = edge(&["https://chat.example"], TrustedProxies::Private);
    let peer = ip("10.0.0.2");
    let proto =
        |x_proto| at.resolve(peer, &Forwarding { x_proto, ..Forwarding::default() }).unwrap_err();
    assert_eq!(proto(vec!["https", "https"]), OriginError::ForwardedProto);
    assert_eq!(proto(vec!["wss"]), OriginError::ForwardedProto);
    assert_eq!(proto(vec![""]), OriginError::ForwardedProto);
    let host =
        |x_host| at.resolve(peer, &Forwarding { x_host, ..Forwarding::default() }).unwrap_err();
    assert_eq!(host(vec!["a.example/b"]), OriginError::ForwardedHost);
    assert_eq!(host(vec!["a.example", "a.example"]), OriginError::ForwardedHost);
    let own = Forwarding { host: Some("user@chat.example"), ..Forwarding::default() };
    assert_eq!(at.resolve(peer, &own), Err(OriginError::Host));
}

/// serverpod/relic#95.
#[test]
fn an_empty_port_is_no_port() {
    for (text, expected) in [
        ("a:", Some("a")),
        ("127.0.0.1:", Some("127.0.0.1")),
        ("[::1]:", Some("[::1]")),
        ("a:80", Some("a:80")),
        (":", None),
        ("a::", None),
        ("[::1]::", None),
        ("a:0", None),
        ("a: ", None),
        ("a:65536", None),
    ] {
        let parsed = Authority::parse(text).map(|authority| authority.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }
    let at = edge(&["https://chat.example"], TrustedProxies::None);
    let headers = Forwarding { host: Some("chat.example:"), ..Forwarding::default() };
    assert_eq!(known(&at.resolve(ip("10.0.0.2"), &headers).unwrap()), "https://chat.example");
}

#[test]
fn a_front_door_is_identified_by_its_id_and_names_the_client() {
    let id = "11111111-2222-3333-4444-aaaaaaaaaaaa";
    let at =
        EdgePolicy { front_door: Some(id.parse().unwrap()), ..edge(&[], TrustedProxies::Private) };
    let resolve = |front_door, front_door_client| {
        let x_for = vec!["192.0.2.99, 203.0.113.9"];
        let headers = Forwarding { x_for, front_door, front_door_client, ..Forwarding::default() };
        at.resolve(ip("10.0.0.2"), &headers).unwrap()
    };
    let info = resolve(vec!["11111111-2222-3333-4444-AAAAAAAAAAAA"], vec!["198.51.100.7"]);
    assert!(info.is_via_front_door);
    assert_eq!(info.client, ip("198.51.100.7"));
    assert_eq!(info.chain, [ip("198.51.100.7"), ip("203.0.113.9"), ip("10.0.0.2")]);
    for clients in [vec![], vec!["not an address"], vec!["198.51.100.7", "198.51.100.8"]] {
        assert_eq!(resolve(vec![id], clients).client, ip("203.0.113.9"), "as without the header");
    }
    for ids in [vec![], vec!["22222222-2222-3333-4444-aaaaaaaaaaaa"], vec![id, id], vec![""]] {
        let info = resolve(ids, vec!["198.51.100.7"]);
        assert!(!info.is_via_front_door);
        assert_eq!(info.client, ip("203.0.113.9"), "any client can send the header");
    }
}
