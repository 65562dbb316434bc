//! Callers that log in continuously and record the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::task::JoinSet;

use super::{client, collector::hex, database::Database, session_in};
use crate::entra::Entra;

/// Handle of a session: names it where its id must not appear.
pub(crate) fn handle(session: &str) -> String {
    hex(&digest(&SHA256, session.as_bytes()).as_ref()[..8])
}

/// Results so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// Handles of the sessions created.
    pub(crate) sessions: Vec<String>,
    /// Number of other answers by status; 0 is a failed request.
    pub(crate) others: BTreeMap<u16, usize>,
    /// Durations of the answers with 200.
    pub(crate) times: Vec<Duration>,
}

/// Running callers.
pub(crate) struct Logins {
    answers: Arc<Mutex<Answers>>,
    is_over: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

/// Settings without limits on logins.
pub(crate) const WITHOUT_LIMITS: [(&str, &str); 4] = [
    ("GATEWAY_LOGIN_LIMIT", "off"),
    ("GATEWAY_LOGIN_FAILURE_LIMIT", "off"),
    ("GATEWAY_SESSIONS_PER_SUBJECT", "1000000"),
    // At `trace`, logging costs more than the login.
    ("RUST_LOG", "info"),
];

/// Object id of the subject with this number.
pub(crate) fn subject(number: usize) -> String {
    format!("aaaaaaaa-0000-1111-2222-{number:012}")
}

impl Logins {
    /// Starts `callers` callers, spread over the gateways (`urls` of their `/external/login`). Each
    /// has its own subject and pauses between logins.
    pub(crate) fn start(urls: &[String], entra: &Entra, callers: usize, pause: Duration) -> Self {
        let (answers, is_over) = (Arc::<Mutex<Answers>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for number in 0..callers {
            let url = urls[number % urls.len()].clone();
            let token = entra.token().oid(&subject(number)).build();
            let (answers, is_over) = (Arc::clone(&answers), Arc::clone(&is_over));
            tasks.spawn(async move {
                let client = client();
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = client.post(&url).bearer_auth(&token).send().await;
                    let took = begun.elapsed();
                    let answered = answer.ok().map(|answer| {
                        let status = answer.status().as_u16();
                        (status, (status == 200).then(|| handle(&session_in(&answer))))
                    });
                    note(&answers, answered, took);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { answers, is_over, callers: tasks }
    }

    /// Results so far.
    pub(crate) fn answers(&self) -> Answers {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of answers with 200 so far.
    pub(crate) fn count(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).sessions.len()
    }

    /// Waits for pending answers, then returns all results.
    pub(crate) async fn end(mut self) -> Answers {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller");
        }
        self.answers()
    }
}

fn note(answers: &Mutex<Answers>, answered: Option<(u16, Option<String>)>, took: Duration) {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    match answered {
        Some((_, Some(session))) => {
            answers.sessions.push(session);
            answers.times.push(took);
        }
        Some((status, None)) => *answers.others.entry(status).or_default() += 1,
        None => *answers.others.entry(0).or_default() += 1,
    }
}

/// Logins missing from the activity log, and number of sessions with more than one login record.
pub(crate) fn missing(database: &Database, sessions: &[String]) -> (Vec<String>, usize) {
    let rows = database
        .ask("SELECT session, count(*) FROM activity WHERE kind = 'login' GROUP BY session");
    let mut duplicates = 0;
    let mut found = BTreeSet::new();
    for (session, count) in rows.lines().filter_map(|row| row.split_once('|')) {
        found.insert(session.to_owned());
        duplicates += usize::from(count != "1");
    }
    let missing = sessions.iter().filter(|session| !found.contains(*session)).cloned();
    (missing.collect(), duplicates)
}
