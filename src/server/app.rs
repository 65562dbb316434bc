//! Application: the gateway's own routes in front of its parts, shared by all workers.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
};

use axum::{Extension, Router, body::Body};
use http::{Request, Response};
use opentelemetry_sdk::trace::SdkTracer;
use tower::ServiceExt;

use super::routes::routes;
use crate::{gateway::Gateway, openapi};

/// Application, as of the last reload. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    gateway: Gateway,
    router: Router,
    /// True once the operator was warned that all requests come from one address.
    has_warned: Arc<AtomicBool>,
    /// `None`: traces are not exported.
    tracer: Option<SdkTracer>,
}

impl App {
    /// Builds the routes for these parts.
    pub(super) fn new(gateway: Gateway, tracer: Option<SdkTracer>) -> Self {
        let (router, document) = routes();
        let page = openapi::page::Page::of(&document);
        let document = openapi::Text(openapi::text(&document).into());
        let router =
            router.with_state(gateway.clone()).layer(Extension(document)).layer(Extension(page));
        Self { gateway, router, has_warned: Arc::default(), tracer }
    }

    /// The same application with reloaded parts.
    pub(super) fn reloaded(&self, gateway: Gateway) -> Self {
        Self { has_warned: Arc::clone(&self.has_warned), ..Self::new(gateway, self.tracer.clone()) }
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub(super) fn tracer(&self) -> Option<&SdkTracer> {
        self.tracer.as_ref()
    }

    pub(super) fn has_warned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_warned)
    }

    /// Routes a request to its handler.
    pub(super) async fn route(&self, request: Request<Body>) -> Response<Body> {
        let Ok(response): Result<_, Infallible> = self.router.clone().oneshot(request).await;
        response
    }
}
