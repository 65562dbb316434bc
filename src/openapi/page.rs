//! `GET /gateway/docs`: the `OpenAPI` document as a page. One answer holds all of it; nothing is loaded
//! and no script runs, so that it can be read where nothing is trusted yet.

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

/// How pages of ours look.
const STYLE: &str = include_str!("../../templates/page.css");

/// The page, written once at the start.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// `None`: it could not be written.
    html: Option<Arc<str>>,
    policy: HeaderValue,
}

impl Page {
    /// The page of a document.
    pub(crate) fn of(document: &Document) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let html = reading::Docs::read(&document, STYLE).render();
        let html = html.inspect_err(|error| tracing::error!(%error, "no /gateway/docs")).ok();
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy =
            HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { html: html.map(Into::into), policy }
    }
}

/// A page.
#[derive(ToSchema)]
#[schema(max_length = 1_048_576, pattern = "^<!DOCTYPE html>")]
#[expect(dead_code, reason = "what the document says of the answer")]
struct Html(String);

/// The document as a page.
#[utoipa::path(
    get,
    path = "/gateway/docs",
    tag = "Discovery",
    operation_id = "getDocs",
    summary = "This document as a page",
    description = "Made from the very same document. One answer, without scripts, that loads nothing.",
    extensions(("x-public-because" = json!("It says what the source says, and names neither tenant, client nor commit."))),
    security(()),
    responses(
        (status = 200, description = "The page", body = Html, content_type = "text/html",
            headers(("Cache-Control"), ("Content-Security-Policy"), ("Referrer-Policy"), ("X-Content-Type-Options"))),
        (status = 500, description = "The page could not be written", body = Problem, content_type = "application/problem+json"),
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
