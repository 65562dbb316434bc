//! Stand-in for the services that Azure gives an app: identity tokens, as App Service and Container
//! Apps issue them on loopback and as Entra issues them for workload identity of Kubernetes, and
//! secrets in Key Vault. Entra and Key Vault are addressed by their real names, over TLS, through a
//! proxy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use url::form_urlencoded;

use crate::tls_edge::acceptor;
use crate::world::redis::ask_at;

/// Object id of a token's identity, by the token's number: two consecutive tokens have different
/// ids, so that Redis distinguishes them.
pub(crate) fn oid(number: usize) -> String {
    format!("0d0d0d0d-0000-1111-2222-33334444555{}", number % 2)
}

const IDENTITY_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";
const ENTRA: &str = "login.microsoftonline.com";
pub(crate) const VAULT: &str = "kv.vault.azure.net";

/// State of the stand-in: its behaviour and the requests it received.
pub(crate) struct Doings {
    pub(crate) is_away: bool,
    /// Lifetime of issued tokens.
    pub(crate) life: Duration,
    /// Port of the Redis server that accepts the last two tokens.
    redis: u16,
    pub(crate) tokens: Vec<String>,
    /// Value of the secret in Key Vault.
    pub(crate) key: String,
    /// Queries and forms received.
    pub(crate) asked: Vec<HashMap<String, String>>,
}

type Shared = Arc<Mutex<Doings>>;

/// Running stand-in.
pub(crate) struct Azure {
    doings: Shared,
    port: u16,
    proxy: u16,
    folder: TempDir,
}

impl Azure {
    /// Starts a stand-in for the Redis server at this port.
    pub(crate) async fn start(redis: u16) -> Self {
        let doings = Arc::new(Mutex::new(Doings {
            is_away: false,
            life: Duration::from_hours(1),
            redis,
            tokens: Vec::new(),
            key: String::new(),
            asked: Vec::new(),
        }));
        let app = Router::new()
            .route("/msi/token", routing::get(platform_token))
            .route("/{tenant}/oauth2/v2.0/token", routing::post(entra_token))
            // Path as Key Vault's own client spells it.
            .route("/secrets/{name}/", routing::get(secret))
            .route("/secrets/{name}/{version}", routing::get(secret_version))
            .with_state(Arc::clone(&doings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().unwrap();
        let proxy = proxy(port, &folder).await;
        std::fs::write(folder.path().join("token"), "of Kubernetes' own").unwrap();
        Self { doings, port, proxy, folder }
    }

    pub(crate) fn doings(&self) -> MutexGuard<'_, Doings> {
        self.doings.lock().unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Variables that App Service and Container Apps set.
    pub(crate) fn of_the_platform(&self) -> Vec<(&'static str, String)> {
        vec![
            ("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{}/msi/token", self.port)),
            ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned()),
        ]
    }

    /// Variables that the webhook of workload identity sets.
    pub(crate) fn of_kubernetes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_AUTHORITY_HOST", format!("https://{ENTRA}/")),
            ("AZURE_TENANT_ID", "aaaabbbb-0000-cccc-1111-dddd2222eeee".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", self.file("token")),
        ]
    }

    /// Variables that route requests to Entra and Key Vault through the proxy.
    pub(crate) fn way_out(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HTTPS_PROXY", format!("http://127.0.0.1:{}", self.proxy)),
            ("SSL_CERT_FILE", self.file("ca.pem")),
        ]
    }
}

/// Proxy that connects requests for Entra and Key Vault to the stand-in.
async fn proxy(there: u16, folder: &TempDir) -> u16 {
    let certificate = generate_simple_self_signed([ENTRA, VAULT].map(str::to_owned)).unwrap();
    std::fs::write(folder.path().join("ca.pem"), certificate.cert.pem()).unwrap();
    let acceptor = acceptor(&certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(caller.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let is_known = [ENTRA, VAULT]
                    .iter()
                    .any(|host| head.starts_with(&format!("CONNECT {host}:443 ")));
                assert!(is_known, "{head}");
                caller.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut caller = acceptor.accept(caller).await.unwrap();
                let mut there = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
                let _ = copy_bidirectional(&mut caller, &mut there).await;
            });
        }
    });
    port
}

/// Issues a token. Redis accepts it from now on, besides the previous one.
fn issue(doings: &mut Doings) -> (String, u64) {
    let ends_at = time::UtcDateTime::now().unix_timestamp().unsigned_abs() + doings.life.as_secs();
    let number = doings.tokens.len();
    let oid = oid(number);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (head, claims) =
        (json!({"alg": "RS256"}), json!({"oid": oid, "exp": ends_at, "n": number}));
    let token = format!("{}.{}.c2lnbmVk", part(&head), part(&claims));
    doings.tokens.push(token.clone());
    // Clients with the last token but one are disconnected.
    ask_at(doings.redis, &["ACL", "DELUSER", &oid]);
    let password = format!(">{token}");
    let set = ["ACL", "SETUSER", &oid, "on", &password, "~*", "+@all"];
    assert_eq!(ask_at(doings.redis, &set).as_deref(), Some("OK"));
    (token, ends_at)
}

async fn platform_token(
    State(doings): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut doings = doings.lock().unwrap();
    doings.asked.push(query.clone());
    if doings.is_away {
        return (StatusCode::SERVICE_UNAVAILABLE, "the identity service is away").into_response();
    }
    if headers.get("x-identity-header").is_none_or(|value| value != IDENTITY_HEADER) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (token, ends_at) = issue(&mut doings);
    Json(json!({
        "access_token": token,
        "expires_on": ends_at.to_string(),
        "resource": query["resource"],
        "token_type": "Bearer",
        "client_id": query.get("client_id"),
    }))
    .into_response()
}

async fn entra_token(
    State(doings): State<Shared>,
    Path(tenant): Path<String>,
    form: String,
) -> Json<Value> {
    let mut doings = doings.lock().unwrap();
    let mut form: HashMap<String, String> =
        form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    form.insert("tenant".to_owned(), tenant);
    doings.asked.push(form);
    let (token, _) = issue(&mut doings);
    let life = doings.life.as_secs();
    Json(json!({"token_type": "Bearer", "expires_in": life, "access_token": token}))
}

async fn secret(doings: State<Shared>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    read(&doings, &name, "newest", &headers)
}

async fn secret_version(
    doings: State<Shared>,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    read(&doings, &name, &version, &headers)
}

fn read(doings: &Shared, name: &str, version: &str, headers: &HeaderMap) -> Response {
    let mut doings = doings.lock().unwrap();
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
        let challenge = format!(
            "Bearer authorization=\"https://{ENTRA}/aaaabbbb-0000-cccc-1111-dddd2222eeee\", resource=\"https://vault.azure.net\""
        );
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    };
    if !doings.tokens.iter().any(|issued| issued == token) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let asked = [("name", name), ("version", version)];
    doings.asked.push(asked.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    let id = format!("https://{VAULT}/secrets/{name}/{version}");
    Json(json!({"value": doings.key, "id": id, "attributes": {"enabled": true}})).into_response()
}
