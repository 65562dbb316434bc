//! Requirements of RFC 9110 and RFC 9112 that no other module covers: forwarding as an
//! intermediary, and the gateway's own answers as an origin server. Each row names its section.

use reqwest::Method;

use crate::world::{
    Kind, World,
    administrators::{Person, managed},
    alone, client,
    scripted::{OK, Scripted},
};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const CLOSES: &str = "Connection: close\r\n";

/// The caller's answer to `request`, when upstream sends `answer` and closes.
async fn answered(world: &Scripted, request: &str, answer: &str) -> String {
    world.exchange(request.as_bytes(), answer.as_bytes()).await.1
}

/// Fails with all rows that have an unexpected outcome.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Rows: section, request, upstream's answer, expected answer to the caller; both answers without
/// `HTTP/1.1 `.
async fn are_forwarded(rows: &[(&str, &str, &str, String)]) {
    let world = Scripted::start(&[]).await;
    let mut wrong = Vec::new();
    for (section, request, answer, expected) in rows {
        let got = answered(&world, request, &format!("HTTP/1.1 {answer}")).await;
        if got != format!("HTTP/1.1 {expected}") {
            wrong.push(format!("{section}: {got:?}"));
        }
    }
    assert_none(&wrong);
}

/// seanmonstar/httparse#88, hyperium/hyper#2506, apache/trafficserver#7176.
#[tokio::test]
async fn space_before_a_colon_is_removed_from_answers_of_upstream() {
    are_forwarded(&[
        (
            "9112 §5.1: space before the colon is removed",
            GET,
            "200 OK\r\nX-A : b\r\nX-B\t: c : d\r\nx-c \t :e\r\nContent-Length : 2\r\n\r\nok",
            format!(
                "200 OK\r\nX-A: b\r\nX-B: c : d\r\nx-c: e\r\nContent-Length: 2\r\n{CLOSES}\r\nok"
            ),
        ),
        (
            "9112 §5.1: the cleaned name is checked",
            GET,
            "200 OK\r\nContent-Length: 9\r\nTransfer-Encoding : chunked\r\nConnection\t: X-Hop\r\nX-Hop : 1\r\nSet-Cookie : a=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            format!(
                "200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\n{CLOSES}\r\n2\r\nok\r\n0\r\n\r\n"
            ),
        ),
        (
            "9112 §5.1, 9110 §15.2: also in interim answers",
            GET,
            "103 Early Hints\r\nLink : </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            format!(
                "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n{CLOSES}\r\n"
            ),
        ),
    ])
    .await;
}

#[tokio::test]
async fn answers_of_upstream_are_forwarded_with_one_framing() {
    are_forwarded(&[
        // RFC 9110 §8.6, RFC 9112 §6.1: no length and no coding where no body is allowed.
        (
            "9110 §8.6: 204 with a length",
            GET,
            "204 No Content\r\nContent-Length: 0\r\nX: 1\r\n\r\n",
            format!("204 No Content\r\nX: 1\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.1: 204 with a coding",
            GET,
            "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("204 No Content\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.3: 204 with a body",
            GET,
            "204 No Content\r\nContent-Length: 2\r\n\r\nok",
            format!("204 No Content\r\n{CLOSES}\r\n"),
        ),
        (
            "9110 §8.6, 9112 §6.1: 1xx with a length and a coding",
            GET,
            "103 Early Hints\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            format!("103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n{CLOSES}\r\n"),
        ),
        (
            "9110 §8.6: 304 keeps the length of the 200",
            GET,
            "304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            format!("304 Not Modified\r\nContent-Length: 7\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.2: no length beside a coding in the answer to HEAD",
            HEAD,
            "200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("200 OK\r\nTransfer-Encoding: chunked\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.2: nor in a 304",
            GET,
            "304 Not Modified\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
            format!("304 Not Modified\r\nTransfer-Encoding: chunked\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.1: no coding for HTTP/1.0, in the answer to HEAD either",
            "HEAD /x HTTP/1.0\r\nHost: a\r\n\r\n",
            "200 OK\r\nTransfer-Encoding: chunked\r\nX: 1\r\n\r\n",
            format!("200 OK\r\nX: 1\r\n{CLOSES}\r\n"),
        ),
        (
            "9112 §6.1: nor in a 304",
            "GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
            "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            format!("304 Not Modified\r\n{CLOSES}\r\n"),
        ),
        (
            "9110 §9.3.2: no body in the answer to HEAD",
            HEAD,
            "200 OK\r\nContent-Length: 2\r\n\r\nok",
            format!("200 OK\r\nContent-Length: 2\r\n{CLOSES}\r\n"),
        ),
        (
            "9110 §15.5.22: 426 names the protocol",
            GET,
            "426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
            format!(
                "426 Upgrade Required\r\nContent-Length: 2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{CLOSES}\r\nno"
            ),
        ),
        (
            "9110 §11.6.1, §11.6.3, §11.7.1: challenges pass unmodified, those of a proxy do not pass",
            GET,
            "401 x\r\nWWW-Authenticate: Basic realm=\"a, b\", Bearer\r\nProxy-Authenticate: Basic\r\nwww-authenticate: Digest x\r\nAuthentication-Info: a=\"b\"\r\nContent-Length: 0\r\n\r\n",
            format!(
                "401 x\r\nWWW-Authenticate: Basic realm=\"a, b\", Bearer\r\nwww-authenticate: Digest x\r\nAuthentication-Info: a=\"b\"\r\nContent-Length: 0\r\n{CLOSES}\r\n"
            ),
        ),
        (
            "9110 §7.6.1: what Connection names stays, however often and in whatever case",
            GET,
            "200 OK\r\nconnection: x-a , ,X-B\r\nX-A: 1\r\nConnection: set-cookie\r\nx-b: 2\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n",
            format!("200 OK\r\nContent-Length: 0\r\n{CLOSES}\r\n"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn ambiguous_answers_of_upstream_are_discarded() {
    let world = Scripted::start(&[]).await;
    let mut wrong = Vec::new();
    for (section, answer) in [
        ("9112 §5.2: folded", "1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok"),
        ("9112 §5.2: with a tab", "1.1 200 OK\r\nX: 1\r\n\t2: 3\r\nContent-Length: 2\r\n\r\nok"),
        (
            "9112 §5.2: a fold that is a length",
            "1.1 200 OK\r\nX: 1\r\n Content-Length : 2\r\n\r\nok",
        ),
        ("9112 §2.2: space before the first field", "1.1 200 OK\r\n X : 1\r\n\r\n"),
        ("9112 §2.2: bare CR", "1.1 200 OK\r\nX: 1\rY: 2\r\nContent-Length: 2\r\n\r\nok"),
        ("9112 §2.2: bare CR in the status line", "1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok"),
        ("9110 §5.5: NUL", "1.1 200 OK\r\nX: 1\0\r\nContent-Length: 2\r\n\r\nok"),
        ("9110 §5.5: a control byte", "1.1 200 OK\r\nX: \x08\r\nContent-Length: 2\r\n\r\nok"),
        (
            "9112 §5.1: other space before a colon",
            "1.1 200 OK\r\nX\x0b: 1\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("9110 §5.1: no name", "1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\nok"),
        ("9110 §5.1: space within a name", "1.1 200 OK\r\nX Y : 1\r\nContent-Length: 2\r\n\r\nok"),
        (
            "9112 §6.3: two lengths",
            "1.1 200 OK\r\nContent-Length : 2\r\nContent-Length: 3\r\n\r\nok!",
        ),
        ("9112 §6.3: a list of lengths", "1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok!"),
        ("9110 §8.6: the same length twice", "1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok"),
        ("9112 §6.3: no length", "1.1 200 OK\r\nContent-Length : +2\r\n\r\nok"),
        (
            "9112 §6.1: a coding in HTTP/1.0",
            "1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "9112 §6.1: chunked twice",
            "1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "9112 §6.1: another coding",
            "1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "9112 §7.1: a size beyond 64 bits",
            "1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
        ),
    ] {
        let got = answered(&world, GET, &format!("HTTP/{answer}")).await;
        if !got.starts_with("HTTP/1.1 502 Bad Gateway\r\n") {
            wrong.push(format!("{section}: {got:?}"));
        }
    }
    // 9110 §7.8: only a protocol requested by the caller.
    for (asked, changed, is_taken) in [
        ("websocket", "h2c", false),
        ("websocket", "websocket, x/2", false),
        ("websocket", "", false),
        ("websocket, x/2", "X/2", true),
    ] {
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\r\n"
        );
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {changed}\r\n\r\n"
        );
        let mut caller = world.caller().await;
        caller.send(&request).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(&answer).await;
        let got = caller.head().await;
        if got.starts_with("HTTP/1.1 101 ") != is_taken {
            wrong.push(format!("9110 §7.8: {asked} → {changed}: {got:?}"));
        }
    }
    assert_none(&wrong);
}

#[tokio::test]
async fn requests_are_forwarded_by_the_rules_for_intermediaries() {
    let world = Scripted::start(&[]).await;
    let mut wrong = Vec::new();
    let of = |host: &str| {
        format!(
            "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: {host}\r\n\r\n"
        )
    };
    for (section, request, expected) in [
        (
            "9112 §3.2.4: OPTIONS of the server as a whole",
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n",
            format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{}", of("a")),
        ),
        (
            "9112 §3.2.4: not with a path",
            "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n",
            format!("OPTIONS / HTTP/1.1\r\nHost: a\r\n{}", of("a")),
        ),
        (
            "9112 §3.2.4: nor with a query",
            "OPTIONS http://a?x HTTP/1.1\r\nHost: a\r\n",
            format!("OPTIONS /?x HTTP/1.1\r\nHost: a\r\n{}", of("a")),
        ),
        (
            "9112 §3.2.2: the host of an absolute form where there is no Host",
            "GET http://b.example:81/x HTTP/1.0\r\nX: 1\r\n",
            format!("GET /x HTTP/1.1\r\nX: 1\r\nHost: b.example:81\r\n{}", of("b.example:81")),
        ),
        (
            "9110 §7.6.2: Max-Forwards is decremented",
            "OPTIONS /x HTTP/1.1\r\nHost: a\r\nmax-Forwards: 5\r\n",
            format!("OPTIONS /x HTTP/1.1\r\nHost: a\r\nmax-Forwards: 4\r\n{}", of("a")),
        ),
        (
            "9110 §7.6.2: to 0, with which the next answers",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n",
            format!("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n{}", of("a")),
        ),
        (
            "9110 §7.6.2: of OPTIONS alone",
            "GET /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n{}", of("a")),
        ),
        (
            "9110 §11.6.2: Authorization passes unmodified",
            "GET /x HTTP/1.1\r\nHost: a\r\nauthorization: Digest a=\"b\",  c\r\nAuthorization: Bearer  x\r\nProxy-Authorization: Basic x\r\n",
            format!(
                "GET /x HTTP/1.1\r\nHost: a\r\nauthorization: Digest a=\"b\",  c\r\nAuthorization: Bearer  x\r\n{}",
                of("a")
            ),
        ),
        (
            "9110 §7.6.1: what Connection names stays, however often and in whatever case",
            "GET /x HTTP/1.1\r\nHost: a\r\nconnection: x-a , ,TE\r\nX-A: 1\r\nTE: trailers\r\nConnection: accept\r\nAccept: */*\r\n",
            format!("GET /x HTTP/1.1\r\nHost: a\r\n{}", of("a")),
        ),
        (
            "3986 §3.2.3: an empty port is no port; Host passes unchanged (serverpod/relic#95)",
            "GET /x HTTP/1.1\r\nHost: a:\r\n",
            format!("GET /x HTTP/1.1\r\nHost: a:\r\n{}", of("a")),
        ),
    ] {
        let request = format!("{request}Connection: close\r\n\r\n");
        let mut caller = world.caller().await;
        caller.send(&request).await;
        // A refusal is sent without upstream.
        let got = tokio::select! {
            mut upstream = world.upstream() => {
                let received = upstream.head().await;
                upstream.send(OK).await;
                drop(upstream);
                let answer = caller.rest().await;
                if answer.starts_with("HTTP/1.1 200 ") { received } else { answer }
            }
            answer = caller.rest() => answer,
        };
        if got != expected {
            wrong.push(format!("{section}: {got:?}"));
        }
    }
    assert_none(&wrong);
}

/// RFC 9110 §10.1.1.
#[tokio::test]
async fn an_expectation_of_http_1_0_is_ignored() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller
        .send("POST /x HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    caller.is_quiet().await;
    caller.send("abc").await;
    let mut upstream = world.upstream().await;
    assert!(!upstream.head().await.contains("xpect"));
    upstream.bytes(3).await;
    upstream.send(OK).await;
    assert!(caller.rest().await.starts_with("HTTP/1.1 200 "));
}

/// RFC 9110 §7.6.2, after the guard.
#[tokio::test]
async fn an_options_request_without_forwards_left_is_answered_by_the_gateway() {
    let world = Scripted::start(&[]).await;
    for (target, status) in [("*", 204), ("/x", 204), ("/external/x", 401)] {
        let mut caller = world.caller().await;
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n");
        // The connection stays open.
        caller.send(format!("{request}Content-Length: 3\r\n\r\nabc{request}{CLOSES}\r\n")).await;
        let answers = caller.rest().await;
        assert_eq!(answers.matches(&format!("HTTP/1.1 {status} ")).count(), 2, "{answers}");
        assert!(status != 204 || !answers.contains("content-length"), "{answers}");
    }
    world.expect_no_connection().await;
}

/// RFC 9112 §9.6.
#[tokio::test]
async fn no_request_after_one_with_close_is_served() {
    let world = Scripted::start(&[]).await;
    let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    for own in ["/gateway/health/live", "/external/x", "/gateway/api/access"] {
        let mut caller = world.caller().await;
        caller
            .send(format!("GET {own} HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n{next}"))
            .await;
        let got = caller.rest().await;
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
        assert!(got.contains("\r\nconnection: close\r\n"), "{got}");
    }
    world.expect_no_connection().await;
    let mut caller = world.caller().await;
    caller.send(format!("{GET}{next}")).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert!(caller.rest().await.ends_with("\r\n\r\nok"));
    upstream.is_quiet().await;
    world.expect_no_connection().await;
}

/// Head of an answer with sorted lines, without those that always differ.
fn comparable(answer: &str) -> Vec<String> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let mut lines: Vec<_> = head.split("\r\n").map(str::to_lowercase).collect();
    lines.retain(|line| !line.starts_with("date: "));
    lines.sort();
    lines
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn is_http_date(text: &str) -> bool {
    let like = |shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(b, of)| match of {
                b'9' => b.is_ascii_digit(),
                b'A' => b.is_ascii_uppercase(),
                b'a' => b.is_ascii_lowercase(),
                of => b == of,
            })
    };
    like("Aaa, 99 Aaa 9999 99:99:99 ")
        || like("Aaa, 99 Aaa 9999 99:99:99 AAA") && text.ends_with(" GMT")
}

const OWN: [(&str, &str); 9] = [
    ("/.well-known/oauth-protected-resource", "GET"),
    ("/.well-known/oauth-protected-resource/external/login", "GET"),
    ("/gateway/health/live", "GET"),
    ("/gateway/health/ready", "GET"),
    ("/gateway/openapi.json", "GET"),
    ("/gateway/docs", "GET"),
    ("/gateway/api/access", "GET"),
    ("/external/login", "POST"),
    ("/external/logout", "POST"),
];

#[tokio::test]
async fn own_answers_follow_the_rules_for_origin_servers() {
    let (gateway, ..) = alone(Kind::Files, &[]).await;
    let ask = async |method: &str, path: &str, more: &str| {
        gateway
            .raw(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n"))
            .await
    };
    for (path, served) in OWN {
        // 9110 §6.6.1.
        let got = ask(served, path, "").await;
        let date = got.split("\r\ndate: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        assert!(date.is_some_and(is_http_date), "{path}: {got}");
        // 9110 §9.3.2, §8.6: the answer to HEAD equals the answer to GET without its body.
        if served == "GET" && path != "/gateway/api/access" {
            let head = ask("HEAD", path, "").await;
            assert_eq!(comparable(&head), comparable(&got), "{path}");
            assert!(head.ends_with("\r\n\r\n"), "{path}: {head}");
            let length = got.split_once("\r\n\r\n").unwrap().1.len();
            assert!(head.contains(&format!("\r\ncontent-length: {length}\r\n")), "{path}: {head}");
            // 9110 §14.2: a server may ignore Range; the answer then does not describe a part.
            let whole = ask("GET", path, "Range: bytes=0-1\r\n").await;
            assert_eq!(comparable(&whole), comparable(&got), "{path}");
        }
        // 9110 §15.5.6: 405 lists the methods; §9.1: also for unknown methods.
        for method in ["PATCH", "PROPFIND", "UNKNOWN-METHOD"] {
            let got = ask(method, path, "").await;
            assert!(got.starts_with("HTTP/1.1 405 "), "{method} {path}: {got}");
            let allow = got.split("\r\nallow: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            assert!(allow.is_some_and(|allow| allow.contains(served)), "{method} {path}: {got}");
        }
        // 9110 §10.1.1: an unknown expectation may be ignored; no 100 for it.
        let got = ask("GET", path, "Expect: miracles\r\n").await;
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{path}: {got}");
    }
}

/// RFC 9110 §13.1.2, §15.4.5, §8.6.
#[tokio::test]
async fn metadata_with_a_matching_etag_is_304() {
    let (gateway, ..) = alone(Kind::Files, &[]).await;
    let path = "/.well-known/oauth-protected-resource";
    let ask = async |method: &str, more: &str| {
        gateway
            .raw(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n"))
            .await
    };
    let whole = ask("GET", "").await;
    let tag = whole.split("\r\netag: ").nth(1).unwrap().split("\r\n").next().unwrap();
    for (condition, is_match) in [
        (format!("If-None-Match: {tag}"), true),
        (format!("If-None-Match: W/{tag}"), true),
        (format!("If-None-Match: \"x\", W/{tag}"), true),
        (format!("If-None-Match: \"x\"\r\nif-none-match: {tag}"), true),
        ("If-None-Match: *".to_owned(), true),
        ("If-None-Match: \"x\"".to_owned(), false),
        (format!("If-None-Match: {}", tag.trim_matches('"')), false),
        // 9110 §13.1.3: ignored, because the answer has no modification date.
        ("If-Modified-Since: Sun, 06 Nov 2050 08:49:37 GMT".to_owned(), false),
    ] {
        for method in ["GET", "HEAD"] {
            let got = ask(method, &format!("{condition}\r\n")).await;
            let status = if is_match { "HTTP/1.1 304 " } else { "HTTP/1.1 200 " };
            assert!(got.starts_with(status), "{method} {condition}: {got}");
            if is_match {
                assert!(!got.contains("content-length") && got.ends_with("\r\n\r\n"), "{got}");
                for field in ["etag", "cache-control", "vary", "date"] {
                    assert!(got.contains(&format!("\r\n{field}: ")), "{condition}: {got}");
                }
            }
        }
    }
}

/// pallets/werkzeug#1025, bottlepy/bottle#829, fluent/fluent-bit#7231: RFC 9110 §8.6.
#[tokio::test]
async fn no_own_answer_without_content_has_a_length() {
    let more = [("GATEWAY_ALLOWED_ORIGINS", "https://page.example")];
    let (world, _folder) = managed(Kind::Redis, &more).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    admin.enable(gateway).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let blocked = "00000000-0000-0000-0000-0000000000bb";
    let block = serde_json::json!({"subject": blocked, "for": "1h"});
    assert_eq!(admin.post(gateway, "/gateway/api/blocks", &block).await.status(), 200);
    let well_known = "/.well-known/oauth-protected-resource";
    for (request, more) in [
        (format!("OPTIONS {well_known}"), "Origin: https://a.example".to_owned()),
        (format!("OPTIONS {well_known}/external"), "Origin: https://a.example".to_owned()),
        ("OPTIONS /external/login".to_owned(), "Origin: https://page.example".to_owned()),
        ("OPTIONS /external/login".to_owned(), "X: 1".to_owned()),
        ("POST /external/logout".to_owned(), format!("Cookie: session={session}")),
        ("POST /external/logout".to_owned(), format!("Authorization: Bearer {token}")),
        (
            format!("DELETE /gateway/api/blocks/subject/{blocked}"),
            format!("Cookie: session={}", admin.cookie),
        ),
    ] {
        let got = gateway
            .raw(format!("{request} HTTP/1.1\r\nHost: a\r\n{more}\r\nConnection: close\r\n\r\n"))
            .await;
        assert!(got.starts_with("HTTP/1.1 204 No Content\r\n"), "{request}: {got}");
        let head = got.to_lowercase();
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{got}");
        assert!(got.ends_with("\r\n\r\n"), "{request}: {got}");
    }
}

/// Werkzeug accepts the same bytes.
#[tokio::test]
async fn upstream_accepts_a_host_with_an_empty_port() {
    let world = World::start(Kind::Files).await;
    let url = world.gateway.url("/test/echo");
    let answer = client().request(Method::GET, url).header("host", "chat.example:").send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let received = answer.text().await.unwrap();
    assert!(received.contains("\"chat.example:\""), "{received}");
}
