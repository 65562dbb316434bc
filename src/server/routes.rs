//! Router of the gateway's own routes, and the OpenAPI document that describes them.

use axum::{Router, routing};
use utoipa::{OpenApi, openapi::OpenApi as Document};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    admin,
    gateway::Gateway,
    http::{
        endpoint::{RESOURCES, metadata_path},
        error::Refusal,
        health, login, logout, resource_metadata,
    },
    openapi,
};

/// The routes and their document.
pub(super) fn routes() -> (Router<Gateway>, Document) {
    let mut described = OpenApiRouter::with_openapi(openapi::Base::openapi())
        .routes(routes!(resource_metadata::get, resource_metadata::options));
    for resource in RESOURCES {
        let metadata = routing::get(resource_metadata::get).options(resource_metadata::options);
        described = described.route(&metadata_path(resource), metadata);
    }
    let (routes, document) = described
        .routes(routes!(login::post, login::options))
        .routes(routes!(logout::post))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .route("/gateway/openapi.json", routing::get(openapi::document))
        .routes(routes!(openapi::page::get))
        .merge(admin::routes())
        .fallback(async || Refusal::NotFound)
        .split_for_parts();
    (routes, openapi::finished(document))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::endpoint::{Endpoint, OwnMetadata};

    #[test]
    fn the_body_of_every_documented_request_is_read() {
        let document = serde_json::to_value(routes().1).unwrap();
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation.get("requestBody").is_some() {
                    let endpoint = Endpoint::of(path, OwnMetadata { is_on: true, has_root: true });
                    assert!(endpoint.reads_body(&method.to_uppercase()), "{method} {path}");
                    count += 1;
                }
            }
        }
        assert!(count >= 2, "{count}");
    }
}
