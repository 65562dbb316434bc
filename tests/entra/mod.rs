//! A stand-in for Microsoft Entra ID: the documents a resource server reads, served over a real
//! socket, and tokens signed with the keys they name.
//!
//! The documents follow `/{tenant}/v2.0/.well-known/openid-configuration` and
//! `/{tenant}/.well-known/openid-configuration` of `login.microsoftonline.com` and the key
//! documents they point to (Microsoft identity platform, "Access tokens", "Validate the issuer").
//! What tokens look like is told in [`tokens`].

#![allow(dead_code, reason = "the demo and the tests each use a part")]

mod keys;
mod tokens;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{Html, IntoResponse, Response},
    serve::Listener,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use self::keys::Keyring;
pub(crate) use self::tokens::TokenBuilder;

// The sample identifiers of Microsoft's documentation: they belong to nobody.

/// The tenant.
pub(crate) const TENANT: &str = "aaaabbbb-0000-cccc-1111-dddd2222eeee";
/// The app registration that tokens are meant for.
pub(crate) const CLIENT: &str = "00001111-aaaa-2222-bbbb-3333cccc4444";
/// The app registration of the client that obtains tokens.
pub(crate) const OTHER_CLIENT: &str = "11112222-bbbb-3333-cccc-4444dddd5555";
/// The object id of the user.
pub(crate) const USER_OID: &str = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb";
/// The object id of [`OTHER_CLIENT`]'s service principal: the subject of app-only tokens.
pub(crate) const APP_OID: &str = "bbbbbbbb-1111-2222-3333-cccccccccccc";

/// Under this path the documents stand in every mode: where [`Mode::Redirects`] points to.
const MOVED: &str = "/moved";
/// The query of the app's own documents: `appid=` [`CLIENT`].
const OF_APP: &str = "appid=00001111-aaaa-2222-bbbb-3333cccc4444";
/// More than a reader of key documents should ever take in.
const OVERSIZE: usize = 2 * 1024 * 1024;

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As Entra does.
    Up,
    /// 500 to everything.
    Down,
    /// As Entra does, after a while.
    Slow(Duration),
    /// Key documents are valid JSON of 2 MiB, the real keys first.
    Oversized,
    /// 302 to an address where the real documents stand.
    Redirects,
    /// 200 with a page of HTML to everything.
    Garbage,
    /// Key documents without a key.
    EmptyKeys,
    /// Connections are accepted and closed at once.
    Closed,
}

/// What becomes of the v1 documents; [`Mode`] goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum V1 {
    /// Served.
    Present,
    /// 404.
    Missing,
    /// 500.
    Failing,
}

/// Metadata asked with `?appid=`; [`Mode`] goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfApp {
    /// As Entra does.
    Present,
    /// 400: a server that knows no such parameter.
    Refused,
    /// 500.
    Failing,
}

/// The running server; it stops when dropped.
pub(crate) struct Entra {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What the server and its owner both look at.
struct Shared {
    address: SocketAddr,
    url: String,
    behaviour: Mutex<(Mode, V1)>,
    of_app: Mutex<OfApp>,
    keyring: Mutex<Keyring>,
    requests: AtomicUsize,
    fetches: AtomicUsize,
}

impl Entra {
    /// Serves on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        Self::start_behind(async |address| format!("http://{address}")).await
    }

    /// The same behind something that readers meet in its place: `front` says at which URL.
    pub(crate) async fn start_behind(front: impl AsyncFnOnce(SocketAddr) -> String) -> Self {
        let socket =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
        let address = socket.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            address,
            url: front(address).await,
            behaviour: Mutex::new((Mode::Up, V1::Present)),
            of_app: Mutex::new(OfApp::Present),
            keyring: Mutex::default(),
            requests: AtomicUsize::new(0),
            fetches: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let door = Door { socket, shared: Arc::clone(&shared) };
        let server = tokio::spawn(async move {
            axum::serve(door, router).await.expect("axum serves until it is aborted");
        });
        Self { shared, server }
    }

    /// Where it listens, whatever is in front of it.
    pub(crate) fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// `http://127.0.0.1:PORT`, in the place of `https://login.microsoftonline.com`.
    pub(crate) fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// The address of the v2 metadata.
    pub(crate) fn metadata_url(&self) -> String {
        format!("{}{}", self.shared.url, path_of::v2_metadata())
    }

    /// The issuer of v2 tokens.
    pub(crate) fn issuer_v2(&self) -> String {
        self.shared.issuer_v2()
    }

    /// The issuer of v1 tokens, in the place of `https://sts.windows.net/{tenant}/`.
    pub(crate) fn issuer_v1(&self) -> String {
        self.shared.issuer_v1()
    }

    /// How many requests for key documents were answered, in whatever way. Somebody who reads v1
    /// and v2 makes two each time.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// How many requests came in.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Behaves like this from now on.
    pub(crate) fn set(&self, mode: Mode) {
        lock(&self.shared.behaviour).0 = mode;
    }

    /// Treats the v1 documents like this from now on.
    pub(crate) fn set_v1(&self, v1: V1) {
        lock(&self.shared.behaviour).1 = v1;
    }

    /// Treats metadata that is asked with `?appid=` like this from now on.
    pub(crate) fn set_of_app(&self, of_app: OfApp) {
        *lock(&self.shared.of_app) = of_app;
    }

    /// Publishes one more key in the app's own documents alone (`?appid=CLIENT`), and signs with it from now on,
    /// as Entra does for an app with claims mapping.
    pub(crate) fn rotate_for_app(&self) {
        lock(&self.shared.keyring).rotate_for_app();
    }

    /// Publishes no key for the app alone any more.
    pub(crate) fn withdraw_of_app(&self) {
        lock(&self.shared.keyring).withdraw_of_app();
    }

    /// Publishes one more key and signs with it from now on. There are three: withdraw the old ones
    /// before the third rotation.
    pub(crate) fn rotate(&self) {
        lock(&self.shared.keyring).rotate();
    }

    /// Publishes nothing but the key that signs.
    pub(crate) fn withdraw_old(&self) {
        lock(&self.shared.keyring).withdraw_old();
    }

    /// Publishes this as well, in both key documents, as it is.
    pub(crate) fn publish_raw(&self, jwk: Value) {
        lock(&self.shared.keyring).publish_raw(jwk);
    }

    /// The key of [`TokenBuilder::signed_by_stranger`], which nobody publishes: to be altered and
    /// handed to [`Self::publish_raw`].
    pub(crate) fn stranger_jwk() -> Value {
        keys::stranger().jwk(None)
    }

    /// The key that signs, as the v1 document publishes it.
    pub(crate) fn published_key(&self) -> Value {
        lock(&self.shared.keyring).signing().jwk(None)
    }

    /// A token to be altered: of a user, through [`OTHER_CLIENT`], v2, good for an hour, signed
    /// with the current key.
    pub(crate) fn token(&self) -> TokenBuilder {
        self.shared.token()
    }

    /// Tokens that are no good, each by its name: every one must be answered with 401.
    pub(crate) fn every_malformed_kind(&self) -> Vec<(&'static str, String)> {
        tokens::every_malformed_kind(&self.token())
    }
}

impl Drop for Entra {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn token(&self) -> TokenBuilder {
        let signing = lock(&self.keyring).signing();
        TokenBuilder::new(self.issuer_v1(), self.issuer_v2(), signing)
    }

    /// The answer of the token endpoint, whatever the grant (RFC 6749 §5.1): a v1 token, as SimpleChat takes it.
    fn granted(&self) -> Value {
        let token = self.token().v1().build();
        json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token})
    }

    fn issuer_v1(&self) -> String {
        format!("{}/sts/{TENANT}/", self.url)
    }

    fn issuer_v2(&self) -> String {
        format!("{}/{TENANT}/v2.0", self.url)
    }
}

/// Where the documents stand.
mod path_of {
    use super::TENANT;

    pub(super) fn v2_metadata() -> String {
        format!("/{TENANT}/v2.0/.well-known/openid-configuration")
    }

    pub(super) fn v1_metadata() -> String {
        format!("/{TENANT}/.well-known/openid-configuration")
    }

    pub(super) fn v2_keys() -> String {
        format!("/{TENANT}/discovery/v2.0/keys")
    }

    pub(super) fn token() -> String {
        format!("/{TENANT}/oauth2/v2.0/token")
    }

    pub(super) fn v1_keys() -> String {
        "/common/discovery/keys".to_owned()
    }
}

/// A document.
#[derive(Debug, Clone, Copy)]
enum Document {
    Metadata(Version),
    Keys(Version),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Document {
    fn at(path: &str) -> Option<Self> {
        [
            (path_of::v2_metadata(), Self::Metadata(Version::Two)),
            (path_of::v1_metadata(), Self::Metadata(Version::One)),
            (path_of::v2_keys(), Self::Keys(Version::Two)),
            (path_of::v1_keys(), Self::Keys(Version::One)),
        ]
        .into_iter()
        .find_map(|(its_path, document)| (its_path == path).then_some(document))
    }

    fn version(self) -> Version {
        let (Self::Metadata(version) | Self::Keys(version)) = self;
        version
    }
}

/// Everything goes through here.
async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let (mode, v1) = *lock(&shared.behaviour);
    let (path, mode) = match uri.path().strip_prefix(MOVED) {
        Some(path) => (path, Mode::Up),
        None => (uri.path(), mode),
    };
    if let Mode::Slow(pause) = mode {
        sleep(pause).await;
    }
    let document = Document::at(path);
    let response = match (mode, document) {
        (Mode::Down | Mode::Closed, _) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        (Mode::Garbage, _) => Html("<!DOCTYPE html><title>Sign in</title>").into_response(),
        (Mode::Redirects, _) => {
            (StatusCode::FOUND, [(header::LOCATION, format!("{}{MOVED}{path}", shared.url))])
                .into_response()
        }
        (_, None) if path == path_of::token() => Json(shared.granted()).into_response(),
        (_, None) => StatusCode::NOT_FOUND.into_response(),
        (_, Some(document)) => match (document.version(), v1) {
            (Version::One, V1::Missing) => StatusCode::NOT_FOUND.into_response(),
            (Version::One, V1::Failing) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            _ => match (Shared::is_of_app(&uri), *lock(&shared.of_app)) {
                (true, OfApp::Refused) => StatusCode::BAD_REQUEST.into_response(),
                (true, OfApp::Failing) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                (is_of_app, _) => Json(shared.text_of(document, mode, is_of_app)).into_response(),
            },
        },
    };
    if let Some(Document::Keys(_)) = document {
        shared.fetches.fetch_add(1, Ordering::SeqCst);
    }
    // No connection outlives its answer, so that a change of mode holds for the next request.
    ([(header::CONNECTION, "close")], response).into_response()
}

impl Shared {
    /// Whether the app's own documents are asked for.
    fn is_of_app(uri: &Uri) -> bool {
        uri.query().is_some_and(|query| query.split('&').any(|pair| pair == OF_APP))
    }

    fn text_of(&self, document: Document, mode: Mode, is_of_app: bool) -> Value {
        let mut text = match document {
            Document::Metadata(Version::Two) => self.v2_metadata(),
            Document::Metadata(Version::One) => self.v1_metadata(),
            Document::Keys(version) => return self.keys(version, mode, is_of_app),
        };
        if is_of_app {
            let keys = text["jwks_uri"].as_str().map(|uri| format!("{uri}?{OF_APP}"));
            text["jwks_uri"] = keys.into();
        }
        text
    }

    /// The members of Entra's own, in their order.
    fn v2_metadata(&self) -> Value {
        let Self { url, .. } = self;
        json!({
            "token_endpoint": format!("{url}{}", path_of::token()),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{url}{}", path_of::v2_keys()),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": self.issuer_v2(),
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": format!("{url}/oidc/userinfo"),
            "authorization_endpoint": format!("{url}/{TENANT}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{url}/{TENANT}/oauth2/v2.0/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{url}/{TENANT}/oauth2/v2.0/logout"),
            "claims_supported": [
                "sub", "iss", "cloud_instance_name", "cloud_instance_host_name",
                "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat", "auth_time", "acr",
                "nonce", "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email",
            ],
            "kerberos_endpoint": format!("{url}/{TENANT}/kerberos"),
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        })
    }

    /// The members of Entra's own, in their order.
    fn v1_metadata(&self) -> Value {
        let Self { url, .. } = self;
        json!({
            "token_endpoint": format!("{url}/{TENANT}/oauth2/token"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{url}{}", path_of::v1_keys()),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported":
                ["code", "id_token", "code id_token", "token id_token", "token"],
            "scopes_supported": ["openid"],
            "issuer": self.issuer_v1(),
            "microsoft_multi_refresh_token": true,
            "authorization_endpoint": format!("{url}/{TENANT}/oauth2/authorize"),
            "device_authorization_endpoint": format!("{url}/{TENANT}/oauth2/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{url}/{TENANT}/oauth2/logout"),
            "claims_supported": [
                "sub", "iss", "cloud_instance_name", "cloud_instance_host_name",
                "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat", "auth_time", "acr",
                "amr", "nonce", "email", "given_name", "family_name", "nickname",
            ],
            "check_session_iframe": format!("{url}/{TENANT}/oauth2/checksession"),
            "userinfo_endpoint": format!("{url}/{TENANT}/openid/userinfo"),
            "kerberos_endpoint": format!("{url}/{TENANT}/kerberos"),
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        })
    }

    /// Only the v2 document says of each key whose tokens it may sign.
    fn keys(&self, version: Version, mode: Mode, is_of_app: bool) -> Value {
        let issuer = (version == Version::Two).then(|| self.issuer_v2());
        let jwks = || lock(&self.keyring).jwks(issuer.as_deref(), is_of_app);
        match mode {
            Mode::EmptyKeys => json!({ "keys": [] }),
            Mode::Oversized => json!({
                "keys": jwks(),
                "padding": "x".repeat(OVERSIZE),
            }),
            _ => json!({ "keys": jwks() }),
        }
    }
}

/// The socket, which [`Mode::Closed`] shuts in people's faces.
struct Door {
    socket: TcpListener,
    shared: Arc<Shared>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let connection = Listener::accept(&mut self.socket).await;
            if lock(&self.shared.behaviour).0 != Mode::Closed {
                return connection;
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A test that panicked meanwhile has left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
