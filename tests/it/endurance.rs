//! All kinds of load at once for a long time, while dependencies fail in turn; then a verdict.
//!
//! `make test` runs one round of seconds; `make soak MINUTES=20` runs as many as fit, with the
//! release build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Error, RequestBuilder};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    soak::full_length,
    world::{
        API, WithSession, client, gateway::Gateway, process::until, relay::RelayState,
        relayed::Relayed, session_in,
    },
};

/// Maximum time until everything works again once all dependencies are available.
const RECOVERY: Duration = Duration::from_secs(1);
/// Time after a fault in which errors are still attributed to it: upstream's own workers are new
/// then, and refuse their first requests.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Faults of dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    RedisDown,
    RedisSilent,
    EntraDown,
    EntraSilent,
    UpstreamKilled,
    WorkersReplaced,
    AllDown,
    AllSilent,
}

const ROUND: [Fault; 8] = [
    Fault::RedisDown,
    Fault::UpstreamKilled,
    Fault::EntraSilent,
    Fault::RedisSilent,
    Fault::WorkersReplaced,
    Fault::AllDown,
    Fault::EntraDown,
    Fault::AllSilent,
];

/// Calls of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Login,
    Api,
    Guarded,
    BadToken,
    Upload,
    Download,
    Events,
    Socket,
    Health,
}

/// Result of a call: `Ok`, a status, or the failure.
type Outcome = Result<(), String>;

impl Fault {
    /// Returns true if the contract allows this failure during the fault.
    fn explains(self, call: Call, outcome: &str) -> bool {
        let of_store = outcome == "503";
        let of_upstream = matches!(outcome, "502" | "503" | "504" | "broken");
        // First answers of new workers (see `operating.md`).
        let of_strangers = outcome == "401";
        let has_session = matches!(call, Call::Api | Call::Events);
        let needs_upstream = !matches!(call, Call::Login | Call::BadToken | Call::Health);
        match self {
            Self::EntraDown | Self::EntraSilent => false,
            Self::RedisDown | Self::RedisSilent => of_store && (call == Call::Login || has_session),
            Self::UpstreamKilled | Self::WorkersReplaced => {
                needs_upstream && of_upstream || has_session && of_strangers
            }
            Self::AllDown | Self::AllSilent => {
                needs_upstream && of_upstream || call == Call::Login && of_store
            }
        }
    }
}

/// Completed call.
struct Done {
    call: Call,
    outcome: Outcome,
    begun: Instant,
    ended: Instant,
}

/// Period with or without a fault.
struct Phase {
    fault: Option<Fault>,
    begun: Instant,
    ended: Instant,
    recovered: Option<Duration>,
}

/// State shared by all callers.
struct Crowd {
    world: Relayed,
    http: Client,
    session: Mutex<String>,
    done: Mutex<Vec<Done>>,
    ends: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(_: Error) -> String {
    "broken".to_owned()
}

impl Crowd {
    fn url(&self, path: &str) -> String {
        self.world.gateway.url(path)
    }

    fn session(&self) -> String {
        lock(&self.session).clone()
    }

    async fn answer(
        &self,
        request: RequestBuilder,
        good: u16,
    ) -> Result<reqwest::Response, String> {
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status().as_u16();
        if status == good { Ok(answer) } else { Err(status.to_string()) }
    }

    async fn attempt(&self, call: Call) -> Outcome {
        let http = &self.http;
        let token = || self.world.entra.token();
        match call {
            Call::Login => {
                let request = http.post(self.url("/external/login")).bearer_auth(token().build());
                let answer = self.answer(request, 200).await?;
                *lock(&self.session) = session_in(&answer);
                Ok(())
            }
            Call::Api => {
                let request = http.get(self.url(API)).header("accept", "application/json");
                let answer = self.answer(request.session(&self.session()), 200).await?;
                answer.bytes().await.map(|_| ()).map_err(broken)
            }
            Call::Guarded | Call::BadToken => {
                let is_good = call == Call::Guarded;
                let token = if is_good { token() } else { token().signed_with_unpublished_key() };
                let request = http.get(self.url("/external/test/users")).bearer_auth(token.build());
                self.answer(request, if is_good { 200 } else { 401 }).await.map(|_| ())
            }
            Call::Upload => {
                let body = vec![b'u'; 700_000];
                let request = http.post(self.url("/test/echo")).body(body);
                let echo: Value = self.answer(request, 200).await?.json().await.map_err(broken)?;
                let is_whole = echo["body_length"] == 700_000;
                if is_whole { Ok(()) } else { Err("not whole".to_owned()) }
            }
            Call::Download => {
                let request = http.get(self.url("/test/bytes?n=3000000"));
                let body = self.answer(request, 200).await?.bytes().await.map_err(broken)?;
                if body.len() == 3_000_000 { Ok(()) } else { Err("not whole".to_owned()) }
            }
            Call::Events => {
                let request = http.post(self.url("/api/chat/stream?events=10&interval=0.1"));
                let answer = self.answer(request.session(&self.session()), 200).await?;
                let text = answer.text().await.map_err(broken)?;
                let is_whole = text.matches("data:").count() == 10;
                if is_whole { Ok(()) } else { Err("not whole".to_owned()) }
            }
            Call::Socket => self.echo().await,
            Call::Health => {
                let request = http.get(self.url("/gateway/health/live"));
                self.answer(request, 200).await.map(|_| ())
            }
        }
    }

    /// Echoes through a tunnel for a second.
    async fn echo(&self) -> Outcome {
        let break_off = |_| "broken".to_owned();
        let mut stream =
            TcpStream::connect(self.world.gateway.address()).await.map_err(break_off)?;
        let head = "GET /test/socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.map_err(break_off)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.map_err(break_off)?);
        }
        let status = String::from_utf8_lossy(&head)[9..12].to_owned();
        if status != "101" {
            return Err(status);
        }
        for number in 0..10_u8 {
            stream.write_all(&[number; 100]).await.map_err(break_off)?;
            let mut back = [0; 100];
            stream.read_exact(&mut back).await.map_err(break_off)?;
            if back != [number; 100] {
                return Err("not what was sent".to_owned());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Repeats a call until the load ends.
    async fn repeat(self: Arc<Self>, call: Call, pause: Duration) {
        while !self.ends.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let outcome = timeout(Duration::from_mins(1), self.attempt(call)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("hung".to_owned()));
            let ended = Instant::now();
            lock(&self.done).push(Done { call, outcome, begun, ended });
            sleep(pause).await;
        }
    }

    /// Waits until everything works again; returns the time it took.
    async fn recovery(&self) -> Duration {
        let begun = Instant::now();
        until("login, proxying and guard work", async || {
            let (login, proxied, guarded) = tokio::join!(
                self.attempt(Call::Login),
                self.attempt(Call::Download),
                self.attempt(Call::Guarded)
            );
            login.is_ok() && proxied.is_ok() && guarded.is_ok()
        })
        .await;
        begun.elapsed()
    }

    async fn inject(&self, fault: Fault, time: Duration) {
        let world = &self.world;
        match fault {
            Fault::RedisDown => world.to_redis.set(RelayState::Cut).await,
            Fault::RedisSilent => world.to_redis.set(RelayState::BlackHole).await,
            Fault::EntraDown => world.to_entra.set(RelayState::Cut).await,
            Fault::EntraSilent => world.to_entra.set(RelayState::BlackHole).await,
            Fault::UpstreamKilled => world.restart_upstream().await,
            Fault::WorkersReplaced => world.replace_workers().await,
            Fault::AllDown => world.set_all(RelayState::Cut).await,
            Fault::AllSilent => world.set_all(RelayState::BlackHole).await,
        }
        if !matches!(fault, Fault::UpstreamKilled | Fault::WorkersReplaced) {
            sleep(time).await;
        }
        world.set_all(RelayState::Open).await;
    }
}

/// Resources of the gateway at one time.
struct Sample {
    at: Instant,
    /// Resident memory in MiB.
    resident: f64,
    descriptors: usize,
}

/// Resident memory in MiB and open descriptors of the gateway.
fn measured(gateway: &Gateway) -> (f64, usize) {
    let id = gateway.process.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let resident: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (resident / 1024.0, std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count())
}

#[expect(clippy::cast_precision_loss, reason = "few samples")]
fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len().max(1) as f64
}

/// Slope by least squares, of `(hours, MiB)`.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let (xs, ys): (Vec<f64>, Vec<f64>) = samples.iter().copied().unzip();
    let (x, y) = (mean(&xs), mean(&ys));
    let above: f64 = samples.iter().map(|(at, is)| (at - x) * (is - y)).sum();
    let below: f64 = xs.iter().map(|at| (at - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

/// 99th percentile.
fn p99(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of.get(of.len() * 99 / 100).copied().unwrap_or_default()
}

/// Injects faults in turn for `length`, each followed by calm; samples memory and descriptors in
/// the calm.
async fn inject_faults(
    crowd: &Crowd,
    length: Duration,
    calm: Duration,
    fault: Duration,
) -> (Vec<Phase>, Vec<Sample>) {
    let (begun, mut phases, mut samples) = (Instant::now(), Vec::new(), Vec::new());
    let mut faults = ROUND.iter().copied().cycle();
    for number in 0.. {
        let starts = Instant::now();
        // The first calm is longer: a warm-up.
        let time = if number == 0 { calm * 2 } else { calm };
        while starts.elapsed() < time {
            sleep(Duration::from_millis(500)).await;
            let (resident, descriptors) = measured(&crowd.world.gateway);
            samples.push(Sample { at: Instant::now(), resident, descriptors });
        }
        let ended = Instant::now();
        phases.push(Phase { fault: None, begun: starts, ended, recovered: None });
        if number >= ROUND.len() && begun.elapsed() + fault + calm > length {
            return (phases, samples);
        }
        let starts = Instant::now();
        let next = faults.next().unwrap();
        crowd.inject(next, fault).await;
        let recovered = Some(crowd.recovery().await);
        let ended = Instant::now();
        phases.push(Phase { fault: Some(next), begun: starts, ended, recovered });
    }
    unreachable!()
}

/// Requests and errors of one phase.
#[derive(Default)]
struct Tally {
    requests: usize,
    expected: BTreeMap<String, usize>,
    unexpected: BTreeMap<String, usize>,
}

fn tallied(phases: &[Phase], done: &[Done]) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = phases.iter().map(|_| Tally::default()).collect();
    for it in done {
        let at = phases.iter().rposition(|phase| phase.begun <= it.begun).unwrap_or(0);
        let tally = &mut tallies[at];
        tally.requests += 1;
        let Err(outcome) = &it.outcome else { continue };
        let is_explained = phases.iter().any(|phase| {
            phase.fault.is_some_and(|fault| fault.explains(it.call, outcome))
                && it.ended >= phase.begun
                && it.begun <= phase.ended + AFTERMATH
        });
        let name = format!("{:?} {outcome}", it.call);
        let errors = if is_explained { &mut tally.expected } else { &mut tally.unexpected };
        *errors.entry(name).or_default() += 1;
    }
    tallies
}

fn summary(errors: &BTreeMap<String, usize>) -> String {
    let all: Vec<_> = errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Starts all callers.
async fn start_load(crowd: &Arc<Crowd>) -> JoinSet<()> {
    // A session exists from the start.
    crowd.attempt(Call::Login).await.unwrap();
    let mut load = JoinSet::new();
    for (call, count, pause) in [
        (Call::Login, 2, 100),
        (Call::Api, 2, 50),
        (Call::Guarded, 2, 50),
        (Call::BadToken, 1, 50),
        (Call::Upload, 1, 200),
        (Call::Download, 1, 200),
        (Call::Events, 1, 200),
        (Call::Socket, 1, 200),
        (Call::Health, 1, 50),
    ] {
        for _ in 0..count {
            load.spawn(Arc::clone(crowd).repeat(call, Duration::from_millis(pause)));
        }
    }
    load
}

/// Printed report and the verdicts that failed.
#[derive(Default)]
struct Report {
    text: String,
    failed: Vec<String>,
}

impl Report {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
    }

    fn verdict(&mut self, is_good: bool, verdict: String) {
        self.line(&format!("{}  {verdict}", if is_good { "ok  " } else { "FAIL" }));
        if !is_good {
            self.failed.push(verdict);
        }
    }

    /// One line per phase, then errors and recovery in total.
    fn phases(&mut self, phases: &[Phase], done: &[Done], is_full: bool) {
        let mut all_unexpected = 0;
        let (mut slowest, mut felt) = (Duration::ZERO, BTreeSet::new());
        self.line("\n    at  phase            requests  recovered  errors expected; unexpected");
        for (phase, tally) in phases.iter().zip(tallied(phases, done)) {
            felt.extend(phase.fault.filter(|_| !tally.expected.is_empty()));
            let name = phase.fault.map_or("calm".to_owned(), |fault| format!("{fault:?}"));
            let recovered = phase.recovered.map_or("-".to_owned(), |it| format!("{it:.0?}"));
            slowest = slowest.max(phase.recovered.unwrap_or_default());
            all_unexpected += tally.unexpected.values().sum::<usize>();
            self.line(&format!(
                "{:>5}s  {name:<16} {:>8}  {recovered:>9}  {}; {}",
                (phase.begun - phases[0].begun).as_secs(),
                tally.requests,
                summary(&tally.expected),
                summary(&tally.unexpected)
            ));
        }
        let of = done.len();
        let unexpected = format!("{all_unexpected} unexpected errors of {of} requests");
        self.verdict(all_unexpected == 0, unexpected);
        // Otherwise the run shows nothing. A short Redis outage is not felt: requests wait for it.
        let short = [Fault::UpstreamKilled, Fault::AllDown];
        let longer = [Fault::RedisDown, Fault::RedisSilent, Fault::AllSilent];
        let mut must = short.iter().chain(longer.iter().filter(|_| is_full));
        self.verdict(must.all(|fault| felt.contains(fault)), format!("felt by callers: {felt:?}"));
        let bound = if is_full { RECOVERY } else { RECOVERY * 3 };
        let summary = format!(
            "slowest recovery {slowest:.0?}, below {bound:?} once all dependencies are available"
        );
        self.verdict(slowest < bound, summary);
    }

    /// Memory and descriptors under load, after a warm-up of a quarter.
    fn resources(&mut self, samples: &[Sample], is_full: bool, is_long: bool) {
        let warm = &samples[samples.len() / 4..];
        let begun = samples[0].at;
        let hours = |at: Instant| (at - begun).as_secs_f64() / 3600.0;
        let points: Vec<_> = warm.iter().map(|it| (hours(it.at), it.resident)).collect();
        let slope = slope(&points);
        let (first, second) = warm.split_at(warm.len() / 2);
        let of = |half: &[Sample]| mean(&half.iter().map(|it| it.resident).collect::<Vec<_>>());
        let (early, late) = (of(first), of(second));
        let (is_flat, bound) = if !is_full {
            (true, "not checked")
        } else if is_long {
            (slope < 1.0, "slope below 1 MiB/h")
        } else {
            (late - early < 2.0, "second half less than 2 MiB above the first")
        };
        let summary = format!("memory {early:.1} MiB, then {late:.1} MiB; slope {slope:+.2} MiB/h");
        self.verdict(is_flat, format!("{summary}; {bound}"));
        let fewest = |half: &[Sample]| half.iter().map(|it| it.descriptors).min().unwrap_or(0);
        let (early, late) = (fewest(first), fewest(second));
        self.verdict(late <= early + 8, format!("descriptors under load {early}, then {late}"));
    }

    /// Latency of responses that need no work of upstream, in the calm.
    fn latency(&mut self, phases: &[Phase], done: &[Done], is_full: bool) {
        const SLACK: Duration = Duration::from_millis(10);
        let is_calm = |it: &Done| {
            let phase = phases.iter().rfind(|phase| phase.begun <= it.begun);
            phase.is_some_and(|phase| {
                let aftermath = AFTERMATH.min((phase.ended - phase.begun) / 2);
                phase.fault.is_none() && it.begun > phase.begun + aftermath
            })
        };
        let is_quick =
            |call| matches!(call, Call::Login | Call::Guarded | Call::Health | Call::BadToken);
        let quick = done.iter().filter(|it| is_quick(it.call) && is_calm(it));
        let quick: Vec<_> = quick.map(|it| it.ended - it.begun).collect();
        let (first, second) = quick.split_at(quick.len() / 2);
        let (early, late) = (p99(first.to_vec()), p99(second.to_vec()));
        let bound = early * 3 / 2 + SLACK;
        let summary = format!("p99 in the calm {early:.1?}, then {late:.1?}; below {bound:.1?}");
        self.verdict(late < bound || !is_full, summary);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_load_recover_from_failing_dependencies_without_leaks() {
    let full = full_length();
    let seconds = Duration::from_secs;
    let (length, calm, fault) = match full {
        Some(length) => (length, seconds(15), seconds(8)),
        None => (Duration::ZERO, seconds(1), seconds(1)),
    };
    let world = Relayed::start(&[
        ("UPSTREAM_MAX_REQUESTS", "0"),
        ("UPSTREAM_GRACEFUL_TIMEOUT", "3"),
        ("UPSTREAM_ACCESS_LOG", "/dev/null"),
        ("GATEWAY_LOGIN_LIMIT", "off"),
        ("GATEWAY_LOGIN_FAILURE_LIMIT", "off"),
        ("GATEWAY_TIMEOUT_RESPONSE", "5s"),
        // Fewer than the threads of one gunicorn worker (`operating.md`).
        ("GATEWAY_STREAMING_UPLOADS", "6"),
        ("RUST_LOG", "error,simplechat_gateway::serve=info,simplechat_gateway::entra=info"),
    ])
    .await;
    let (_, idle) = measured(&world.gateway);
    let crowd = Arc::new(Crowd {
        world,
        http: client(),
        session: Mutex::default(),
        done: Mutex::default(),
        ends: AtomicBool::new(false),
    });
    let load = start_load(&crowd).await;
    let (phases, samples) = inject_faults(&crowd, length, calm, fault).await;
    crowd.ends.store(true, Ordering::Relaxed);
    load.join_all().await;
    // Callers' connections close with their client.
    let Crowd { mut world, http, done, .. } = Arc::into_inner(crowd).unwrap();
    drop(http);
    let done = std::mem::take(&mut *lock(&done));

    let mut report = Report::default();
    report.phases(&phases, &done, full.is_some());
    let is_long = full.is_some_and(|length| length >= Duration::from_hours(1));
    report.resources(&samples, full.is_some(), is_long);
    report.latency(&phases, &done, full.is_some());
    // Idle connections to upstream close after five seconds.
    let (begun, mut now) = (Instant::now(), usize::MAX);
    while begun.elapsed() < seconds(20) && now > idle + 4 {
        sleep(Duration::from_millis(200)).await;
        now = measured(&world.gateway).1;
    }
    report.verdict(now <= idle + 4, format!("descriptors idle {idle} before, {now} after"));
    let panics = world.gateway.process.log().matches("panicked").count();
    let is_running = world.gateway.process.is_running();
    report.verdict(panics == 0 && is_running, format!("{panics} panics"));
    world.gateway.process.signal("TERM");
    let status = world.gateway.process.ended().await;
    report.verdict(status.code() == Some(0), format!("at SIGTERM: {status}"));
    println!("{}", report.text);
    assert!(report.failed.is_empty(), "{:?}\n{}", report.failed, report.text);
}
