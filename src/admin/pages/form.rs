//! Extractor for a form of the page, sent by the administrator to whom it was shown.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::{admin::Admin, authz::admin::AdminDenial, gateway::Gateway, http::error::Refusal};

/// Name of the field with the CSRF token.
pub(crate) const TOKEN: &str = "csrf";
/// Maximum size of a body, in bytes. The router reads less: see `request_body`.
const MAX: usize = 128 * 1024;

/// A form, and the administrator who sent it.
pub(crate) struct Form {
    pub(crate) admin: Admin,
    fields: Vec<(String, String)>,
}

impl Form {
    /// Trimmed value of a field; empty if the field is missing.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(given, _)| given == name);
        found.map_or("", |(_, value)| value.trim())
    }

    /// True if a check box is selected.
    pub(crate) fn is_ticked(&self, name: &str) -> bool {
        self.field(name) == "yes"
    }
}

impl FromRequest<Gateway> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let admin = Admin::from_request_parts(&mut parts, gateway).await?;
        let media_type = "application/x-www-form-urlencoded";
        let body = body_of_type(media_type, &parts.headers, body).await;
        let body = body.map_err(IntoResponse::into_response)?;
        let fields = form_urlencoded::parse(&body).into_owned().collect();
        let form = Self { admin, fields };
        if !form.admin.has_token(form.field(TOKEN)) {
            let refusal = form.admin.deny(gateway, AdminDenial::Csrf).await;
            return Err(refusal.into_response());
        }
        Ok(form)
    }
}

/// Body of a request whose `Content-Type` is `media_type`, with any parameters.
pub(crate) async fn body_of_type(
    media_type: &'static str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.and_then(|given| given.split(';').next()).unwrap_or_default();
    if !given.trim().eq_ignore_ascii_case(media_type) {
        return Err(Refusal::OtherMediaType(media_type));
    }
    to_bytes(body, MAX).await.map_err(|_| Refusal::BodyTooLarge)
}
