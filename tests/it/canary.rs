//! Canary while the gateway runs: checks that upstream still honours minted sessions.

use serde_json::Value;

use crate::world::{
    Kind, Store, World, client, flask::Flask, gateway::Gateway, json, process::until, settings,
};

async fn detail(gateway: &Gateway) -> Value {
    let url = gateway.ops_url("/health/ready").expect("operators' listener");
    json(client().get(url).send().await.expect("an answer")).await
}

async fn scraped(gateway: &Gateway) -> String {
    let url = gateway.ops_url("/metrics").expect("operators' listener");
    client().get(url).send().await.expect("an answer").text().await.expect("text")
}

/// Reason of the canary's `degraded` entry in the readiness detail.
async fn canary_failure(gateway: &Gateway) -> Option<String> {
    let detail = detail(gateway).await;
    let degraded = detail["degraded"].as_array().expect("a list");
    let canary = degraded.iter().find(|condition| condition["part"] == "canary")?;
    Some(canary["reason"].to_string())
}

#[tokio::test]
async fn the_canary_runs_at_startup_and_periodically_and_leaves_no_session() {
    for kind in [Kind::Files, Kind::Redis] {
        let mut world = World::start(kind).await;
        world.restart_gateway_with(&[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
        let log = || world.gateway.process.log();
        until("upstream honours", async || {
            log().contains("upstream accepts gateway-issued sessions")
        })
        .await;
        let runs = || world.flask.log().matches("POST /api/session/heartbeat").count();
        let before = runs();
        until("the canary runs again", async || runs() > before + 10).await;
        assert_eq!(
            log().matches("upstream accepts gateway-issued sessions").count(),
            1,
            "logged once"
        );
        assert_eq!(canary_failure(&world.gateway).await, None);
        assert!(scraped(&world.gateway).await.contains("simplechat_gateway_sessions_honoured 1\n"));
        world.gateway.process.signal("TERM");
        assert!(world.gateway.process.ended().await.success());
        if let Store::Redis(redis, _) = &world.store {
            assert_eq!(redis.ask(&["KEYS", "session:*.*"]), "", "no canary session remains");
        }
    }
}

#[tokio::test]
async fn the_canary_detects_workers_that_fell_back_to_files() {
    let mut world = World::start(Kind::Redis).await;
    // SimpleChat restarts while Redis is unavailable and falls back to files permanently.
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    let of_upstream = world.store.settings();
    let flask = Flask::start(&of_upstream).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.begin().await;
    let more = [("GATEWAY_CANARY_INTERVAL".to_owned(), "1s".to_owned())];
    let settings = settings(&world.entra, Some(&flask), &world.store, &more);
    world.gateway = Gateway::start(&settings).await;
    until("the canary fails", async || canary_failure(&world.gateway).await.is_some()).await;
    assert!(scraped(&world.gateway).await.contains("simplechat_gateway_sessions_honoured 0\n"));
    let reason = canary_failure(&world.gateway).await.unwrap();
    assert!(reason.contains("uses files until it is restarted"), "{reason}");
    assert_eq!(detail(&world.gateway).await["status"], "degraded");
    assert!(world.gateway.is_ready().await, "the replica stays ready");
    let log = world.gateway.process.log();
    assert!(log.contains("upstream may not accept gateway-issued sessions"), "{log}");
}

#[tokio::test]
async fn a_canary_failure_clears_when_upstream_recovers() {
    let mut world = World::start(Kind::Redis).await;
    world.restart_gateway_with(&[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
    let log = || world.gateway.process.log();
    let honours = || log().matches("upstream accepts gateway-issued sessions").count();
    until("upstream honours", async || honours() == 1).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    until("the canary fails", async || canary_failure(&world.gateway).await.is_some()).await;
    redis.begin().await;
    until("upstream honours again", async || honours() == 2).await;
    assert_eq!(canary_failure(&world.gateway).await, None);
}

#[tokio::test]
async fn the_canary_mints_no_session_while_external_access_is_off() {
    let mut world = World::start(Kind::Redis).await;
    let more = [("GATEWAY_CANARY_INTERVAL", "1s"), ("GATEWAY_EXTERNAL_ACCESS", "off")];
    world.restart_gateway_with(&more).await;
    until("upstream answers", async || world.gateway.is_ready().await).await;
    let another = world.another_gateway().await;
    until("the other gateway is ready", async || another.is_ready().await).await;
    assert!(!world.upstream_log().await.contains("heartbeat"));
}
