//! `GATEWAY_EXTERNAL_ACCESS=managed` and the commands with the embedded database: an
//! administrator's decision takes effect within two seconds and is recorded.

use serde_json::Value;

use crate::world::{
    API, Kind, World, client,
    database::{Database, DatabaseKind},
    gateway::{Gateway, run},
    process::until,
    status, try_login,
};

const METADATA: &str = "/.well-known/oauth-protected-resource";

struct Ground {
    world: World,
    settings: Vec<(String, String)>,
    database: Database,
}

impl Ground {
    async fn start(kind: Kind, database: DatabaseKind) -> Self {
        let database = Database::start(database).await;
        let mut world = World::start(kind).await;
        let url = database.url();
        let mut settings = world.settings_with(&[("DATABASE_URL", &url)]);
        for (name, value) in &mut settings {
            if name == "GATEWAY_EXTERNAL_ACCESS" {
                "managed".clone_into(value);
            }
        }
        settings.retain(|(name, _)| name != "GATEWAY_EXPOSURE_ACCEPTED_BY");
        world.gateway = Gateway::start(&settings).await;
        world.gateway.wait_until_it_has_keys().await;
        let ground = Self { world, settings, database };
        until("upstream answers", async || ground.world.gateway.is_ready().await).await;
        ground
    }

    /// Runs a command with the gateway's settings and returns its output.
    async fn command(&self, line: &str) -> String {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&self.settings, &arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {} {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    async fn metadata(&self) -> u16 {
        status(self.world.gateway.url(METADATA), "").await
    }

    async fn kinds(&self) -> Vec<String> {
        let lines = self.command("activity --json").await;
        lines.lines().map(|line| json_of(line)["kind"].as_str().unwrap().to_owned()).collect()
    }
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

async fn decisions_by_command(kind: Kind) {
    let ground = Ground::start(kind, DatabaseKind::Sqlite).await;
    let (world, gateway) = (&ground.world, &ground.world.gateway);
    assert_eq!(ground.metadata().await, 404, "off until an administrator enables it");
    let enable = "access enable --accepted-by Ada --i-understand-ids-become-public";
    assert!(ground.command(enable).await.starts_with("external access is on\n"));
    until("metadata answers", async || ground.metadata().await == 200).await;
    let current = json_of(&ground.command("access status --json").await);
    assert_eq!((&current["enabled"], &current["by"]["name"]), (&true.into(), &"Ada".into()));

    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let oid = world.entra.token().claims()["oid"].as_str().unwrap().to_owned();
    let listed = json_of(&ground.command("sessions list --json").await);
    assert_eq!(listed["subject"], oid);
    let handle = listed["id"].as_str().unwrap().to_owned();
    let logged = json_of(ground.command("activity --json --kind login").await.trim());
    assert_eq!(
        (&logged["subject"], &logged["session"]),
        (&oid.clone().into(), &handle.clone().into())
    );
    assert!(!ground.command("activity --json").await.contains(&session), "ids are secrets");

    let status_of_session = async || status(gateway.url(API), &session).await;
    assert_eq!(status_of_session().await, 200);
    assert_eq!(ground.command(&format!("sessions end {handle} --by Ada")).await, "1 ended\n");
    until("the ended session is refused", async || status_of_session().await == 401).await;
    assert_eq!(ground.command("sessions list --json").await, "");

    let second = world.login(&token).await;
    let block = format!("access block --subject {oid} --for 1h --by Ada");
    assert!(ground.command(&block).await.starts_with("blocked until "));
    until("logins are blocked", async || try_login(gateway, &token).await.status() == 403).await;
    until("the session has ended", async || {
        ground.command("sessions list --json").await.is_empty()
    })
    .await;
    let admitted = world.entra.token().roles(&["ExternalApi"]).build();
    let guarded = client().get(gateway.url("/external/x")).bearer_auth(&admitted).send();
    assert_eq!(guarded.await.unwrap().status(), 403);
    ground.command(&format!("access unblock --subject {oid}")).await;
    until("logins are allowed again", async || try_login(gateway, &token).await.status() == 200)
        .await;
    assert!(!second.is_empty());

    assert!(ground.command("sessions end --all").await.ends_with(" ended\n"));
    assert_eq!(ground.command("access disable --by Ada").await, "external access is off\n");
    until("metadata is 404", async || ground.metadata().await == 404).await;
    assert_eq!(try_login(gateway, &token).await.status(), 404);
    let kinds = ground.kinds().await;
    for kind in [
        "settings_seen",
        "exposure_accepted",
        "external_access_enabled",
        "login",
        "login_denied",
        "session_ended_by_admin",
        "subject_blocked",
        "subject_unblocked",
        "external_access_disabled",
    ] {
        assert!(kinds.iter().any(|one| one == kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn commands_take_effect_within_two_seconds_with_session_files() {
    decisions_by_command(Kind::Files).await;
}

#[tokio::test]
async fn commands_take_effect_within_two_seconds_with_redis() {
    decisions_by_command(Kind::Redis).await;
}

#[tokio::test]
async fn external_access_turns_off_when_the_database_is_unreadable() {
    let mut ground = Ground::start(Kind::Files, DatabaseKind::Postgres).await;
    ground.command("access enable --accepted-by Ada --i-understand-ids-become-public").await;
    until("metadata answers", async || ground.metadata().await == 200).await;
    let outage = ground.database.make_unavailable().await;
    until("metadata is 404", async || ground.metadata().await == 404).await;
    ground.database.make_available(outage).await;
    until("metadata answers again", async || ground.metadata().await == 200).await;
}
