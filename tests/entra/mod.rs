//! Stand-in for Microsoft Entra ID: the documents that a resource server reads, served on a real
//! socket, and tokens signed with the published keys.
//!
//! The documents follow `/{tenant}/v2.0/.well-known/openid-configuration` and
//! `/{tenant}/.well-known/openid-configuration` of `login.microsoftonline.com` and the key
//! documents they point to (Microsoft identity platform, "Access tokens", "Validate the issuer").
//! The shape of tokens is described in [`tokens`].

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

// Sample identifiers from Microsoft's documentation; no real tenant or app has them.

/// The tenant.
pub(crate) const TENANT: &str = "aaaabbbb-0000-cccc-1111-dddd2222eeee";
/// App registration that tokens are meant for.
pub(crate) const CLIENT: &str = "00001111-aaaa-2222-bbbb-3333cccc4444";
/// App registration of the client that obtains tokens.
pub(crate) const OTHER_CLIENT: &str = "11112222-bbbb-3333-cccc-4444dddd5555";
/// Object id of the user.
pub(crate) const USER_OID: &str = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb";
/// Object id of [`OTHER_CLIENT`]'s service principal: subject of app-only tokens.
pub(crate) const APP_OID: &str = "bbbbbbbb-1111-2222-3333-cccccccccccc";

/// Path prefix under which the documents are served in every mode: target of [`Mode::Redirects`].
const MOVED: &str = "/moved";
/// Query of the app's own documents: `appid=` [`CLIENT`].
const OF_APP: &str = "appid=00001111-aaaa-2222-bbbb-3333cccc4444";
/// Larger than any limit a reader of key documents should have, in bytes.
const OVERSIZE: usize = 2 * 1024 * 1024;

/// Behaviour of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers like Entra.
    Up,
    /// 500 to every request.
    Down,
    /// Answers like Entra, after a delay.
    Slow(Duration),
    /// Key documents are valid JSON of 2 MiB, the real keys first.
    Oversized,
    /// 302 to an address that serves the real documents.
    Redirects,
    /// 200 with an HTML page to every request.
    Garbage,
    /// Key documents without keys.
    EmptyKeys,
    /// Connections are accepted and closed at once.
    Closed,
}

/// Behaviour for the v1 documents; [`Mode`] takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum V1 {
    /// Served.
    Present,
    /// 404.
    Missing,
    /// 500.
    Failing,
}

/// Behaviour for metadata requested with `?appid=`; [`Mode`] takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfApp {
    /// Answers like Entra.
    Present,
    /// 400, as a server that does not know the parameter.
    Refused,
    /// 500.
    Failing,
}

/// The running server; it stops when dropped.
pub(crate) struct Entra {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// State shared by the server and its owner.
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

    /// Serves behind a proxy: `front` gets the listen address and returns the public URL.
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
        let listener = ModeListener { socket, shared: Arc::clone(&shared) };
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("axum serves until it is aborted");
        });
        Self { shared, server }
    }

    /// Listen address, without the proxy in front.
    pub(crate) fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// `http://127.0.0.1:PORT`, in the place of `https://login.microsoftonline.com`.
    pub(crate) fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// URL of the v2 metadata.
    pub(crate) fn metadata_url(&self) -> String {
        format!("{}{}", self.shared.url, path_of::v2_metadata())
    }

    /// Issuer of v2 tokens.
    pub(crate) fn issuer_v2(&self) -> String {
        self.shared.issuer_v2()
    }

    /// Issuer of v1 tokens, in the place of `https://sts.windows.net/{tenant}/`.
    pub(crate) fn issuer_v1(&self) -> String {
        self.shared.issuer_v1()
    }

    /// Number of answered requests for key documents, errors included. A client that reads v1 and
    /// v2 makes two each time.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Number of received requests.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Sets the behaviour.
    pub(crate) fn set(&self, mode: Mode) {
        lock(&self.shared.behaviour).0 = mode;
    }

    /// Sets the behaviour for the v1 documents.
    pub(crate) fn set_v1(&self, v1: V1) {
        lock(&self.shared.behaviour).1 = v1;
    }

    /// Sets the behaviour for metadata requested with `?appid=`.
    pub(crate) fn set_of_app(&self, of_app: OfApp) {
        *lock(&self.shared.of_app) = of_app;
    }

    /// Publishes one more key in the app's own documents only (`?appid=CLIENT`) and signs with it,
    /// as Entra does for an app with claims mapping.
    pub(crate) fn rotate_for_app(&self) {
        lock(&self.shared.keyring).rotate_for_app();
    }

    /// Stops publishing the app's own keys.
    pub(crate) fn withdraw_of_app(&self) {
        lock(&self.shared.keyring).withdraw_of_app();
    }

    /// Publishes one more key and signs with it. At most three are published: withdraw the old ones
    /// before the third rotation.
    pub(crate) fn rotate(&self) {
        lock(&self.shared.keyring).rotate();
    }

    /// Publishes only the key that signs.
    pub(crate) fn withdraw_old(&self) {
        lock(&self.shared.keyring).withdraw_old();
    }

    /// Publishes this value unchanged as well, in both key documents.
    pub(crate) fn publish_raw(&self, jwk: Value) {
        lock(&self.shared.keyring).publish_raw(jwk);
    }

    /// The unpublished key of [`TokenBuilder::signed_with_unpublished_key`], to be altered and
    /// passed to [`Self::publish_raw`].
    pub(crate) fn unpublished_jwk() -> Value {
        keys::unpublished().jwk(None)
    }

    /// The key that signs, as in the v1 document.
    pub(crate) fn published_key(&self) -> Value {
        lock(&self.shared.keyring).signing().jwk(None)
    }

    /// Builder of a user's v2 token through [`OTHER_CLIENT`], valid for an hour, signed with the
    /// current key.
    pub(crate) fn token(&self) -> TokenBuilder {
        self.shared.token()
    }

    /// Invalid tokens by name: each must be answered with 401.
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

    /// Answer of the token endpoint to any grant (RFC 6749 §5.1): a v1 token, as SimpleChat accepts
    /// it.
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

/// Paths of the documents.
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

/// Handles every request.
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
    // Each connection closes after its answer, so that a new mode applies to the next request.
    ([(header::CONNECTION, "close")], response).into_response()
}

impl Shared {
    /// True if the request is for the app's own documents.
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

    /// Members of Entra's document, in their order.
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

    /// Members of Entra's document, in their order.
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

    /// Keys have an `issuer` in the v2 document only.
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

/// Listener that closes connections at once under [`Mode::Closed`].
struct ModeListener {
    socket: TcpListener,
    shared: Arc<Shared>,
}

impl Listener for ModeListener {
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

/// Ignores poisoning: a panicking test leaves no partial change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
