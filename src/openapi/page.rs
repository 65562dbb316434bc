//! `GET /gateway/docs`: the `OpenAPI` document as a page. One response contains all of it; no resources are loaded
//! and no script runs, so that it can be reviewed before the deployment is trusted.

use std::sync::Arc;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use utoipa::{ToSchema, openapi::OpenApi as Document};

use super::reading;
use crate::http::error::{Problem, Refusal};

/// Style sheet of the gateway's pages.
const STYLE: &str = include_str!("../../templates/page.css");

/// Rendered page, built once at startup.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// `None`: rendering failed.
    html: Option<Arc<str>>,
    policy: HeaderValue,
}

impl Page {
    /// Renders a document.
    pub(crate) fn of(document: &Document) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let html = reading::Docs::read(&document, STYLE).render();
        let html = html
            .inspect_err(|error| tracing::error!(%error, "rendering /gateway/docs failed"))
            .ok();
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy =
            HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { html: html.map(Into::into), policy }
    }
}

/// HTML page.
#[derive(ToSchema)]
#[schema(max_length = 1_048_576, pattern = "^<!DOCTYPE html>")]
#[expect(dead_code, reason = "schema of the response")]
struct Html(String);

/// Returns the document as a page.
#[utoipa::path(
    get,
    path = "/gateway/docs",
    tag = "Discovery",
    operation_id = "getDocs",
    summary = "API reference",
    description = "This document as an HTML page, without scripts or external resources.",
    extensions(("x-public-because" = json!("Its content follows from the source alone; it contains no tenant id, app id or commit."))),
    security(()),
    responses(
        (status = 200, description = "HTML page", body = Html, content_type = "text/html",
            headers(("Cache-Control"), ("Content-Security-Policy"), ("Referrer-Policy"), ("X-Content-Type-Options"))),
        (status = 500, description = "Internal error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(Extension(page): Extension<Page>) -> Result<Response, Refusal> {
    let html = page.html.ok_or(Refusal::Internal)?;
    let fixed: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, page.policy),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((fixed, html.to_string()).into_response())
}
