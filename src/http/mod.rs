//! Answers: every route and what happens around it, on one screen.

pub(crate) mod bearer;
pub(crate) mod binding;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod framing;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_http.rs"]
pub(crate) mod fuzzing;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod metrics;
pub(crate) mod own_body;
pub(crate) mod own_paths;
pub(crate) mod proxy;
pub(crate) mod resource_metadata;
pub(crate) mod sole_client;
pub(crate) mod traces;

use crate::admin;
use crate::h1::hop_headers;
use crate::openapi;
use crate::openapi::page;
use axum::{
    Extension, Router,
    body::{Body, HttpBody as _},
    response::IntoResponse,
    routing,
};
use http::{Request, Response, StatusCode, header};
use opentelemetry_sdk::trace::SdkTracer;
use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tower::ServiceExt;
use utoipa::{OpenApi, openapi::OpenApi as Document};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    binding::Binding,
    endpoint::Endpoint,
    error::{Asked, Refusal},
    framing::ValidRequest,
    metrics::ServerMetrics,
    proxy::{Proxy, ProxyOutcome},
    sole_client::SoleClient,
    traces::RequestSpan,
};
pub(crate) use crate::h1::{
    caller::Timeouts,
    connection_limit::{Capacity, ConnectionLimit},
};
use crate::h1::{
    caller::{Caller, Disposition, HeadFault, Unread},
    connection_limit::Requests,
    listener::Service,
};
use crate::{
    authz::{
        client_info::{ClientInfo, EdgePolicy, Forwarding},
        session::SessionId,
    },
    config::CookieConfig,
    flask::cookie::SessionCookie,
    gateway::{Gateway, Resource},
    h1::{
        memory::Exhausted,
        message::{self, Length, RequestHead},
    },
    telemetry::Scrape,
    upstream::ConnectionPool,
};

/// What App Service asks for until something answers.
const WARMUP: &str = "/robots933456.txt";

/// Whether the platform itself asks: its probes come to each replica without a detour.
fn is_probe(method: &str, path: &str) -> bool {
    matches!(method, "GET" | "HEAD")
        && (path.starts_with("/gateway/health/")
            || path == WARMUP
            || guard::HEALTHCHECKS.contains(&path))
}

/// The gateway's own routes, and the document that describes them.
fn own_routes() -> (Router<Gateway>, Document) {
    let mut described = OpenApiRouter::with_openapi(openapi::Base::openapi())
        .routes(routes!(resource_metadata::get, resource_metadata::options));
    for resource in resource_metadata::RESOURCES {
        let of_resource = routing::get(resource_metadata::get).options(resource_metadata::options);
        described = described.route(&resource_metadata::path_of(resource), of_resource);
    }
    let (routes, document) = described
        .routes(routes!(login::post, login::options))
        .routes(routes!(logout::post))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .route("/gateway/openapi.json", routing::get(openapi::document))
        .routes(routes!(page::get))
        .merge(admin::routes())
        .fallback(async || Refusal::NotFound)
        .split_for_parts();
    (routes, openapi::finished(document))
}

/// A `Cookie` field's value that bears a session, as a browser would send it.
pub(crate) fn cookie_that_bears(cookie: &CookieConfig, id: &SessionId) -> String {
    format!("{}={}", cookie.name, SessionCookie(cookie).value(id))
}

/// Whether a path of our own is closed while external access is off.
fn needs_external_access(path: &str) -> bool {
    path == "/external/login" || path.starts_with("/.well-known/")
}

/// The OpenAPI document, as text.
pub(crate) fn openapi_text() -> String {
    openapi::text(&own_routes().1)
}

/// What callers meet, for all threads.
#[derive(Debug, Clone)]
pub(crate) struct App {
    gateway: Gateway,
    own: Router,
    /// Whether the operator was told of a sole client.
    has_warned: Arc<AtomicBool>,
    /// Where traces are exported.
    tracer: Option<SdkTracer>,
}

impl App {
    /// Puts the routes in front of the parts.
    pub(crate) fn new(gateway: Gateway, tracer: Option<SdkTracer>) -> Self {
        let (own, document) = own_routes();
        let page = page::Page::of(&document);
        let document = openapi::Text(openapi::text(&document).into());
        let own = own.with_state(gateway.clone()).layer(Extension(document)).layer(Extension(page));
        Self { own, gateway, has_warned: Arc::default(), tracer }
    }

    /// The same routes in front of parts that have changed.
    pub(crate) fn renewed(&self, gateway: Gateway) -> Self {
        Self { has_warned: Arc::clone(&self.has_warned), ..Self::new(gateway, self.tracer.clone()) }
    }

    /// The parts behind it.
    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    async fn answer_own(
        &self,
        head: &RequestHead,
        valid: &ValidRequest<'_>,
        client_info: ClientInfo,
        asked: &Question,
        body: Vec<u8>,
    ) -> Response<Body> {
        let Self { gateway, own, .. } = self;
        if !gateway.resource.is_on() && needs_external_access(&valid.path) {
            return Refusal::NotFound.into_response();
        }
        let Some(request) = own_request(head, valid, client_info, asked, body) else {
            return Refusal::NotFound.into_response();
        };
        match own.clone().oneshot(request).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    }

    /// The same with a body, which is read once its sender is known to be an administrator. An error: the
    /// refusal of another sender, with nothing read.
    async fn answer_with_body(
        &self,
        caller: &mut Caller,
        head: &RequestHead,
        valid: &ValidRequest<'_>,
        client_info: &ClientInfo,
        asked: &Question,
    ) -> Result<(Response<Body>, Unread), Response<Body>> {
        let Some(request) = own_request(head, valid, client_info.clone(), asked, Vec::new()) else {
            return Err(Refusal::NotFound.into_response());
        };
        admin::admit(&self.gateway, request).await?;
        Ok(match own_body::read(caller, valid).await {
            Ok(body) => {
                let own = self.answer_own(head, valid, client_info.clone(), asked, body);
                (own.await, Unread::Nothing)
            }
            Err((refusal, unread)) => (refusal.into_response(), unread),
        })
    }
}

/// What callers meet on one thread.
#[derive(Debug)]
pub(crate) struct WorkerService {
    /// A request keeps what it began with.
    app: RefCell<Rc<App>>,
    pool: Rc<ConnectionPool>,
    sole_client: SoleClient,
    metrics: ServerMetrics,
    requests: Requests,
}

impl WorkerService {
    pub(crate) fn new(app: App, pool: Rc<ConnectionPool>, limit: ConnectionLimit) -> Self {
        let sole_client = SoleClient::new(Arc::clone(&app.has_warned));
        let (metrics, requests) = (ServerMetrics::new(), Requests::of(limit));
        Self { app: RefCell::new(Rc::new(app)), pool, sole_client, metrics, requests }
    }

    /// Follows what becomes of the site; to be spawned.
    pub(crate) async fn follow(self: Rc<Self>, mut apps: watch::Receiver<App>) {
        while apps.changed().await.is_ok() {
            let app = Rc::new(apps.borrow_and_update().clone());
            self.app.replace(app);
        }
    }
}

impl Service for WorkerService {
    async fn answer(
        &self,
        caller: &mut Caller,
        head: Result<RequestHead, HeadFault>,
    ) -> Disposition {
        let asked = Question::new(caller.peer);
        let app = Rc::clone(&self.app.borrow());
        let _active = self.metrics.begin();
        match head {
            Ok(head) => self.answer_request(&app, caller, &head, asked).await,
            Err(fault) => {
                let answer = asked.refusal(&fault.into(), "", &app.gateway.resource);
                asked.finish(&self.metrics, "", "", answer.status().as_u16());
                Box::pin(caller.answer(answer, None, Unread::Some)).await
            }
        }
    }
}

impl WorkerService {
    async fn answer_request(
        &self,
        app: &App,
        caller: &mut Caller,
        head: &RequestHead,
        asked: Question,
    ) -> Disposition {
        let Gateway { resource, edge, .. } = &app.gateway;
        // Itself, and what becomes of it for upstream or a handler.
        let share =
            caller.share(2 * head.fields.head_length()).map_err(|Exhausted| Refusal::AtCapacity);
        let valid = share.and_then(|share| {
            let valid = framing::validate(head)?;
            let client_info = edge.resolve(caller.peer, &forwarding(&valid, edge))?;
            Ok((valid, client_info, share))
        });
        let (valid, client_info, _share) = match valid {
            Ok((valid, client_info, share)) => {
                (valid, asked.client_info.get_or_init(|| client_info), share)
            }
            Err(refusal) => {
                let answer = asked.refusal(&refusal, "", resource);
                asked.finish(&self.metrics, head.method(), "", answer.status().as_u16());
                // What follows may not be a request.
                return Box::pin(caller.answer(answer, Some(head), Unread::Some)).await;
            }
        };
        self.sole_client.observe(client_info.client);
        let kind = Endpoint::of(&valid.path, own_paths::is_own(&valid.path, resource));
        asked.kind.set(kind);
        let traced = RequestSpan::begin(app.tracer.as_ref(), head, &valid.path, kind, client_info);
        let traced = asked.traced.get_or_init(|| traced);
        traced.run(self.answer_placed(app, caller, head, &valid, client_info, &asked)).await
    }

    async fn answer_placed(
        &self,
        app: &App,
        caller: &mut Caller,
        head: &RequestHead,
        valid: &ValidRequest<'_>,
        client_info: &ClientInfo,
        asked: &Question,
    ) -> Disposition {
        let resource = &app.gateway.resource;
        let path = &*valid.path;
        let unread = || unread_of(valid);
        let (answer, unread) = if caller.is_over_capacity && !path.starts_with("/gateway/health/") {
            (asked.refusal(&Refusal::AtCapacity, path, resource), unread())
        } else if !client_info.is_via_front_door && !is_probe(head.method(), path) {
            (asked.refusal(&Refusal::NotViaFrontDoor, path, resource), unread())
        } else if asked.kind.get().is_own() {
            let (answer, unread) = if admin::reads_body(head.method(), path) {
                let own = Box::pin(app.answer_with_body(caller, head, valid, client_info, asked));
                own.await.unwrap_or_else(|refused| (refused, unread()))
            } else {
                let own = app.answer_own(head, valid, client_info.clone(), asked, Vec::new());
                (Box::pin(own).await, unread())
            };
            let answer = asked.fill(answer, path, resource);
            let answer = admin::dressed(answer, path);
            let answer = resource_metadata::shared(answer, path, resource);
            (login::shared(answer, path, head, resource), unread)
        } else if path == WARMUP && !Box::pin(self.is_warm()).await {
            ("SimpleChat is still starting".into_response(), unread())
        } else {
            match self.pass(app, caller, valid, client_info).await {
                Ok(answered) => {
                    asked.finish(&self.metrics, head.method(), path, answered.status);
                    return answered.disposition;
                }
                Err((refusal, has_begun)) => {
                    let unread = if has_begun && valid.length != Length::None {
                        Unread::Some
                    } else {
                        unread()
                    };
                    (asked.refusal(&refusal, path, resource), unread)
                }
            }
        };
        // Its reader may be slow.
        let length = answer.body().size_hint().exact().and_then(|length| length.try_into().ok());
        let (answer, _share) = match caller.share(length.unwrap_or_default()) {
            Ok(share) => (answer, Some(share)),
            Err(Exhausted) => (asked.refusal(&Refusal::AtCapacity, path, resource), None),
        };
        asked.finish(&self.metrics, head.method(), path, answer.status().as_u16());
        Box::pin(caller.answer(answer, Some(head), unread)).await
    }

    /// Waits for upstream's first answer, as long as the platform does.
    async fn is_warm(&self) -> bool {
        let upstream = &self.pool.upstream;
        upstream.has_answered()
            || timeout(upstream.config().warmup_wait, upstream.first_answer()).await.is_ok()
    }

    /// To upstream; or why not, and whether the request's body has been begun.
    async fn pass(
        &self,
        app: &App,
        caller: &mut Caller,
        valid: &ValidRequest<'_>,
        client_info: &ClientInfo,
    ) -> Result<ProxyOutcome, (Refusal, bool)> {
        let Gateway { entra, policy, sessions, external_access, cookie, resource, .. } =
            &app.gateway;
        let hides_sign_in = resource.is_on() && own_paths::is_discovery(&valid.path);
        let passage =
            guard::authorize(valid, entra, policy, external_access).await.map_err(|refusal| {
                let is_hidden = hides_sign_in && refusal.status() == StatusCode::UNAUTHORIZED;
                (if is_hidden { Refusal::NotFound } else { refusal }, false)
            })?;
        if hop_headers::is_final_recipient(valid.head) {
            let answer = StatusCode::NO_CONTENT;
            let disposition =
                caller.answer(answer.into_response(), Some(valid.head), unread_of(valid));
            return Ok(ProxyOutcome {
                status: answer.as_u16(),
                disposition: Box::pin(disposition).await,
            });
        }
        let binding = Binding { entra, sessions, mode: policy.session_binding };
        let (pool, tracer) = (&*self.pool, app.tracer.as_ref());
        let requests = &self.requests;
        let proxy = Proxy { pool, sessions, cookie, binding, tracer, requests, hides_sign_in };
        proxy.pass(passage, valid, client_info, caller).await.map_err(|refusal| (refusal, true))
    }
}

/// The body of a request of which nothing beyond the head has been read.
fn unread_of(valid: &ValidRequest<'_>) -> Unread {
    let body = message::Body::new(valid.length, hop_headers::may_trail);
    Unread::of(body, proxy::awaits_continue(valid))
}

/// A request for the gateway's own routes.
fn own_request(
    head: &RequestHead,
    valid: &ValidRequest<'_>,
    client_info: ClientInfo,
    asked: &Question,
    body: Vec<u8>,
) -> Option<Request<Body>> {
    let request = Request::builder().method(head.method()).uri(&*valid.target);
    let mut request = request.body(Body::from(body)).ok()?;
    *request.headers_mut() = head.fields.to_map();
    let (client_info, request_id) = (Arc::new(client_info), asked.request_id().into());
    request.extensions_mut().insert(Arrival { client_info, request_id });
    Some(request)
}

/// What a request says of its way.
fn forwarding<'a>(valid: &ValidRequest<'a>, edge: &EdgePolicy) -> Forwarding<'a> {
    let fields = &valid.head.fields;
    // What is not text cannot be read: it stays in the list as something malformed.
    let text = |value| std::str::from_utf8(value).unwrap_or("\u{fffd}");
    let all = |name| fields.all(name).map(text).collect();
    let has_front_door = edge.front_door.is_some();
    let of_front_door = |name| if has_front_door { all(name) } else { Vec::new() };
    Forwarding {
        host: valid.host.map(text),
        x_for: all("x-forwarded-for"),
        x_proto: all("x-forwarded-proto"),
        x_host: all("x-forwarded-host"),
        forwarded: all("forwarded"),
        front_door: of_front_door("x-azure-fdid"),
        front_door_client: of_front_door("x-azure-clientip"),
    }
}

/// Which way a request came, and its name in the log.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) client_info: Arc<ClientInfo>,
    pub(crate) request_id: Arc<str>,
}

/// What is known of a request, for its answer and the log.
struct Question {
    started: Instant,
    request_id: OnceCell<String>,
    peer: IpAddr,
    client_info: OnceCell<ClientInfo>,
    traced: OnceCell<RequestSpan>,
    kind: Cell<Endpoint>,
    /// Why it was refused, if it was.
    refused: Cell<Option<&'static str>>,
}

impl Question {
    fn new(peer: IpAddr) -> Self {
        Self {
            started: Instant::now(),
            request_id: OnceCell::new(),
            peer,
            client_info: OnceCell::new(),
            traced: OnceCell::new(),
            kind: Cell::new(Endpoint::Unread),
            refused: Cell::default(),
        }
    }

    fn request_id(&self) -> &str {
        self.request_id.get_or_init(|| Uuid::now_v7().to_string())
    }

    fn client(&self) -> IpAddr {
        self.client_info.get().map_or(self.peer, |client_info| client_info.client)
    }

    fn asked<'a>(&'a self, path: &'a str, resource: &'a Resource) -> Asked<'a> {
        let (request_id, client) = (self.request_id(), self.client());
        Asked {
            path,
            request_id,
            client,
            client_info: self.client_info.get(),
            resource,
            refused: &self.refused,
        }
    }

    fn refusal(&self, refusal: &Refusal, path: &str, resource: &Resource) -> Response<Body> {
        error::answer(refusal, &self.asked(path, resource))
    }

    /// Fills an answer in which a refusal travels.
    fn fill(&self, answer: Response<Body>, path: &str, resource: &Resource) -> Response<Body> {
        error::render(answer, || self.asked(path, resource))
    }

    /// The answer is on its way, or gone: what operators learn of it.
    fn finish(&self, metrics: &ServerMetrics, method: &str, path: &str, status: u16) {
        self.log(method, admin::redact_path(path), status);
        let reason = self.refused.get();
        let method = endpoint::method(method);
        metrics.answered(self.kind.get(), method, status, self.started.elapsed(), reason);
        if let Some(traced) = self.traced.get() {
            traced.end(status, reason);
        }
    }

    fn log(&self, method: &str, path: &str, status: u16) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        tracing::info!(
            request_id = self.request_id(),
            trace_id = self.traced.get().and_then(RequestSpan::id).map(tracing::field::display),
            http.request.method = method,
            url.path = path,
            http.response.status_code = status,
            client.address = %self.client(),
            duration_ms = self.started.elapsed().as_secs_f64() * 1e3,
            "request"
        );
    }
}

/// What stands for operators alone: health with reasons, metrics.
#[derive(Debug, Clone)]
pub(crate) struct Ops(Router);

impl Ops {
    pub(crate) fn new(gateway: Gateway, scrape: Option<Scrape>) -> Self {
        let metrics = async move || {
            let text = scrape.map(|scrape| scrape.text()).unwrap_or_default();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
        };
        let router = Router::new()
            .route("/metrics", routing::get(metrics))
            .route("/health/live", routing::get(health::live))
            .route("/health/ready", routing::get(health::detail));
        Self(router.with_state(gateway))
    }
}

impl Service for Ops {
    async fn answer(
        &self,
        caller: &mut Caller,
        head: Result<RequestHead, HeadFault>,
    ) -> Disposition {
        let plain = |status: StatusCode| status.into_response();
        let valid = match &head {
            Ok(head) => framing::validate(head).ok(),
            Err(_) => None,
        };
        let Some(valid) = valid else {
            return caller.answer(plain(StatusCode::BAD_REQUEST), None, Unread::Some).await;
        };
        let request = Request::builder().method(valid.head.method()).uri(&*valid.target);
        let answer = match request.body(Body::empty()) {
            Ok(request) => match self.0.clone().oneshot(request).await {
                Ok(answer) => answer,
                Err(infallible) => match infallible {},
            },
            Err(_) => plain(StatusCode::NOT_FOUND),
        };
        let unread = Unread::of(message::Body::new(valid.length, |_| true), false);
        caller.answer(answer, Some(valid.head), unread).await
    }
}
