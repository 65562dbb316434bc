//! Redis Sentinel and Cluster: failing masters, moving slots.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    entra::Entra,
    redis_rights::{documented, documented_for_a_cluster},
    world::{
        Store, WithSession, client,
        gateway::Gateway,
        process::{Process, until},
        redis::{Redis, ask_at, free_port},
        session_in, settings, try_login,
    },
};

/// Time after which sentinels and cluster nodes declare a node down, in ms.
const DOWN_AFTER: &str = "1000";
/// Maximum time from the promotion of a new master to the next login.
const RESUMES: Duration = Duration::from_secs(2);
/// The same where the old master hangs: the gateway's connections to it must time out first.
const RESUMES_AFTER_HANG: Duration = Duration::from_secs(4);
/// Maximum time from the end of a slot migration to the next login, where the slot was accessed
/// during the migration.
const RESUMES_AFTER_MIGRATION: Duration = Duration::from_secs(12);

struct Ground {
    entra: Entra,
    store: Store,
}

impl Ground {
    /// `redis`: one of the servers.
    async fn start(redis: Redis) -> Self {
        let store = Store::Redis(redis, tempfile::tempdir().unwrap());
        Self { entra: Entra::start().await, store }
    }

    async fn gateway(&self, url: &str, more: &[(&str, &str)]) -> Gateway {
        let mut all = vec![("REDIS_URL".to_owned(), url.to_owned())];
        all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let gateway = Gateway::start(&settings(&self.entra, None, &self.store, &all)).await;
        gateway.wait_until_it_has_keys().await;
        gateway
    }

    /// The session, or `None` if login answers 503.
    async fn try_login(&self, gateway: &Gateway) -> Option<String> {
        let answer = try_login(gateway, &self.entra.token().build()).await;
        let is_open = answer.status() == 200;
        assert!(is_open || answer.status() == 503, "{}", answer.status());
        assert_eq!(answer.headers().contains_key("set-cookie"), is_open);
        is_open.then(|| session_in(&answer))
    }

    async fn login_in_time(&self, gateway: &Gateway, limit: Duration, how: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(session) = self.try_login(gateway).await {
                println!("{how}: logins resume after {:?}", begun.elapsed());
                assert!(begun.elapsed() < limit, "{how}: {:?}", begun.elapsed());
                return session;
            }
            assert!(begun.elapsed() < limit, "{how}: no login");
        }
    }
}

async fn logout(gateway: &Gateway, session: &str) -> u16 {
    let request = client().post(gateway.url("/external/logout")).session(session);
    request.send().await.unwrap().status().as_u16()
}

fn key(session: &str) -> String {
    format!("session:{session}")
}

fn has_session(port: u16, session: &str) -> bool {
    ask_at(port, &["EXISTS", &key(session)]).is_some_and(|answer| answer == "1")
}

fn is_master(port: u16) -> bool {
    ask_at(port, &["ROLE"]).is_some_and(|answer| answer.starts_with("master"))
}

/// Three sentinels that watch a master, and their ports.
fn sentinels(master: u16) -> (Vec<Process>, Vec<u16>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let start = |port: &u16| {
        let file = folder.path().join(format!("{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main {DOWN_AFTER}\n\
             sentinel failover-timeout main 4000\n"
        );
        std::fs::write(&file, text).unwrap();
        Process::start(Command::new("redis-server").arg(file).arg("--sentinel"), &[], "KILL")
    };
    let processes = ports.iter().map(start).collect();
    (processes, ports, folder)
}

/// redis-cli's output for a sentinel, which has none of the users of the other servers.
fn ask_sentinel(port: u16, command: &[&str]) -> String {
    let port = port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(command).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn logins_follow_the_master_that_sentinels_name() {
    let first = Redis::start().await;
    let first_port = first.port();
    let replica_of = first_port.to_string();
    let mut second = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {replica_of}")]).await;
    let ground = Ground::start(first).await;
    let (_sentinels, ports, _folder) = sentinels(first_port);
    until("the sentinels know all nodes", async || {
        ports.iter().all(|port| {
            let answer = ask_sentinel(*port, &["SENTINEL", "MASTER", "main"]).replace('\n', " ");
            answer.contains("num-slaves 1 ") && answer.contains("num-other-sentinels 2 ")
        })
    })
    .await;
    let url = format!(
        "redis-sentinel://127.0.0.1:{}/0?sentinelServiceName=main&node=127.0.0.1:{}&node=127.0.0.1:{}",
        ports[0], ports[1], ports[2]
    );
    let gateway = ground.gateway(&url, &[("GATEWAY_LOGIN_LIMIT", "off")]).await;
    let open_session = ground.try_login(&gateway).await.expect("a session");
    let ended = ground.try_login(&gateway).await.expect("a session");
    assert_eq!(logout(&gateway, &ended).await, 204);
    until("the replica is in sync", async || {
        has_session(second.port(), &open_session) && !has_session(second.port(), &ended)
    })
    .await;

    // The master dies.
    let begun = Instant::now();
    let Ground { entra, store: Store::Redis(mut first, folder) } = ground else { unreachable!() };
    first.end();
    until("another master is promoted", async || is_master(second.port())).await;
    println!("another master after {:?}", begun.elapsed());
    let ground = Ground { entra, store: Store::Redis(first, folder) };
    let session = ground.login_in_time(&gateway, RESUMES, "a master that died").await;
    assert!(has_session(second.port(), &session) && has_session(second.port(), &open_session));

    // The old master restarts as a replica with its master's data only.
    let Ground { entra, store: Store::Redis(mut first, folder) } = ground else { unreachable!() };
    first.begin().await;
    until("the old master is a replica", async || {
        !is_master(first_port)
            && has_session(first_port, &session)
            && has_session(first_port, &open_session)
    })
    .await;
    until("the sentinels know the replica", async || {
        ports.iter().all(|port| {
            let answer = ask_sentinel(*port, &["SENTINEL", "REPLICAS", "main"]).replace('\n', " ");
            answer.contains("flags slave master-link") || answer.contains("master-link-status ok")
        })
    })
    .await;

    // The master hangs and resumes later.
    second.freeze();
    until("another master is promoted", async || is_master(first_port)).await;
    let ground = Ground { entra, store: Store::Redis(first, folder) };
    ground.login_in_time(&gateway, RESUMES_AFTER_HANG, "a master that hung").await;
    second.thaw();
    let mut minted = Vec::new();
    while is_master(second.port()) {
        minted.extend(ground.try_login(&gateway).await);
    }
    minted.extend(ground.try_login(&gateway).await);
    minted = minted.split_off(minted.len().saturating_sub(10));
    assert!(!minted.is_empty());
    for session in &minted {
        assert!(has_session(first_port, session), "{session} was written to the old master");
    }
    second.end();
}

/// Three masters and a spare node.
struct Cluster {
    nodes: Vec<Redis>,
    _folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        for number in 0..4 {
            let file = folder.path().join(format!("{number}.conf")).display().to_string();
            let bus = free_port().to_string();
            let options = [
                ["--cluster-enabled", "yes"],
                ["--cluster-node-timeout", DOWN_AFTER],
                ["--cluster-config-file", &file],
                ["--cluster-port", &bus],
                ["--enable-debug-command", "yes"],
            ];
            nodes.push(Redis::start_with(options.as_flattened()).await);
        }
        let cluster = Self { nodes, _folder: folder };
        let three: Vec<_> = cluster.nodes[..3].iter().map(address).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(three.iter().map(String::as_str));
        Self::manage(&create);
        until("the cluster is complete", async || {
            cluster.nodes[..3]
                .iter()
                .all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        })
        .await;
        cluster
    }

    fn manage(command: &[&str]) {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(command).arg("--cluster-yes").output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{answer}");
    }

    /// URL with the user described in the documentation.
    fn url(&self) -> String {
        let rights = [documented(), documented_for_a_cluster()].concat();
        let mut set = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">hunter2"];
        set.extend(rights.iter().map(String::as_str));
        for node in &self.nodes {
            assert_eq!(node.ask(&set), "OK");
        }
        let other = address(&self.nodes[1]);
        format!("redis-cluster://gateway:hunter2@{}?node={other}", address(&self.nodes[0]))
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    /// Index of the node that holds a slot now.
    fn holder(&self, slot: u16) -> usize {
        let of = |node: &Redis| {
            node.ask(&["CLUSTER", "NODES"])
                .lines()
                .find(|line| line.contains("myself,master"))
                .is_some_and(|line| {
                    line.split(' ').skip(8).any(|range| {
                        let (from, to) = range.split_once('-').unwrap_or((range, range));
                        let (from, to) = (from.parse(), to.parse());
                        from.is_ok_and(|from: u16| from <= slot)
                            && to.is_ok_and(|to: u16| slot <= to)
                    })
                })
        };
        self.nodes[..3].iter().position(of).expect("a holder")
    }

    /// True if any node holds the session.
    fn has(&self, session: &str) -> bool {
        let key = key(session);
        let port = self.nodes[0].port().to_string();
        let cli = Command::new("redis-cli").args(["-c", "-p", &port, "EXISTS", &key]).output();
        String::from_utf8_lossy(&cli.unwrap().stdout).trim() == "1"
    }

    /// Runs a command on the node that holds its key.
    fn ask(&self, command: &[&str]) -> String {
        let port = self.nodes[0].port().to_string();
        let cli = Command::new("redis-cli").args(["-c", "-p", &port]).args(command).output();
        String::from_utf8_lossy(&cli.unwrap().stdout).trim().to_owned()
    }

    /// Moves a slot key by key.
    fn move_slot(&self, slot: u16, to: usize) {
        let from = self.holder(slot);
        let (slot_text, port) = (slot.to_string(), self.nodes[to].port().to_string());
        let (from_id, to_id) = (self.id(from), self.id(to));
        let set = |node: usize, what: &[&str]| {
            let answer =
                self.nodes[node].ask(&[&["CLUSTER", "SETSLOT", &slot_text], what].concat());
            assert_eq!(answer, "OK");
        };
        set(to, &["IMPORTING", &from_id]);
        set(from, &["MIGRATING", &to_id]);
        loop {
            let keys = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot_text, "100"]);
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                let answer =
                    self.nodes[from].ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]);
                assert!(answer == "OK" || answer == "NOKEY", "{answer}");
            }
        }
        // The new holder first, then all others, in redis-cli's order.
        for node in [to, (to + 1) % 3, (to + 2) % 3] {
            set(node, &["NODE", &to_id]);
        }
    }
}

fn address(node: &Redis) -> String {
    format!("127.0.0.1:{}", node.port())
}

#[tokio::test]
async fn sessions_in_a_cluster_survive_a_moved_slot_and_a_dead_master() {
    let mut cluster = Cluster::start().await;
    let ground = Ground::start(Redis::start().await).await;
    let more = [("GATEWAY_LOGIN_LIMIT", "off"), ("GATEWAY_SESSIONS_PER_SUBJECT", "64")];
    let gateway = ground.gateway(&cluster.url(), &more).await;

    // Sessions are created on each node, because their slots follow their ids; one is ended.
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(ground.try_login(&gateway).await.expect("a session"));
    }
    for node in &cluster.nodes[..3] {
        assert!(!node.ask(&["KEYS", "session:*"]).is_empty(), "every node holds sessions");
    }
    let ended = sessions.pop().unwrap();
    assert_eq!(logout(&gateway, &ended).await, 204);
    assert!(!cluster.has(&ended) && sessions.iter().all(|session| cluster.has(session)));
    let entries = cluster.ask(&["XRANGE", "gateway:ended", "-", "+"]);
    assert!(entries.contains(&ended));

    // The sweep removes records that Flask restored, on any node.
    cluster.ask(&["SET", &key(&ended), "brought back"]);
    let over = format!("{}.1700000000", "A".repeat(22));
    cluster.ask(&["SET", &key(&over), "over"]);
    cluster.ask(&["ZADD", "gateway:{notes}:expiries", "1700000000", &over]);
    let bearer = ground.entra.token().build();
    until("the sweep removes both", async || !cluster.has(&ended) && !cluster.has(&over)).await;

    // The notes' slot moves between two logins.
    let notes: u16 = cluster.ask(&["CLUSTER", "KEYSLOT", "{notes}"]).parse().unwrap();
    let to = (cluster.holder(notes) + 1) % 3;
    cluster.move_slot(notes, to);
    assert_eq!(cluster.holder(notes), to);
    ground.login_in_time(&gateway, RESUMES, "a slot that moved").await;
    // A session's slot is in migration.
    let moving = sessions.pop().unwrap();
    let slot: u16 = cluster.ask(&["CLUSTER", "KEYSLOT", &key(&moving)]).parse().unwrap();
    let from = cluster.holder(slot);
    let to = (from + 1) % 3;
    let to_port = cluster.nodes[to].port().to_string();
    let slot_text = slot.to_string();
    let (from_id, to_id) = (cluster.id(from), cluster.id(to));
    cluster.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &from_id]);
    cluster.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &to_id]);
    cluster.nodes[from].ask(&["MIGRATE", "127.0.0.1", &to_port, &key(&moving), "0", "1000"]);
    // fred fails after ASK, and the gateway creates a new client (docs/scaling.md).
    let status = logout(&gateway, &moving).await;
    assert!(matches!(status, 503 | 204), "{status}");
    cluster.move_slot(slot, to);
    let begun = Instant::now();
    until("logins resume", async || ground.try_login(&gateway).await.is_some()).await;
    println!("a slot on its way: logins resume after {:?}", begun.elapsed());
    assert!(begun.elapsed() < RESUMES_AFTER_MIGRATION, "{:?}", begun.elapsed());
    assert_eq!(logout(&gateway, &moving).await, 204);
    // The master of the notes' slot dies, and its replica is promoted.
    let holder = cluster.holder(notes);
    let (spare, master) = (address(&cluster.nodes[3]), cluster.id(holder));
    let existing = address(&cluster.nodes[holder]);
    Cluster::manage(&[
        "--cluster",
        "add-node",
        &spare,
        &existing,
        "--cluster-slave",
        "--cluster-master-id",
        &master,
    ]);
    until("the replica is in sync", async || {
        let answer = cluster.nodes[3].ask(&["INFO", "replication"]);
        answer.contains("master_link_status:up")
    })
    .await;
    let before = ground.try_login(&gateway).await.expect("a session");
    let begun = Instant::now();
    cluster.nodes[holder].end();
    until("the replica is master", async || is_master(cluster.nodes[3].port())).await;
    println!("the replica is master after {:?}", begun.elapsed());
    until("the cluster is complete", async || {
        (0..4)
            .filter(|node| *node != holder)
            .all(|node| cluster.nodes[node].ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    })
    .await;
    ground.login_in_time(&gateway, RESUMES, "a master of a cluster that died").await;
    assert_eq!(logout(&gateway, &before).await, 204);
    let by_token = client().post(gateway.url("/external/logout")).bearer_auth(&bearer);
    assert_eq!(by_token.send().await.unwrap().status(), 204);
    for node in (0..4).filter(|node| *node != holder) {
        let denied = cluster.nodes[node].ask(&["ACL", "LOG"]);
        assert!(!denied.contains("gateway"), "{denied}");
    }
}
