//! The memory of all connections is bounded, whatever callers leave unfinished. Without the bound,
//! 3,800 connections exhausted a gateway with 256 MiB.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::world::{
    API, Kind, World,
    administrators::{Person, managed},
    client,
    gateway::{Gateway, binary},
    process::{TEST_TIMEOUT, until},
    scripted::{OK, Peer, QUIET, Scripted},
    status, try_login,
};

const MIB: usize = 1 << 20;
const LIMIT: usize = 256 * MIB;
const CROWD: u64 = 10_000;

/// A control group with a memory limit, where the machine permits one.
struct ControlGroup(PathBuf, &'static str);

impl ControlGroup {
    fn with_limit(bytes: usize) -> Option<Self> {
        let name = format!("simplechat-gateway-test-{}", std::process::id());
        let of_version = |mount: &str, limit: &str, peak| {
            let group = PathBuf::from(mount).join(&name);
            fs::create_dir(&group).ok()?;
            let group = Self(group, peak);
            // On a cgroup file system the kernel creates this file; elsewhere it is missing.
            let limit = fs::OpenOptions::new().write(true).open(group.0.join(limit));
            limit.ok()?.write_all(bytes.to_string().as_bytes()).ok().map(|()| group)
        };
        of_version("/sys/fs/cgroup", "memory.max", "memory.peak").or_else(|| {
            let (limit, peak) = ("memory.limit_in_bytes", "memory.max_usage_in_bytes");
            of_version("/sys/fs/cgroup/memory", limit, peak)
        })
    }

    /// Peak memory of its processes and their sockets, in bytes.
    fn peak(&self) -> Option<usize> {
        fs::read_to_string(self.0.join(self.1)).ok()?.trim().parse().ok()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Peak memory of a gateway, in bytes.
fn peak(gateway: &Gateway) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Requests health repeatedly until stopped. Returns the number of requests and the longest
/// latency.
struct Probe(Arc<AtomicBool>, JoinHandle<(usize, Duration)>);

impl Probe {
    fn start(gateway: &Gateway) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), gateway.address().to_owned());
        let stopped = Arc::clone(&stop);
        let probing = tokio::spawn(async move {
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = async {
                    let mut one = Peer::connect(&address).await;
                    one.send("GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
                    one.rest_or_head().await
                };
                let answer = timeout(TEST_TIMEOUT, answer).await.expect("health is answered");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
                (asked, longest) = (asked + 1, longest.max(begun.elapsed()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (asked, longest)
        });
        Self(stop, probing)
    }

    async fn stop(self) -> (usize, Duration) {
        self.0.store(true, Ordering::Relaxed);
        self.1.await.expect("health was 200 throughout")
    }
}

/// Opens connections, sends bytes as far as the gateway accepts them, and returns the answers.
async fn crowd(gateway: &Gateway, count: u64, bytes: &str) -> Vec<(TcpStream, String)> {
    let bytes: Arc<str> = bytes.into();
    let mut joining = JoinSet::new();
    let mut crowd = Vec::new();
    for _ in 0..count {
        let (address, bytes) = (gateway.address().to_owned(), Arc::clone(&bytes));
        joining.spawn(async move {
            let mut stream = TcpStream::connect(address).await.ok()?;
            // Zero linger frees the port at once.
            stream.set_zero_linger().ok()?;
            let _ = timeout(Duration::from_secs(5), stream.write_all(bytes.as_bytes())).await;
            Some(stream)
        });
        if joining.len() >= 200 {
            crowd.extend(joining.join_next().await.unwrap().unwrap());
        }
    }
    crowd.extend(joining.join_all().await.into_iter().flatten());
    let answer = |stream: TcpStream| {
        let mut answer = [0; 1024];
        let read = stream.try_read(&mut answer).unwrap_or(0);
        (stream, String::from_utf8_lossy(&answer[..read]).into_owned())
    };
    crowd.into_iter().map(answer).collect()
}

/// Maximum number of connections for this process and the gateway.
fn descriptors() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Moves a world's gateway into a control group of 256 MiB; without one, only its setting limits
/// it.
async fn confine(world: &mut World, control_group: Option<&ControlGroup>) {
    let limit = LIMIT.to_string();
    let mut more = vec![("GATEWAY_WORKERS", "1"), ("RUST_LOG", "info")];
    if control_group.is_none() {
        println!("control groups are not available: testing the setting only");
        more.push(("GATEWAY_MEMORY_LIMIT", &limit));
    }
    let mut command = Command::new("sh");
    command.args(["-c", "[ -z \"$1\" ] || echo $$ > \"$1/cgroup.procs\"; exec \"$0\" serve"]);
    let group = control_group.map_or_else(PathBuf::new, |control_group| control_group.0.clone());
    command.arg(binary()).arg(group);
    world.gateway = Gateway::start_by(&mut command, &world.settings_with(&more)).await;
    world.gateway.wait_until_it_has_keys().await;
    until("the gateway is ready", async || world.gateway.is_ready().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_with_unfinished_requests_fit_into_256_mebibytes() {
    let count = CROWD.min(descriptors().saturating_sub(1_000));
    // Removed after the gateway has ended.
    let control_group = ControlGroup::with_limit(LIMIT);
    let (mut world, _folder) = managed(Kind::Files, &[]).await;
    let admin = Person::admin(&world.gateway).await;
    admin.enable(&world.gateway).await;
    confine(&mut world, control_group.as_ref()).await;
    let gateway = &world.gateway;
    let decision = |cookie: &str| {
        format!(
            "POST /gateway/api/access HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{cookie}Content-Length: 65536\r\n\r\n{}",
            "a".repeat(65_500)
        )
    };
    let crowds = [
        ("heads", format!("GET /x HTTP/1.1\r\nHost: a\r\nX-A: {}", "a".repeat(65_000))),
        ("decisions without a cookie", decision("")),
        (
            "an administrator's decisions",
            decision(&format!("Cookie: session={}\r\n", admin.cookie)),
        ),
        (
            "bodies for upstream",
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n{}",
                "a".repeat(65_500)
            ),
        ),
    ];
    for (what, bytes) in crowds {
        let (begun, probe) = (Instant::now(), Probe::start(gateway));
        let crowd = crowd(gateway, count, &bytes).await;
        // Other callers are served meanwhile.
        let login = try_login(gateway, &world.entra.token().build()).await;
        assert_eq!(login.status(), 200, "{what}");
        assert_eq!(status(gateway.url("/test/echo"), "").await, 200, "{what}");
        let ended = crowd.iter().filter(|(_, answer)| !answer.is_empty()).count();
        drop(crowd);
        let (asked, longest) = probe.stop().await;
        let of_group = control_group.as_ref().and_then(ControlGroup::peak).unwrap_or_default();
        println!(
            "{count} {what}: {ended} answered; {:.1?}; health 200 {asked} times, the slowest after {longest:.0?}; peak {} MiB, the control group's {} MiB",
            begun.elapsed(),
            peak(gateway) / MIB,
            of_group / MIB,
        );
        assert!(peak(gateway) < LIMIT && of_group < LIMIT, "{what}");
    }
    assert!(world.gateway.process.is_running());
    let login = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &login).await, 200);
}

/// A gateway with the minimum of memory: 4 MiB for unfinished requests.
async fn scarce() -> Scripted {
    Scripted::start(&[("GATEWAY_MEMORY_LIMIT", "32MiB")]).await
}

/// Answers to the callers whose connection the gateway closed, each with a head only.
async fn refusals(callers: &mut [Peer]) -> Vec<String> {
    let mut refusals = Vec::new();
    for caller in callers {
        if let Ok(answer) = timeout(Duration::from_millis(20), caller.rest_or_head()).await {
            refusals.push(answer);
        }
    }
    refusals
}

async fn callers(world: &Scripted, count: usize, bytes: &str) -> Vec<Peer> {
    let mut callers = Vec::new();
    for _ in 0..count {
        let mut caller = world.caller().await;
        let _ = caller.try_send(bytes).await;
        callers.push(caller);
    }
    callers
}

/// Small requests (also in pieces) and probes need no memory of the budget.
async fn others_are_served(world: &Scripted) {
    let mut probe = world.caller().await;
    probe.send("GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(probe.head().await.starts_with("HTTP/1.1 200 "));
    let mut small = world.caller().await;
    small.send("POST /small HTTP/1.1\r\nHost: a\r\nContent-").await;
    small.send("Length: 2000\r\n\r\n").await;
    small.send("a".repeat(1000)).await;
    tokio::time::sleep(QUIET).await;
    small.send("a".repeat(1000)).await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("POST /small "));
    upstream.bytes(2000).await;
    upstream.send(OK).await;
    assert!(small.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_free_memory_unfinished_requests_get_503_and_small_ones_are_served() {
    let world = scarce().await;
    let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-A: {}", "a".repeat(60_000));
    let body = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60001\r\n\r\n{}",
        "a".repeat(60_000)
    );
    for unfinished in [head, body] {
        let mut crowd = callers(&world, 100, &unfinished).await;
        let refused = refusals(&mut crowd).await;
        assert!((20..90).contains(&refused.len()), "{} of 100 refused", refused.len());
        for refusal in refused {
            assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
            for field in ["retry-after: 5\r\n", "connection: close\r\n", "problem+json\r\n"] {
                assert!(refusal.contains(field), "{refusal}");
            }
        }
        others_are_served(&world).await;
        drop(crowd);
        // The memory of the refused requests is free again.
        until("the memory is free again", async || {
            let mut one = callers(&world, 1, &unfinished).await;
            refusals(&mut one).await.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn complete_requests_that_wait_for_upstream_are_bounded() {
    let world = scarce().await;
    // Large heads, each buffered twice.
    let large = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(60_000));
    let mut crowd = callers(&world, 60, &large).await;
    let refused = refusals(&mut crowd).await;
    assert!((10..50).contains(&refused.len()), "{} of 60 refused", refused.len());
    assert!(refused.iter().all(|refusal| refusal.starts_with("HTTP/1.1 503 ")));
    for _ in 0..60 - refused.len() {
        drop(world.upstream().await);
    }
    drop(crowd);
    // Small heads: one eighth of the memory admits 128 of them.
    let mut crowd = callers(&world, 160, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let refused = refusals(&mut crowd).await;
    assert_eq!(refused.len(), 160 - 128);
    assert!(refused.iter().all(|refusal| refusal.starts_with("HTTP/1.1 503 ")));
    let mut probe = world.caller().await;
    probe.send("GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(probe.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn connections_beyond_the_memory_limit_close_the_longest_idle_ones() {
    let world = scarce().await;
    let mut crowd =
        callers(&world, 365, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na").await;
    tokio::time::sleep(QUIET).await;
    let mut late = callers(&world, 20, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for one in &mut late {
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert!(one.head().await.starts_with("HTTP/1.1 200 "));
    }
    let closed = refusals(&mut crowd[..20]).await;
    assert_eq!(closed, vec![String::new(); closed.len()]);
    assert!(closed.len() >= 15, "{} of the first 20 closed", closed.len());
}

#[tokio::test]
async fn an_administrative_request_body_is_read_only_after_authorization() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let admin = Person::admin(&world.gateway).await;
    let visitor = Person::with_roles(&world.gateway, "User").await;
    let begins = async |path: &str, cookie: &str| {
        let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{cookie}Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 17\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(TEST_TIMEOUT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    let cookie = |person: &Person| format!("Cookie: session={}\r\n", person.cookie);
    for path in ["/gateway/api/access", "/gateway/api/blocks"] {
        assert_eq!(begins(path, "").await, "401");
        assert_eq!(begins(path, &cookie(&visitor)).await, "403");
        assert_eq!(begins(path, &cookie(&admin)).await, "100");
    }
    for page in [
        "/gateway/admin/access/enable",
        "/gateway/admin/access/disable",
        "/gateway/admin/blocks",
        "/gateway/admin/blocks/remove",
        "/gateway/admin/sessions/end",
    ] {
        assert_eq!(begins(page, "").await, "401");
        assert_eq!(begins(page, &cookie(&admin)).await, "100");
    }
    // Routes without a request body read none.
    assert_eq!(begins("/gateway/admin", &cookie(&admin)).await, "405");
    assert_eq!(begins("/gateway/api/none", &cookie(&admin)).await, "404");
    assert_eq!(client().get(world.gateway.url("/test/echo")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_tunnel_ends_when_neither_side_sends_within_the_idle_timeout() {
    let world = Scripted::start(&[("GATEWAY_TIMEOUT_IDLE", "1s")]).await;
    let open = async || {
        let mut caller = world.caller().await;
        caller
            .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
        assert!(caller.head().await.starts_with("HTTP/1.1 101 "));
        (caller, upstream)
    };
    // A tunnel with occasional traffic from either side.
    let (mut caller, mut upstream) = open().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        caller.send("a").await;
        assert_eq!(upstream.bytes(1).await, "a");
        tokio::time::sleep(Duration::from_millis(600)).await;
        upstream.send("b").await;
        assert_eq!(caller.bytes(1).await, "b");
    }
    let begun = Instant::now();
    assert_eq!((caller.rest().await, upstream.rest().await), (String::new(), String::new()));
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}
