//! Every documented operation × every kind of caller, with access on and off and dependencies
//! unavailable: each response matches the OpenAPI document. A documented operation or response that
//! never occurs is a failure.

use std::collections::{BTreeSet, HashMap};

use jsonschema::Validator;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    entra::{Entra, Mode},
    world::{
        Kind, Store, World,
        administrators::{Person, managed},
        alone, client,
        flask::in_repository,
        gateway::Gateway,
        process::until,
        settings,
    },
};

/// Documented responses that are not provoked here, with the reason. The list may only shrink.
const NOT_PROVOKED: [(&str, &str); 6] = [
    // Serialization would have to fail.
    ("get /.well-known/oauth-protected-resource", "500"),
    ("get /.well-known/oauth-protected-resource/external", "500"),
    ("get /.well-known/oauth-protected-resource/external/login", "500"),
    ("post /external/login", "500"),
    ("get /gateway/docs", "500"),
    // Needs more connections than there are descriptors: `slow_callers.rs`.
    ("*", "NoRoom"),
];

/// Kind of caller, by the headers it sends.
#[derive(Clone)]
struct Caller {
    name: &'static str,
    headers: Vec<(&'static str, String)>,
}

/// Callers who signed in to SimpleChat itself.
async fn people(gateway: &Gateway) -> Vec<Caller> {
    let mut people = Vec::new();
    for (name, roles) in [("a browser's user", "User"), ("an administrator", "User,Admin")] {
        let person = Person::with_roles(gateway, roles).await;
        people
            .push(Caller { name, headers: vec![("cookie", format!("session={}", person.cookie))] });
    }
    people
}

fn callers(entra: &Entra, session: Option<&str>) -> Vec<Caller> {
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let good = entra.token().build();
    let mut callers = vec![
        Caller { name: "an anonymous caller", headers: vec![] },
        Caller { name: "malformed", headers: vec![bearer("a b".to_owned())] },
        Caller { name: "two lines", headers: vec![bearer(good.clone()), bearer(good.clone())] },
        Caller { name: "expired", headers: vec![bearer(entra.token().expires_in(-3600).build())] },
        Caller {
            name: "a user without the role",
            headers: vec![bearer(entra.token().roles(&["User"]).build())],
        },
        Caller { name: "a user with the role", headers: vec![bearer(good)] },
        Caller {
            name: "an app",
            headers: vec![bearer(entra.token().app_only().roles(&[]).build())],
        },
        Caller {
            name: "an app with the role",
            headers: vec![bearer(entra.token().app_only().build())],
        },
    ];
    if let Some(session) = session {
        let cookie = ("cookie", format!("session={session}"));
        let foreign = entra.token().oid("cccccccc-0000-1111-2222-dddddddddddd").build();
        let headers = vec![cookie.clone(), bearer(foreign)];
        callers.push(Caller { name: "another subject's session", headers });
        callers.push(Caller { name: "a session", headers: vec![cookie] });
    }
    callers
}

/// Response, received by the client or parsed from raw bytes.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers =
            headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    fn parse(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{raw:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.as_bytes().to_vec() }
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_lowercase();
        self.headers.iter().filter(move |(given, _)| *given == name).map(|(_, value)| &**value)
    }
}

/// OpenAPI document, and the documented responses that have occurred.
struct Book {
    document: Value,
    validators: HashMap<String, Validator>,
    client: Client,
    observed: BTreeSet<(String, String)>,
}

impl Book {
    fn open() -> Self {
        let text = std::fs::read_to_string(in_repository("openapi/gateway.json")).unwrap();
        Self {
            document: serde_json::from_str(&text).unwrap(),
            validators: HashMap::new(),
            client: client(),
            observed: BTreeSet::new(),
        }
    }

    /// `(method, path)` of every operation.
    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let both = |(path, item): (&String, &Value)| {
            let methods: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
            methods.into_iter().map(|method| (method, path.clone())).collect::<Vec<_>>()
        };
        paths.flat_map(both).collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        value["$ref"].as_str().map_or(value, |it| self.document.pointer(&it[1..]).unwrap())
    }

    /// Schema errors of a value.
    fn validate(&mut self, schema: &Value, value: &Value) -> Vec<String> {
        let components = &self.document["components"];
        let validator = self.validators.entry(schema.to_string()).or_insert_with(|| {
            let schema = json!({"allOf": [schema], "components": components});
            jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
        });
        let errors = validator.iter_errors(value);
        errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// Checks a response to an operation against the document.
    fn check(&mut self, method: &str, path: &str, caller: &str, answer: &Answer) {
        let here = format!("{method} {path} for {caller}: {}", answer.status);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let responses = self.document["paths"][path][method]["responses"].clone();
        let status = answer.status.to_string();
        let class = format!("{}XX", &status[..1]);
        let key =
            [&status, &class, "default"].into_iter().find(|key| responses.get(*key).is_some());
        let key = key.unwrap_or_else(|| panic!("{here} is not documented: {body}"));
        let documented = self.resolved(&responses[key]).clone();
        let is_shared = responses[key].get("$ref").is_some();

        let media_type = answer.all("content-type").next().unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap().to_owned();
        let empty = Map::new();
        let content = documented["content"].as_object().unwrap_or(&empty);
        let is_upstreams = match content.get(&media_type) {
            Some(content) if method != "head" => {
                let instance = if media_type.ends_with("json") {
                    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{here}: {e}: {body}"))
                } else {
                    Value::from(body.as_str())
                };
                if let Some(schema) = content.get("schema") {
                    let wrong = self.validate(schema, &instance);
                    assert!(wrong.is_empty(), "{here}: {wrong:#?}\n{body}");
                }
                false
            }
            Some(_) => false,
            None if content.contains_key("*/*") => true,
            None if is_proxied(path) || key == "default" => true,
            None => {
                assert!(content.is_empty(), "{here}: {media_type:?} is not documented");
                assert!(body.is_empty(), "{here}: {body}");
                false
            }
        };
        if !is_upstreams {
            self.check_headers(&documented, &here, answer);
        }
        let operation = if is_shared { "*".to_owned() } else { format!("{method} {path}") };
        let name = responses[key]["$ref"].as_str().and_then(|it| it.rsplit('/').next());
        if !is_upstreams {
            self.observed.insert((operation, name.unwrap_or(key).to_owned()));
        }
        self.observed.insert((format!("{method} {path}"), "at all".to_owned()));
    }

    fn check_headers(&mut self, documented: &Value, here: &str, answer: &Answer) {
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            let header = self.resolved(header).clone();
            let exists = answer.all(name).next().is_some();
            assert!(exists || header["x-sometimes"] == true, "{here} lacks {name}");
            for value in answer.all(name) {
                let wrong = self.validate(&header["schema"], &Value::from(value));
                assert!(wrong.is_empty(), "{here}: {name}: {wrong:#?}");
            }
        }
    }

    /// Documented responses of the gateway that have not occurred.
    fn unobserved(&self) -> Vec<(String, String)> {
        let mut expected = BTreeSet::new();
        for (method, path) in self.operations() {
            let operation = format!("{method} {path}");
            expected.insert((operation.clone(), "at all".to_owned()));
            for (status, answer) in
                self.document["paths"][&path][&method]["responses"].as_object().unwrap()
            {
                if is_upstreams_own(&path, status) {
                    continue;
                }
                match answer["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
                    Some(shared) => expected.insert(("*".to_owned(), shared.to_owned())),
                    None => expected.insert((operation.clone(), status.clone())),
                };
            }
        }
        expected.difference(&self.observed).cloned().collect()
    }
}

/// True for responses that only SimpleChat gives.
fn is_upstreams_own(path: &str, status: &str) -> bool {
    status == "default" || is_proxied(path) && matches!(status, "200" | "2XX")
}

fn is_proxied(path: &str) -> bool {
    matches!(path, "/external/{path}" | "/external/healthcheck" | "/external/healthcheckz")
}

fn ask(client: &Client, gateway: &Gateway, method: &str, path: &str) -> RequestBuilder {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    client.request(method, gateway.url(&concrete(path)))
}

fn concrete(path: &str) -> String {
    path.replace("{path}", "public_documents")
        .replace("{id}", "0123456789abcdef")
        .replace("{kind}", "subject")
        .replace("{who}", "00000000-0000-0000-0000-0000000000aa")
}

/// Requests every operation as every caller.
async fn request_all(book: &mut Book, gateway: &Gateway, callers: &[Caller]) {
    let mut pending = Vec::new();
    for (method, path) in book.operations() {
        for caller in callers {
            let mut request = ask(&book.client, gateway, &method, &path);
            for (name, value) in &caller.headers {
                request = request.header(*name, value);
            }
            pending.push((method.clone(), path.clone(), caller.name, tokio::spawn(request.send())));
        }
    }
    for (method, path, caller, answer) in pending {
        let answer = Answer::of(answer.await.unwrap().unwrap()).await;
        book.check(&method, &path, caller, &answer);
    }
}

/// Sends one unusual request.
async fn request_one(
    book: &mut Book,
    gateway: &Gateway,
    [method, path]: [&str; 2],
    with: &[(&str, &str)],
    status: u16,
) {
    let mut request = ask(&book.client, gateway, method, path);
    for (name, value) in with {
        request = request.header(*name, *value);
    }
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(answer.status, status, "{method} {path} with {with:?}");
    book.check(method, path, "an unusual request", &answer);
}

/// Sends requests that are refused before routing, for every operation.
async fn send_malformed(book: &mut Book, gateway: &Gateway) {
    let long = "a".repeat(70_000);
    for (method, path) in book.operations() {
        let (verb, target) = (method.to_uppercase(), concrete(&path));
        let line = format!("{verb} {target} HTTP/1.1\r\nHost: a\r\n");
        for (status, request) in [
            (400, format!("{line}Host: b\r\n\r\n")),
            (414, format!("{verb} {target}?{long} HTTP/1.1\r\n")),
            (431, format!("{line}X: {long}\r\n")),
        ] {
            let answer = Answer::parse(&gateway.raw(request).await);
            assert_eq!(answer.status, status, "{method} {path}");
            book.check(&method, &path, "a malformed request", &answer);
        }
    }
}

async fn metadata_and_preflights(book: &mut Book, gateway: &Gateway) {
    let base = "/.well-known/oauth-protected-resource";
    for path in [base.to_owned(), format!("{base}/external"), format!("{base}/external/login")] {
        let answer = ask(&book.client, gateway, "get", &path).send().await.unwrap();
        let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
        request_one(book, gateway, ["get", &path], &[("if-none-match", &tag)], 304).await;
    }
    let login = ["options", "/external/login"];
    request_one(book, gateway, login, &[("origin", "https://elsewhere.example")], 403).await;
    request_one(book, gateway, login, &[("origin", "https://page.example")], 204).await;
    let documented = book.operations();
    for (method, path) in &documented {
        if !is_proxied(path) {
            let answer =
                Answer::of(ask(&book.client, gateway, "patch", path).send().await.unwrap()).await;
            assert_eq!(answer.status, 405, "{path}");
            book.check(method, path, "another method", &answer);
        }
    }
}

/// Decisions of an administrator, valid and invalid.
async fn administrators_decide(book: &mut Book) {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let session = || json!({"enabled": true, "exposure_accepted": true}).to_string();
    let block = json!({"client": "00000000-0000-0000-0000-0000000000aa", "for": "1h"}).to_string();
    let long = "x".repeat(65 * 1024);
    let one_block = "/gateway/api/blocks/{kind}/{who}";
    let at = |rest: &str| format!("/gateway/api/{rest}");
    let typed = "application/json";
    let blocked = at("blocks/client/00000000-0000-0000-0000-0000000000aa");
    for (method, path, target, media_type, body, status) in [
        ("post", "/gateway/api/access", at("access"), typed, session(), 200),
        ("post", "/gateway/api/access", at("access"), typed, "{}".to_owned(), 422),
        ("post", "/gateway/api/access", at("access"), "text/plain", session(), 415),
        ("post", "/gateway/api/access", at("access"), typed, long.clone(), 413),
        ("post", "/gateway/api/blocks", at("blocks"), typed, block.clone(), 200),
        ("post", "/gateway/api/blocks", at("blocks"), typed, "{}".to_owned(), 422),
        ("post", "/gateway/api/blocks", at("blocks"), "text/plain", block, 415),
        ("post", "/gateway/api/blocks", at("blocks"), typed, long.clone(), 413),
        ("get", "/gateway/api/blocks", at("blocks"), typed, String::new(), 200),
        ("delete", one_block, blocked.clone(), typed, long.clone(), 413),
        ("delete", one_block, blocked.clone(), typed, String::new(), 204),
        ("delete", one_block, blocked, typed, String::new(), 404),
        ("delete", one_block, at("blocks/client/x"), typed, String::new(), 422),
        ("get", "/gateway/api/activity", at("activity"), typed, String::new(), 200),
        ("get", "/gateway/api/activity", at("activity?limit=x"), typed, String::new(), 422),
        ("get", "/gateway/api/sessions", at("sessions?subject=x"), typed, String::new(), 422),
        ("delete", "/gateway/api/sessions", at("sessions?all=true"), typed, String::new(), 200),
        ("delete", "/gateway/api/sessions", at("sessions"), typed, long.clone(), 413),
        ("delete", "/gateway/api/sessions/{id}", at("sessions/x"), typed, long, 413),
    ] {
        let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = admin.ask(verb, gateway.url(&target)).header("content-type", media_type);
        let answer = Answer::of(request.body(body).send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{method} {target}");
        book.check(method, path, "an administrator", &answer);
    }
    world.login(&world.entra.token().build()).await;
    let listed = Answer::of(admin.get(gateway, "/gateway/api/sessions").await).await;
    book.check("get", "/gateway/api/sessions", "an administrator", &listed);
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    let handle = listed["sessions"][0]["id"].as_str().unwrap();
    let ended = admin.delete(gateway, &at(&format!("sessions/{handle}"))).await;
    assert_eq!(ended.status(), 200);
    book.check(
        "delete",
        "/gateway/api/sessions/{id}",
        "an administrator",
        &Answer::of(ended).await,
    );
    let records = Answer::of(admin.get(gateway, "/gateway/api/activity").await).await;
    book.check("get", "/gateway/api/activity", "an administrator", &records);
}

/// Decisions while a setting controls external access and there is no database.
async fn administrators_may_not_decide(book: &mut Book, gateway: &Gateway) {
    let admin = Person::admin(gateway).await;
    let block = json!({"client": "00000000-0000-0000-0000-0000000000aa", "for": "1h"});
    for (path, body) in
        [("/gateway/api/access", json!({"enabled": false})), ("/gateway/api/blocks", block)]
    {
        let answer = Answer::of(admin.post(gateway, path, &body).await).await;
        assert_eq!(answer.status, 409, "{path}");
        book.check("post", path, "an administrator", &answer);
    }
}

/// No signing keys, another public origin, and a head that does not end.
async fn without_keys(book: &mut Book) {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    entra.set(Mode::Down);
    let more = [("GATEWAY_PUBLIC_URLS", "https://chat.example"), ("GATEWAY_TIMEOUT_HEAD", "1s")];
    let more: Vec<_> = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    request_all(book, &gateway, &callers(&entra, None)).await;
    let half = gateway.raw("GET /external/public_documents HTTP/1.1\r\nHost: a\r\n").await;
    book.check("get", "/external/{path}", "a slow caller", &Answer::parse(&half));
}

/// Logins above the limit.
async fn beyond_a_limit(book: &mut Book) {
    let (gateway, entra, _store) = alone(Kind::Redis, &[("GATEWAY_LOGIN_LIMIT", "1/1m")]).await;
    gateway.wait_until_it_has_keys().await;
    let token = format!("Bearer {}", entra.token().build());
    for status in [200, 429] {
        let login = ["post", "/external/login"];
        request_one(book, &gateway, login, &[("authorization", &token)], status).await;
    }
}

/// Requests that bypass Azure Front Door where it is required.
async fn past_the_front_door(book: &mut Book) {
    let id = "99999999-8888-7777-6666-555555555555";
    let (gateway, entra, _store) = alone(Kind::Files, &[("GATEWAY_FRONT_DOOR_ID", id)]).await;
    request_all(book, &gateway, &callers(&entra, None)).await;
}

/// Upstream that accepts connections and never responds.
async fn with_a_silent_upstream(book: &mut Book) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str()), ("GATEWAY_TIMEOUT_RESPONSE", "1s")];
    let (gateway, entra, _store) = alone(Kind::Files, &more).await;
    gateway.wait_until_it_has_keys().await;
    let token = format!("Bearer {}", entra.token().build());
    let pending: Vec<_> = book
        .operations()
        .into_iter()
        .filter(|(_, path)| is_proxied(path))
        .map(|(method, path)| {
            let request =
                ask(&book.client, &gateway, &method, &path).header("authorization", &token);
            (method, path, tokio::spawn(request.send()))
        })
        .collect();
    for (method, path, answer) in pending {
        let answer = Answer::of(answer.await.unwrap().unwrap()).await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT.as_u16());
        book.check(&method, &path, "a waiting caller", &answer);
    }
}

#[tokio::test]
async fn every_response_matches_the_openapi_document() {
    let mut book = Book::open();
    let more = [("GATEWAY_ALLOWED_ORIGINS", "https://page.example")];
    let mut world = World::with(Kind::Redis, &more).await;
    let session = world.login(&world.entra.token().build()).await;
    let mut callers_on = callers(&world.entra, Some(&session));
    let people = people(&world.gateway).await;
    callers_on.extend(people.iter().cloned());
    administrators_may_not_decide(&mut book, &world.gateway).await;
    request_all(&mut book, &world.gateway, &callers_on).await;
    send_malformed(&mut book, &world.gateway).await;
    metadata_and_preflights(&mut book, &world.gateway).await;

    // The session store is unavailable.
    let session = world.login(&world.entra.token().build()).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    let mut callers_without_store = callers(&world.entra, Some(&session));
    callers_without_store.extend(people);
    request_all(&mut book, &world.gateway, &callers_without_store).await;
    administrators_decide(&mut book).await;

    // External access is off, and upstream is unavailable.
    let (gateway, entra, _store) = alone(Kind::Files, &[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream is unavailable", async || !gateway.is_ready().await).await;
    request_all(&mut book, &gateway, &callers(&entra, None)).await;

    without_keys(&mut book).await;
    beyond_a_limit(&mut book).await;
    past_the_front_door(&mut book).await;
    with_a_silent_upstream(&mut book).await;

    let excused: BTreeSet<_> =
        NOT_PROVOKED.iter().map(|(of, what)| ((*of).to_owned(), (*what).to_owned())).collect();
    let unobserved: BTreeSet<_> = book.unobserved().into_iter().collect();
    let missing: Vec<_> = unobserved.difference(&excused).collect();
    assert!(missing.is_empty(), "documented, never returned: {missing:#?}");
    let superfluous: Vec<_> = excused.difference(&unobserved).collect();
    assert!(superfluous.is_empty(), "returned, or no longer documented: {superfluous:#?}");
}
