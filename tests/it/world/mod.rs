//! Test environment of the gateway, real where possible: redis-server, gunicorn with Flask-Session,
//! the gateway's own binary. Entra is a stand-in on a real socket. Every process ends when its
//! value is dropped.

pub(crate) mod administrators;
pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod database;
pub(crate) mod faulty;
pub(crate) mod flask;
pub(crate) mod gateway;
pub(crate) mod logins;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod recorded;
pub(crate) mod recorder;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod relayed;
pub(crate) mod scripted;
pub(crate) mod secrets;
pub(crate) mod stopping;
pub(crate) mod tools;

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use reqwest::{Client, RequestBuilder, Response, header::SET_COOKIE, redirect::Policy};
use serde_json::Value;
use tempfile::TempDir;

use self::{
    flask::Flask,
    gateway::{Gateway, IMAGE_USER, is_image},
    process::until,
    redis::Redis,
};
use crate::entra::{CLIENT, Entra, TENANT};

/// Session store of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Files,
    Redis,
}

/// The store itself.
pub(crate) enum Store {
    Files(TempDir),
    /// The folder is for upstream, which opens `SESSION_FILE_DIR` before it uses Redis.
    Redis(Redis, TempDir),
}

impl Store {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Files => Self::files(tempfile::tempdir().expect("a temporary folder")),
            Kind::Redis => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                chown_to_gateway_user(folder.path());
                Self::Redis(Redis::start().await, folder)
            }
        }
    }

    /// Session files in this folder.
    pub(crate) fn files(folder: TempDir) -> Self {
        let flask_session = folder.path().join("flask_session");
        std::fs::create_dir(&flask_session).expect("a folder");
        chown_to_gateway_user(folder.path());
        chown_to_gateway_user(&flask_session);
        Self::Files(folder)
    }

    /// Settings shared by gateway and upstream.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let pairs = match self {
            Self::Files(_) => vec![
                ("SESSION_TYPE", "filesystem".to_owned()),
                ("SESSION_FILE_DIR", self.folder().display().to_string()),
            ],
            Self::Redis(redis, folder) => vec![
                ("SESSION_TYPE", "redis".to_owned()),
                ("REDIS_URL", redis.url()),
                ("SESSION_FILE_DIR", folder.path().display().to_string()),
            ],
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Upstream's session folder.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::Files(folder) => folder.path().join("flask_session"),
            Self::Redis(..) => panic!("sessions are in Redis"),
        }
    }

    pub(crate) fn redis(&self) -> &Redis {
        match self {
            Self::Redis(redis, _) => redis,
            Self::Files(_) => panic!("sessions are in files"),
        }
    }
}

/// Gives a folder to the user that the gateway runs as.
fn chown_to_gateway_user(folder: &Path) {
    if is_image() {
        chown(folder, Some(IMAGE_USER), Some(IMAGE_USER)).expect("root");
    }
}

/// Entra, a store, upstream and one gateway.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) flask: Flask,
    pub(crate) store: Store,
    pub(crate) entra: Entra,
    more: Vec<(String, String)>,
}

impl World {
    /// Starts with external access on; every upstream worker has served its first request.
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::with(kind, &[]).await
    }

    /// Starts with more settings, passed to gateway and upstream.
    pub(crate) async fn with(kind: Kind, more: &[(&str, &str)]) -> Self {
        Self::over(Store::start(kind).await, more).await
    }

    /// Starts with this store.
    pub(crate) async fn over(store: Store, more: &[(&str, &str)]) -> Self {
        let more: Vec<(String, String)> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let entra = Entra::start().await;
        let mut of_upstream = store.settings();
        of_upstream.push(("TENANT_ID".to_owned(), TENANT.to_owned()));
        of_upstream.push(("CLIENT_ID".to_owned(), CLIENT.to_owned()));
        of_upstream.push(("UPSTREAM_V1_ISSUER".to_owned(), entra.issuer_v1()));
        of_upstream.push((
            "UPSTREAM_JWKS_URL".to_owned(),
            format!("{}/common/discovery/keys", entra.url()),
        ));
        of_upstream.push(("UPSTREAM_AUTHORITY".to_owned(), format!("{}/{TENANT}", entra.url())));
        of_upstream.extend(more.iter().filter(|(name, _)| !name.starts_with("GATEWAY_")).cloned());
        let flask = Flask::start(&of_upstream).await;
        let settings = settings(&entra, Some(&flask), &store, &more);
        let gateway = Gateway::start(&settings).await;
        gateway.wait_until_it_has_keys().await;
        Self { gateway, flask, store, entra, more }
    }

    /// Starts a second gateway with the same settings.
    pub(crate) async fn another_gateway(&self) -> Gateway {
        let settings = settings(&self.entra, Some(&self.flask), &self.store, &self.more);
        let gateway = Gateway::start(&settings).await;
        gateway.wait_until_it_has_keys().await;
        gateway
    }

    /// Settings of a gateway in this world, followed by more.
    pub(crate) fn settings_with(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let more: Vec<_> = self.more.iter().cloned().chain(more).collect();
        settings(&self.entra, Some(&self.flask), &self.store, &more)
    }

    /// Restarts the gateway with more settings.
    pub(crate) async fn restart_gateway_with(&mut self, more: &[(&str, &str)]) {
        self.gateway = Gateway::start(&self.settings_with(more)).await;
        self.gateway.wait_until_it_has_keys().await;
    }

    /// Kills the gateway and starts it again.
    pub(crate) async fn restart_gateway(&mut self) {
        self.gateway = self.another_gateway().await;
    }

    /// Restarts the gateway while Entra is unavailable; it has no signing keys.
    pub(crate) async fn restart_gateway_without_keys(&mut self) {
        let settings = settings(&self.entra, Some(&self.flask), &self.store, &self.more);
        self.gateway = Gateway::start(&settings).await;
    }

    /// Logs in with a token and returns the cookie's value.
    pub(crate) async fn login(&self, token: &str) -> String {
        login(&self.gateway, token).await
    }

    /// Upstream's access log, complete up to the last answered request.
    pub(crate) async fn upstream_log(&self) -> String {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let last = format!("/api/the-last-one-{}-", LAST.fetch_add(1, Ordering::Relaxed));
        client().get(self.gateway.url(&last)).send().await.expect("an answer");
        until("upstream's log is complete", async || self.flask.log().contains(&last)).await;
        self.flask.log()
    }
}

/// A gateway without upstream, for requests that it never forwards.
pub(crate) async fn alone(kind: Kind, more: &[(&str, &str)]) -> (Gateway, Entra, Store) {
    let (entra, store) = (Entra::start().await, Store::start(kind).await);
    let more: Vec<_> =
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    (gateway, entra, store)
}

/// Settings of a gateway in this world.
pub(crate) fn settings(
    entra: &Entra,
    flask: Option<&Flask>,
    store: &Store,
    more: &[(String, String)],
) -> Vec<(String, String)> {
    let upstream = flask.map_or_else(|| "http://127.0.0.1:1".to_owned(), Flask::url);
    let mut settings: Vec<(String, String)> = [
        ("TENANT_ID", TENANT),
        ("CLIENT_ID", CLIENT),
        ("AZURE_ENVIRONMENT", "custom"),
        ("CUSTOM_IDENTITY_URL_VALUE", &entra.url()),
        ("CUSTOM_OIDC_METADATA_URL_VALUE", &entra.metadata_url()),
        ("GATEWAY_LISTEN", "127.0.0.1:0"),
        ("GATEWAY_OPS_LISTEN", "127.0.0.1:0"),
        ("GATEWAY_UPSTREAM_URL", &upstream),
        ("GATEWAY_EXTERNAL_ACCESS", "on"),
        ("GATEWAY_EXPOSURE_ACCEPTED_BY", "a test"),
        ("GATEWAY_DRAIN_DELAY", "0s"),
        // The canary's own requests would change the counts of upstream requests in tests.
        ("GATEWAY_CANARY_INTERVAL", "off"),
        // Everything is logged: the output is searched for secrets (`secrets`).
        ("RUST_LOG", "trace"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    settings.extend(store.settings());
    settings.extend_from_slice(more);
    settings
}

/// A client that follows no redirect, stores no cookies and uses no proxy.
pub(crate) fn client() -> Client {
    Client::builder().redirect(Policy::none()).no_proxy().build().expect("a client")
}

/// `POST /external/login`, without check of the answer.
pub(crate) async fn try_login(gateway: &Gateway, token: &str) -> Response {
    let request = client().post(gateway.url("/external/login")).bearer_auth(token);
    request.send().await.expect("an answer")
}

/// Logs in and returns the cookie's value.
pub(crate) async fn login(gateway: &Gateway, token: &str) -> String {
    let answer = try_login(gateway, token).await;
    assert_eq!(answer.status(), 200, "login: {}", answer.text().await.unwrap_or_default());
    session_in(&answer)
}

/// Value of the session cookie that an answer sets.
pub(crate) fn session_in(answer: &Response) -> String {
    let set = answer.headers()[SET_COOKIE].to_str().expect("text");
    let pair = set.split(';').next().expect("a pair");
    pair.strip_prefix("session=").expect("the session cookie").to_owned()
}

/// Adds the session cookie to a request.
pub(crate) trait WithSession {
    fn session(self, value: &str) -> Self;
}

impl WithSession for RequestBuilder {
    fn session(self, value: &str) -> Self {
        self.header("cookie", format!("session={value}"))
    }
}

/// Status of a `GET` with a session and `Accept: application/json`.
pub(crate) async fn status(url: String, session: &str) -> u16 {
    let request = client().get(url).header("accept", "application/json").session(session);
    request.send().await.expect("an answer").status().as_u16()
}

/// JSON body of an answer.
pub(crate) async fn json(answer: Response) -> Value {
    let text = answer.text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An API route that needs the role `User` or `Admin`.
pub(crate) const API: &str = "/api/get_conversations";
