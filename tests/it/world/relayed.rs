//! A gateway that reaches Redis, Entra and upstream through relays, so that a test can interrupt
//! each link.

use tokio::sync::Mutex;

use super::{
    Store,
    flask::Flask,
    gateway::Gateway,
    process::until,
    redis::free_port,
    relay::{Relay, RelayState},
    settings,
};
use crate::{
    entra::{CLIENT, Entra, TENANT},
    world::Kind,
};

/// The gateway, its dependencies and the relays in front of them. Sessions are in Redis.
pub(crate) struct Relayed {
    pub(crate) gateway: Gateway,
    pub(crate) to_redis: Relay,
    pub(crate) to_entra: Relay,
    pub(crate) to_upstream: Relay,
    pub(crate) entra: Entra,
    flask: Mutex<Option<Flask>>,
    _store: Store,
    /// Settings of the gateway.
    pub(crate) settings: Vec<(String, String)>,
    of_upstream: Vec<(String, String)>,
}

impl Relayed {
    /// Starts with all links open; every upstream worker has served its first request.
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        Self::start_with(RelayState::Open, more).await
    }

    /// Starts with all links in this state.
    pub(crate) async fn start_with(link: RelayState, more: &[(&str, &str)]) -> Self {
        let store = Store::start(Kind::Redis).await;
        let port = free_port();
        let mut to_entra = None;
        let entra = Entra::start_behind(async |address| {
            let relay = Relay::start(address.to_string()).await;
            let url = format!("http://{}", relay.address());
            to_entra = Some(relay);
            url
        })
        .await;
        let to_entra = to_entra.expect("a relay");
        let to_redis = Relay::start(store.redis().address()).await;
        let to_upstream = Relay::start(format!("127.0.0.1:{port}")).await;

        let mut of_upstream = store.settings();
        for (name, value) in [
            ("TENANT_ID", TENANT.to_owned()),
            ("CLIENT_ID", CLIENT.to_owned()),
            ("GUNICORN_BIND", format!("127.0.0.1:{port}")),
        ] {
            of_upstream.push((name.to_owned(), value));
        }
        let of_upstream_alone = more.iter().filter(|(name, _)| name.starts_with("UPSTREAM_"));
        of_upstream.extend(of_upstream_alone.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let flask = Flask::start(&of_upstream).await;

        let mut settings = settings(&entra, None, &store, &[]);
        let redis_url = format!("redis://{}/0", to_redis.address());
        let upstream_url = format!("http://{}", to_upstream.address());
        let urls =
            [("REDIS_URL", redis_url.as_str()), ("GATEWAY_UPSTREAM_URL", upstream_url.as_str())];
        let of_gateway = more.iter().filter(|(name, _)| !name.starts_with("UPSTREAM_"));
        for (name, value) in urls.iter().chain(of_gateway) {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        for relay in [&to_redis, &to_entra, &to_upstream] {
            relay.set(link).await;
        }
        let gateway = Gateway::start(&settings).await;
        if link == RelayState::Open {
            gateway.wait_until_it_has_keys().await;
            until("upstream answered", async || gateway.is_ready().await).await;
        }
        Self {
            gateway,
            to_redis,
            to_entra,
            to_upstream,
            entra,
            flask: Mutex::new(Some(flask)),
            _store: store,
            settings,
            of_upstream,
        }
    }

    /// Sets the state of all three links.
    pub(crate) async fn set_all(&self, link: RelayState) {
        tokio::join!(self.to_redis.set(link), self.to_entra.set(link), self.to_upstream.set(link));
    }

    /// Kills upstream and starts it again; waits until it answers directly.
    pub(crate) async fn restart_upstream(&self) {
        let mut flask = self.flask.lock().await;
        if let Some(flask) = flask.take() {
            flask.kill();
        }
        *flask = Some(Flask::start(&self.of_upstream).await);
    }

    /// Replaces upstream's workers and waits until the new ones have booted.
    pub(crate) async fn replace_workers(&self) {
        let flask = self.flask.lock().await;
        let flask = flask.as_ref().expect("upstream");
        let before = flask.workers().len();
        flask.replace_workers();
        until("new workers have booted", async || flask.workers().len() >= before + 2).await;
        flask.prime().await;
    }

    /// Process ids of all upstream workers started so far, ended ones included.
    pub(crate) async fn workers(&self) -> Vec<String> {
        self.flask.lock().await.as_ref().expect("upstream").workers()
    }
}
