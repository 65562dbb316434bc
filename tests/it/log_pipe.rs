//! Readers of stderr and stdout that stop reading: log lines are lost, and nothing else.
//!
//! containerd/containerd#9342 and #12462, moby/moby#22502 and #31540, aptible/supercronic#36.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, PipeReader, PipeWriter, Write},
    net::TcpListener,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;

use crate::{
    entra::Entra,
    world::{
        Kind, Store, client,
        gateway::binary,
        process::{TEST_TIMEOUT, until},
        settings,
        stopping::AFTER_DRAIN,
    },
};

/// Path length that makes each request's log line so long that 1,200 of them exceed the queue.
const LONG: usize = 6000;

/// Gateway whose standard streams are pipes of the test.
struct Piped {
    child: Child,
    address: String,
    operators: String,
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Piped {
    fn start(entra: &Entra, store: &Store, more: &[(&str, &str)], out: Stdio, log: Stdio) -> Self {
        let (address, operators) = (free_address(), free_address());
        let own = [
            ("GATEWAY_LISTEN", address.as_str()),
            ("GATEWAY_OPS_LISTEN", operators.as_str()),
            ("RUST_LOG", "info"),
        ];
        let more = own.iter().chain(more);
        let more: Vec<_> = more.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut command = Command::new(binary());
        command.env_clear().envs(settings(entra, None, store, &more));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().unwrap();
        Self { child, address, operators }
    }

    async fn status(&self, path: &str) -> Option<u16> {
        let answer = client().get(format!("http://{}{path}", self.address)).send().await;
        Some(answer.ok()?.status().as_u16())
    }

    async fn login(&self, token: &str) -> Option<u16> {
        let request = client().post(format!("http://{}/external/login", self.address));
        Some(request.bearer_auth(token).send().await.ok()?.status().as_u16())
    }

    async fn serves(&self) {
        until("it serves", async || self.status("/gateway/health/live").await == Some(200)).await;
    }

    /// Sends requests whose log lines are long and numbered.
    async fn ask(&self, numbers: std::ops::Range<usize>) {
        let client = client();
        for number in numbers {
            let path = format!("/gateway/{number}/{}", "x".repeat(LONG));
            let request = client.get(format!("http://{}{path}", self.address)).send();
            let answer = tokio::time::timeout(Duration::from_secs(10), request).await;
            assert_eq!(answer.expect("in time").unwrap().status(), 404, "request {number}");
        }
    }

    /// Number of lost log lines in the metrics.
    async fn lost(&self) -> u64 {
        let url = format!("http://{}/metrics", self.operators);
        let text = client().get(url).send().await.unwrap().text().await.unwrap();
        let of_lines = |line: &&str| {
            line.starts_with("simplechat_gateway_telemetry_lost_total")
                && line.contains("exporter=\"stderr\"")
                && line.contains("signal=\"logs\"")
        };
        let values = text.lines().filter(of_lines).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    async fn ends(&mut self, signal: Option<&str>) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        if let Some(signal) = signal {
            let id = self.child.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        }
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < TEST_TIMEOUT, "still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Pipe that accepts nothing until it is read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    set_nonblocking(&writer, true);
    while writer.write(b"\n").is_ok() {}
    set_nonblocking(&writer, false);
    (reader, writer)
}

fn set_nonblocking(pipe: &PipeWriter, is_nonblocking: bool) {
    let mut flags = fcntl_getfl(pipe).unwrap();
    flags.set(OFlags::NONBLOCK, is_nonblocking);
    fcntl_setfl(pipe, flags).unwrap();
}

/// JSON lines of a log, which a thread reads.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Value>>>);

impl Log {
    fn read(reader: PipeReader) -> (Self, thread::JoinHandle<()>) {
        let log = Self::default();
        let into = log.clone();
        let reading = thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(Result::unwrap);
            for line in lines.filter(|line| !line.is_empty()) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                into.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        (log, reading)
    }

    fn lines(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Positions and values of the reports of lost lines.
    fn reports(&self) -> Vec<(usize, u64)> {
        let lines = self.lines().into_iter().enumerate();
        let reports = lines.filter(|(_, line)| {
            line["message"].as_str().is_some_and(|it| it.starts_with("log lines were lost"))
        });
        reports.map(|(at, line)| (at, line["lost"].as_u64().unwrap())).collect()
    }

    /// Positions and numbers of the requests of [`Piped::ask`].
    fn requests(&self) -> Vec<(usize, usize)> {
        let lines = self.lines().into_iter().enumerate();
        let requests = lines.filter(|(_, line)| line["message"] == "request");
        let number = |line: &Value| line["url.path"].as_str()?.split('/').nth(2)?.parse().ok();
        requests.filter_map(|(at, line)| Some((at, number(&line)?))).collect()
    }
}

#[tokio::test]
async fn a_full_log_pipe_does_not_stop_requests_logins_or_shutdown() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    let (_reader, log) = full_pipe();
    let mut gateway = Piped::start(&entra, &store, &[], Stdio::null(), log.into());
    gateway.serves().await;
    gateway.ask(0..1200).await;
    let token = entra.token().build();
    until("a login", async || gateway.login(&token).await == Some(200)).await;
    assert_eq!(gateway.status("/gateway/health/live").await, Some(200));
    assert!(gateway.lost().await > 0, "lost lines are counted");
    let (status, took) = gateway.ends(Some("TERM")).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AFTER_DRAIN, "{took:?}");
}

#[tokio::test]
async fn a_reader_that_resumes_gets_one_line_with_the_number_of_lost_lines_at_the_gap() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let (reader, log) = full_pipe();
    let mut gateway = Piped::start(&entra, &store, &[], Stdio::null(), log.into());
    gateway.serves().await;
    gateway.ask(0..1200).await;
    let (log, reading) = Log::read(reader);
    until("the loss is reported", async || !log.reports().is_empty()).await;
    gateway.ask(1200..1210).await;
    let counted = gateway.lost().await;
    assert_eq!(gateway.ends(Some("TERM")).await.0.code(), Some(0));
    reading.join().unwrap();

    let [(at, reported)] = log.reports()[..] else { panic!("{:?}", log.reports()) };
    assert_eq!(reported, counted);
    let requests = log.requests();
    let numbers: Vec<_> = requests.iter().map(|(_, number)| *number).collect();
    assert!(numbers.is_sorted(), "in order");
    let missing: Vec<_> = (0..1210).filter(|number| !numbers.contains(number)).collect();
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else { panic!("none lost") };
    assert_eq!(missing.len(), last - first + 1, "one gap: {missing:?}");
    assert!(*last < 1200, "no line after the report is lost: {missing:?}");
    for (place, number) in requests {
        assert_eq!(place > at, number > *last, "the report is at the gap");
    }
    assert!(missing.len() as u64 <= reported);
    assert_eq!(log.lines().last().unwrap()["message"], "stopped");
}

#[tokio::test]
async fn a_full_stdout_pipe_does_not_stop_the_gateway() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let (_reader, out) = full_pipe();
    let (reader, log) = std::io::pipe().unwrap();
    let mut gateway = Piped::start(&entra, &store, &[], out.into(), log.into());
    let (log, reading) = Log::read(reader);
    gateway.serves().await;
    gateway.ask(0..3).await;
    let (status, took) = gateway.ends(Some("TERM")).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AFTER_DRAIN, "{took:?}");
    reading.join().unwrap();
    assert_eq!(log.requests().len(), 3);
    assert_eq!(log.lines().last().unwrap()["message"], "stopped");
}

#[tokio::test]
async fn a_failed_start_exits_although_its_message_is_not_read() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (setting, value, code) in
        [("GATEWAY_LISTEN", address.as_str(), 69), ("GATEWAY_LISTEM", "1", 78)]
    {
        let (_reader, log) = full_pipe();
        let more = [(setting, value)];
        let mut gateway = Piped::start(&entra, &store, &more, Stdio::null(), log.into());
        let (status, took) = gateway.ends(None).await;
        assert_eq!(status.code(), Some(code), "{setting}");
        assert!(took < AFTER_DRAIN, "{setting}: {took:?}");
    }
}

/// Another owner of the pipe may have made it non-blocking, as Node.js does: a write that would
/// block is not a failure.
#[tokio::test]
async fn a_non_blocking_log_pipe_loses_no_line() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let (reader, log) = std::io::pipe().unwrap();
    set_nonblocking(&log, true);
    let mut gateway = Piped::start(&entra, &store, &[], Stdio::null(), log.into());
    gateway.serves().await;
    gateway.ask(0..200).await;
    let (log, reading) = Log::read(reader);
    assert_eq!(gateway.ends(Some("TERM")).await.0.code(), Some(0));
    reading.join().unwrap();
    let numbers: BTreeSet<_> = log.requests().into_iter().map(|(_, number)| number).collect();
    assert_eq!(numbers, (0..200).collect());
}

/// The reader does not return, as after the crash of a log collector.
#[tokio::test]
async fn a_closed_log_pipe_stops_nothing_and_lost_lines_are_counted() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let (reader, log) = std::io::pipe().unwrap();
    let mut gateway = Piped::start(&entra, &store, &[], Stdio::null(), log.into());
    gateway.serves().await;
    drop(reader);
    gateway.ask(0..20).await;
    until("lost lines are counted", async || gateway.lost().await >= 20).await;
    assert_eq!(gateway.ends(Some("TERM")).await.0.code(), Some(0));
}
