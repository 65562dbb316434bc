//! Redis credentials from the app's Azure identity, and from a key in Key Vault.

use std::time::{Duration, Instant};

use crate::{
    azure::{Azure, VAULT, oid},
    entra::Entra,
    world::{
        self, Kind, Store, client,
        gateway::{Gateway, run},
        json,
        process::until,
        settings, try_login,
    },
};

const CLIENT_ID: &str = "c1c1c1c1-0000-1111-2222-333344445555";

/// All servers except the gateway.
struct Ground {
    azure: Azure,
    entra: Entra,
    store: Store,
}

impl Ground {
    async fn start() -> Self {
        let store = Store::start(Kind::Redis).await;
        let azure = Azure::start(store.redis().port()).await;
        // Redis requires a password.
        store.redis().ask(&["ACL", "SETUSER", "default", "resetpass"]);
        Self { azure, entra: Entra::start().await, store }
    }

    fn settings(&self, more: &[(&str, String)]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = vec![
            ("GATEWAY_OPS_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("GATEWAY_LOGIN_LIMIT".to_owned(), "off".to_owned()),
            ("AZURE_CLIENT_ID".to_owned(), CLIENT_ID.to_owned()),
        ];
        all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        settings(&self.entra, None, &self.store, &all)
    }

    fn by_identity(&self) -> Vec<(&'static str, String)> {
        let mut more = self.azure.of_the_platform();
        more.push(("REDIS_AUTH", "managed_identity".to_owned()));
        more
    }

    fn by_vault(&self, version: &str) -> Vec<(&'static str, String)> {
        let mut more = self.azure.of_the_platform();
        more.extend(self.azure.way_out());
        more.push(("REDIS_AUTH", "key_vault".to_owned()));
        let url = format!("https://{VAULT}/secrets/redis-key{version}");
        more.push(("REDIS_KEY_VAULT_SECRET_URL", url));
        more
    }

    async fn gateway(&self, more: &[(&str, String)]) -> Gateway {
        let gateway = Gateway::start(&self.settings(more)).await;
        gateway.wait_until_it_has_keys().await;
        gateway
    }

    async fn login(&self, gateway: &Gateway) -> u16 {
        try_login(gateway, &self.entra.token().build()).await.status().as_u16()
    }

    async fn line(&self, more: &[(&str, String)]) -> String {
        let output = run(&self.settings(more), &["check"]).await.stdout;
        let output = String::from_utf8_lossy(&output).into_owned();
        output.lines().find(|line| line.contains("session store")).unwrap_or(&output).to_owned()
    }

    /// Ids of the gateway's Redis connections.
    fn connections(&self) -> Vec<String> {
        let list = self.store.redis().ask(&["CLIENT", "LIST"]);
        let ours = list.lines().filter(|line| line.contains("user=0d0d"));
        ours.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

/// Problems reported to operators.
async fn degraded(gateway: &Gateway) -> String {
    let url = gateway.ops_url("/health/ready").expect("an operators' listener");
    json(client().get(url).send().await.unwrap()).await["degraded"].to_string()
}

#[tokio::test]
async fn tokens_of_the_apps_identity_are_renewed_on_an_open_connection() {
    let ground = Ground::start().await;
    ground.azure.doings().life = Duration::from_secs(4);
    let gateway = ground.gateway(&ground.by_identity()).await;
    until("login works", async || ground.login(&gateway).await == 200).await;
    let at_first = ground.connections();
    assert_eq!(at_first.len(), 1);
    // Each token is renewed after half of its lifetime. Redis accepts only the last two and
    // disconnects clients that authenticated with an older one.
    let mut logins = 0;
    while ground.azure.doings().tokens.len() < 6 {
        assert_eq!(ground.login(&gateway).await, 200, "after {logins} logins");
        logins += 1;
    }
    assert!(logins > 20, "{logins}");
    until("the gateway used the last token", async || {
        let list = ground.store.redis().ask(&["CLIENT", "LIST"]);
        let newest = oid(ground.azure.doings().tokens.len() - 1);
        list.lines().any(|line| line.contains(&format!("user={newest} ")))
    })
    .await;
    assert_eq!(ground.connections(), at_first, "the connections stayed open");
    {
        let doings = ground.azure.doings();
        assert_eq!(doings.asked[0]["resource"], "https://redis.azure.com");
        assert_eq!(doings.asked[0]["client_id"], CLIENT_ID);
    }
    // A disconnected client reconnects with the current token.
    let id = at_first[0].strip_prefix("id=").unwrap();
    ground.store.redis().ask(&["CLIENT", "KILL", "ID", id]);
    until("login works again", async || ground.login(&gateway).await == 200).await;
    assert_ne!(ground.connections(), at_first);
    let log = gateway.process.log();
    assert!(!ground.azure.doings().tokens.iter().any(|token| log.contains(token.as_str())));
}

#[tokio::test]
async fn an_unavailable_identity_service_is_retried_and_breaks_no_open_connection() {
    let ground = Ground::start().await;
    {
        let mut doings = ground.azure.doings();
        doings.is_away = true;
        doings.life = Duration::from_secs(12);
    }
    let line = ground.line(&ground.by_identity()).await;
    assert!(line.starts_with("FAIL ") && line.contains("no credentials: "), "{line}");
    // The message names the address and the setting to check.
    let address = ground.store.redis().address();
    assert!(line.contains(&format!("{address}: no credentials: ")), "{line}");
    assert!(line.contains("; see REDIS_AUTH and AZURE_CLIENT_ID"), "{line}");
    assert!(!line.contains(" { "), "{line}");
    let gateway = ground.gateway(&ground.by_identity()).await;
    assert_eq!(ground.login(&gateway).await, 503);
    until("a problem is shown", async || degraded(&gateway).await.contains("no credentials")).await;

    ground.azure.doings().is_away = false;
    until("login works", async || ground.login(&gateway).await == 200).await;
    assert_eq!(degraded(&gateway).await.matches("sessions").count(), 0);

    // The current token stays valid for the rest of its lifetime.
    ground.azure.doings().is_away = true;
    until("a problem is shown", async || degraded(&gateway).await.contains("could not be renewed"))
        .await;
    assert_eq!(ground.login(&gateway).await, 200);
    assert!(gateway.process.log().contains("credentials for Redis could not be renewed"));
    ground.azure.doings().is_away = false;
    until("the problem is cleared", async || !degraded(&gateway).await.contains("sessions")).await;
    assert!(gateway.process.log().contains("credentials for Redis are renewed again"));
}

#[tokio::test]
async fn a_kubernetes_token_is_exchanged_for_an_entra_token() {
    let ground = Ground::start().await;
    let mut more = ground.azure.of_kubernetes();
    more.extend(ground.azure.way_out());
    more.push(("REDIS_AUTH", "managed_identity".to_owned()));
    more.push(("REDIS_TOKEN_SCOPE", "https://redis.example/.default".to_owned()));
    let gateway = ground.gateway(&more).await;
    until("login works", async || ground.login(&gateway).await == 200).await;
    let asked = ground.azure.doings().asked[0].clone();
    for (name, value) in [
        ("client_assertion", "of Kubernetes' own"),
        ("client_id", CLIENT_ID),
        ("scope", "https://redis.example/.default"),
        ("tenant", "aaaabbbb-0000-cccc-1111-dddd2222eeee"),
    ] {
        assert_eq!(asked[name], value);
    }
}

#[tokio::test]
async fn a_key_rotated_in_key_vault_is_used_without_a_restart() {
    let ground = Ground::start().await;
    let redis = ground.store.redis();
    let rotate = |key: &str, is_stored: bool| {
        redis.ask(&["ACL", "SETUSER", "default", "resetpass", &format!(">{key}")]);
        if is_stored {
            key.clone_into(&mut ground.azure.doings().key);
        }
        redis.ask(&["CLIENT", "KILL", "USER", "default"]);
    };
    rotate("the first key", true);
    let gateway = ground.gateway(&ground.by_vault("")).await;
    until("login works", async || ground.login(&gateway).await == 200).await;
    assert_eq!(ground.line(&ground.by_vault("/0a1b")).await, "ok      session store");
    assert!(
        ground
            .azure
            .doings()
            .asked
            .iter()
            .any(|asked| { asked.get("version").is_some_and(|version| version == "0a1b") })
    );

    rotate("the second key", true);
    let begun = Instant::now();
    until("the gateway has the second key", async || ground.login(&gateway).await == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());

    // Redis gets the new key first, the vault later.
    rotate("the third key", false);
    until("Redis refuses the gateway", async || ground.login(&gateway).await == 503).await;
    "the third key".clone_into(&mut ground.azure.doings().key);
    until("the gateway has the third key", async || ground.login(&gateway).await == 200).await;
    let log = gateway.process.log();
    for key in ["the first key", "the second key", "the third key"] {
        assert!(!log.contains(key));
    }
}

#[tokio::test]
async fn conflicting_redis_settings_exit_with_78_and_name_the_problem() {
    let (gateway, entra, store) = world::alone(Kind::Redis, &[]).await;
    drop(gateway);
    let vault = "https://kv.vault.azure.net/secrets/redis-key";
    for (more, problem) in [
        (
            &[("REDIS_AUTH", "certificate")][..],
            "REDIS_AUTH: invalid value \"certificate\" (expected key, managed_identity, key_vault)",
        ),
        (&[("REDIS_AUTH", "key_vault")], "REDIS_KEY_VAULT_SECRET_URL: is required"),
        (
            &[
                ("REDIS_AUTH", "key_vault"),
                ("REDIS_KEY_VAULT_SECRET_URL", "https://kv.example/secrets/a"),
            ],
            "expected a Key Vault host: *.vault.azure.net, ",
        ),
        (
            &[("REDIS_AUTH", "managed_identity"), ("REDIS_PASSWORD", "a key")],
            "REDIS_PASSWORD: must not be set: REDIS_AUTH names another source of the key",
        ),
        (
            &[
                ("REDIS_AUTH", "key_vault"),
                ("REDIS_KEY_VAULT_SECRET_URL", vault),
                ("REDIS_URL", "rediss://:hunter2@cache:6380/0"),
            ],
            "REDIS_URL: must not hold a password: REDIS_AUTH names another source of the key",
        ),
        (
            &[("REDIS_AUTH", "managed_identity"), ("REDIS_URL", "rediss://user@cache:6380/0")],
            "REDIS_URL: must not name a user: ",
        ),
        (
            &[("REDIS_AUTH", "managed_identity"), ("REDIS_TOKEN_SCOPE", "https://redis.azure.com")],
            "REDIS_TOKEN_SCOPE: must end in /.default",
        ),
        (
            &[("REDIS_AUTH", "managed_identity"), ("AZURE_FEDERATED_TOKEN_FILE", "/a/token")],
            "AZURE_CLIENT_ID: is required",
        ),
    ] {
        let more: Vec<_> = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let ended = run(&settings(&entra, None, &store, &more), &["check"]).await;
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(78), "{problem}");
        assert!(text.contains("1 problem ") && text.contains(problem), "{problem} in {text}");
    }
}
