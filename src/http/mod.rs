//! Answers: every route and what happens around it, on one screen.

mod bearer;
mod error;
mod framing;
mod guard;
mod health;
mod hop_headers;
pub(crate) mod listener;
mod login;
mod logout;
mod openapi;
mod patience;
mod proxy;
mod resource_metadata;
mod session_cookie;

use std::{net::IpAddr, sync::Arc};

use axum::{Extension, Router, body::Body, response::IntoResponse, routing};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::body::Incoming;
use tower::ServiceExt;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::error::{Asked, Refusal};
use crate::{
    access::origin::{Forwarding, Route},
    gateway::Gateway,
};

/// The gateway's own routes, and the document that describes them.
fn own_routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::with_openapi(openapi::Base::openapi())
        .routes(routes!(resource_metadata::get, resource_metadata::options))
        .routes(routes!(resource_metadata::get_of, resource_metadata::options_of))
        .routes(routes!(login::post, login::options))
        .routes(routes!(logout::post))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .route("/gateway/openapi.json", routing::get(openapi::document))
        .fallback(async || Refusal::NotFound)
}

/// Whether a path is the gateway's own; everything else is upstream's. `is_on`: external access.
fn is_own(path: &str, is_on: bool) -> bool {
    let below = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    matches!(path, "/external/login" | "/external/logout")
        || below("/gateway")
        || below("/.well-known/oauth-protected-resource")
        // Clients that guess must not be sent to upstream's sign-in page.
        || is_on
            && (path == "/register"
                || path.starts_with("/.well-known/oauth-authorization-server")
                || path.starts_with("/.well-known/openid-configuration"))
}

/// Whether a path of our own is closed while external access is off.
fn needs_external_access(path: &str) -> bool {
    path == "/external/login" || path.starts_with("/.well-known/")
}

/// The OpenAPI document, as text.
pub(crate) fn openapi_text() -> String {
    openapi::text(&own_routes().split_for_parts().1)
}

/// What callers meet.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    gateway: Gateway,
    own: Router,
}

/// What stands for operators alone.
#[derive(Debug, Clone)]
pub(crate) struct Ops(Router);

impl Front {
    /// Puts the routes in front of the parts.
    pub(crate) fn new(gateway: Gateway) -> Self {
        let (own, document) = own_routes().split_for_parts();
        let document = openapi::Text(openapi::text(&document).into());
        Self { own: own.with_state(gateway.clone()).layer(Extension(document)), gateway }
    }

    /// Answers one request. hyper drops the answer's future when the caller hangs up, perhaps before it
    /// has begun; a logout is done to the end all the same.
    pub(crate) fn answer(
        self,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> impl Future<Output = Response<Either<Body, Incoming>>> + Send {
        let is_logout = request.uri().path() == "/external/logout";
        let answer = self.answer_while_heard(request, peer);
        let answer = if is_logout { Err(tokio::spawn(answer)) } else { Ok(answer) };
        async move {
            match answer {
                Ok(answer) => answer.await,
                Err(task) => task.await.unwrap_or_else(|_| {
                    // It panicked, which is in the log.
                    StatusCode::INTERNAL_SERVER_ERROR.into_response().map(Either::Left)
                }),
            }
        }
    }

    async fn answer_while_heard(
        self,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Either<Body, Incoming>> {
        let started = tokio::time::Instant::now();
        let request_id = Uuid::now_v7().to_string();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let resource = &self.gateway.resource;
        let asking: Option<HeaderMap> = (path == "/external/login" && resource.is_on).then(|| {
            let origins = request.headers().get_all(header::ORIGIN).iter().cloned();
            origins.map(|origin| (header::ORIGIN, origin)).collect()
        });

        let placed = framing::judge(&request).and_then(|()| self.place(&request, peer));
        let route = placed.as_ref().ok().cloned();
        let asked =
            Asked { path: &path, request_id: &request_id, route: route.as_deref(), resource };
        let mut response = match placed {
            Err(refusal) => error::answer(&refusal, &asked).map(Either::Left),
            Ok(route) if is_own(&path, resource.is_on) => {
                error::render(self.answer_own(request, route, &path).await, &asked)
                    .map(Either::Left)
            }
            Ok(route) => match self.answer_upstream(request, &route).await {
                Ok(response) => response,
                Err(refusal) => error::answer(&refusal, &asked).map(Either::Left),
            },
        };
        if let Some(asking) = asking {
            login::share_with_listed_origin(&asking, resource, response.headers_mut());
        }
        tracing::info!(
            request_id,
            http.request.method = %method,
            url.path = path,
            http.response.status_code = response.status().as_u16(),
            client.address = %route.map_or(peer, |route| route.client),
            duration_ms = started.elapsed().as_secs_f64() * 1e3,
            "request"
        );
        response
    }

    /// Which way the request came.
    fn place(&self, request: &Request<Incoming>, peer: IpAddr) -> Result<Arc<Route>, Refusal> {
        let headers = request.headers();
        let one = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let all = |name: &str| {
            // What is not text cannot be read: it stays in the list as something malformed.
            headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{fffd}")).collect()
        };
        let host = if headers.contains_key(header::HOST) {
            one(header::HOST).or(Some("\u{fffd}"))
        } else {
            None
        };
        let forwarding = Forwarding {
            host,
            x_for: all("x-forwarded-for"),
            x_proto: all("x-forwarded-proto"),
            x_host: all("x-forwarded-host"),
            forwarded: all("forwarded"),
        };
        Ok(Arc::new(self.gateway.surroundings.place(peer, &forwarding)?))
    }

    async fn answer_own(
        &self,
        request: Request<Incoming>,
        route: Arc<Route>,
        path: &str,
    ) -> Response<Body> {
        if !self.gateway.resource.is_on && needs_external_access(path) {
            return Refusal::NotFound.into_response();
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(route);
        match self.own.clone().oneshot(request).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    }

    async fn answer_upstream(
        &self,
        request: Request<Incoming>,
        route: &Route,
    ) -> Result<Response<Either<Body, Incoming>>, Refusal> {
        let Gateway { entra, policy, upstream, sessions, cookie, .. } = &self.gateway;
        let (method, path) = (request.method(), request.uri().path());
        let passage = guard::judge(method, path, request.headers(), entra, policy).await?;
        proxy::pass(passage, request, route, upstream, sessions, cookie).await
    }
}

impl Ops {
    /// Health with reasons.
    pub(crate) fn new(gateway: Gateway) -> Self {
        let router = Router::new()
            .route("/health/live", routing::get(health::live))
            .route("/health/ready", routing::get(health::detail));
        Self(router.with_state(gateway))
    }

    /// Answers one request.
    pub(crate) async fn answer(self, request: Request<Incoming>, _peer: IpAddr) -> Response<Body> {
        match self.0.oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contracts_routes_are_our_own() {
        for path in [
            "/external/login",
            "/external/logout",
            "/gateway",
            "/gateway/x",
            "/.well-known/oauth-protected-resource/x",
        ] {
            assert!(is_own(path, false), "{path}");
        }
        for path in [
            "/",
            "/external",
            "/external/login/",
            "/gateways",
            "/.well-known/oauth-protected-resources",
            "/registers",
        ] {
            assert!(!is_own(path, true), "{path}");
        }
        for path in [
            "/register",
            "/.well-known/openid-configuration/x",
            "/.well-known/oauth-authorization-server",
        ] {
            assert!(is_own(path, true) && !is_own(path, false), "{path}");
        }
    }
}
