//! Refusals: every reason not to serve a request, and the table of responses to them.
//!
//! A handler returns a [`Refusal`]; the extensions of the response carry it to [`problem::render`], which has the
//! request and so can write the challenge (RFC 6750 §3, RFC 9728 §5.1) and the problem document (RFC 9457).

mod challenge;
mod problem;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};

use self::challenge::Challenge;
pub(crate) use self::problem::{Problem, ProblemSummary, answer, render};
use crate::{
    activity::ActivityError,
    authz::{admin::AdminDenial, client_info::OriginError, policy::Denial, token::TokenError},
    control::{
        decisions::DecisionRefused, external_access::BlockError, restrictions::DecisionError,
        sign_in::SignInError,
    },
    entra::EntraError,
    flask::forms::SubjectFault,
    gateway::Resource,
    h1::{
        caller::HeadFault, flow::FlowError, inspected_body::BodyFault, memory::Exhausted,
        message::HeadError,
    },
    sessions::SessionsError,
    telemetry,
    upstream::{UpstreamError, exchange::ExchangeError},
};

/// `Retry-After` of a 503, in seconds.
const RETRY_AFTER: u64 = 5;

/// Reasons for not serving a request. The text is the `detail` of the problem document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Two parsers could read the request as two different ones.
    #[error("The request is malformed: {0}")]
    Framing(&'static str),
    /// `Host` or a forwarding header cannot be parsed.
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("Not found")]
    NotFound,
    /// The route exists while external access is on.
    #[error("External access is disabled on this deployment")]
    ExternalAccessOff,
    /// The host is not listed in `GATEWAY_PUBLIC_URLS`.
    #[error(
        "The host is not a public origin of this deployment; its operator lists them in GATEWAY_PUBLIC_URLS"
    )]
    Misdirected,
    /// With the methods of `Allow`.
    #[error("Method not allowed")]
    MethodNotAllowed(HeaderValue),
    #[error("A bearer token is required")]
    NoCredentials,
    #[error("Multiple Authorization headers")]
    RepeatedAuthorization,
    #[error("Malformed Authorization header; expected \"Bearer <token>\"")]
    MalformedBearer,
    #[error(transparent)]
    Entra(#[from] EntraError),
    #[error("Origin not allowed")]
    ForeignOrigin,
    #[error(transparent)]
    Denied(#[from] Denial),
    #[error("The session was not issued to the subject of this token")]
    SessionSubjectMismatch,
    /// Subject of a guarded request.
    #[error(transparent)]
    Subject(#[from] SubjectFault),
    /// Under `/external/` by some reading, in a spelling that not all readers agree on.
    #[error("Path is not in canonical form")]
    NonCanonicalPath,
    /// With the time until the next attempt is allowed.
    #[error("Too many sign-in attempts; try again later")]
    TooOften(Duration),
    #[error("Session store unavailable")]
    Sessions(#[source] SessionsError),
    /// An administrator blocks this caller, or the block list is not known.
    #[error(transparent)]
    Blocked(#[from] BlockError),
    /// The activity log cannot record the action.
    #[error("Database unavailable. Check the current state before retrying")]
    Activity(#[from] ActivityError),
    /// The request has no session of SimpleChat's own.
    #[error("Sign in to SimpleChat first")]
    NotSignedIn,
    #[error(transparent)]
    NotAdmitted(#[from] AdminDenial),
    #[error("The request body exceeds 64 KiB")]
    BodyTooLarge,
    #[error("Unsupported request body; expected {0}")]
    OtherMediaType(&'static str),
    /// A parameter or member is invalid.
    #[error("{0}")]
    Input(&'static str),
    /// Under `GATEWAY_EXTERNAL_ACCESS=on` or `off`.
    #[error(
        "Controlled by GATEWAY_EXTERNAL_ACCESS; set it to managed to let administrators decide"
    )]
    ManagedBySetting,
    #[error("No database is configured; the operator sets DATABASE_URL")]
    NoDatabase,
    /// `GATEWAY_FRONT_DOOR_ID` is set, and the request does not carry it.
    #[error("The request did not come through this deployment's Azure Front Door")]
    NotViaFrontDoor,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The head cannot be parsed.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// The request body cannot be forwarded.
    #[error("The request body cannot be forwarded")]
    Exchange(#[source] ExchangeError),
    #[error("Connection limit reached")]
    AtCapacity,
    #[error("Another export is in progress; try again in a moment")]
    ExportInProgress,
    #[error("Internal error")]
    Internal,
}

/// Response to a refusal.
#[derive(Debug, Clone, Copy)]
struct Answer {
    status: StatusCode,
    /// `error.type` in metrics and traces: one of a fixed set.
    reason: &'static str,
    challenge: Challenge,
    /// `Retry-After` in seconds.
    retry_after: Option<u64>,
    /// True if the connection must end: the bytes that follow may not be a request.
    closes: bool,
}

impl Answer {
    const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, challenge: Challenge::None, retry_after: None, closes: false }
    }

    const fn challenge(self, challenge: Challenge) -> Self {
        Self { challenge, ..self }
    }

    /// A dependency is unavailable, or a limit reached, for a short time.
    const fn unavailable(reason: &'static str) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }

    const fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    fn of_upstream(error: &UpstreamError) -> Self {
        let reason = error.reason();
        match error {
            UpstreamError::Connect(_)
            | UpstreamError::ConnectTimeout
            | UpstreamError::ClosedEarly(_)
            | UpstreamError::Malformed(_) => Self::new(StatusCode::BAD_GATEWAY, reason),
            UpstreamError::ResponseTimeout => Self::new(StatusCode::GATEWAY_TIMEOUT, reason),
            UpstreamError::NoUploadSlot | UpstreamError::HoldIsFull => Self::unavailable(reason),
        }
    }
}

impl Refusal {
    /// The table: one row per failure.
    fn answer(&self) -> Answer {
        use StatusCode as S;
        match self {
            Self::Framing(_) => Answer::new(S::BAD_REQUEST, "framing").closing(),
            Self::Origin(_) => Answer::new(S::BAD_REQUEST, "origin"),
            Self::NotFound | Self::ExternalAccessOff => Answer::new(S::NOT_FOUND, "not_found"),
            Self::Misdirected => Answer::new(S::MISDIRECTED_REQUEST, "misdirected"),
            Self::MethodNotAllowed(_) => Answer::new(S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NoCredentials => {
                Answer::new(S::UNAUTHORIZED, "no_credentials").challenge(Challenge::Credentials)
            }
            Self::RepeatedAuthorization => Answer::new(S::BAD_REQUEST, "repeated_authorization")
                .challenge(Challenge::InvalidRequest),
            Self::MalformedBearer => {
                Answer::new(S::BAD_REQUEST, "malformed_bearer").challenge(Challenge::InvalidRequest)
            }
            Self::Entra(error @ EntraError::Rejected(_)) => {
                Answer::new(S::UNAUTHORIZED, error.reason()).challenge(Challenge::InvalidToken)
            }
            Self::Entra(error @ EntraError::KeysUnavailable) => Answer::unavailable(error.reason()),
            Self::ForeignOrigin => Answer::new(S::FORBIDDEN, "foreign_origin"),
            Self::Denied(denial @ Denial::ScopeMissing) => {
                Answer::new(S::FORBIDDEN, denial.reason()).challenge(Challenge::InsufficientScope)
            }
            Self::Denied(
                denial @ (Denial::RoleMissing
                | Denial::ClientNotAllowed
                | Denial::AppOnlyNotAllowed),
            ) => Answer::new(S::FORBIDDEN, denial.reason()),
            Self::SessionSubjectMismatch => Answer::new(S::UNAUTHORIZED, "session_of_another")
                .challenge(Challenge::InvalidToken),
            Self::Subject(SubjectFault::Mismatch) => Answer::new(S::FORBIDDEN, "subject_mismatch"),
            Self::Subject(SubjectFault::Unreadable(_)) => {
                Answer::new(S::BAD_REQUEST, "form_unreadable")
            }
            Self::NonCanonicalPath => Answer::new(S::BAD_REQUEST, "odd_spelling"),
            Self::TooOften(wait) => Answer {
                // Rounded up: a caller that retries at that time is allowed.
                retry_after: Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)),
                ..Answer::new(S::TOO_MANY_REQUESTS, "too_often")
            },
            Self::Sessions(_) => Answer::unavailable("session_store"),
            Self::Blocked(error @ BlockError::Blocked) => Answer::new(S::FORBIDDEN, error.reason()),
            Self::Blocked(error @ BlockError::Unknown) => Answer::unavailable(error.reason()),
            Self::Activity(_) => Answer::unavailable("activity_log"),
            Self::NotSignedIn => {
                Answer::new(S::UNAUTHORIZED, "not_signed_in").challenge(Challenge::Cookie)
            }
            Self::NotAdmitted(denial) => Answer::new(S::FORBIDDEN, denial.reason()),
            Self::BodyTooLarge => Answer::new(S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::OtherMediaType(_) => Answer::new(S::UNSUPPORTED_MEDIA_TYPE, "other_media_type"),
            Self::Input(_) => Answer::new(S::UNPROCESSABLE_ENTITY, "input"),
            Self::ManagedBySetting => Answer::new(S::CONFLICT, "setting_decides"),
            Self::NoDatabase => Answer::new(S::CONFLICT, "no_database"),
            Self::NotViaFrontDoor => Answer::new(S::FORBIDDEN, "not_through_front_door"),
            Self::Upstream(error) => Answer::of_upstream(error),
            Self::Head(fault) => match fault {
                HeadFault::Head(HeadError::Malformed(_)) => {
                    Answer::new(S::BAD_REQUEST, "head_malformed")
                }
                HeadFault::Head(HeadError::TooManyFields) => {
                    Answer::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_malformed")
                }
                HeadFault::TooLong => {
                    Answer::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_long")
                }
                HeadFault::TargetTooLong => Answer::new(S::URI_TOO_LONG, "head_too_long"),
                HeadFault::TooSlow => Answer::new(S::REQUEST_TIMEOUT, "head_too_slow"),
                HeadFault::OverCapacity => Answer::unavailable("no_room"),
            }
            .closing(),
            Self::Exchange(error) => match error {
                ExchangeError::Body(_) => Answer::new(S::BAD_REQUEST, "body_malformed"),
                ExchangeError::CallerDisconnected(_) => Answer::new(S::BAD_REQUEST, "caller_gone"),
                ExchangeError::BodyTooSlow => Answer::new(S::REQUEST_TIMEOUT, "body_too_slow"),
                ExchangeError::Upstream(error) => Answer::of_upstream(error),
            }
            .closing(),
            Self::AtCapacity => Answer::unavailable("no_room").closing(),
            Self::ExportInProgress => Answer::unavailable("export_under_way"),
            Self::Internal => Answer::new(S::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.answer().status
    }

    /// `error.type` in metrics and traces.
    pub(crate) fn reason(&self) -> &'static str {
        self.answer().reason
    }

    /// Text for the caller. A token for another application usually has the wrong scope: the right one is named,
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

    /// Logs the whole chain of causes, once. Client errors are logged at info, dependency failures at error.
    fn log(&self, request_id: &str, client: IpAddr) {
        let status = self.status();
        let (code, error) = (status.as_u16(), telemetry::chain(self));
        if status.is_server_error() {
            tracing::error!(request_id, client.address = %client, status = code, error, "request refused");
        } else {
            tracing::info!(request_id, client.address = %client, status = code, error, "request refused");
        }
    }
}

impl From<Exhausted> for Refusal {
    fn from(Exhausted: Exhausted) -> Self {
        Self::AtCapacity
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

impl From<DecisionRefused> for Refusal {
    fn from(error: DecisionRefused) -> Self {
        match error {
            DecisionRefused::ManagedBySetting => Self::ManagedBySetting,
            DecisionRefused::NotAccepted => {
                Self::Input("Enabling requires exposure_accepted: true")
            }
            DecisionRefused::InvalidDuration => {
                Self::Input("Invalid block duration; expected 1s to 365d, like 24h")
            }
            DecisionRefused::Sessions(error) => error.into(),
            DecisionRefused::Activity(ActivityError::NoDatabase) => Self::NoDatabase,
            DecisionRefused::Activity(error) => error.into(),
        }
    }
}

impl From<SignInError> for Refusal {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Entra(error) => Self::Entra(error),
            SignInError::ForeignOrigin => Self::ForeignOrigin,
            SignInError::Blocked(error) => Self::Blocked(error),
            SignInError::Denied(denial) => Self::Denied(denial),
            SignInError::ExternalAccessOff => Self::ExternalAccessOff,
            SignInError::TooOften(wait) => Self::TooOften(wait),
            SignInError::Sessions(error) => Self::Sessions(error),
            SignInError::Activity(error) => Self::Activity(error),
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
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The activity log and the metrics name a denied sign-in alike.
    #[test]
    fn denials_of_a_sign_in_have_the_reason_of_their_refusal() {
        let errors = [
            SignInError::Entra(EntraError::Rejected(TokenError::Expired)),
            SignInError::Entra(EntraError::KeysUnavailable),
            SignInError::ForeignOrigin,
            SignInError::Blocked(BlockError::Blocked),
            SignInError::Blocked(BlockError::Unknown),
            SignInError::Denied(Denial::RoleMissing),
            SignInError::Denied(Denial::ScopeMissing),
            SignInError::Denied(Denial::ClientNotAllowed),
            SignInError::Denied(Denial::AppOnlyNotAllowed),
            SignInError::ExternalAccessOff,
            SignInError::TooOften(Duration::ZERO),
            SignInError::Activity(ActivityError::NoDatabase),
        ];
        for error in errors {
            let denial = error.denial();
            let refusal = Refusal::from(error);
            let is_denied = matches!(refusal.status().as_u16(), 400 | 401 | 403);
            assert_eq!(denial, is_denied.then(|| refusal.reason()), "{refusal:?}");
        }
        let too_often = Refusal::TooOften(Duration::ZERO);
        assert_eq!(too_often.reason(), crate::control::sign_in::TOO_OFTEN);
    }
}
