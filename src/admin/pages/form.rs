//! A form of the page, sent by the administrator to whom it was shown.

use axum::{
    body::to_bytes,
    extract::{FromRef, FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::{
    admin::{Admin, Administered},
    authz::admin::AdminDenial,
    http::error::Refusal,
};

/// What its token is called.
pub(crate) const TOKEN: &str = "csrf";
/// Bodies are shorter: see `own_body`.
const MAX: usize = 128 * 1024;

/// A form, and who sends it.
pub(crate) struct Form {
    pub(crate) admin: Admin,
    fields: Vec<(String, String)>,
}

impl Form {
    /// A field's value without spaces around it; empty: it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(given, _)| given == name);
        found.map_or("", |(_, value)| value.trim())
    }

    /// Whether a box is ticked.
    pub(crate) fn is_ticked(&self, name: &str) -> bool {
        self.field(name) == "yes"
    }
}

impl<S> FromRequest<S> for Form
where
    S: Send + Sync,
    Administered: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let admin = Admin::from_request_parts(&mut parts, state).await?;
        let form = "application/x-www-form-urlencoded";
        if !is_of_type(&parts.headers, form) {
            return Err(Refusal::OtherMediaType(form).into_response());
        }
        let body = to_bytes(body, MAX).await;
        let body = body.map_err(|_| Refusal::BodyTooLarge.into_response())?;
        let fields = form_urlencoded::parse(&body).into_owned().collect();
        let form = Self { admin, fields };
        if !form.admin.has_token(form.field(TOKEN)) {
            let administered = Administered::from_ref(state);
            let refusal = form.admin.deny(&administered, AdminDenial::Csrf).await;
            return Err(refusal.into_response());
        }
        Ok(form)
    }
}

/// Whether a request's body says that it is of a type.
pub(crate) fn is_of_type(headers: &HeaderMap, registration_inputs: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.and_then(|given| given.split(';').next()).unwrap_or_default();
    given.trim().eq_ignore_ascii_case(registration_inputs)
}
