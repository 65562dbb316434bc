//! Redis, Entra and upstream taken away, one by one and together, from a gateway that runs or starts:
//! what is up keeps working, and all recovers without a restart.

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
        process::{PATIENCE, until},
        recorder::Recorder,
        relay::Way,
        relayed::Relayed,
        settings, status, try_login,
    },
};

/// How soon all must be well again. The aim is a second; a machine with other things to do gets more.
const RECOVERY: Duration = Duration::from_secs(3);

async fn get(gateway: &Gateway, path: &str) -> u16 {
    client().get(gateway.url(path)).send().await.unwrap().status().as_u16()
}

async fn guarded(gateway: &Gateway, token: &str) -> u16 {
    let request = client().get(gateway.url("/external/test/users")).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

/// How long it takes until something is so again.
async fn recovery<F: Future<Output = bool>>(what: &str, is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    until(what, is_so).await;
    println!("{what}: after {:.0?}", begun.elapsed());
    assert!(begun.elapsed() < RECOVERY, "{what}: {:?}", begun.elapsed());
}

fn is_refused_for_now(answer: &Response) {
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!answer.headers().contains_key("set-cookie"));
}

/// What needs no neighbour at all.
async fn stands_alone(gateway: &Gateway) {
    for path in ["/gateway/health/live", "/.well-known/oauth-protected-resource", "/gateway/docs"] {
        let begun = Instant::now();
        assert_eq!(get(gateway, path).await, 200, "{path}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{path}: {:?}", begun.elapsed());
    }
}

/// What operators read of what is away.
async fn degraded(gateway: &Gateway) -> Vec<String> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let detail: serde_json::Value = client().get(url).send().await.unwrap().json().await.unwrap();
    let parts = detail["degraded"].as_array().unwrap().iter();
    parts.map(|it| it["part"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn without_redis_sign_in_waits_and_all_else_goes_on() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    let token = world.entra.token().build();
    for way in [Way::Cut, Way::BlackHole] {
        world.to_redis.set(way).await;
        let begun = Instant::now();
        is_refused_for_now(&try_login(gateway, &token).await);
        assert!(begun.elapsed() < Duration::from_secs(3), "{way:?}: {:?}", begun.elapsed());

        let begun = Instant::now();
        assert_eq!(get(gateway, "/test/pid").await, 200, "{way:?}");
        assert_eq!(guarded(gateway, &token).await, 200, "{way:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{way:?}: {:?}", begun.elapsed());
        stands_alone(gateway).await;
        assert!(gateway.is_ready().await, "{way:?}");
        assert_eq!(degraded(gateway).await, ["sessions"], "{way:?}");

        world.to_redis.set(Way::Open).await;
        recovery(&format!("sign-in after Redis was away ({way:?})"), async || {
            try_login(gateway, &token).await.status() == 200
        })
        .await;
    }
    assert_eq!(degraded(gateway).await, [""; 0]);
}

#[tokio::test]
async fn without_entra_known_keys_go_on() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    for way in [Way::Cut, Way::BlackHole] {
        world.to_entra.set(way).await;
        // Not remembered: it is verified with the keys that are known.
        let token = world.entra.token().build();
        assert_eq!(try_login(gateway, &token).await.status(), 200, "{way:?}");
        assert_eq!(guarded(gateway, &token).await, 200, "{way:?}");
        stands_alone(gateway).await;
        assert!(gateway.is_ready().await, "{way:?}");
        assert_eq!(degraded(gateway).await, [""; 0], "{way:?}: keys are known");
    }
}

#[tokio::test]
async fn without_upstream_callers_are_told_at_once_and_sign_in_goes_on() {
    let world = Relayed::start(&[("GATEWAY_TIMEOUT_RESPONSE", "1s")]).await;
    let token = world.entra.token().build();
    for (way, told) in [(Way::Cut, 502), (Way::BlackHole, 504)] {
        let gateway = &world.gateway;
        world.to_upstream.set(way).await;
        let begun = Instant::now();
        assert_eq!(get(gateway, "/test/pid").await, told);
        assert!(begun.elapsed() < Duration::from_secs(2), "{way:?}: {:?}", begun.elapsed());
        assert_eq!(guarded(gateway, &token).await, told);
        assert_eq!(try_login(gateway, &token).await.status(), 200, "{way:?}");
        stands_alone(gateway).await;
        assert!(gateway.is_ready().await, "it has answered before");
        if way == Way::Cut {
            assert_eq!(degraded(gateway).await, ["upstream"]);
        }
        world.to_upstream.set(Way::Open).await;
        recovery("requests after upstream was away", async || {
            get(gateway, "/test/pid").await == 200
        })
        .await;
    }
    world.restart_upstream().await;
    recovery("requests after upstream was killed", async || {
        get(&world.gateway, "/test/pid").await == 200
    })
    .await;
}

#[tokio::test]
async fn when_everybody_comes_back_all_is_well_without_a_restart() {
    let world = Relayed::start(&[]).await;
    let gateway = &world.gateway;
    let token = world.entra.token().build();
    let session = crate::world::login(gateway, &token).await;
    for way in [Way::Cut, Way::BlackHole, Way::Cut] {
        world.set_all(way).await;
        is_refused_for_now(&try_login(gateway, &token).await);
        stands_alone(gateway).await;
        world.set_all(Way::Open).await;
        recovery(&format!("all ({way:?})"), async || {
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
async fn the_gateway_starts_whatever_is_away() {
    let world = Relayed::start_with(Way::Cut, &[]).await;
    let token = world.entra.token().build();
    let ways = [&world.to_redis, &world.to_entra, &world.to_upstream];
    let parts = ["sessions", "entra", "upstream"];
    for away in [&[0][..], &[1], &[2], &[0, 1, 2]] {
        for way in [Way::Cut, Way::BlackHole] {
            world.set_all(Way::Open).await;
            for part in away {
                ways[*part].set(way).await;
            }
            let mut gateway = None;
            // A machine that had other things to do gets a second try.
            for is_last in [false, true] {
                let begun = Instant::now();
                gateway = Some(Gateway::start(&world.settings).await);
                let took = begun.elapsed();
                if took < Duration::from_secs(1) {
                    break;
                }
                assert!(!is_last, "{away:?} {way:?}: it listens after {took:?}");
            }
            let gateway = gateway.unwrap();
            assert_eq!(get(&gateway, "/gateway/health/live").await, 200);
            let has_upstream = !away.contains(&2);
            if has_upstream {
                until("upstream answered", async || gateway.is_ready().await).await;
            } else {
                assert_eq!(get(&gateway, "/gateway/health/ready").await, 503);
            }
            if !away.contains(&1) {
                gateway.wait_until_it_has_keys().await;
            }
            if way == Way::Cut {
                let expected: Vec<_> = away.iter().map(|part| parts[*part]).collect();
                until("reasons are told", async || degraded(&gateway).await == expected).await;
            }
            let has_login = !away.contains(&0) && !away.contains(&1);
            let login = try_login(&gateway, &token).await.status();
            assert_eq!(login, if has_login { 200 } else { 503 }, "{away:?} {way:?}");

            world.set_all(Way::Open).await;
            until("it finds them by itself", async || {
                gateway.is_ready().await && try_login(&gateway, &token).await.status() == 200
            })
            .await;
        }
    }

    world.set_all(Way::Cut).await;
    let mut settings = world.settings.clone();
    settings.push(("GATEWAY_WORKERS".to_owned(), "none".to_owned()));
    let told = run(&settings, &["serve"]).await;
    assert_eq!(told.status.code(), Some(78));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.lines().count() <= 2 && told.contains("GATEWAY_WORKERS"), "{told}");
}

/// Answers whatever it is asked with these bytes, and counts.
async fn impostor(answer: Vec<u8>) -> (String, Arc<AtomicUsize>) {
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
async fn known_keys_survive_every_kind_of_broken_document() {
    let world = Relayed::start(&[]).await;
    let (elsewhere, was_followed) = impostor(ok("{}")).await;
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
        ("keys where nobody is", metadata(&world.entra.issuer_v2(), "http://127.0.0.1:1/")),
        ("301", moved("301")),
        ("302", moved("302")),
        ("307", moved("307")),
        ("308", moved("308")),
    ] {
        world.to_entra.lead_to(world.entra.address());
        let gateway = Gateway::start(&world.settings).await;
        gateway.wait_until_it_has_keys().await;
        let (address, asked) = impostor(answer).await;
        world.to_entra.lead_to(address);
        // This one asks; nobody can say that there is no such key.
        let unknown = world.entra.token().kid("unknown").build();
        assert_eq!(try_login(&gateway, &unknown).await.status(), 503, "{kind}");
        assert!(asked.load(Ordering::SeqCst) > 0, "{kind}: it was asked");
        let known = world.entra.token().build();
        assert_eq!(try_login(&gateway, &known).await.status(), 200, "{kind}");
        until("ready", async || gateway.is_ready().await).await;
    }
    assert_eq!(was_followed.load(Ordering::SeqCst), 0, "redirects are not followed");
}

#[tokio::test]
async fn an_entra_whose_name_is_not_found_hinders_nobody_else() {
    let upstream = Recorder::start().await;
    let more = [
        ("CUSTOM_OIDC_METADATA_URL_VALUE", "https://login.invalid/t/v2.0/openid-configuration"),
        ("GATEWAY_UPSTREAM_URL", upstream.url.as_str()),
    ];
    let (gateway, entra, _store) = alone(Kind::Redis, &more).await;
    until("upstream answered", async || gateway.is_ready().await).await;
    is_refused_for_now(&try_login(&gateway, &entra.token().build()).await);
    assert_eq!(get(&gateway, "/x").await, 200);
    stands_alone(&gateway).await;
    assert_eq!(degraded(&gateway).await, ["entra"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_of_unknown_keys_asks_entra_once_and_is_in_nobodys_way() {
    let upstream = Recorder::start().await;
    let more = [("GATEWAY_UPSTREAM_URL", upstream.url.as_str())];
    let (gateway, entra, _store) = alone(Kind::Files, &more).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    let before = entra.fetches();
    let good = entra.token().build();
    let url = gateway.url("/external/x");
    let http = client();
    let mut herd = JoinSet::new();
    for number in 0..500 {
        let token = entra.token().kid(&format!("made-up-{number}")).build();
        let request = http.get(&url).bearer_auth(token);
        herd.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    let mut slowest = Duration::ZERO;
    while !herd.is_empty() {
        let begun = Instant::now();
        let answer = http.get(&url).bearer_auth(&good).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        slowest = slowest.max(begun.elapsed());
        for _ in 0..50 {
            if let Some(refused) = herd.join_next().await {
                assert_eq!(refused.unwrap(), 401);
            }
        }
    }
    // One refresh reads the keys of v2 and of v1, one those of the app itself.
    assert_eq!(entra.fetches() - before, 4);
    println!("500 unknown keys; a good token was served within {slowest:.0?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute_and_no_more() {
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
        let told = request.send().await.unwrap().status();
        assert_eq!(told, expected, "{claim} {:+}", at - now);
    }
}

#[tokio::test]
async fn probes_are_answered_at_any_rate_by_any_name_without_upstream() {
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
    assert!(upstream.take().targets.is_empty(), "upstream was asked");
    let metadata = "GET /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: 10.244.0.17:8080\r\nConnection: close\r\n\r\n";
    assert!(gateway.raw(metadata).await.starts_with("HTTP/1.1 421 "), "the rest has one name");
    assert_eq!(try_login(&gateway, &entra.token().build()).await.status(), 200, "no failures");
}

#[tokio::test]
async fn workers_replaced_under_load_do_nothing_twice() {
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
                let answer = request.timeout(PATIENCE).send().await.unwrap();
                *statuses.entry((method, answer.status().as_u16())).or_default() += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            statuses
        });
    }
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        until("a new worker answers", async || {
            let answer = client().get(world.gateway.url("/test/pid")).send().await.unwrap();
            answer.status() == 200 && !seen.contains(&json(answer).await["pid"].to_string())
        })
        .await;
        until("all go on", async || answered.load(Ordering::Relaxed) > before + 50).await;
        // All that have been so far.
        seen.extend(world.workers().await);
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
    assert!(done.len() >= statuses[&("POST", 200)], "every POST that was answered was done");
    assert!(statuses.keys().all(|(_, status)| matches!(status, 200 | 502 | 503)), "{statuses:?}");
}

#[tokio::test]
async fn an_answer_whose_upstream_falls_silent_never_seems_whole() {
    let world = Relayed::start(&[]).await;
    let url = world.gateway.url("/test/bytes?n=50000000");
    for (way, then) in [(Way::BlackHole, Some(Way::Cut)), (Way::Cut, None)] {
        let mut answer = client().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.chunk().await.unwrap().unwrap();
        world.to_upstream.set(way).await;
        if let Some(then) = then {
            // All that was on its way comes, and then nothing: neither bytes nor an end.
            let rest = async { while let Ok(Some(_)) = answer.chunk().await {} };
            let silence = tokio::time::timeout(Duration::from_millis(500), rest).await;
            assert!(silence.is_err(), "it ended");
            world.to_upstream.set(then).await;
        }
        let end = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "a clean end");
        world.to_upstream.set(Way::Open).await;
    }
    let session = crate::world::login(&world.gateway, &world.entra.token().build()).await;
    let again = client().get(world.gateway.url(API)).session(&session).send().await.unwrap();
    assert_eq!(again.status(), 200);
}

#[tokio::test]
async fn a_slow_way_to_every_neighbour_costs_time_alone() {
    let world = Relayed::start(&[]).await;
    world.set_all(Way::Slow(Duration::from_millis(100))).await;
    let token = world.entra.token().build();
    let session = crate::world::login(&world.gateway, &token).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert_eq!(guarded(&world.gateway, &token).await, 200);
    world.entra.rotate();
    assert_eq!(guarded(&world.gateway, &world.entra.token().build()).await, 200, "a new key");
}
