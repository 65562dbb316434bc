//! Redis over TLS, and the ways to hand over its key.

use std::path::Path;

use crate::{
    entra::Entra,
    world::{
        self, Kind, Store,
        certificates::certificates,
        gateway::{Gateway, run},
        process::until,
        redis::Redis,
        settings, try_login,
    },
};

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

async fn start(redis: Redis) -> (Store, Entra) {
    (Store::Redis(redis, tempfile::tempdir().unwrap()), Entra::start().await)
}

type More<'a> = &'a [(&'a str, &'a str)];

fn with((store, entra): &(Store, Entra), more: More<'_>) -> Vec<(String, String)> {
    let more: Vec<_> = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    settings(entra, None, store, &more)
}

/// `check`'s line about the store.
async fn line(settings: &[(String, String)]) -> String {
    let told = run(settings, &["check"]).await.stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    told.lines().find(|line| line.contains("session store")).unwrap_or(&told).to_owned()
}

#[tokio::test]
async fn redis_is_believed_by_its_authority_and_its_name() {
    let (right, other) = (certificates(), certificates());
    let ground = start(Redis::start_with_tls(right.path(), &[]).await).await;
    let ca = file(right.path(), "ca.pem");

    let gateway = Gateway::start(&with(&ground, &[("REDIS_CA_FILE", &ca)])).await;
    gateway.wait_until_it_has_keys().await;
    let answer = try_login(&gateway, &ground.1.token().build()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(ground.0.redis().ask(&["KEYS", "session:*"]).lines().count(), 1);

    // The system's roots, as OpenSSL's variable names them.
    assert_eq!(line(&with(&ground, &[("SSL_CERT_FILE", &ca)])).await, "ok      session store");

    let by_address = ground.0.redis().url().replace("localhost", "127.0.0.1");
    let other_ca = file(other.path(), "ca.pem");
    for (more, why) in [
        (&[("REDIS_CA_FILE", other_ca.as_str())][..], "UnknownIssuer"),
        (&[("REDIS_CA_FILE", ca.as_str()), ("REDIS_URL", &by_address)], "NotValidForName"),
        (&[], "UnknownIssuer"),
    ] {
        let settings = with(&ground, more);
        let (told, gateway) = tokio::join!(line(&settings), Gateway::start(&settings));
        assert!(told.starts_with("FAILED") && told.contains(why), "{told}");
        gateway.wait_until_it_has_keys().await;
        let answer = try_login(&gateway, &ground.1.token().build()).await;
        assert_eq!(answer.status(), 503, "{why}");
        assert!(!answer.headers().contains_key("set-cookie"));
        until("its log says why", async || {
            let log = gateway.process.log();
            log.lines().any(|line| line.contains("session store is away") && line.contains(why))
        })
        .await;
    }
}

/// Every character that means something in a URL, or to a shell.
const KEY: &str = "p@ss/w:rd%41+ =?#&\"'\\é";
const ENCODED: &str = "p%40ss%2Fw%3Ard%2541%2B%20%3D%3F%23%26%22%27%5C%C3%A9";

#[tokio::test]
async fn the_key_stands_in_the_url_in_a_variable_or_in_a_file() {
    let user = ["--user", "gateway", "on", &format!(">{KEY}"), "~*", "+@all"];
    let ground = start(Redis::start_with(&[&["--requirepass", KEY][..], &user].concat()).await);
    let ground = ground.await;
    let redis = ground.0.redis();
    let folder = tempfile::tempdir().unwrap();
    let key_file = file(folder.path(), "key");
    std::fs::write(&key_file, format!("{KEY}\n")).unwrap();

    for credentials in ["", "default", "gateway"] {
        let whole = redis.url_for(&format!("{credentials}:{ENCODED}"));
        let bare = if credentials.is_empty() { redis.url() } else { redis.url_for(credentials) };
        for more in [
            &[("REDIS_URL", whole.as_str())][..],
            &[("REDIS_URL", &bare), ("REDIS_PASSWORD", KEY)],
            &[("REDIS_URL", &bare), ("REDIS_PASSWORD_FILE", &key_file)],
        ] {
            let told = line(&with(&ground, more)).await;
            assert_eq!(
                told,
                "ok      session store",
                "{credentials} by {}",
                more.last().unwrap().0
            );
        }
    }
    for (more, why) in
        [(("REDIS_PASSWORD", "another"), "WRONGPASS"), (("REDIS_PASSWORD", ""), "NOAUTH")]
    {
        let told = line(&with(&ground, &[more])).await;
        assert!(told.starts_with("FAILED") && told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn sessions_lie_in_the_database_that_the_url_names() {
    let (gateway, entra, store) = world::alone(Kind::Redis, &[]).await;
    drop(gateway);
    let ground = (store, entra);
    let url = ground.0.redis().url().replace("/0", "/3");
    let gateway = Gateway::start(&with(&ground, &[("REDIS_URL", &url)])).await;
    gateway.wait_until_it_has_keys().await;
    assert_eq!(try_login(&gateway, &ground.1.token().build()).await.status(), 200);
    let keys = |database| ground.0.redis().ask(&["-n", database, "KEYS", "*"]);
    assert!(keys("3").contains("session:") && keys("3").contains("gateway:"));
    assert_eq!(keys("0"), "");
}
