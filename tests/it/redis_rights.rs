//! ACL rights from `docs/hardening.md` for the gateway's Redis user: sufficient for everything it
//! does, and all in use.

use std::collections::BTreeSet;

use crate::world::{
    API, Kind, WithSession, World, client,
    flask::in_repository,
    gateway::{Gateway, run},
    process::until,
    session_in, status, try_login,
};

/// ACL rules from the page, one per element.
pub(crate) fn documented() -> Vec<String> {
    rights_at("`~session:*")
}

/// Additional ACL rules for a cluster.
pub(crate) fn documented_for_a_cluster() -> Vec<String> {
    rights_at("`+cluster")
}

fn rights_at(beginning: &str) -> Vec<String> {
    let page = std::fs::read_to_string(in_repository("docs/hardening.md")).unwrap();
    let begins = page.find(beginning).expect("the rights") + 1;
    let rights = &page[begins..begins + page[begins..].find('`').unwrap()];
    rights.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_gateway_needs_and_uses_exactly_the_documented_rights() {
    let more = [
        ("GATEWAY_SESSIONS_PER_SUBJECT", "1"),
        ("GATEWAY_LOGIN_FAILURE_LIMIT", "2/1m"),
        ("GATEWAY_LOGIN_LIMIT", "5/1m"),
    ];
    let mut world = World::with(Kind::Redis, &more).await;
    let rights = documented();
    let mut set = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">a key of its own"];
    set.extend(rights.iter().map(String::as_str));
    assert_eq!(world.store.redis().ask(&set), "OK");
    let url = world.store.redis().url_for("gateway:a%20key%20of%20its%20own");
    world.restart_gateway_with(&[("REDIS_URL", &url)]).await;
    world.store.redis().ask(&["CONFIG", "RESETSTAT"]);

    // Sessions are created, used and replaced, and end by cookie, by token and by the limit.
    let token = world.entra.token().build();
    let first = world.login(&token).await;
    until("Flask honours it", async || status(world.gateway.url(API), &first).await == 200).await;
    let request = client().post(world.gateway.url("/external/login")).bearer_auth(&token);
    let second = session_in(&request.session(&first).send().await.unwrap());
    let third = world.login(&token).await;
    for expired in [&first, &second] {
        assert_ne!(status(world.gateway.url(API), expired).await, 200);
    }
    let logout = async |gateway: &Gateway, how: &dyn Fn(_) -> reqwest::RequestBuilder| {
        let answer = how(client().post(gateway.url("/external/logout"))).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    };
    logout(&world.gateway, &|request: reqwest::RequestBuilder| request.session(&third)).await;
    world.login(&token).await;
    logout(&world.gateway, &|request: reqwest::RequestBuilder| request.bearer_auth(&token)).await;
    // Without its note, the record itself is looked up.
    let lost = world.login(&token).await;
    let note = format!("gateway:{{notes}}:session:{}", lost.split('.').next().unwrap());
    world.store.redis().ask(&["DEL", &note]);
    logout(&world.gateway, &|request: reqwest::RequestBuilder| request.session(&lost)).await;
    // Login limit and failure limit.
    assert_eq!(try_login(&world.gateway, &token).await.status(), 429);
    for _ in 0..3 {
        try_login(&world.gateway, "not.a.token").await;
    }
    assert_eq!(try_login(&world.gateway, "not.a.token").await.status(), 429);
    // The subject's set holds an expired session.
    let expired = format!("{}.1700000000", "A".repeat(22));
    let subjects = world.store.redis().ask(&["KEYS", "gateway:{notes}:subject:*"]);
    let subject = subjects.lines().next().unwrap_or("gateway:{notes}:subject:none").to_owned();
    world.store.redis().ask(&["ZADD", &subject, "1", &expired]);
    // The sweep finds an expired session; it then reads, removes and trims.
    world.store.redis().ask(&["ZADD", "gateway:{notes}:expiries", "1700000000", &expired]);
    world.store.redis().ask(&["XADD", "gateway:ended", "*", "id", &expired]);
    until("the sweep removes it", async || {
        let redis = world.store.redis();
        let is_there = redis.ask(&["ZSCORE", "gateway:{notes}:expiries", &expired]);
        is_there.is_empty() && !redis.ask(&["XRANGE", "gateway:ended", "-", "+"]).contains(&expired)
    })
    .await;
    logout(&world.gateway, &|request: reqwest::RequestBuilder| request.bearer_auth(&token)).await;
    // doctor's canary uses the same rights.
    let ended = run(&world.settings_with(&[("REDIS_URL", &url)]), &["doctor"]).await;
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && output.contains("ok      canary"), "{output}");

    let log = world.store.redis().ask(&["ACL", "LOG"]);
    assert!(!log.contains("gateway"), "Redis denied a command: {log}");
    // Every right is used by the steps above, which cover everything the gateway does.
    let stats = world.store.redis().ask(&["INFO", "commandstats"]);
    let used: BTreeSet<_> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next())
        .map(str::to_owned)
        .collect();
    let idle: Vec<_> = rights
        .iter()
        .filter_map(|right| right.strip_prefix('+'))
        .filter(|command| !used.contains(*command))
        .collect();
    assert!(idle.is_empty(), "never used: {idle:?} of {used:?}");
}
