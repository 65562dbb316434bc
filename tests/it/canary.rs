//! The proof made while the gateway runs: whether upstream still honours minted sessions.

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

/// What the operators' detail says of the canary.
async fn doubt(gateway: &Gateway) -> Option<String> {
    let detail = detail(gateway).await;
    let degraded = detail["degraded"].as_array().expect("a list");
    let canary = degraded.iter().find(|condition| condition["part"] == "canary")?;
    Some(canary["reason"].to_string())
}

#[tokio::test]
async fn upstream_is_tried_at_the_start_and_again_and_nothing_stays() {
    for kind in [Kind::Files, Kind::Redis] {
        let mut world = World::start(kind).await;
        world.restart_gateway_with(&[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
        let log = || world.gateway.process.log();
        until("upstream honours", async || log().contains("upstream honours minted sessions"))
            .await;
        let tried = || world.flask.log().matches("POST /api/session/heartbeat").count();
        let before = tried();
        until("it is tried again", async || tried() > before + 10).await;
        assert_eq!(log().matches("upstream honours minted sessions").count(), 1, "said once");
        assert_eq!(doubt(&world.gateway).await, None);
        assert!(scraped(&world.gateway).await.contains("simplechat_gateway_sessions_honoured 1\n"));
        world.gateway.process.signal("TERM");
        assert!(world.gateway.process.ended().await.success());
        if let Store::Redis(redis, _) = &world.store {
            assert_eq!(redis.ask(&["KEYS", "session:*.*"]), "", "no canary's session stays");
        }
    }
}

#[tokio::test]
async fn workers_that_met_redis_down_are_found_out_while_the_gateway_runs() {
    let mut world = World::start(Kind::Redis).await;
    // SimpleChat restarts while Redis is away, and keeps to files for good.
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    let of_upstream = world.store.settings();
    let flask = Flask::start(&of_upstream).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.begin().await;
    let more = [("GATEWAY_CANARY_INTERVAL".to_owned(), "1s".to_owned())];
    let settings = settings(&world.entra, Some(&flask), &world.store, &more);
    world.gateway = Gateway::start(&settings).await;
    until("a doubt", async || doubt(&world.gateway).await.is_some()).await;
    assert!(scraped(&world.gateway).await.contains("simplechat_gateway_sessions_honoured 0\n"));
    let reason = doubt(&world.gateway).await.unwrap();
    assert!(reason.contains("keeps to files for good: restart it"), "{reason}");
    assert_eq!(detail(&world.gateway).await["status"], "degraded");
    assert!(world.gateway.is_ready().await, "no replica is taken out for it");
    let log = world.gateway.process.log();
    assert!(log.contains("upstream may not honour minted sessions"), "{log}");
}

#[tokio::test]
async fn a_doubt_goes_when_upstream_is_well_again() {
    let mut world = World::start(Kind::Redis).await;
    world.restart_gateway_with(&[("GATEWAY_CANARY_INTERVAL", "1s")]).await;
    let log = || world.gateway.process.log();
    let honours = || log().matches("upstream honours minted sessions").count();
    until("upstream honours", async || honours() == 1).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    until("a doubt", async || doubt(&world.gateway).await.is_some()).await;
    redis.begin().await;
    until("upstream honours again", async || honours() == 2).await;
    assert_eq!(doubt(&world.gateway).await, None);
}

#[tokio::test]
async fn without_external_access_nothing_is_minted() {
    let mut world = World::start(Kind::Redis).await;
    let more = [("GATEWAY_CANARY_INTERVAL", "1s"), ("GATEWAY_EXTERNAL_ACCESS", "off")];
    world.restart_gateway_with(&more).await;
    until("upstream answers", async || world.gateway.is_ready().await).await;
    let another = world.another_gateway().await;
    until("it is warm too", async || another.is_ready().await).await;
    assert!(!world.upstream_log().await.contains("heartbeat"));
}
