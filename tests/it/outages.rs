//! Outages of Redis, Entra and upstream, one at a time and together, while the gateway runs or
//! starts: the rest keeps working, and everything recovers without a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::{
    entra::Entra,
    world::{
        API, Kind, Store, WithSession, alone, client,
        gateway::{Gateway, run},
        json,
        process::{TEST_TIMEOUT, until},
        recorder::Recorder,
        relay::RelayState,
        relayed::Relayed,
        settings, status, try_login,
    },
};

/// Limit for recovery. The goal is one second; a busy machine gets more.
const RECOVERY: Duration = Duration::from_secs(3);

async fn get(gateway: &Gateway, path: &str) -> u16 {
    client().get(gateway.url(path)).send().await.unwrap().status().as_u16()
}

async fn guarded(gateway: &Gateway, token: &str) -> u16 {
    let request = client().get(gateway.url("/external/test/users")).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

/// Asserts that a condition becomes true within the recovery limit.
async fn assert_recovers<F: Future<Output = bool>>(condition: &str, is_true: impl FnMut() -> F) {
    let begun = Instant::now();
    until(condition, is_true).await;
    println!("{condition}: after {:.0?}", begun.elapsed());
    assert!(begun.elapsed() < RECOVERY, "{condition}: {:?}", begun.elapsed());
}

fn is_refused_for_now(answer: &Response) {
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!answer.headers().contains_key("set-cookie"));
}

/// Asserts that routes without dependencies answer.
async fn assert_independent_routes_answer(gateway: &Gateway) {
    for path in ["/gateway/health/live", "/.well-known/oauth-protected-resource", "/gateway/docs"] {
        let begun = Instant::now();
        assert_eq!(get(gateway, path).await, 200, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{path}: {:?}", begun.elapsed());
    }
}

/// Names of the degraded parts, as operators read them.
async fn degraded(gateway: &Gateway) -> Vec<String> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let detail: serde_json::Value = client().get(url).send().await.unwrap().json().await.unwrap();
    let parts = detail["degraded"].as_array().unwrap().iter();
    parts.map(|it| it["part"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn without_redis_only_login_is_503() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    let token = world.entra.token().build();
    for link in [RelayState::Cut, RelayState::BlackHole] {
        world.to_redis.set(link).await;
        let begun = Instant::now();
        is_refused_for_now(&try_login(gateway, &token).await);
        assert!(begun.elapsed() < Duration::from_secs(3), "{link:?}: {:?}", begun.elapsed());

        let begun = Instant::now();
        assert_eq!(get(gateway, "/test/pid").await, 200, "{link:?}");
        assert_eq!(guarded(gateway, &token).await, 200, "{link:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{link:?}: {:?}", begun.elapsed());
        assert_independent_routes_answer(gateway).await;
        assert!(gateway.is_ready().await, "{link:?}");
        assert_eq!(degraded(gateway).await, ["sessions"], "{link:?}");

        world.to_redis.set(RelayState::Open).await;
        assert_recovers(&format!("login after the Redis outage ({link:?})"), async || {
            try_login(gateway, &token).await.status() == 200
        })
        .await;
    }
    assert_eq!(degraded(gateway).await, [""; 0]);
}

#[tokio::test]
async fn without_entra_tokens_are_verified_with_cached_keys() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    for link in [RelayState::Cut, RelayState::BlackHole] {
        world.to_entra.set(link).await;
        // Not in the token cache: verified with the cached keys.
        let token = world.entra.token().build();
        assert_eq!(try_login(gateway, &token).await.status(), 200, "{link:?}");
        assert_eq!(guarded(gateway, &token).await, 200, "{link:?}");
        assert_independent_routes_answer(gateway).await;
        assert!(gateway.is_ready().await, "{link:?}");
        assert_eq!(degraded(gateway).await, [""; 0], "{link:?}: keys are cached");
    }
}

#[tokio::test]
async fn without_upstream_callers_get_errors_at_once_and_login_works() {
    let world = Relayed::start(&[("GATEWAY_TIMEOUT_RESPONSE", "1s")]).await;
    let token = world.entra.token().build();
    for (link, status_code) in [(RelayState::Cut, 502), (RelayState::BlackHole, 504)] {
        let gateway = &world.gateway;
        world.to_upstream.set(link).await;
        let begun = Instant::now();
        assert_eq!(get(gateway, "/test/pid").await, status_code);
        assert!(begun.elapsed() < Duration::from_secs(2), "{link:?}: {:?}", begun.elapsed());
        assert_eq!(guarded(gateway, &token).await, status_code);
        assert_eq!(try_login(gateway, &token).await.status(), 200, "{link:?}");
        assert_independent_routes_answer(gateway).await;
        assert!(gateway.is_ready().await, "upstream has answered before");
        if link == RelayState::Cut {
            assert_eq!(degraded(gateway).await, ["upstream"]);
        }
        world.to_upstream.set(RelayState::Open).await;
        assert_recovers("requests after the upstream outage", async || {
            get(gateway, "/test/pid").await == 200
        })
        .await;
    }
    world.restart_upstream().await;
    assert_recovers("requests after upstream was killed", async || {
        get(&world.gateway, "/test/pid").await == 200
    })
    .await;
}

#[tokio::test]
async fn the_gateway_recovers_from_a_total_outage_without_a_restart() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    let token = world.entra.token().build();
    let session = crate::world::login(gateway, &token).await;
    for link in [RelayState::Cut, RelayState::BlackHole, RelayState::Cut] {
        world.set_all(link).await;
        is_refused_for_now(&try_login(gateway, &token).await);
        assert_independent_routes_answer(gateway).await;
        world.set_all(RelayState::Open).await;
        assert_recovers(&format!("all ({link:?})"), async || {
            let (login, proxied, guarded, honoured) = tokio::join!(
                try_login(gateway, &token),
                get(gateway, "/test/pid"),
                guarded(gateway, &token),
                status(gateway.url(API), &session)
            );
            login.status() == 200 && (proxied, guarded, honoured) == (200, 200, 200)
        })
        .await;
    }
}

#[tokio::test]
async fn the_gateway_starts_while_any_dependency_is_unavailable() {
    let world = Relayed::start_with(RelayState::Cut, &[]).await;
    let token = world.entra.token().build();
    let relays = [&world.to_redis, &world.to_entra, &world.to_upstream];
    let parts = ["sessions", "entra", "upstream"];
    for unavailable in [&[0][..], &[1], &[2], &[0, 1, 2]] {
        for link in [RelayState::Cut, RelayState::BlackHole] {
            world.set_all(RelayState::Open).await;
            for part in unavailable {
                relays[*part].set(link).await;
            }
            let mut gateway = None;
            // A busy machine gets a second try.
            for is_last in [false, true] {
                let begun = Instant::now();
                gateway = Some(Gateway::start(&world.settings).await);
                let took = begun.elapsed();
                if took < Duration::from_secs(1) {
                    break;
                }
                assert!(!is_last, "{unavailable:?} {link:?}: it listens after {took:?}");
            }
            let gateway = gateway.unwrap();
            assert_eq!(get(&gateway, "/gateway/health/live").await, 200);
            let has_upstream = !unavailable.contains(&2);
            if has_upstream {
                until("upstream answered", async || gateway.is_ready().await).await;
            } else {
                assert_eq!(get(&gateway, "/gateway/health/ready").await, 503);
            }
            if !unavailable.contains(&1) {
                gateway.wait_until_it_has_keys().await;
            }
            if link == RelayState::Cut {
                let expected: Vec<_> = unavailable.iter().map(|part| parts[*part]).collect();
                until("reasons are reported", async || degraded(&gateway).await == expected).await;
            }
            let has_login = !unavailable.contains(&0) && !unavailable.contains(&1);
            let login = try_login(&gateway, &token).await.status();
            assert_eq!(login, if has_login { 200 } else { 503 }, "{unavailable:?} {link:?}");

            world.set_all(RelayState::Open).await;
            until("the gateway recovers by itself", async || {
                gateway.is_ready().await && try_login(&gateway, &token).await.status() == 200
            })
            .await;
        }
    }

    world.set_all(RelayState::Cut).await;
    let mut settings = world.settings.clone();
    settings.push(("GATEWAY_WORKERS".to_owned(), "none".to_owned()));
    let refused = run(&settings, &["serve"]).await;
    assert_eq!(refused.status.code(), Some(78));
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.lines().count() <= 2 && refused.contains("GATEWAY_WORKERS"), "{refused}");
}

/// A server that sends these bytes as answer to everything and counts connections.
async fn fixed_server(answer: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, asked)
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into()
}

#[tokio::test]
async fn cached_keys_survive_every_kind_of_broken_document() {
    let world = Relayed::start(&[]).await;
    let (elsewhere, was_followed) = fixed_server(ok("{}")).await;
    let moved = |status: &str| {
        let to = format!("Location: http://{elsewhere}/keys\r\nContent-Length: 0");
        format!("HTTP/1.1 {status} Moved\r\n{to}\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let metadata = |issuer: &str, keys: &str| {
        ok(&serde_json::json!({"issuer": issuer, "jwks_uri": keys}).to_string())
    };
    let short = String::from_utf8(ok("{}")).unwrap().replace("Length: 2", "Length: 999");
    for (kind, answer) in [
        ("500", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("no body", ok("")),
        ("a page", ok("<!DOCTYPE html><title>Sign in</title>")),
        ("JSON that ends too early", ok(r#"{"issuer":"#)),
        ("JSON of another shape", ok("[]")),
        ("JSON that is deep", ok(&"[".repeat(100_000))),
        ("ten megabytes", ok(&" ".repeat(10_000_000))),
        ("broken off", short.into_bytes()),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
        ("an issuer that is none", metadata("", "http://127.0.0.1:1/")),
        ("keys at a closed port", metadata(&world.entra.issuer_v2(), "http://127.0.0.1:1/")),
        ("301", moved("301")),
        ("302", moved("302")),
        ("307", moved("307")),
        ("308", moved("308")),
    ] {
        world.to_entra.retarget(world.entra.address());
        let gateway = Gateway::start(&world.settings).await;
        gateway.wait_until_it_has_keys().await;
        let (address, asked) = fixed_server(answer).await;
        world.to_entra.retarget(address);
        // An unknown key id makes the gateway fetch; without an answer the key may exist.
        let unknown = world.entra.token().kid("unknown").build();
        assert_eq!(try_login(&gateway, &unknown).await.status(), 503, "{kind}");
        assert!(asked.load(Ordering::SeqCst) > 0, "{kind}: it was contacted");
        let known = world.entra.token().build();
        assert_eq!(try_login(&gateway, &known).await.status(), 200, "{kind}");
        until("ready", async || gateway.is_ready().await).await;
    }
    assert_eq!(was_followed.load(Ordering::SeqCst), 0, "redirects are not followed");
}

#[tokio::test]
async fn an_unresolvable_entra_name_delays_no_other_request() {
    let upstream = Recorder::start().await;
    let more = [
        ("CUSTOM_OIDC_METADATA_URL_VALUE", "https://login.invalid/t/v2.0/openid-configuration"),
        ("GATEWAY_UPSTREAM_URL", upstream.url.as_str()),
    ];
    let (gateway, entra, _store) = alone(Kind::Redis, &more).await;
    until("upstream answered", async || gateway.is_ready().await).await;
    is_refused_for_now(&try_login(&gateway, &entra.token().build()).await);
    assert_eq!(get(&gateway, "/x").await, 200);
    assert_independent_routes_answer(&gateway).await;
    assert_eq!(degraded(&gateway).await, ["entra"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_unknown_key_ids_cause_one_refresh_and_delay_no_valid_token() {
    let upstream = Recorder::start().await;
    let more = [("GATEWAY_UPSTREAM_URL", upstream.url.as_str())];
    let (gateway, entra, _store) = alone(Kind::Files, &more).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    let before = entra.fetches();
    let good = entra.token().build();
    let url = gateway.url("/external/x");
    let http = client();
    let mut unknown_keys = JoinSet::new();
    for number in 0..500 {
        let token = entra.token().kid(&format!("made-up-{number}")).build();
        let request = http.get(&url).bearer_auth(token);
        unknown_keys.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    let mut slowest = Duration::ZERO;
    while !unknown_keys.is_empty() {
        let begun = Instant::now();
        let answer = http.get(&url).bearer_auth(&good).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        slowest = slowest.max(begun.elapsed());
        for _ in 0..50 {
            if let Some(refused) = unknown_keys.join_next().await {
                assert_eq!(refused.unwrap(), 401);
            }
        }
    }
    // One refresh reads the v2 and the v1 keys, another the keys of the app itself.
    assert_eq!(entra.fetches() - before, 4);
    println!("500 unknown keys; a good token was served within {slowest:.0?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn tokens_are_accepted_with_at_most_a_minute_of_clock_skew() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let upstream = Recorder::start().await;
    let now = 1_800_000_000_i64;
    let more = [("GATEWAY_UPSTREAM_URL", upstream.url.clone()), ("STOPPED_CLOCK", now.to_string())]
        .map(|(name, value)| (name.to_owned(), value));
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    let base = || {
        let token = entra.token().claim("iat", now - 300).claim("nbf", now - 300);
        token.claim("exp", now + 300)
    };
    for (claim, at, expected) in [
        ("exp", now - 59, 200),
        ("exp", now - 60, 401),
        ("exp", now - 61, 401),
        ("nbf", now + 59, 200),
        ("nbf", now + 60, 200),
        ("nbf", now + 61, 401),
    ] {
        let token = base().claim(claim, at).build();
        let request = client().get(gateway.url("/external/x")).bearer_auth(token);
        let status_code = request.send().await.unwrap().status();
        assert_eq!(status_code, expected, "{claim} {:+}", at - now);
    }
}

#[tokio::test]
async fn probes_are_answered_at_any_rate_for_any_host_without_upstream() {
    let upstream = Recorder::start().await;
    let more = [
        ("GATEWAY_UPSTREAM_URL", upstream.url.as_str()),
        ("GATEWAY_PUBLIC_URLS", "https://chat.example"),
        ("GATEWAY_LOGIN_FAILURE_LIMIT", "1/1m"),
    ];
    let (gateway, entra, _store) = alone(Kind::Redis, &more).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    upstream.take();
    let probes = [
        "GET /gateway/health/live HTTP/1.1\r\nHost: 10.244.0.17:8080\r\nConnection: close\r\n\r\n",
        "GET /gateway/health/ready HTTP/1.1\r\nHost: 10.244.0.17:8080\r\nConnection: close\r\n\r\n",
        "GET /gateway/health/ready HTTP/1.0\r\n\r\n",
        "HEAD /gateway/health/live HTTP/1.0\r\nUser-Agent: kube-probe/1.35\r\n\r\n",
    ];
    let begun = Instant::now();
    let mut asked = 0;
    while asked < 1_000 {
        let [one, two, three, four] = probes.map(|probe| gateway.raw(probe));
        let (one, two, three, four) = tokio::join!(one, two, three, four);
        for answer in [one, two, three, four] {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            asked += 1;
        }
    }
    println!("{asked} probes within {:.1?}", begun.elapsed());
    assert!(upstream.take().targets.is_empty(), "upstream was contacted");
    let metadata = "GET /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: 10.244.0.17:8080\r\nConnection: close\r\n\r\n";
    assert!(
        gateway.raw(metadata).await.starts_with("HTTP/1.1 421 "),
        "other routes accept the public host only"
    );
    assert_eq!(try_login(&gateway, &entra.token().build()).await.status(), 200, "no failures");
}

#[tokio::test]
async fn no_request_runs_twice_while_workers_are_replaced_under_load() {
    let journal = tempfile::tempdir().unwrap();
    let journal = journal.path().join("journal");
    let world = Relayed::start(&[("UPSTREAM_JOURNAL", &journal.display().to_string())]).await;
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for worker in 0..4 {
        let url = world.gateway.url("");
        let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
        load.spawn(async move {
            let (http, mut statuses) = (client(), BTreeMap::<(&str, u16), usize>::new());
            for number in 0.. {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let (method, request) = if number % 2 == 0 {
                    ("GET", http.get(format!("{url}/test/pid")))
                } else {
                    let target = format!("{url}/test/journal?id={worker}-{number}");
                    ("POST", http.post(target).body("x"))
                };
                let answer = request.timeout(TEST_TIMEOUT).send().await.unwrap();
                *statuses.entry((method, answer.status().as_u16())).or_default() += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            statuses
        });
    }
    let mut known_workers = BTreeSet::new();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        until("a new worker answers", async || {
            let answer = client().get(world.gateway.url("/test/pid")).send().await.unwrap();
            answer.status() == 200
                && !known_workers.contains(&json(answer).await["pid"].to_string())
        })
        .await;
        until("all workers answer", async || answered.load(Ordering::Relaxed) > before + 50).await;
        // All workers so far.
        known_workers.extend(world.workers().await);
        world.replace_workers().await;
    }
    ends.store(true, Ordering::Relaxed);
    let mut statuses = BTreeMap::new();
    while let Some(worker) = load.join_next().await {
        for (answer, count) in worker.unwrap() {
            *statuses.entry(answer).or_insert(0) += count;
        }
    }
    let text = std::fs::read_to_string(journal).unwrap();
    let mut done = BTreeMap::new();
    for id in text.lines() {
        *done.entry(id).or_insert(0) += 1;
    }
    println!("{statuses:?}, {} POSTs done", done.len());
    assert!(done.values().all(|times| *times == 1), "{done:?}");
    assert!(done.len() >= statuses[&("POST", 200)], "every answered POST ran");
    assert!(statuses.keys().all(|(_, status)| matches!(status, 200 | 502 | 503)), "{statuses:?}");
}

#[tokio::test]
async fn an_answer_never_ends_cleanly_when_upstream_falls_silent() {
    let world = Relayed::start(&[]).await;
    let url = world.gateway.url("/test/bytes?n=50000000");
    for (link, then) in [(RelayState::BlackHole, Some(RelayState::Cut)), (RelayState::Cut, None)] {
        let mut answer = client().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.chunk().await.unwrap().unwrap();
        world.to_upstream.set(link).await;
        if let Some(then) = then {
            // Buffered bytes arrive, then neither bytes nor an end.
            let rest = async { while let Ok(Some(_)) = answer.chunk().await {} };
            let silence = tokio::time::timeout(Duration::from_millis(500), rest).await;
            assert!(silence.is_err(), "the answer ended");
            world.to_upstream.set(then).await;
        }
        let end = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "a clean end");
        world.to_upstream.set(RelayState::Open).await;
    }
    let session = crate::world::login(&world.gateway, &world.entra.token().build()).await;
    let again = client().get(world.gateway.url(API)).session(&session).send().await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test]
async fn slow_links_to_every_dependency_only_add_latency() {
    let world = Relayed::start(&[]).await;
    world.set_all(RelayState::Slow(Duration::from_millis(100))).await;
    let token = world.entra.token().build();
    let session = crate::world::login(&world.gateway, &token).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert_eq!(guarded(&world.gateway, &token).await, 200);
    world.entra.rotate();
    assert_eq!(guarded(&world.gateway, &world.entra.token().build()).await, 200, "a new key");
}
