//! `doctor`: canary on real upstreams, other tests, and the required app registration.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing,
};
use serde_json::{Value, json};

use crate::{
    entra::{CLIENT, Entra, TENANT},
    world::{
        Kind, Store,
        flask::Flask,
        gateway::{binary, run},
        process::{Process, until},
        settings,
    },
};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn owned(pairs: Pairs<'_>) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Entra and a session store, without a gateway.
struct Ground {
    entra: Entra,
    store: Store,
}

impl Ground {
    async fn start(kind: Kind) -> Self {
        Self { entra: Entra::start().await, store: Store::start(kind).await }
    }

    fn upstream_settings(&self, more: Pairs<'_>) -> Vec<(String, String)> {
        let mut settings = self.store.settings();
        settings.extend(owned(&[("TENANT_ID", TENANT), ("CLIENT_ID", CLIENT)]));
        settings.extend(owned(more));
        settings
    }

    fn settings(&self, upstream: &str, more: Pairs<'_>) -> Vec<(String, String)> {
        let mut settings = settings(&self.entra, None, &self.store, &[]);
        settings.extend(owned(&[("GATEWAY_UPSTREAM_URL", upstream)]));
        settings.extend(owned(more));
        settings
    }

    async fn doctor(&self, upstream: &str, more: Pairs<'_>) -> Report {
        Report::by(run(&self.settings(upstream, more), &["doctor"]).await)
    }

    /// Contents of the store and of the files beside it, except counters.
    fn contents(&self) -> BTreeSet<String> {
        match &self.store {
            Store::Files(folder) => [
                "flask_session",
                "flask_session.gateway/sessions",
                "flask_session.gateway/ended",
                "flask_session.gateway/subjects/00000000-0000-0000-0000-63616e617279",
            ]
            .iter()
            .filter_map(|name| std::fs::read_dir(folder.path().join(name)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path().display().to_string())
            // cachelib's counter.
            .filter(|path| {
                !path.ends_with("79bc207ee04a581ab2348ca1f3494e64cd0ec36128735b8c6bc85ddd8fe1938c")
            })
            .collect(),
            Store::Redis(redis, _) => {
                let databases =
                    ["0", "5"].map(|database| redis.ask(&["-n", database, "KEYS", "*"]));
                let ended = redis.ask(&["XLEN", "gateway:ended"]);
                let noted = redis.ask(&["-n", "5", "XLEN", "gateway:ended"]);
                let keys = databases.iter().flat_map(|keys| keys.lines());
                // A stream remains after its entries are removed.
                let keys = keys.filter(|key| !key.is_empty() && *key != "gateway:ended");
                keys.map(str::to_owned).chain([format!("{ended} and {noted} ended")]).collect()
            }
        }
    }
}

/// Output and exit code of `doctor`.
struct Report {
    code: Option<i32>,
    text: String,
}

impl Report {
    fn by(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    #[track_caller]
    fn shows(&self, what: &str) -> &Self {
        assert!(self.text.contains(what), "{what:?} is not in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn omits(&self, what: &str) -> &Self {
        assert!(!self.text.contains(what), "{what:?} is in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }

    /// JSON object below a title.
    #[track_caller]
    fn json(&self, title: &str) -> Value {
        let below = self.text.split_once(&format!("\n{title}")).expect(title).1;
        let json = &below[below.find("\n{\n").expect("an object")..];
        let end = json.find("\n}\n").expect("its end") + 2;
        serde_json::from_str(&json[..end]).unwrap()
    }

    fn manifest(&self) -> Value {
        self.json("App registration")
    }

    /// Commands for a shell.
    fn commands(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.starts_with("az ")).collect()
    }
}

/// Starts an upstream that is not SimpleChat; returns its URL.
async fn other_upstream(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

const HEARTBEAT: &str = "/api/session/heartbeat";
const HONOURED: &str = "canary: session accepted by SimpleChat";

#[tokio::test]
async fn the_canary_passes_on_both_stores_and_leaves_no_data() {
    for kind in [Kind::Files, Kind::Redis] {
        let ground = Ground::start(kind).await;
        let flask = Flask::start(&ground.upstream_settings(&[])).await;
        let before = ground.contents();
        let report = ground.doctor(&flask.url(), &[]).await;
        report
            .ends_with(0)
            .shows("ok      SimpleChat\n")
            .shows("ok      canary: anonymous request rejected\n")
            .shows("ok      canary: session created\n")
            .shows("ok      canary: session accepted by SimpleChat\n")
            .shows("ok      canary: ended session rejected by SimpleChat\n")
            .shows("ok      canary: session removed\n")
            .omits("FAIL")
            .shows("ok      SimpleChat has no route at the gateway's paths\n");
        if kind == Kind::Redis {
            assert!(before.contains("0 and 0 ended"), "{before:?}");
        }
        assert_eq!(ground.contents(), before, "{kind:?}");
        for line in [r#"heartbeat HTTP/1.1" 200"#, r#"heartbeat HTTP/1.1" 401"#] {
            until(line, async || flask.log().contains(line)).await;
        }
    }
}

#[tokio::test]
async fn fresh_workers_that_refuse_their_first_requests_do_not_fail_the_canary() {
    let ground = Ground::start(Kind::Redis).await;
    let flask =
        Flask::start_unprimed(&ground.upstream_settings(&[("UPSTREAM_WORKERS", "4")])).await;
    ground.doctor(&flask.url(), &[]).await.ends_with(0).shows("ok      canary: session removed");

    // Which worker answers is random there; here six fresh ones answer for certain.
    let shown = Arc::new(AtomicUsize::new(0));
    let heartbeat = async move |headers: HeaderMap| {
        let is_shown = headers.contains_key("cookie");
        match if is_shown { shown.fetch_add(1, Ordering::Relaxed) } else { 0 } {
            // Two in the second round, then two whole rounds; later requests follow the end of the
            // session.
            6..16 => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    };
    let url = other_upstream(Router::new().route(HEARTBEAT, routing::post(heartbeat))).await;
    ground
        .doctor(&url, &[])
        .await
        .ends_with(0)
        .shows("ok      canary: ended session rejected by SimpleChat\n");
}

#[tokio::test]
async fn the_canary_fails_where_simplechat_signs_its_cookies() {
    let signer = [("SESSION_USE_SIGNER", "true"), ("SECRET_KEY", "SimpleChat's own key")];
    let ground = Ground::start(Kind::Redis).await;
    let flask = Flask::start(&ground.upstream_settings(&signer)).await;
    ground
        .doctor(&flask.url(), &[])
        .await
        .ends_with(69)
        .shows("FAIL    canary: session accepted by SimpleChat")
        .shows("SESSION_USE_SIGNER must be unset in SimpleChat, or false");
}

#[tokio::test]
async fn mismatched_session_settings_fail_the_canary_are_named_and_leave_no_data() {
    let ground = Ground::start(Kind::Redis).await;
    let flask = Flask::start(&ground.upstream_settings(&[])).await;
    let other_database = ground.store.redis().url().replace("/0", "/5");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("flask_session")).unwrap();
    let before = ground.contents();
    for (more, advice) in [
        (vec![("SESSION_KEY_PREFIX", "other:")], r#"SESSION_KEY_PREFIX (here "other:")"#),
        (vec![("REDIS_URL", other_database.as_str())], "database (here 5, SimpleChat's own is 0)"),
        (vec![("SESSION_COOKIE_NAME", "sitzung")], r#"SESSION_COOKIE_NAME (here "sitzung")"#),
    ] {
        let report = ground.doctor(&flask.url(), &more).await;
        report
            .ends_with(69)
            .shows(&format!(
                "FAIL    {HONOURED}: upstream rejected the session in 48 of 48 requests, with 401. Fix: "
            ))
            .shows(advice)
            .shows("ok      canary: session removed\n")
            .omits("canary: ended session rejected by SimpleChat")
            .shows("Not ready: canary");
        assert_eq!(ground.contents(), before, "{more:?}");
    }
}

#[tokio::test]
async fn doctor_detects_workers_that_fell_back_to_files() {
    let mut ground = Ground::start(Kind::Redis).await;
    let Store::Redis(redis, _) = &mut ground.store else { unreachable!() };
    redis.end();
    let upstream_settings = ground.upstream_settings(&[]);
    let flask = Flask::start(&upstream_settings).await;
    let Store::Redis(redis, _) = &mut ground.store else { unreachable!() };
    redis.begin().await;
    ground
        .doctor(&flask.url(), &[])
        .await
        .ends_with(69)
        .shows("FAIL    canary: session accepted by SimpleChat")
        .shows("uses files until it is restarted");
}

#[tokio::test]
async fn an_upstream_whose_workers_disagree_fails_the_canary() {
    let ground = Ground::start(Kind::Redis).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let heartbeat = async move |headers: HeaderMap| {
        let is_good_worker = requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let is_let_in = headers.contains_key("cookie") && is_good_worker;
        if is_let_in { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
    };
    let url = other_upstream(Router::new().route(HEARTBEAT, routing::post(heartbeat))).await;
    let before = ground.contents();
    ground
        .doctor(&url, &[])
        .await
        .ends_with(69)
        .shows("in 24 of 48 requests: its workers disagree")
        .shows("restart SimpleChat")
        .shows("ok      canary: session removed");
    assert_eq!(ground.contents(), before);
}

#[tokio::test]
async fn an_upstream_without_authentication_or_heartbeat_fails_the_canary() {
    let ground = Ground::start(Kind::Redis).await;
    let before = ground.contents();
    let open = Router::new().route(HEARTBEAT, routing::post(async || StatusCode::OK));
    ground
        .doctor(&other_upstream(open).await, &[])
        .await
        .ends_with(69)
        .shows("FAIL    canary: anonymous request rejected: upstream accepts an anonymous POST")
        .omits("canary: session created");
    ground
        .doctor(&other_upstream(Router::new()).await, &[])
        .await
        .ends_with(69)
        .shows("with 404; SimpleChat answers 401");
    assert_eq!(ground.contents(), before);
}

#[tokio::test]
async fn an_upstream_that_ignores_revocation_fails_the_canary() {
    let ground = Ground::start(Kind::Redis).await;
    let before = ground.contents();
    let heartbeat = async |headers: HeaderMap| {
        if headers.contains_key("cookie") { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
    };
    let url = other_upstream(Router::new().route(HEARTBEAT, routing::post(heartbeat))).await;
    ground
        .doctor(&url, &[])
        .await
        .ends_with(69)
        .shows("ok      canary: session accepted by SimpleChat\n")
        .shows(
            "FAIL    canary: ended session rejected by SimpleChat: upstream accepts the session after its revocation",
        );
    assert_eq!(ground.contents(), before);
}

#[tokio::test]
async fn an_interrupted_canary_leaves_no_data() {
    let ground = Ground::start(Kind::Redis).await;
    let before = ground.contents();
    let shown = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&shown);
    let heartbeat = async move |headers: HeaderMap| {
        if headers.contains_key("cookie") {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        StatusCode::UNAUTHORIZED
    };
    let url = other_upstream(Router::new().route(HEARTBEAT, routing::post(heartbeat))).await;
    let mut doctor =
        Process::start(Command::new(binary()).arg("doctor"), &ground.settings(&url, &[]), "KILL");
    until("the session is shown to upstream", async || shown.load(Ordering::Relaxed) > 0).await;
    assert_ne!(ground.contents(), before, "the session is in the store");
    doctor.signal("INT");
    assert_eq!(doctor.ended().await.code(), Some(69));
    assert!(doctor.log().contains("interrupted"), "{}", doctor.log());
    assert_eq!(ground.contents(), before);
    assert!(shown.load(Ordering::Relaxed) <= 8, "doctor continued after the interrupt");
}

#[tokio::test]
async fn an_upstream_that_answers_at_the_gateways_paths_is_reported() {
    let ground = Ground::start(Kind::Files).await;
    let app = Router::new()
        .route(HEARTBEAT, routing::post(async || StatusCode::UNAUTHORIZED))
        .route("/external/login", routing::post(async || StatusCode::UNAUTHORIZED))
        .route(
            "/external/logout",
            routing::post(async || (StatusCode::FOUND, [("location", "/login?next=1")])),
        )
        .route("/gateway/health/live", routing::get(async || StatusCode::SERVICE_UNAVAILABLE));
    ground
        .doctor(&other_upstream(app).await, &[])
        .await
        .shows("warning SimpleChat answers 401 to POST /external/login itself")
        .shows("skipped GET /gateway/health/live on SimpleChat: it answers 503")
        .omits("/external/logout")
        .omits("has no route at the gateway's paths");
}

/// Lines of the documents part below a document's path.
fn of_document<'a>(report: &'a Report, path: &str) -> &'a str {
    let (_, rest) = report.text.split_once(&format!("GET {path}\n")).expect(path);
    let end = rest.match_indices('\n').nth(1).map_or(rest.len(), |(at, _)| at);
    &rest[..end]
}

#[tokio::test]
async fn the_documents_of_a_later_simplechat_are_named_with_the_clients_that_find_them() {
    let ground = Ground::start(Kind::Files).await;
    let later = [("UPSTREAM_LATER", "on"), ("UPSTREAM_MCP_RESOURCE", "url")];
    let flask = Flask::start(&ground.upstream_settings(&later)).await;
    let root = "/.well-known/oauth-protected-resource";
    let others = [
        "/.well-known/oauth-protected-resource/api/mcp",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server",
    ];
    let login = "ok      client of /external/login: its 401 names /.well-known/oauth-protected-resource/external/login, the gateway's document";
    let endpoint = "ok      client of /api/mcp: its 401 names /.well-known/oauth-protected-resource/api/mcp; that and /.well-known/oauth-authorization-server are SimpleChat's documents, with external access on and off";
    for (setting, on) in
        [("gateway", "the gateway's document"), ("upstream", "SimpleChat's document")]
    {
        let report = ground.doctor(&flask.url(), &[("GATEWAY_ROOT_METADATA", setting)]).await;
        report
            .ends_with(0)
            .shows(login)
            .shows(endpoint)
            .shows("ok      SimpleChat has no route at the gateway's paths\n")
            .shows(&format!("GATEWAY_ROOT_METADATA={setting}, GATEWAY_EXTERNAL_ACCESS=on"));
        let off = "with external access off: SimpleChat's document";
        for (path, on) in
            others.map(|path| (path, "SimpleChat's document")).into_iter().chain([(root, on)])
        {
            let lines = of_document(&report, path);
            assert!(lines.contains(off), "{path}: {lines}");
            assert!(lines.ends_with(&format!("with external access on: {on}")), "{path}: {lines}");
        }
        let advice = "warning GATEWAY_ROOT_METADATA=gateway: SimpleChat has a document";
        if setting == "gateway" {
            report.shows(advice).shows("set GATEWAY_ROOT_METADATA=upstream");
        } else {
            report
                .omits(advice)
                .shows("ok      /.well-known/oauth-protected-resource is SimpleChat's document");
        }
    }
    let host = [("GATEWAY_UPSTREAM_HOST", "internal.example")];
    ground
        .doctor(&flask.url(), &host)
        .await
        .shows("warning GATEWAY_UPSTREAM_HOST: SimpleChat's documents name");
}

#[tokio::test]
async fn a_simplechat_without_documents_of_its_own_is_reported_as_such() {
    let ground = Ground::start(Kind::Files).await;
    let flask = Flask::start(&ground.upstream_settings(&[])).await;
    let report = ground.doctor(&flask.url(), &[("GATEWAY_ROOT_METADATA", "upstream")]).await;
    report
        .ends_with(0)
        .shows("ok      client of /api/mcp: none to serve; SimpleChat answers 404 there")
        .shows("warning GATEWAY_ROOT_METADATA=upstream: SimpleChat has no document")
        .omits("GATEWAY_UPSTREAM_HOST");
    let lines = of_document(&report, "/.well-known/oauth-protected-resource/api/mcp");
    assert_eq!(lines.matches("404 of SimpleChat").count(), 2, "{lines}");
}

/// Upstreams whose MCP endpoint does not allow sign-in, and the reason that doctor prints.
#[tokio::test]
async fn an_mcp_endpoint_without_metadata_documents_gets_advice() {
    let ground = Ground::start(Kind::Files).await;
    let named = |path: &'static str| {
        let challenge = format!("Bearer resource_metadata=\"https://chat.example{path}\"");
        Router::new()
            .route(HEARTBEAT, routing::post(async || StatusCode::UNAUTHORIZED))
            .route(
                "/api/mcp",
                routing::post(async || {
                    (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)])
                }),
            )
            .fallback(async || (StatusCode::FOUND, [("location", "/login")]))
    };
    let document = || routing::get(async || axum::Json(json!({})));
    let root = "/.well-known/oauth-protected-resource";
    let mcp = "/.well-known/oauth-protected-resource/api/mcp";
    for (app, advice) in [
        (named(mcp), format!("names {mcp}, which holds no document: 302 of SimpleChat")),
        (
            named(root).route(root, document()),
            format!(
                "names {root}, where the gateway answers while external access is on. Set GATEWAY_ROOT_METADATA=upstream"
            ),
        ),
        (
            named(mcp).route(mcp, document()),
            "but /.well-known/oauth-authorization-server holds none: 302 of SimpleChat".to_owned(),
        ),
    ] {
        let report = ground.doctor(&other_upstream(app).await, &[]).await;
        report.shows("warning client of /api/mcp: ").shows(&advice);
        let server = of_document(&report, "/.well-known/oauth-authorization-server");
        assert!(
            server.ends_with("with external access on: 404, in place of SimpleChat's 302"),
            "{server}"
        );
    }
}

#[tokio::test]
async fn a_public_url_with_a_port_is_not_an_identifier_uri() {
    let report = registration(&[("GATEWAY_PUBLIC_URLS", "https://localhost:8443")]).await;
    report.shows("warning Entra accepts no identifier URI with a port (https://localhost:8443). ");
    assert_eq!(report.manifest()["identifierUris"], json!([format!("api://{CLIENT}")]));
}

#[tokio::test]
async fn an_upstream_reachable_past_the_gateway_is_reported() {
    let is_global = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let mut addresses = if_addrs::get_if_addrs().unwrap().into_iter().map(|of| of.ip());
    let address = addresses.find(is_global);
    let ground = Ground::start(Kind::Files).await;
    let flask = Flask::start(&ground.upstream_settings(&[("GUNICORN_BIND", "0.0.0.0:0")])).await;
    let port: u16 = flask.url().rsplit(':').next().unwrap().parse().unwrap();
    let report = ground.doctor(&format!("http://127.0.0.1:{port}"), &[]).await;
    report.ends_with(0);
    let Some(address) = address else {
        // Without any network there is no other address.
        report.shows("ok      SimpleChat's port answers on no other address");
        return;
    };
    report
        .shows(&format!("SimpleChat's port also answers at {}. ", SocketAddr::new(address, port)))
        .shows(&format!("Set GUNICORN_BIND=127.0.0.1:{port}"));

    let report = ground.doctor(&format!("http://{address}:{port}"), &[]).await;
    report
        .ends_with(0)
        .shows(&format!("GATEWAY_UPSTREAM_URL: {address} is not a loopback address"));

    let alone = Flask::start(&ground.upstream_settings(&[])).await;
    let report = ground.doctor(&alone.url(), &[]).await;
    report
        .ends_with(0)
        .shows("ok      SimpleChat's port answers on no other address of this host\n");
}

#[tokio::test]
async fn app_service_sign_in_is_detected_by_its_answers_and_by_its_variables() {
    let ground = Ground::start(Kind::Files).await;
    let sign_in = Router::new().fallback(async || {
        let to = "/.auth/login/aad?post_login_redirect_uri=%2F&nonce=hunter2";
        (StatusCode::FOUND, [("location", to)]).into_response()
    });
    let public = other_upstream(sign_in).await;
    let dead = "http://127.0.0.1:1";
    let report = ground.doctor(dead, &[("GATEWAY_PUBLIC_URLS", &public)]).await;
    report
        .shows(&format!("{public} does not lead to a running gateway from here (302 Found)"))
        .shows("is answered by a sign-in in front of the gateway (302 to /.auth/login/aad)")
        .shows("every request to /api must carry the bearer token")
        .shows("skipped current authentication settings of App Service")
        .omits("hunter2");
    let part = &report.json("App Service authentication")["properties"];
    assert_eq!(
        part["globalValidation"]["excludedPaths"],
        json!(["/.well-known/oauth-protected-resource*", "/external/*"])
    );

    let by_variables = [
        ("AZURE_ENVIRONMENT", "public"),
        ("WEBSITE_HOSTNAME", "chat.azurewebsites.net"),
        ("WEBSITE_AUTH_ENABLED", "True"),
        ("WEBSITE_AUTH_OPENID_ISSUER", "https://sts.windows.net/elsewhere/"),
        ("WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES", "https://chat/user_impersonation"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    let report = ground.doctor(dead, &by_variables).await;
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    report.shows("warning App Service authentication is enabled in front of the gateway (WEBSITE_AUTH_ENABLED)")
        .shows("WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES: unset it")
        .shows(&format!("App Service accepts tokens of the issuer https://sts.windows.net/elsewhere/; version 2 access tokens have the issuer {issuer}"));
    let part = report.json("App Service authentication");
    let entra = &part["properties"]["identityProviders"]["azureActiveDirectory"];
    assert_eq!(entra["registration"]["openIdIssuer"], issuer);

    let off = [("WEBSITE_HOSTNAME", "chat.azurewebsites.net"), ("WEBSITE_AUTH_ENABLED", "False")];
    ground.doctor(dead, &off).await.shows("ok      App Service authentication is off");
}

const ROLE: &str = "b0288440-5195-4264-9a33-cf9a4635d634";
const VS_CODE: &str = "aebc6443-996d-45c2-90f0-388ff96faa56";
const AZURE_CLI: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// Runs `doctor` with settings alone: no dependency is reachable.
async fn registration(more: Pairs<'_>) -> Report {
    let mut settings = owned(&[
        ("TENANT_ID", TENANT),
        ("CLIENT_ID", CLIENT),
        ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:1"),
        ("SESSION_FILE_DIR", "/does/not/exist"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ]);
    settings.extend(owned(more));
    let report = Report::by(run(&settings, &["doctor"]).await);
    report.ends_with(69);
    report
}

#[tokio::test]
async fn the_manifest_has_the_role_and_a_scope_that_entra_accepts_beside_it() {
    let report = registration(&[("GATEWAY_LOGIN_SCOPES", "ExternalApi,Chat.Sign-In")]).await;
    let manifest = report.manifest();
    let role = &manifest["appRoles"][0];
    assert_eq!(role["id"], ROLE);
    assert_eq!(role["value"], "ExternalApi");
    assert_eq!(role["allowedMemberTypes"], json!(["User", "Application"]));
    let scopes = manifest["api"]["oauth2PermissionScopes"].as_array().unwrap();
    assert_eq!(scopes.len(), 2);
    // Entra refuses a scope with a role's name unless all of these members are equal.
    for (of_scope, of_role) in [
        ("id", "id"),
        ("value", "value"),
        ("isEnabled", "isEnabled"),
        ("adminConsentDisplayName", "displayName"),
        ("adminConsentDescription", "description"),
    ] {
        assert_eq!(scopes[0][of_scope], role[of_role], "{of_scope}");
    }
    assert_eq!(scopes[1]["value"], "Chat.Sign-In");
    let id = scopes[1]["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 36 && id != ROLE, "{id}");
    let again = registration(&[("GATEWAY_LOGIN_SCOPES", "Chat.Sign-In")]).await.manifest();
    assert_eq!(again["api"]["oauth2PermissionScopes"][0]["id"], id, "the id is stable");

    let report = registration(&[("GATEWAY_LOGIN_SCOPES", "User,it's")]).await;
    assert_eq!(report.manifest()["api"]["oauth2PermissionScopes"], json!([]));
    report.shows("User is omitted below").shows(r#""it's" is omitted below"#);
}

#[tokio::test]
async fn allowed_clients_are_pre_authorized_and_microsoft_clients_are_suggested() {
    let report = registration(&[]).await;
    assert_eq!(report.manifest()["api"]["preAuthorizedApplications"], json!([]));
    report.shows(VS_CODE).shows(AZURE_CLI).shows("AADSTS65001");
    let allowed = format!("{VS_CODE},{CLIENT},{VS_CODE}");
    let report = registration(&[("GATEWAY_ALLOWED_CLIENTS", &allowed)]).await;
    assert_eq!(
        report.manifest()["api"]["preAuthorizedApplications"],
        json!([{"appId": VS_CODE, "delegatedPermissionIds": [ROLE]}])
    );
    report.omits("Visual Studio Code").shows(&format!(
        "client id {AZURE_CLI} to api.preAuthorizedApplications and GATEWAY_ALLOWED_CLIENTS"
    ));
}

#[tokio::test]
async fn identifier_uris_cover_every_public_url_that_entra_accepts() {
    let api = format!("api://{CLIENT}");
    for (urls, expected, version) in [
        ("https://no-such.azurewebsites.net", vec![], 2),
        ("http://chat.contoso.example,https://10.0.0.4,https://localhost", vec![], 2),
        (
            "https://chat.contoso.example/,https://chat.contoso.example,https://no-such.azurecontainerapps.io",
            vec![
                "https://chat.contoso.example/external/login",
                "https://chat.contoso.example/external",
            ],
            2,
        ),
        (
            "https://a.contoso.example,https://b.contoso.example",
            vec![
                "https://a.contoso.example/external/login",
                "https://a.contoso.example/external",
                "https://b.contoso.example/external/login",
                "https://b.contoso.example/external",
            ],
            2,
        ),
    ] {
        let report = registration(&[("GATEWAY_PUBLIC_URLS", urls)]).await;
        let manifest = report.manifest();
        let mut uris = vec![api.as_str()];
        uris.extend(&expected);
        assert_eq!(manifest["identifierUris"], json!(uris), "{urls}");
        assert_eq!(manifest["api"]["requestedAccessTokenVersion"], version, "{urls}");
        if !expected.is_empty() {
            report.shows("must be verified in tenant");
            let commands = report.commands();
            let at = |part: &str| {
                commands.iter().position(|command| command.contains(part)).expect(part)
            };
            assert!(at("requestedAccessTokenVersion") < at("--identifier-uris"), "{commands:?}");
            assert!(at("isVerified") < at("--identifier-uris"), "{commands:?}");
        }
    }
    registration(&[("GATEWAY_PUBLIC_URLS", "https://no-such.azurewebsites.net")])
        .await
        .shows("Entra accepts no identifier URI in azurewebsites.net, a domain of the platform, which no tenant can verify (https://no-such.azurewebsites.net)")
        .shows("send no `resource`");
}

#[tokio::test]
async fn no_command_contains_an_identifier_uri_that_entra_refuses() {
    let refused = [
        "https://no-such.azurewebsites.net",
        "https://no-such.azurewebsites.us",
        "https://no-such.chinacloudsites.cn",
        "https://no-such.blue-1.eastus.azurecontainerapps.io",
        "https://no-such.blue-1.usgovvirginia.azurecontainerapps.us",
        "https://no-such.azurefd.net",
        "https://no-such.eastus.cloudapp.azure.com",
        "https://localhost",
        "https://chat",
        "https://chat.corp.internal",
        "https://10.0.0.4",
        "https://[fd00::2]",
        "http://chat.contoso.example",
        "https://ported.contoso.example:8443",
    ];
    for cloud in ["public", "usgovernment", "china"] {
        let urls = format!("https://chat.contoso.example,{}", refused.join(","));
        let report =
            registration(&[("GATEWAY_PUBLIC_URLS", &urls), ("AZURE_ENVIRONMENT", cloud)]).await;
        let commands = report.commands();
        assert!(commands.len() > 5, "{commands:?}");
        let manifest = report.manifest().to_string();
        for url in refused {
            let uri = format!("{url}/external");
            let in_commands = commands.iter().any(|command| command.contains(&uri));
            assert!(!in_commands && !manifest.contains(&uri), "{url}");
        }
        let listed = report.manifest()["identifierUris"].clone();
        let listed: Vec<_> = listed.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(listed.len(), 3, "{listed:?}");
        assert!(listed.iter().all(|uri| !uri.ends_with('/')), "{listed:?}");
        assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "{listed:?}");
    }
}

#[tokio::test]
async fn commands_use_the_graph_endpoint_of_the_cloud() {
    for (cloud, graph, name) in [
        ("public", "https://graph.microsoft.com/", "AzureCloud"),
        ("usgovernment", "https://graph.microsoft.us/", "AzureUSGovernment"),
        ("china", "https://microsoftgraph.chinacloudapi.cn/", "AzureChinaCloud"),
    ] {
        let report = registration(&[("AZURE_ENVIRONMENT", cloud)]).await;
        report.shows(&format!("az cloud set --name {name}\n"));
        let calls: Vec<_> =
            report.commands().into_iter().filter(|line| line.contains("az rest")).collect();
        assert!(calls.len() >= 2 && calls.iter().all(|line| line.contains(graph)), "{calls:?}");
    }
}

#[tokio::test]
async fn inconsistent_scopes_and_audiences_are_reported() {
    let scopes = "mcp.read,openid,https://no-such.azurewebsites.net/user_impersonation,api://$CLIENT_ID/Other,api://$CLIENT_ID/ExternalApi";
    let report = registration(&[
        ("GATEWAY_SCOPES", scopes),
        ("GATEWAY_AUDIENCES", "$CLIENT_ID"),
        ("GATEWAY_PUBLIC_URLS", "https://chat.contoso.example"),
    ])
    .await;
    report.shows("GATEWAY_SCOPES: mcp.read has no prefix")
        .shows("GATEWAY_SCOPES: https://no-such.azurewebsites.net/user_impersonation does not begin with an identifier URI")
        .shows(&format!("GATEWAY_SCOPES: api://{CLIENT}/Other names a scope that is not in GATEWAY_LOGIN_SCOPES"))
        .omits("GATEWAY_SCOPES: openid")
        .omits(&format!("GATEWAY_SCOPES: api://{CLIENT}/ExternalApi"))
        .shows(&format!("the client requested; add api://{CLIENT}, https://chat.contoso.example/external/login, https://chat.contoso.example/external"));
    registration(&[]).await.shows("ok      GATEWAY_SCOPES").omits("GATEWAY_AUDIENCES");
}

#[tokio::test]
async fn upstream_version_1_tokens_are_requested_unless_an_https_identifier_uri_needs_version_2() {
    let ground = Ground::start(Kind::Files).await;
    let flask = Flask::start(&ground.upstream_settings(&[])).await;
    let report = ground.doctor(&flask.url(), &[]).await;
    assert_eq!(report.manifest()["api"]["requestedAccessTokenVersion"], 1);
    let proxied = [
        ("GATEWAY_PUBLIC_URLS", "https://chat.contoso.example"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    let report = ground.doctor(&flask.url(), &proxied).await;
    report.ends_with(0).shows("accepts version 1 only (audience api://");
    assert_eq!(report.manifest()["api"]["requestedAccessTokenVersion"], 2);
}
