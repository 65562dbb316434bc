//! Life of a request on one worker: validation, client, endpoint, then a handler of the gateway or SimpleChat.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    response::IntoResponse,
};
use http::{Request, Response, StatusCode};
use tokio::{sync::watch, time::timeout};

use super::app::App;
use crate::{
    admin,
    authz::client_info::{ClientInfo, EdgePolicy, Forwarding},
    gateway::{Gateway, Resource},
    h1::{
        caller::{Caller, Disposition, HeadFault, Unread},
        connection_limit::{ConnectionLimit, UpstreamRequestLimit},
        hop_headers,
        listener::Service,
        memory::Reservation,
        message::{Body as MessageBody, Length, RequestHead},
    },
    http::{
        binding::Binding,
        context::RequestContext,
        cors,
        endpoint::{Endpoint, OwnMetadata},
        error::{self, Refusal},
        framing::{self, ValidRequest},
        guard,
        metrics::ServerMetrics,
        proxy::{self, Proxy, ProxyOutcome},
        request_body, security_headers,
        sole_client::SoleClient,
        traces::RequestSpan,
    },
    upstream::ConnectionPool,
};

/// Service of one worker: one per thread.
#[derive(Debug)]
pub(super) struct WorkerService {
    /// Replaced at a reload; a request keeps the application that it began with.
    app: RefCell<Rc<App>>,
    pool: Rc<ConnectionPool>,
    sole_client: SoleClient,
    metrics: ServerMetrics,
    requests: UpstreamRequestLimit,
}

impl WorkerService {
    pub(super) fn new(app: App, pool: Rc<ConnectionPool>, limit: ConnectionLimit) -> Self {
        let sole_client = SoleClient::new(app.has_warned());
        let (metrics, requests) = (ServerMetrics::new(), UpstreamRequestLimit::of(limit));
        Self { app: RefCell::new(Rc::new(app)), pool, sole_client, metrics, requests }
    }

    /// Replaces the application whenever a new one is sent; to be spawned.
    pub(super) async fn follow(self: Rc<Self>, mut apps: watch::Receiver<App>) {
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
        let app = Rc::clone(&self.app.borrow());
        let _active = self.metrics.begin();
        let mut context = RequestContext::new(caller.peer);
        let head = match head {
            Ok(head) => head,
            Err(fault) => return self.refuse(&app, caller, &context, None, &fault.into()).await,
        };
        let (request, client_info, _share) = match validate(&app, caller, &head) {
            Ok(validated) => validated,
            Err(refusal) => {
                return self.refuse(&app, caller, &context, Some(&head), &refusal).await;
            }
        };
        self.sole_client.observe(client_info.client);
        let endpoint = Endpoint::of(&request.path, OwnMetadata::of(&app.gateway().resource));
        let span = RequestSpan::begin(app.tracer(), &head, &request.path, endpoint, &client_info);
        context.set_validated(client_info, endpoint, span);
        if endpoint.is_own() {
            // Handlers of the router share it.
            let context = Arc::new(context);
            context.span().run(self.serve_own(&app, caller, &request, &context)).await
        } else {
            context.span().run(self.serve_upstream(&app, caller, &request, &context)).await
        }
    }
}

/// Validates a head and resolves its client. The share of the memory budget is for the head and its copy for
/// SimpleChat or a handler.
fn validate<'a>(
    app: &App,
    caller: &mut Caller,
    head: &'a RequestHead,
) -> Result<(ValidRequest<'a>, ClientInfo, Reservation), Refusal> {
    let share = caller.share(2 * head.fields.head_length());
    let share = share?;
    let edge = &app.gateway().edge;
    let request = framing::validate(head)?;
    let client_info = edge.resolve(caller.peer, &forwarding(&request, edge))?;
    Ok((request, client_info, share))
}

impl WorkerService {
    /// Refuses a request that was not validated, and ends the connection: the bytes that follow may not be a
    /// request.
    async fn refuse(
        &self,
        app: &App,
        caller: &mut Caller,
        context: &RequestContext,
        head: Option<&RequestHead>,
        refusal: &Refusal,
    ) -> Disposition {
        let response = error::answer(refusal, context, &app.gateway().resource);
        let method = head.map_or("", RequestHead::method);
        context.finish(&self.metrics, method, "", response.status().as_u16());
        Box::pin(caller.answer(response, head, Unread::Unbounded)).await
    }

    /// Serves a validated request of the gateway's own routes.
    async fn serve_own(
        &self,
        app: &App,
        caller: &mut Caller,
        request: &ValidRequest<'_>,
        context: &Arc<RequestContext>,
    ) -> Disposition {
        let (response, unread) = match admit(caller, request, context) {
            Ok(()) => Box::pin(handle(app, caller, request, context)).await,
            Err(refusal) => {
                let resource = &app.gateway().resource;
                (error::answer(&refusal, context, resource), unread_of(request))
            }
        };
        self.respond(app, caller, request, context, response, unread).await
    }

    /// Serves a validated request by forwarding it to SimpleChat.
    async fn serve_upstream(
        &self,
        app: &App,
        caller: &mut Caller,
        request: &ValidRequest<'_>,
        context: &RequestContext,
    ) -> Disposition {
        let (refusal, unread) = match admit(caller, request, context) {
            Err(refusal) => (refusal, unread_of(request)),
            Ok(()) if context.endpoint() == Endpoint::Warmup && !Box::pin(self.is_warm()).await => {
                let response = "SimpleChat is still starting".into_response();
                let unread = unread_of(request);
                let sent = self.respond(app, caller, request, context, response, unread);
                return Box::pin(sent).await;
            }
            Ok(()) => match self.forward(app, caller, request, context).await {
                Ok(outcome) => {
                    let method = request.head.method();
                    context.finish(&self.metrics, method, &request.path, outcome.status);
                    return outcome.disposition;
                }
                Err((refusal, has_begun)) if has_begun && request.length != Length::None => {
                    (refusal, Unread::Unbounded)
                }
                Err((refusal, _)) => (refusal, unread_of(request)),
            },
        };
        let response = error::answer(&refusal, context, &app.gateway().resource);
        Box::pin(self.respond(app, caller, request, context, response, unread)).await
    }

    /// Sends a response of the gateway itself, and finishes the request.
    async fn respond(
        &self,
        app: &App,
        caller: &mut Caller,
        request: &ValidRequest<'_>,
        context: &RequestContext,
        response: Response<Body>,
        unread: Unread,
    ) -> Disposition {
        // The reader of the response may be slow.
        let length = response.body().size_hint().exact().and_then(|length| length.try_into().ok());
        let (response, _share) = match caller.share(length.unwrap_or_default()) {
            Ok(share) => (response, Some(share)),
            Err(error) => {
                let refusal = Refusal::from(error);
                (error::answer(&refusal, context, &app.gateway().resource), None)
            }
        };
        let status = response.status().as_u16();
        context.finish(&self.metrics, request.head.method(), &request.path, status);
        Box::pin(caller.answer(response, Some(request.head), unread)).await
    }

    /// Waits for SimpleChat's first response, for `GATEWAY_WARMUP_WAIT` at most.
    async fn is_warm(&self) -> bool {
        let upstream = &self.pool.upstream;
        upstream.has_responded()
            || timeout(upstream.config().warmup_wait, upstream.first_response()).await.is_ok()
    }

    /// Forwards a request to SimpleChat. An error: the refusal, and true if the request's body has been read in
    /// part.
    async fn forward(
        &self,
        app: &App,
        caller: &mut Caller,
        request: &ValidRequest<'_>,
        context: &RequestContext,
    ) -> Result<ProxyOutcome, (Refusal, bool)> {
        let Gateway { entra, policy, sessions, external_access, cookie, .. } = app.gateway();
        let endpoint = context.endpoint();
        let hides_sign_in = matches!(endpoint, Endpoint::Discovery(_));
        let authorized = guard::authorize(request, endpoint, entra, policy, external_access).await;
        let passage = authorized.map_err(|refusal| {
            let is_hidden = hides_sign_in && refusal.status() == StatusCode::UNAUTHORIZED;
            (if is_hidden { Refusal::NotFound } else { refusal }, false)
        })?;
        if hop_headers::is_final_recipient(request.head) {
            let status = StatusCode::NO_CONTENT;
            let unread = unread_of(request);
            let sent = caller.answer(status.into_response(), Some(request.head), unread);
            return Ok(ProxyOutcome { status: status.as_u16(), disposition: Box::pin(sent).await });
        }
        let proxy = Proxy {
            pool: &self.pool,
            sessions,
            cookie,
            binding: Binding { entra, sessions, mode: policy.session_binding },
            tracer: app.tracer(),
            requests: &self.requests,
            hides_sign_in,
        };
        let passed = proxy.pass(passage, request, context.client_info(), caller).await;
        passed.map_err(|refusal| (refusal, true))
    }
}

/// Admits a request that may be served at all: within the connection limit, and through the front door. Health is
/// answered over capacity, and the platform's probes reach each replica directly.
fn admit(
    caller: &Caller,
    request: &ValidRequest<'_>,
    context: &RequestContext,
) -> Result<(), Refusal> {
    let endpoint = context.endpoint();
    if caller.is_over_capacity && endpoint != Endpoint::Health {
        return Err(Refusal::AtCapacity);
    }
    if !context.client_info().is_via_front_door && !endpoint.is_probe(request.head.method()) {
        return Err(Refusal::NotViaFrontDoor);
    }
    Ok(())
}

/// Handles a request of the gateway's own routes. Returns the response, and what of the request's body is unread.
async fn handle(
    app: &App,
    caller: &mut Caller,
    request: &ValidRequest<'_>,
    context: &Arc<RequestContext>,
) -> (Response<Body>, Unread) {
    let resource = &*app.gateway().resource;
    let endpoint = context.endpoint();
    let (response, unread) = if endpoint.reads_body(request.head.method()) {
        handle_with_body(app, caller, request, context).await
    } else if endpoint == Endpoint::Login && !resource.is_on() {
        (Refusal::ExternalAccessOff.into_response(), unread_of(request))
    } else {
        (route(app, request, context, Vec::new()).await, unread_of(request))
    };
    let response = error::render(response, context, resource);
    (finish(response, request, endpoint, resource), unread)
}

/// Handles a request whose body is read once its sender is known to be an administrator; the handler checks again
/// when it has the body.
async fn handle_with_body(
    app: &App,
    caller: &mut Caller,
    request: &ValidRequest<'_>,
    context: &Arc<RequestContext>,
) -> (Response<Body>, Unread) {
    let Some(without_body) = own_request(request, context, Vec::new()) else {
        return (Refusal::NotFound.into_response(), unread_of(request));
    };
    if let Err(refused) = admin::admit(app.gateway(), without_body).await {
        return (refused, unread_of(request));
    }
    match request_body::read(caller, request).await {
        Ok(body) => (route(app, request, context, body).await, Unread::Nothing),
        Err((refusal, unread)) => (refusal.into_response(), unread),
    }
}

/// Routes a request, with the body that was read, to its handler.
async fn route(
    app: &App,
    request: &ValidRequest<'_>,
    context: &Arc<RequestContext>,
    body: Vec<u8>,
) -> Response<Body> {
    match own_request(request, context, body) {
        Some(request) => app.route(request).await,
        None => Refusal::NotFound.into_response(),
    }
}

/// Adds what every response of an endpoint has: refusals of the page as pages, security headers, CORS.
fn finish(
    response: Response<Body>,
    request: &ValidRequest<'_>,
    endpoint: Endpoint,
    resource: &Resource,
) -> Response<Body> {
    let mut response = match endpoint {
        Endpoint::AdminPage(_) => admin::refused_page(response, &request.path),
        _ => response,
    };
    security_headers::add(endpoint, response.headers_mut());
    match endpoint {
        Endpoint::Metadata if resource.is_on() => cors::allow_any(&mut response),
        Endpoint::Login if resource.is_on() => {
            cors::allow_listed(&mut response, &request.head.fields, resource);
        }
        _ => {}
    }
    response
}

/// Body of a request of which nothing beyond the head has been read.
fn unread_of(request: &ValidRequest<'_>) -> Unread {
    let body = MessageBody::new(request.length, hop_headers::may_trail);
    Unread::of(body, proxy::awaits_continue(request))
}

/// Request for the router. `None`: the target is no URI that handlers can read.
fn own_request(
    request: &ValidRequest<'_>,
    context: &Arc<RequestContext>,
    body: Vec<u8>,
) -> Option<Request<Body>> {
    let built = Request::builder().method(request.head.method()).uri(&*request.target);
    let mut built = built.body(Body::from(body)).ok()?;
    *built.headers_mut() = request.head.fields.to_map();
    built.extensions_mut().insert(Arc::clone(context));
    Some(built)
}

/// Forwarding headers of a request.
fn forwarding<'a>(request: &ValidRequest<'a>, edge: &EdgePolicy) -> Forwarding<'a> {
    let fields = &request.head.fields;
    // A value that is not text stays in the list as something malformed.
    let text = |value| std::str::from_utf8(value).unwrap_or("\u{fffd}");
    let all = |name| fields.all(name).map(text).collect();
    let has_front_door = edge.front_door.is_some();
    let of_front_door = |name| if has_front_door { all(name) } else { Vec::new() };
    Forwarding {
        host: request.host.map(text),
        x_for: all("x-forwarded-for"),
        x_proto: all("x-forwarded-proto"),
        x_host: all("x-forwarded-host"),
        front_door: of_front_door("x-azure-fdid"),
        front_door_client: of_front_door("x-azure-clientip"),
    }
}
