//! Redis over TLS, and the sources of its key.

use std::path::Path;

use crate::{
    entra::Entra,
    world::{
        self, Kind, Store,
        certificates::{certificates, expired_certificates},
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

/// `check`'s line about the session store.
async fn line(settings: &[(String, String)]) -> String {
    let output = run(settings, &["check"]).await.stdout;
    let output = String::from_utf8_lossy(&output).into_owned();
    output.lines().find(|line| line.contains("session store")).unwrap_or(&output).to_owned()
}

#[tokio::test]
async fn redis_certificates_are_verified_by_authority_and_name() {
    let (right, other) = (certificates(), certificates());
    let ground = start(Redis::start_with_tls(right.path(), &[]).await).await;
    let ca = file(right.path(), "ca.pem");

    let gateway = Gateway::start(&with(&ground, &[("REDIS_CA_FILE", &ca)])).await;
    gateway.wait_until_it_has_keys().await;
    let answer = try_login(&gateway, &ground.1.token().build()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(ground.0.redis().ask(&["KEYS", "session:*"]).lines().count(), 1);

    // The system's root certificates, from OpenSSL's variable.
    assert_eq!(line(&with(&ground, &[("SSL_CERT_FILE", &ca)])).await, "ok      session store");

    let by_address = ground.0.redis().url().replace("localhost", "127.0.0.1");
    let other_ca = file(other.path(), "ca.pem");
    for (more, why) in [
        (&[("REDIS_CA_FILE", other_ca.as_str())][..], "certificate not trusted"),
        (&[("REDIS_CA_FILE", ca.as_str()), ("REDIS_URL", &by_address)], "for another host name"),
        (&[], "certificate not trusted"),
    ] {
        let settings = with(&ground, more);
        let (line_of_check, gateway) = tokio::join!(line(&settings), Gateway::start(&settings));
        assert!(
            line_of_check.starts_with("FAIL ") && line_of_check.contains(why),
            "{line_of_check}"
        );
        gateway.wait_until_it_has_keys().await;
        let answer = try_login(&gateway, &ground.1.token().build()).await;
        assert_eq!(answer.status(), 503, "{why}");
        assert!(!answer.headers().contains_key("set-cookie"));
        until("the log has the reason", async || {
            let log = gateway.process.log();
            let mut lines =
                log.lines().filter(|line| line.contains("session store is unavailable"));
            lines.any(|line| line.contains(why) && !line.contains("kind: "))
        })
        .await;
    }
}

/// Each message names the address, the cause and the setting to change, without text of a library.
#[tokio::test]
async fn each_failure_of_redis_names_its_address_its_cause_and_a_setting() {
    let (valid, expired) = (certificates(), expired_certificates());
    let plain = start(Redis::start_with(&["--requirepass", KEY]).await).await;
    let tls = Redis::start_with_tls(valid.path(), &[]).await;
    let old = Redis::start_with_tls(expired.path(), &[]).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("redis://{}/0", silent.local_addr().unwrap());
    let http = format!("{}/0", plain.1.url().replace("http://", "rediss://"));
    let port = plain.0.redis().port();
    let by = |scheme: &str, redis: &Redis| format!("{scheme}://localhost:{}/0", redis.port());
    let (ca, old_ca) = (file(valid.path(), "ca.pem"), file(expired.path(), "ca.pem"));
    let no_pem = file(valid.path(), "server.key");
    let by_address = tls.url().replace("localhost", "127.0.0.1");
    let wrong = format!("redis://:hunter2@127.0.0.1:{port}/0");
    for (url, more, cause, setting) in [
        ("redis://127.0.0.1:1/0", &[][..], "connection refused", "REDIS_URL"),
        ("redis://nowhere.invalid:6379/0", &[], "host name not found", "REDIS_URL"),
        ("rediss://nowhere.invalid:6380/0", &[], "host name not found", "REDIS_URL"),
        (&silent, &[], "no answer in time", "REDIS_URL"),
        (&plain.0.redis().url(), &[], "password required (NOAUTH)", "REDIS_PASSWORD"),
        (&wrong, &[], "wrong password or user (WRONGPASS)", "REDIS_PASSWORD"),
        (
            &plain.0.redis().url(),
            &[("REDIS_PASSWORD", "hunter2")],
            "wrong password or user (WRONGPASS)",
            "REDIS_PASSWORD",
        ),
        (&by("rediss", plain.0.redis()), &[], "no answer in time", "redis:// in REDIS_URL"),
        (&http, &[], "the server does not speak TLS", "redis:// in REDIS_URL"),
        (&by("redis", &tls), &[], "connection closed by the server", "rediss://"),
        (&by("rediss", &tls), &[], "certificate not trusted", "REDIS_CA_FILE"),
        (
            &by_address,
            &[("REDIS_CA_FILE", &ca)],
            "certificate is for another host name",
            "REDIS_URL",
        ),
        (
            &by("rediss", &old),
            &[("REDIS_CA_FILE", &old_ca)],
            "certificate expired, or not valid yet",
            "renew",
        ),
    ] {
        let address = url.split("://").nth(1).unwrap().trim_end_matches("/0");
        let address = address.rsplit('@').next().unwrap();
        let mut more = more.to_vec();
        more.push(("REDIS_URL", url));
        let line_of_check = line(&with(&plain, &more)).await;
        let expected =
            format!("FAIL    session store: no connection to Redis: {address}: {cause}; ");
        assert!(line_of_check.starts_with(&expected), "{line_of_check}\nis not\n{expected}");
        assert!(line_of_check.contains(setting), "{line_of_check} does not name {setting}");
        assert!(
            !line_of_check.contains(" { ") && !line_of_check.contains("Error"),
            "{line_of_check}"
        );
    }
    let by_tls = by("rediss", &tls);
    let line_of_check =
        line(&with(&plain, &[("REDIS_URL", &by_tls), ("REDIS_CA_FILE", &no_pem)])).await;
    assert!(
        line_of_check.contains(&no_pem) && line_of_check.contains("holds no PEM certificate"),
        "{line_of_check}"
    );

    // A byte order mark before the only certificate must not hide it.
    let marked = file(expired.path(), "marked.pem");
    let pem = std::fs::read_to_string(&ca).unwrap();
    std::fs::write(&marked, format!("\u{feff}{pem}")).unwrap();
    let more = [("REDIS_URL", by_tls.as_str()), ("REDIS_CA_FILE", &marked)];
    assert_eq!(line(&with(&plain, &more)).await, "ok      session store");
}

/// Every character with a special meaning in a URL or a shell.
const KEY: &str = "p@ss/w:rd%41+ =?#&\"'\\é";
const ENCODED: &str = "p%40ss%2Fw%3Ard%2541%2B%20%3D%3F%23%26%22%27%5C%C3%A9";

#[tokio::test]
async fn the_redis_key_may_come_from_the_url_a_variable_or_a_file() {
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
            let line_of_check = line(&with(&ground, more)).await;
            assert_eq!(
                line_of_check,
                "ok      session store",
                "{credentials} by {}",
                more.last().unwrap().0
            );
        }
    }
    for (more, why) in
        [(("REDIS_PASSWORD", "another"), "WRONGPASS"), (("REDIS_PASSWORD", ""), "NOAUTH")]
    {
        let line_of_check = line(&with(&ground, &[more])).await;
        assert!(
            line_of_check.starts_with("FAIL ") && line_of_check.contains(why),
            "{line_of_check}"
        );
    }
}

#[tokio::test]
async fn sessions_are_stored_in_the_database_that_the_url_names() {
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
