//! Context of one request, from its head to the end of its response: client, endpoint, trace and outcome.

use std::{
    net::IpAddr,
    sync::{Mutex, OnceLock, PoisonError},
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    endpoint::{self, Endpoint},
    metrics::ServerMetrics,
    traces::RequestSpan,
};
use crate::{
    activity::{Actor, Author},
    authz::client_info::{ClientInfo, PublicOrigin, Scheme},
};

/// Context of one request. Handlers of the gateway's own routes get it as `Extension<Arc<RequestContext>>`.
#[derive(Debug)]
pub(crate) struct RequestContext {
    started: Instant,
    request_id: OnceLock<String>,
    client_info: ClientInfo,
    endpoint: Endpoint,
    span: RequestSpan,
    /// `error.type` of the refusal, if the request was refused.
    refused: Mutex<Option<&'static str>>,
}

impl RequestContext {
    /// Context of a request whose head has not been validated: the peer is taken as the client, its forwarding
    /// headers are not read.
    pub(crate) fn new(peer: IpAddr) -> Self {
        let client_info = ClientInfo {
            client: peer,
            chain: Vec::new(),
            peer_is_trusted: false,
            scheme: Scheme::Http,
            origin: PublicOrigin::Unnamed,
            is_via_front_door: false,
        };
        Self {
            started: Instant::now(),
            request_id: OnceLock::new(),
            client_info,
            endpoint: Endpoint::Unread,
            span: RequestSpan::default(),
            refused: Mutex::default(),
        }
    }

    /// Adds the fields read from the validated head.
    pub(crate) fn set_validated(
        &mut self,
        client_info: ClientInfo,
        endpoint: Endpoint,
        span: RequestSpan,
    ) {
        self.client_info = client_info;
        self.endpoint = endpoint;
        self.span = span;
    }

    /// Id of the request in the log and in problem documents (a `UUIDv7`).
    pub(crate) fn request_id(&self) -> &str {
        self.request_id.get_or_init(|| Uuid::now_v7().to_string())
    }

    /// Address, scheme and public origin of the client.
    pub(crate) fn client_info(&self) -> &ClientInfo {
        &self.client_info
    }

    /// Address of the client.
    pub(crate) fn client(&self) -> IpAddr {
        self.client_info.client
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    pub(crate) fn span(&self) -> &RequestSpan {
        &self.span
    }

    /// Author of an activity record: an actor, with the address and the id of this request.
    pub(crate) fn author(&self, actor: Actor) -> Author {
        let address = Some(self.client().to_string());
        Author { actor, address, request_id: Some(self.request_id().to_owned()) }
    }

    /// Notes that the request is refused; `reason`: its `error.type`.
    pub(crate) fn refuse(&self, reason: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Records a finished request in metrics, traces and the access log.
    pub(crate) fn finish(&self, metrics: &ServerMetrics, method: &str, path: &str, status: u16) {
        self.log(method, self.endpoint.redact(path), status);
        let reason = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let method = endpoint::method(method);
        metrics.answered(self.endpoint, method, status, self.started.elapsed(), reason);
        self.span.end(status, reason);
    }

    fn log(&self, method: &str, path: &str, status: u16) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        tracing::info!(
            request_id = self.request_id(),
            trace_id = self.span.id().map(tracing::field::display),
            http.request.method = method,
            url.path = path,
            http.response.status_code = status,
            client.address = %self.client(),
            duration_ms = self.started.elapsed().as_secs_f64() * 1e3,
            "request"
        );
    }
}
