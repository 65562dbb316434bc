//! Both ends of the benchmark: an upstream that does almost nothing, and callers that measure.
//! `benches/run.py` runs it and reads what each part prints.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[path = "../tests/entra/mod.rs"]
mod entra;

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    time::{ClockId, clock_gettime},
};

const SMALL: &[u8] = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nVary: Cookie\r\nContent-Length: 200\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    match argument(1) {
        "upstream" => upstream(argument(2)),
        "rate" => rate(argument(2), argument(3).parse().unwrap()),
        "events" => events(argument(2), argument(3).parse().unwrap()),
        "idle" => idle(argument(2), argument(3).parse().unwrap()),
        "entra" => stand_in(),
        // `cargo test --benches` runs it without arguments.
        _ => {}
    }
}

/// Nanoseconds on a clock that all processes share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// One connection of the upstream.
struct Served {
    stream: TcpStream,
    head: Vec<u8>,
    /// Bytes of a body still to be received and discarded.
    drain: usize,
    unsent: Vec<u8>,
}

/// One thread, one epoll: answers 200 bytes at `/`, 64 KiB at `/64k`, discards request bodies, and
/// sends the time every 5 ms at `/events`.
fn upstream(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let data = |fd: &dyn AsRawFd| epoll::EventData::new_u64(fd.as_raw_fd().cast_unsigned().into());
    epoll::add(&poll, &listener, data(&listener), epoll::EventFlags::IN).unwrap();
    let small = [SMALL, &[b'x'; 200]].concat();
    let large_head = String::from_utf8_lossy(SMALL).replace("200\r\n\r\n", "65536\r\n\r\n");
    let large = [large_head.as_bytes(), &vec![b'x'; 65_536]].concat();
    let mut served: HashMap<u64, Served> = HashMap::new();
    let mut buffer = vec![0; 1 << 20];
    let mut events = Vec::with_capacity(512);
    println!("ready");
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let id = event.data.u64();
            if id == u64::from(listener.as_raw_fd().cast_unsigned()) {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let flags = epoll::EventFlags::IN;
                    epoll::add(&poll, &stream, data(&stream), flags).unwrap();
                    let id = u64::from(stream.as_raw_fd().cast_unsigned());
                    let (head, unsent) = (Vec::new(), Vec::new());
                    served.insert(id, Served { stream, head, drain: 0, unsent });
                }
                continue;
            }
            let Some(one) = served.get_mut(&id) else { continue };
            match turn(one, &mut buffer, &small, &large) {
                Turn::Wait => {
                    let mut flags = epoll::EventFlags::IN;
                    let had = event.flags;
                    if !one.unsent.is_empty() || had.contains(epoll::EventFlags::OUT) {
                        if !one.unsent.is_empty() {
                            flags |= epoll::EventFlags::OUT;
                        }
                        epoll::modify(&poll, &one.stream, data(&one.stream), flags).unwrap();
                    }
                }
                Turn::End => drop(served.remove(&id)),
                Turn::Events => {
                    let one = served.remove(&id).unwrap();
                    epoll::delete(&poll, &one.stream).unwrap();
                    one.stream.set_nonblocking(false).unwrap();
                    thread::spawn(move || say_the_time(one.stream));
                }
            }
        }
    }
}

enum Turn {
    Wait,
    End,
    Events,
}

fn turn(one: &mut Served, buffer: &mut [u8], small: &[u8], large: &[u8]) -> Turn {
    loop {
        if !one.unsent.is_empty() {
            match one.stream.write(&one.unsent) {
                Ok(written) => drop(one.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
                Err(_) => return Turn::End,
            }
            continue;
        }
        let read = match one.stream.read(buffer) {
            Ok(0) => return Turn::End,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::Wait,
            Err(_) => return Turn::End,
        };
        let drained = read.min(one.drain);
        one.drain -= drained;
        one.head.extend_from_slice(&buffer[drained..read]);
        if one.drain > 0 {
            continue;
        }
        if drained > 0 {
            one.unsent.extend_from_slice(small);
            continue;
        }
        while let Some(end) = one.head.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = one.head.drain(..end + 4).collect();
            let length = content_length(&head);
            if head.starts_with(b"GET /events ") {
                return Turn::Events;
            }
            let here = length.min(one.head.len());
            one.head.drain(..here);
            one.drain = length - here;
            if one.drain == 0 {
                let answer = if head.starts_with(b"GET /64k ") { large } else { small };
                match one.stream.write(answer) {
                    Ok(written) => one.unsent.extend_from_slice(&answer[written..]),
                    Err(_) => return Turn::End,
                }
            }
        }
        if read < buffer.len() && one.unsent.is_empty() {
            return Turn::Wait;
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME));
    let digits = at.map_or(&b""[..], |at| &head[at + NAME.len()..]);
    let digits = digits.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

fn say_the_time(mut stream: TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes());
    while sent.is_ok() {
        thread::sleep(Duration::from_millis(5));
        let event = format!("data: {}\n\n", now());
        sent = stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
    }
}

/// Sends 2,000 requests per second over 32 connections for some seconds, each at its due time
/// whether or not others are late; prints the median time from the due time to the answer, in
/// microseconds.
fn rate(address: &str, seconds: u64) {
    const CONNECTIONS: usize = 32;
    const INTERVAL: u64 = 1_000_000_000 / 2_000;
    let request = b"GET / HTTP/1.1\r\nHost: bench.example\r\nAccept: */*\r\n\r\n";
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut connections: Vec<(TcpStream, std::collections::VecDeque<u64>, usize)> = Vec::new();
    for at in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN).unwrap();
        connections.push((stream, std::collections::VecDeque::new(), 0));
    }
    let begun = now() + 1_000_000;
    let end = begun + seconds * 1_000_000_000;
    let (mut due, mut next, mut latencies) = (begun, 0, Vec::new());
    let mut events = Vec::with_capacity(64);
    let mut buffer = vec![0; 65_536];
    let mut length_of_answer = 0;
    while due < end {
        while now() >= due {
            let (stream, moments, _) = &mut connections[next % CONNECTIONS];
            stream.write_all(request).unwrap();
            moments.push_back(due);
            due += INTERVAL;
            next += 1;
        }
        let wait = due.saturating_sub(now());
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::try_from(wait).unwrap() };
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)).unwrap();
        let arrived = now();
        for event in &events {
            let (stream, moments, read) =
                &mut connections[usize::try_from(event.data.u64()).unwrap()];
            let bytes = stream.read(&mut buffer).unwrap();
            assert!(bytes > 0 && buffer.starts_with(b"HTTP/1.1 200"), "an answer");
            // All answers are alike: the first gives their length.
            if length_of_answer == 0 {
                length_of_answer = bytes;
            }
            *read += bytes;
            while *read >= length_of_answer && !moments.is_empty() {
                *read -= length_of_answer;
                latencies.push(arrived - moments.pop_front().unwrap());
            }
        }
    }
    println!("{}", median(latencies) / 1000);
}

/// Reads `/events` for some seconds; prints the median transit time of an event, in microseconds.
fn events(address: &str, seconds: u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: bench.example\r\n\r\n").unwrap();
    let begun = Instant::now();
    let (mut buffer, mut latencies) = (vec![0; 65_536], Vec::new());
    while begun.elapsed() < Duration::from_secs(seconds) {
        let read = stream.read(&mut buffer).unwrap();
        let arrived = now();
        assert!(read > 0, "the stream ended");
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        for event in text.split("data: ").skip(1) {
            let digits: String = event.chars().take_while(char::is_ascii_digit).collect();
            latencies.push(arrived.saturating_sub(digits.parse().unwrap()));
        }
    }
    println!("{}", median(latencies) / 1000);
}

/// Opens connections, sends one request on each and leaves them open until stdin ends.
fn idle(address: &str, count: usize) {
    let mut held = Vec::new();
    let mut buffer = vec![0; 65_536];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n").unwrap();
        assert!(stream.read(&mut buffer).unwrap() > 0, "an answer");
        held.push(stream);
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut buffer);
}

/// Number of subjects that log in.
const SUBJECTS: usize = 2_000;

/// Runs the tests' stand-in for Entra: prints settings for gateway and Flask and a token for each
/// of many subjects, as JSON.
fn stand_in() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let entra = entra::Entra::start().await;
        let token = |n| entra.token().oid(&format!("00000000-0000-0000-0000-{n:012}")).build();
        let tokens: Vec<String> = (0..SUBJECTS).map(token).collect();
        let settings = serde_json::json!({
            "TENANT_ID": entra::TENANT,
            "CLIENT_ID": entra::CLIENT,
            "CUSTOM_IDENTITY_URL_VALUE": entra.url(),
            "CUSTOM_OIDC_METADATA_URL_VALUE": entra.metadata_url(),
            "issuer": entra.issuer_v2(),
            "keys": format!("{}/common/discovery/keys", entra.url()),
            "tokens": tokens,
        });
        println!("{settings}");
        std::future::pending::<()>().await;
    });
}
