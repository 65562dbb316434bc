//! SIGHUP: reloadable settings change without a failed request; an invalid file changes nothing.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

use crate::world::{
    API, Kind, World, client,
    gateway::Gateway,
    json,
    process::{TEST_TIMEOUT, until},
    session_in, status, try_login,
};

const METADATA: &str = "/.well-known/oauth-protected-resource";
const OPEN: &str = "GATEWAY_EXTERNAL_ACCESS = \"on\"\nGATEWAY_EXPOSURE_ACCEPTED_BY = \"Ada\"\n";

/// A gateway that reads its access settings from a file.
struct Ground {
    world: World,
    folder: TempDir,
}

impl Ground {
    async fn start(text: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = World::start(Kind::Files).await;
        let file = folder.path().join("gateway.toml");
        fs::write(&file, text).expect("written");
        let mut settings = world.settings_with(more);
        settings.retain(|(name, _)| {
            !matches!(
                name.as_str(),
                "GATEWAY_EXTERNAL_ACCESS" | "GATEWAY_EXPOSURE_ACCEPTED_BY" | "RUST_LOG"
            )
        });
        settings.push(("GATEWAY_CONFIG".to_owned(), file.display().to_string()));
        world.gateway = Gateway::start(&settings).await;
        world.gateway.wait_until_it_has_keys().await;
        let gateway = &world.gateway;
        until("upstream answers", async || gateway.is_ready().await).await;
        Self { world, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    fn gateway(&self) -> &Gateway {
        &self.world.gateway
    }

    /// Number of log lines that hold a text.
    fn log_lines(&self, text: &str) -> usize {
        self.gateway().process.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Writes the file, sends SIGHUP and waits for this log message.
    async fn reload(&self, text: &str, message: &str) {
        let before = self.log_lines(message);
        fs::write(self.file(), text).expect("written");
        self.gateway().process.signal("HUP");
        until(message, async || self.log_lines(message) > before).await;
    }

    async fn status(&self, path: &str) -> u16 {
        let request = client().get(self.gateway().url(path)).timeout(TEST_TIMEOUT);
        request.send().await.expect("an answer").status().as_u16()
    }

    async fn detail(&self) -> serde_json::Value {
        let url = self.gateway().ops_url("/health/ready").expect("operators' listener");
        json(client().get(url).send().await.expect("an answer")).await
    }
}

#[tokio::test]
async fn external_access_opens_and_closes_without_a_restart() {
    let ground = Ground::start("", &[]).await;
    assert_eq!(ground.status(METADATA).await, 404);
    ground.reload(OPEN, "settings reloaded").await;
    until("metadata", async || ground.status(METADATA).await == 200).await;
    assert_eq!(ground.log_lines("\"accepted_by\":\"Ada\""), 1, "who accepted is logged once");
    let session = ground.world.login(&ground.world.entra.token().build()).await;
    ground.reload("GATEWAY_EXTERNAL_ACCESS = \"off\"\n", "settings reloaded").await;
    until("closed", async || ground.status(METADATA).await == 404).await;
    let token = ground.world.entra.token().build();
    assert_eq!(try_login(ground.gateway(), &token).await.status(), 404);
    assert_eq!(status(ground.gateway().url(API), &session).await, 200, "the session stays active");
}

#[tokio::test]
async fn an_invalid_file_keeps_the_old_settings_and_logs_the_reason() {
    let ground = Ground::start(OPEN, &[]).await;
    for (text, reason) in [
        ("GATEWAY_EXTERNAL_ACCESS = ", "gateway.toml"),
        ("GATEWAY_EXTERNAL_ACCESS = \"on\"", "GATEWAY_EXPOSURE_ACCEPTED_BY: is required"),
        ("GATEWAY_EXTERNAL_ACESS = \"off\"", "did you mean GATEWAY_EXTERNAL_ACCESS?"),
        ("GATEWAY_TIMEOUT_HEAD = 7", "GATEWAY_TIMEOUT_HEAD"),
        ("", "no longer holds any setting"),
    ] {
        ground.reload(text, "settings not reloaded: the old ones stay").await;
        assert_eq!(ground.status(METADATA).await, 200, "{text}");
        let detail = ground.detail().await;
        assert_eq!(detail["status"], "degraded", "{detail}");
        assert_eq!(detail["degraded"][0]["part"], "settings", "{detail}");
        assert!(detail["degraded"][0]["reason"].to_string().contains(reason), "{detail}");
    }
    fs::remove_file(ground.file()).expect("removed");
    let before = ground.log_lines("settings not reloaded");
    ground.gateway().process.signal("HUP");
    until("file missing", async || ground.log_lines("settings not reloaded") > before).await;
    ground.reload(OPEN, "settings reloaded").await;
    assert_eq!(ground.detail().await["status"], "ok");
}

#[tokio::test]
async fn settings_fixed_at_start_wait_for_a_restart_and_the_rest_apply() {
    let id = "11111111-2222-3333-4444-555555555555";
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "22222222-2222-3333-4444-555555555555").expect("written");
    let path = secret.path().display().to_string();
    let ground = Ground::start(OPEN, &[("GATEWAY_FRONT_DOOR_ID_FILE", &path)]).await;
    let through = async |id: &str| {
        let request = client().get(ground.gateway().url(METADATA)).header("x-azure-fdid", id);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(through(id).await, 403);
    // An editor may truncate the file before it writes.
    fs::write(secret.path(), "").expect("written");
    ground.reload(OPEN, "settings not reloaded").await;
    assert_eq!(through(id).await, 403);
    fs::write(secret.path(), id).expect("written");
    let more = "GATEWAY_WORKERS = 3\nSESSION_COOKIE_NAME = \"other\"\n";
    ground.reload(&format!("{OPEN}{more}"), "settings reloaded").await;
    until("the new id applies", async || through(id).await == 200).await;
    let token = ground.world.entra.token().build();
    let request = client().post(ground.gateway().url("/external/login")).bearer_auth(token);
    let answer = request.header("x-azure-fdid", id).send().await.expect("an answer");
    assert!(session_in(&answer).contains('.'), "the cookie has its old name");
    for name in ["GATEWAY_WORKERS", "SESSION_COOKIE_NAME"] {
        let log = ground.gateway().process.log();
        let is_reported =
            |line: &str| line.contains(name) && line.contains("changed setting requires a restart");
        assert!(log.lines().any(is_reported), "{name}: {log}");
    }
    assert_eq!(ground.log_lines("\"changed\":\"GATEWAY_FRONT_DOOR_ID\""), 1);
}

#[tokio::test]
async fn a_settings_file_that_blocks_delays_no_request() {
    let mut ground = Ground::start(OPEN, &[("GATEWAY_WORKERS", "1")]).await;
    fs::remove_file(ground.file()).expect("removed");
    let made = Command::new("mkfifo").arg(ground.file()).status().expect("mkfifo");
    assert!(made.success());
    ground.gateway().process.signal("HUP");
    until("the read times out", async || {
        assert_eq!(ground.status("/gateway/health/live").await, 200);
        ground.log_lines("could not be read in time") > 0
    })
    .await;
    assert_eq!(ground.status(METADATA).await, 200);
    let gateway = &mut ground.world.gateway;
    gateway.process.signal("TERM");
    assert!(gateway.process.ended().await.success());
}

#[tokio::test]
async fn new_limits_and_clients_apply_from_the_next_login() {
    let ground = Ground::start(OPEN, &[]).await;
    let login = async || {
        let token = ground.world.entra.token().build();
        try_login(ground.gateway(), &token).await.status().as_u16()
    };
    assert_eq!((login().await, login().await), (200, 200));
    let limited = format!("{OPEN}GATEWAY_LOGIN_LIMIT = \"1/1h\"\n");
    ground.reload(&limited, "settings reloaded").await;
    until("the limit applies", async || login().await == 429).await;
    let unlisted =
        format!("{OPEN}GATEWAY_ALLOWED_CLIENTS = \"33333333-2222-3333-4444-555555555555\"");
    ground.reload(&unlisted, "settings reloaded").await;
    until("the client is refused", async || login().await == 403).await;
    ground.reload(OPEN, "settings reloaded").await;
    until("the client is accepted again", async || login().await == 200).await;
}

#[tokio::test]
async fn the_log_filter_is_reloaded() {
    let ground = Ground::start(OPEN, &[]).await;
    ground.status("/api/before").await;
    until("requests are logged", async || ground.log_lines("/api/before") == 1).await;
    fs::write(ground.file(), "RUST_LOG = \"warn\"\n").expect("written");
    ground.gateway().process.signal("HUP");
    until("the filter applies", async || ground.status(METADATA).await == 404).await;
    ground.status("/api/meanwhile").await;
    ground.reload("nonsense", "settings not reloaded").await;
    ground.reload(OPEN, "settings reloaded").await;
    ground.status("/api/after").await;
    until("requests are logged again", async || ground.log_lines("/api/after") == 1).await;
    assert_eq!(ground.log_lines("/api/meanwhile"), 0);
}

#[tokio::test]
async fn no_request_fails_during_a_hundred_reloads() {
    let ground = Arc::new(Ground::start(OPEN, &[]).await);
    let session = ground.world.login(&ground.world.entra.token().build()).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (ground, session) = (Arc::clone(&ground), session.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let client = client();
                while !stop.load(Ordering::Relaxed) {
                    let request = client.get(ground.gateway().url(API));
                    let request = request.header("cookie", format!("session={session}"));
                    assert_eq!(request.send().await.expect("an answer").status(), 200);
                    assert_eq!(ground.status(METADATA).await, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..100 {
        let before = answered.load(Ordering::Relaxed);
        let text = match round % 3 {
            0 => format!("{OPEN}GATEWAY_SCOPES = \"api://x/{round}\"\n"),
            1 => "nonsense".to_owned(),
            _ => format!("{OPEN}GATEWAY_SESSION_MAX_AGE = \"{round}m\"\n"),
        };
        let message = if round % 3 == 1 { "settings not reloaded" } else { "settings reloaded" };
        ground.reload(&text, message).await;
        until("requests continue", async || answered.load(Ordering::Relaxed) > before).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("every request was answered");
    }
}
