//! Cost of the activity log: logins at a fixed rate without a database, with `SQLite` and with
//! PostgreSQL, side by side. `make logins` runs it with the release build, and prints figures.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    entra::Entra,
    world::{
        database::{Database, DatabaseKind},
        gateway::Gateway,
        logins::{WITHOUT_LIMITS, subject},
        postgres::Postgres,
        process::until,
        recorded::Recorded,
    },
};

/// Logins offered per second.
const RATE: u32 = 2000;
/// Connections of the logins, each with its own subject.
const CONNECTIONS: u32 = 64;
const SPAN: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// Results of one run.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Logins answered with 200 per second, from the first due time until the last answer.
    achieved: f64,
    p50: Duration,
    p99: Duration,
    refused: usize,
}

/// Sends each login at its due time, independent of the previous one; latency counts from the due
/// time until the answer.
async fn offer(gateway: &Gateway, entra: &Entra, span: Duration) -> Figures {
    let found = Arc::new(Mutex::new((Vec::new(), 0)));
    let begun = Instant::now() + Duration::from_millis(200);
    let every = Duration::from_secs(1) * CONNECTIONS / RATE;
    let mut callers = JoinSet::new();
    for number in 0..CONNECTIONS {
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let token = entra.token().oid(&subject(number as usize)).build();
        let request = format!(
            "POST /external/login HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 0\r\n\r\n",
            gateway.address()
        );
        let found = Arc::clone(&found);
        callers.spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut due = begun + Duration::from_secs(1) * number / RATE;
            while due < begun + span {
                sleep_until(due).await;
                stream.write_all(request.as_bytes()).await.unwrap();
                let status = answer(&mut stream).await;
                let took = due.elapsed();
                let mut found = found.lock().unwrap();
                if status == 200 {
                    found.0.push(took);
                } else {
                    found.1 += 1;
                }
                drop(found);
                due += every;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let lasted = begun.elapsed();
    let (mut times, refused) = found.lock().unwrap().clone();
    times.sort_unstable();
    let at = |hundredths: usize| times[(times.len() - 1) * hundredths / 100];
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let achieved = times.len() as f64 / lasted.as_secs_f64();
    Figures { achieved, p50: at(50), p99: at(99), refused }
}

/// Reads an answer to its end; returns its status.
async fn answer(stream: &mut BufReader<TcpStream>) -> u16 {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the connection ended");
        if line.starts_with("HTTP/1.1 ") {
            status = line[9..12].parse().unwrap();
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    status
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make logins"]
async fn two_thousand_logins_per_second_succeed_with_and_without_a_database() {
    // Both databases sync what they confirm to the disk.
    let postgres = Database::Postgres(Postgres::start_with(&["fsync=on"]).await);
    let grounds = [
        ("off", Recorded::start(DatabaseKind::Sqlite).await, &[("DATABASE_URL", "")][..]),
        ("SQLite", Recorded::start(DatabaseKind::Sqlite).await, &[]),
        ("PostgreSQL", Recorded::over(postgres).await, &[]),
    ];
    let mut sides = Vec::new();
    for (name, ground, more) in &grounds {
        let more = [&WITHOUT_LIMITS[..], more].concat();
        let gateway = ground.gateway(&more).await;
        offer(&gateway, &ground.entra, Duration::from_secs(1)).await;
        sides.push((*name, ground, gateway, Vec::new()));
    }
    for round in 0..ROUNDS {
        for at in 0..sides.len() {
            let at = (at + round) % sides.len();
            let (name, ground, gateway, figures) = &mut sides[at];
            let found = offer(gateway, &ground.entra, SPAN).await;
            println!("{name:>10}: {found:.1?}");
            figures.push(found);
        }
    }
    let off = sides[0].3.clone();
    println!("\n| log | logins/s | p50 | p99 | rate, p50, p99 on : off |\n|---|---|---|---|---|");
    for (name, ground, _gateway, figures) in &sides {
        let of = |value: &dyn Fn(&Figures) -> f64| median(figures.iter().map(value).collect());
        let ratio = |value: &dyn Fn(&Figures) -> f64| {
            median(figures.iter().zip(&off).map(|(on, off)| value(on) / value(off)).collect())
        };
        let rate = |it: &Figures| it.achieved;
        let p50 = |it: &Figures| it.p50.as_secs_f64() * 1000.0;
        let p99 = |it: &Figures| it.p99.as_secs_f64() * 1000.0;
        println!(
            "| {name} | {:.0} | {:.1} ms | {:.1} ms | {:.2}, {:.2}, {:.2} |",
            of(&rate),
            of(&p50),
            of(&p99),
            ratio(&rate),
            ratio(&p50),
            ratio(&p99)
        );
        assert!(figures.iter().all(|it| it.refused == 0), "{name}: {figures:?}");
        if *name != "off" {
            let answered: f64 = figures.iter().map(|it| it.achieved).sum();
            until("the logins are recorded", async || {
                #[expect(clippy::cast_precision_loss, reason = "some thousands")]
                let written = ground.database.count("activity WHERE kind = 'login'") as f64;
                written > answered * SPAN.as_secs_f64() * 0.9
            })
            .await;
        }
    }
}
