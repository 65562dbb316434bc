//! Management listener (`GATEWAY_OPS_LISTEN`): metrics, and health with details.

use std::convert::Infallible;

use axum::{Router, body::Body, response::IntoResponse, routing};
use http::{Request, StatusCode, header};
use tower::ServiceExt;

use crate::{
    gateway::Gateway,
    h1::{
        caller::{Caller, Disposition, HeadFault, Unread},
        listener::Service,
        message::{Body as MessageBody, RequestHead},
    },
    http::{framing, health},
    telemetry::Scrape,
};

/// Service of the management listener.
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
            return caller.answer(plain(StatusCode::BAD_REQUEST), None, Unread::Unbounded).await;
        };
        let request = Request::builder().method(valid.head.method()).uri(&*valid.target);
        let answer = match request.body(Body::empty()) {
            Ok(request) => {
                let Ok(response): Result<_, Infallible> = self.0.clone().oneshot(request).await;
                response
            }
            Err(_) => plain(StatusCode::NOT_FOUND),
        };
        let unread = Unread::of(MessageBody::new(valid.length, |_| true), false);
        caller.answer(answer, Some(valid.head), unread).await
    }
}
