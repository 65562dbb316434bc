//! Failure to answer: the one place that decides what callers see.
//!
//! A handler answers [`Refusal`]; it travels in the response's extensions to [`render`], which knows
//! the request's origin and so can write the challenge (RFC 6750 §3, RFC 9728 §5.1) and the problem
//! document (RFC 9457).

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use std::{cell::Cell, net::IpAddr, time::Duration};
use utoipa::ToSchema;

use crate::{
    activity::ActivityError,
    authz::{
        admin::AdminDenial,
        client_info::{ClientInfo, Origin, OriginError, PublicOrigin},
        policy::Denial,
        token::TokenError,
    },
    control::{external_access::BlockError, restrictions::DecisionError},
    entra::EntraError,
    flask::forms::SubjectFault,
    gateway::Resource,
    h1::{caller::HeadFault, flow::FlowError, inspected_body::BodyFault, message::HeadError},
    sessions::SessionsError,
    telemetry,
    upstream::{UpstreamError, exchange::ExchangeError},
};

/// When to try again, in seconds, after a neighbour failed.
const RETRY_AFTER: &str = "5";

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Two readers could take the request for two different ones.
    #[error("The request is malformed: {0}")]
    Framing(&'static str),
    /// `Host` or a forwarding header cannot be read.
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("There is nothing here")]
    NotFound,
    /// The host is not among `GATEWAY_PUBLIC_URLS`.
    #[error(
        "This host is not among the public origins of this deployment; its operator lists them in GATEWAY_PUBLIC_URLS"
    )]
    Misdirected,
    #[error("This method is not allowed here")]
    MethodNotAllowed(HeaderValue),
    #[error("A bearer token is required")]
    NoCredentials,
    #[error("A request may bear one Authorization header")]
    RepeatedAuthorization,
    #[error("The Authorization header is not one bearer token")]
    MalformedBearer,
    #[error(transparent)]
    Entra(#[from] EntraError),
    #[error("Pages of this origin may not sign in here")]
    ForeignOrigin,
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("This session was not opened by the subject of this token")]
    SessionSubjectMismatch,
    /// Whose documents a guarded request is about.
    #[error(transparent)]
    Subject(#[from] SubjectFault),
    /// Under `/external/` by some reading, in a spelling that not all readers agree on.
    #[error("This path is spelled in an unusual way; spell it plainly")]
    NonCanonicalPath,
    #[error("Too many sign-ins; try again later")]
    TooOften(Duration),
    #[error("Sessions cannot be kept at the moment")]
    Sessions(#[source] SessionsError),
    /// An administrator keeps this caller out, or may do.
    #[error(transparent)]
    Blocked(#[from] BlockError),
    /// What would be done could not be written down.
    #[error(
        "The database does not answer at the moment; before deciding again, look how it stands"
    )]
    Activity(#[from] ActivityError),
    /// Nobody is signed in to SimpleChat with this session, or there is none.
    #[error("Sign in to SimpleChat first")]
    NotSignedIn,
    #[error(transparent)]
    NotAdmitted(#[from] AdminDenial),
    #[error("The request's body is longer than 64 KiB")]
    BodyTooLarge,
    #[error("The request's body is not {0}")]
    OtherMediaType(&'static str),
    /// What was sent cannot be meant.
    #[error("{0}")]
    Input(&'static str),
    /// Under `GATEWAY_EXTERNAL_ACCESS=on` or `off`.
    #[error("GATEWAY_EXTERNAL_ACCESS decides here; set it to managed to let administrators decide")]
    ManagedBySetting,
    #[error("There is no database to write this to; the operator names one in DATABASE_URL")]
    NoDatabase,
    /// `GATEWAY_FRONT_DOOR_ID` is set, and this is not it.
    #[error("Requests must come through this deployment's front door")]
    NotViaFrontDoor,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A head that cannot be read.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// A request's body that cannot be passed on.
    #[error("The request's body cannot be passed on")]
    Exchange(#[source] ExchangeError),
    #[error("The gateway serves as many connections as it can")]
    AtCapacity,
    #[error("Another file of the activity log is being made; try again in a moment")]
    ExportInProgress,
    #[error("An answer could not be written")]
    Internal,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Framing(_)
            | Self::Origin(_)
            | Self::RepeatedAuthorization
            | Self::MalformedBearer
            | Self::Subject(SubjectFault::Unreadable(_))
            | Self::NonCanonicalPath
            | Self::Head(HeadFault::Head(HeadError::Malformed(_)))
            | Self::Exchange(ExchangeError::Body(_) | ExchangeError::CallerDisconnected(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Head(HeadFault::TooSlow) | Self::Exchange(ExchangeError::BodyTooSlow) => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::Head(HeadFault::TargetTooLong) => StatusCode::URI_TOO_LONG,
            Self::Head(HeadFault::TooLong | HeadFault::Head(HeadError::TooManyFields)) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::NoCredentials
            | Self::NotSignedIn
            | Self::SessionSubjectMismatch
            | Self::Entra(EntraError::Rejected(_)) => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::OtherMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Input(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ManagedBySetting | Self::NoDatabase => StatusCode::CONFLICT,
            Self::NotAdmitted(_)
            | Self::ForeignOrigin
            | Self::Denied(_)
            | Self::Subject(SubjectFault::Mismatch)
            | Self::Blocked(BlockError::Blocked)
            | Self::NotViaFrontDoor => StatusCode::FORBIDDEN,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Upstream(error) | Self::Exchange(ExchangeError::Upstream(error)) => {
                of_upstream(error)
            }
            Self::Sessions(_)
            | Self::Activity(_)
            | Self::Blocked(BlockError::Unknown)
            | Self::Entra(EntraError::KeysUnavailable)
            | Self::Head(HeadFault::OverCapacity)
            | Self::ExportInProgress
            | Self::AtCapacity => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// In one of a few words, for metrics and traces.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Framing(_) => "framing",
            Self::Origin(_) => "origin",
            Self::NotFound => "not_found",
            Self::Misdirected => "misdirected",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::NoCredentials => "no_credentials",
            Self::RepeatedAuthorization => "repeated_authorization",
            Self::MalformedBearer => "malformed_bearer",
            Self::Entra(error) => error.reason(),
            Self::ForeignOrigin => "foreign_origin",
            Self::Denied(Denial::RoleMissing) => "role_missing",
            Self::Denied(Denial::ScopeMissing) => "scope_missing",
            Self::Denied(Denial::ClientNotAllowed) => "client_not_allowed",
            Self::Denied(Denial::AppOnlyNotAllowed) => "app_only_not_allowed",
            Self::SessionSubjectMismatch => "session_of_another",
            Self::Subject(SubjectFault::Mismatch) => "subject_mismatch",
            Self::Subject(SubjectFault::Unreadable(_)) => "form_unreadable",
            Self::NonCanonicalPath => "odd_spelling",
            Self::TooOften(_) => "too_often",
            Self::Sessions(_) => "session_store",
            Self::Blocked(BlockError::Blocked) => "blocked",
            Self::Blocked(BlockError::Unknown) => "blocks_unknown",
            Self::Activity(_) => "activity_log",
            Self::NotSignedIn => "not_signed_in",
            Self::NotAdmitted(denial) => denial.reason(),
            Self::BodyTooLarge => "body_too_large",
            Self::OtherMediaType(_) => "other_media_type",
            Self::Input(_) => "input",
            Self::ManagedBySetting => "setting_decides",
            Self::NoDatabase => "no_database",
            Self::NotViaFrontDoor => "not_through_front_door",
            Self::Upstream(error) | Self::Exchange(ExchangeError::Upstream(error)) => {
                error.reason()
            }
            Self::Head(HeadFault::Head(_)) => "head_malformed",
            Self::Head(HeadFault::TooLong | HeadFault::TargetTooLong) => "head_too_long",
            Self::Head(HeadFault::TooSlow) => "head_too_slow",
            Self::Exchange(ExchangeError::Body(_)) => "body_malformed",
            Self::Exchange(ExchangeError::BodyTooSlow) => "body_too_slow",
            Self::Exchange(ExchangeError::CallerDisconnected(_)) => "caller_gone",
            Self::ExportInProgress => "export_under_way",
            Self::AtCapacity | Self::Head(HeadFault::OverCapacity) => "no_room",
            Self::Internal => "internal",
        }
    }

    /// Text for the caller. A token for another application comes of the wrong scope: the right one is named,
    /// unless ids are not public.
    fn detail(&self, resource: &Resource) -> String {
        let for_another = matches!(
            self,
            Self::Entra(EntraError::Rejected(TokenError::Audience | TokenError::ForGraph))
        );
        // Some clients search error texts for `scope=` and `error=`.
        let scope = resource.config.scopes.first().filter(|scope| !scope.contains('='));
        match scope {
            Some(scope) if for_another && resource.is_on() => {
                format!("{self}; ask for the scope {scope}")
            }
            _ => self.to_string(),
        }
    }

    /// Members of the `Bearer` challenge; `None`: no challenge.
    fn challenge(&self, resource: &Resource) -> Option<Challenge> {
        match self {
            Self::NoCredentials => Some(Challenge::default()),
            Self::RepeatedAuthorization | Self::MalformedBearer => Some(Challenge {
                error: Some("invalid_request"),
                scope: Scope::None,
                description: None,
            }),
            Self::Entra(EntraError::Rejected(_)) | Self::SessionSubjectMismatch => {
                Some(Challenge {
                    error: Some("invalid_token"),
                    scope: Scope::Advertised,
                    description: Some(self.detail(resource)),
                })
            }
            Self::Denied(Denial::ScopeMissing) => Some(Challenge {
                error: Some("insufficient_scope"),
                scope: Scope::ForLogin,
                description: None,
            }),
            Self::Framing(_)
            | Self::Origin(_)
            | Self::NotFound
            | Self::Misdirected
            | Self::MethodNotAllowed(_)
            | Self::Entra(EntraError::KeysUnavailable)
            | Self::ForeignOrigin
            | Self::Denied(
                Denial::RoleMissing | Denial::ClientNotAllowed | Denial::AppOnlyNotAllowed,
            )
            | Self::Subject(_)
            | Self::NonCanonicalPath
            | Self::TooOften(_)
            | Self::Blocked(_)
            | Self::Activity(_)
            | Self::NotSignedIn
            | Self::NotAdmitted(_)
            | Self::BodyTooLarge
            | Self::OtherMediaType(_)
            | Self::Input(_)
            | Self::ManagedBySetting
            | Self::NoDatabase
            | Self::NotViaFrontDoor
            | Self::Sessions(_)
            | Self::Upstream(_)
            | Self::Head(_)
            | Self::Exchange(_)
            | Self::ExportInProgress
            | Self::AtCapacity
            | Self::Internal => None,
        }
    }

    /// Whether the connection must end with the answer: what follows may not be a request.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Framing(_) | Self::Head(_) | Self::Exchange(_) | Self::AtCapacity)
    }

    /// Whether somebody tried to come in and failed, and not for want of credentials.
    pub(crate) fn is_failed_attempt(&self) -> bool {
        let status = self.status();
        !matches!(self, Self::NoCredentials)
            && matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            )
    }

    /// The whole chain, once, for operators. What callers did wrong is worth less of their attention
    /// than what a neighbour did.
    fn log(&self, request_id: &str, client: IpAddr) {
        let (status, error) = (self.status().as_u16(), telemetry::chain(self));
        if self.status().is_server_error() {
            tracing::error!(request_id, client.address = %client, status, error, "refused");
        } else {
            tracing::info!(request_id, client.address = %client, status, error, "refused");
        }
    }
}

fn of_upstream(error: &UpstreamError) -> StatusCode {
    match error {
        UpstreamError::Connect(_)
        | UpstreamError::ConnectTimeout
        | UpstreamError::BrokeOff(_)
        | UpstreamError::Malformed(_) => StatusCode::BAD_GATEWAY,
        UpstreamError::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        UpstreamError::NoUploadSlot | UpstreamError::HoldIsFull => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<SessionsError> for Refusal {
    fn from(error: SessionsError) -> Self {
        match error {
            SessionsError::TooOften(wait) => Self::TooOften(wait),
            error => Self::Sessions(error),
        }
    }
}

impl From<DecisionError> for Refusal {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Sessions(error) => error.into(),
            DecisionError::Activity(error) => error.into(),
        }
    }
}

impl From<ExchangeError> for Refusal {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Upstream(error) => Self::Upstream(error),
            ExchangeError::Body(FlowError::Body(BodyFault::Subject(fault))) => Self::Subject(fault),
            error => Self::Exchange(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

#[derive(Default)]
enum Scope {
    None,
    #[default]
    Advertised,
    ForLogin,
}

#[derive(Default)]
struct Challenge {
    error: Option<&'static str>,
    scope: Scope,
    description: Option<String>,
}

impl Challenge {
    /// While external access is off no ids are told: `Bearer`, with the error code at most.
    fn write(&self, resource: &Resource, metadata_url: Option<&str>) -> String {
        let mut members = Vec::new();
        let mut add = |name: &str, value: &str| members.push(format!("{name}=\"{value}\""));
        if let Some(error) = self.error {
            add("error", error);
        }
        if resource.is_on() {
            if let Some(url) = metadata_url {
                add("resource_metadata", url);
            }
            match self.scope {
                Scope::None => {}
                Scope::Advertised => add("scope", &resource.config.scopes.join(" ")),
                Scope::ForLogin => add("scope", &resource.config.login_scopes.join(" ")),
            }
            // Last: some clients search the whole text for `scope=`.
            if let Some(description) = &self.description {
                add("error_description", description);
            }
        }
        format!("Bearer {}", members.join(", ")).trim_end().to_owned()
    }
}

/// What went wrong (RFC 9457). `error` and `message` repeat `detail` for older clients.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says it all.
    #[serde(rename = "type")]
    #[schema(example = "about:blank", max_length = 11, pattern = "^about:blank$")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Unauthorized", max_length = 64, pattern = "^[A-Za-z -]+$")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 401, minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong, in a sentence.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    detail: String,
    /// As `detail`.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    error: String,
    /// As `detail`.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    message: String,
    /// Names this request in the gateway's log.
    #[schema(example = "019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10", format = "uuid", max_length = 36)]
    request_id: String,
}

/// A refusal's parts, for an answer in another form than a problem document.
#[derive(Debug, Clone)]
pub(crate) struct ProblemSummary {
    /// [`Refusal::reason`].
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) request_id: String,
    /// Public origin of the deployment, never one that the caller made up; `None`: not known.
    pub(crate) origin: Option<String>,
}

/// What an answer to failure needs to know of its request.
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) client: IpAddr,
    /// `None` when the request could not be placed.
    pub(crate) client_info: Option<&'a ClientInfo>,
    pub(crate) resource: &'a Resource,
    /// Why it is refused, once it is.
    pub(crate) refused: &'a Cell<Option<&'static str>>,
}

/// Fills a response in whose extensions a [`Refusal`] travels; any other passes as it is.
pub(crate) fn render<'a>(response: Response, asked: impl FnOnce() -> Asked<'a>) -> Response {
    let refusal = response.extensions().get::<std::sync::Arc<Refusal>>().cloned();
    match refusal {
        Some(refusal) => answer(&refusal, &asked()),
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let allow = allow.unwrap_or(HeaderValue::from_static(""));
            answer(&Refusal::MethodNotAllowed(allow), &asked())
        }
        None => response,
    }
}

/// The answer to a refusal.
pub(crate) fn answer(refusal: &Refusal, asked: &Asked<'_>) -> Response {
    refusal.log(asked.request_id, asked.client);
    asked.refused.set(Some(refusal.reason()));
    let status = refusal.status();
    // What went wrong behind us is for the log alone.
    let detail = refusal.detail(asked.resource);
    let summary = ProblemSummary {
        reason: refusal.reason(),
        detail: detail.clone(),
        request_id: asked.request_id.to_owned(),
        origin: public_origin(asked).map(Origin::to_string),
    };
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        error: detail.clone(),
        message: detail.clone(),
        detail,
        request_id: asked.request_id.to_owned(),
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = status;
    response.extensions_mut().insert(summary);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    describe(refusal, asked, headers);
    response
}

fn describe(refusal: &Refusal, asked: &Asked<'_>, headers: &mut HeaderMap) {
    if let Some(challenge) = refusal.challenge(asked.resource) {
        let url = metadata_url(asked);
        if let Ok(value) = HeaderValue::try_from(challenge.write(asked.resource, url.as_deref())) {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        let exposed = HeaderValue::from_static("WWW-Authenticate");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    if let Refusal::NotSignedIn = refusal {
        // As draft-broyer-http-cookie-auth-00 has it; browsers pass over it.
        let how = HeaderValue::from_static("Cookie realm=\"SimpleChat\", form-action=\"/login\"");
        headers.insert(header::WWW_AUTHENTICATE, how);
    }
    if let Refusal::MethodNotAllowed(allow) = refusal {
        headers.insert(header::ALLOW, allow.clone());
    }
    if let Refusal::TooOften(wait) = refusal {
        // Rounded up: who comes back by then is let in.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    if refusal.ends_connection() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The origin of the request where it is known, else the canonical one of `GATEWAY_PUBLIC_URLS`.
fn public_origin<'a>(asked: &Asked<'a>) -> Option<&'a Origin> {
    match &asked.client_info?.origin {
        PublicOrigin::Known(origin) | PublicOrigin::Unlisted(origin) => Some(origin),
        PublicOrigin::Unnamed => None,
    }
}

/// The metadata that describes the resource asked for (RFC 9728 §3.1).
fn metadata_url(asked: &Asked<'_>) -> Option<String> {
    let origin = public_origin(asked)?;
    let path = if asked.path == "/external/login" { "external/login" } else { "external" };
    Some(format!("{origin}/.well-known/oauth-protected-resource/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ResourceConfig;

    fn resource(is_on: bool) -> Resource {
        Resource {
            is_on: tokio::sync::watch::channel(is_on).1,
            authority: String::new(),
            config: ResourceConfig {
                scopes: vec!["api://c/.default".to_owned()],
                login_scopes: vec!["api://c/ExternalApi".to_owned()],
                ..ResourceConfig::default()
            },
        }
    }

    fn challenge(refusal: &Refusal, is_on: bool) -> Option<String> {
        let resource = resource(is_on);
        refusal
            .challenge(&resource)
            .map(|challenge| challenge.write(&resource, Some("https://h/m")))
    }

    #[test]
    fn challenges_are_as_rfc_6750_and_9728_have_them() {
        let cases = [
            (
                Refusal::NoCredentials,
                Some(r#"Bearer resource_metadata="https://h/m", scope="api://c/.default""#),
            ),
            (
                Refusal::Entra(EntraError::Rejected(TokenError::Expired)),
                Some(
                    r#"Bearer error="invalid_token", resource_metadata="https://h/m", scope="api://c/.default", error_description="The access token expired""#,
                ),
            ),
            (
                Refusal::Entra(EntraError::Rejected(TokenError::ForGraph)),
                Some(
                    r#"Bearer error="invalid_token", resource_metadata="https://h/m", scope="api://c/.default", error_description="The access token is meant for Microsoft Graph; ask for the scope api://c/.default""#,
                ),
            ),
            (
                Refusal::MalformedBearer,
                Some(r#"Bearer error="invalid_request", resource_metadata="https://h/m""#),
            ),
            (
                Refusal::Denied(Denial::ScopeMissing),
                Some(
                    r#"Bearer error="insufficient_scope", resource_metadata="https://h/m", scope="api://c/ExternalApi""#,
                ),
            ),
            (Refusal::Denied(Denial::RoleMissing), None),
            (Refusal::Entra(EntraError::KeysUnavailable), None),
        ];
        for (refusal, expected) in cases {
            assert_eq!(challenge(&refusal, true).as_deref(), expected, "{refusal:?}");
        }
    }

    #[test]
    fn no_ids_are_told_while_external_access_is_off() {
        assert_eq!(challenge(&Refusal::NoCredentials, false).as_deref(), Some("Bearer"));
        let expired = Refusal::Entra(EntraError::Rejected(TokenError::Expired));
        assert_eq!(challenge(&expired, false).as_deref(), Some(r#"Bearer error="invalid_token""#));
    }

    #[test]
    fn no_description_looks_like_a_challenge_of_its_own() {
        for error in [
            TokenError::Malformed("not a signed JWT"),
            TokenError::UnknownKey,
            TokenError::Signature,
            TokenError::Claim("aud"),
            TokenError::Expired,
            TokenError::NotYetValid,
            TokenError::Issuer,
            TokenError::Audience,
            TokenError::ForGraph,
            TokenError::Tenant,
            TokenError::WrongType,
        ] {
            let text = error.to_string();
            assert!(!text.contains('=') && !text.contains('"') && text.is_ascii(), "{text}");
        }
    }
}
