//! Displayed texts of records, for the page, the `activity` command and the log. JSON, CSV and telemetry have the
//! codes.

use std::borrow::Cow;

use super::record::{EndReason, EventKind, Record};

impl Record {
    /// Displayed text of the event: that of its kind, or a more exact one where the reason distinguishes two events.
    pub(crate) fn summary(&self) -> &'static str {
        match (self.kind, self.reason.as_deref()) {
            (EventKind::Logout, Some(EndReason::REPLACED | EndReason::TOO_MANY)) => {
                "session replaced"
            }
            (kind, _) => kind.words(),
        }
    }

    /// Displayed text of the reason.
    pub(crate) fn reason_in_words(&self) -> Option<Cow<'static, str>> {
        let code = self.reason.as_deref()?;
        let limit = self.text.as_deref().and_then(EndReason::limit_in);
        Some(match (code, limit) {
            (EndReason::TOO_MANY, Some(limit)) => {
                format!("replaced by a newer sign-in: limit of {limit} sessions per person").into()
            }
            _ => words(code).map_or_else(|| code.replace('_', " ").into(), Cow::Borrowed),
        })
    }
}

/// Displayed text of a reason code. `None`: a code of another version.
fn words(code: &str) -> Option<&'static str> {
    Some(match code {
        // Ended sessions.
        EndReason::REPLACED => "replaced by the next sign-in of the same caller",
        EndReason::TOO_MANY => "replaced by a newer sign-in: too many sessions of this person",
        "blocked" => "blocked by an administrator",
        // Rejected tokens.
        "keys_unavailable" => "the issuer’s metadata has not been read yet",
        "malformed_bearer" => "malformed Authorization header",
        "repeated_authorization" => "multiple Authorization headers",
        "token_audience" => "the access token was issued for another application",
        "token_claim" => "the access token lacks a valid claim",
        "token_expired" => "the access token expired",
        "token_for_graph" => "the access token was issued for Microsoft Graph",
        "token_issuer" => "the access token has another issuer",
        "token_malformed" => "the access token is malformed",
        "token_not_yet_valid" => "the access token is not valid yet",
        "token_signature" => "the signature of the access token is not valid",
        "token_tenant" => "the access token belongs to another tenant",
        "token_unknown_key" => "the access token is signed with an unknown key",
        "token_wrong_type" => "not an access token",
        // Callers without permission to sign in.
        "app_only_not_allowed" => "app-only tokens may not sign in",
        "client_not_allowed" => "the client app is not in GATEWAY_ALLOWED_CLIENTS",
        "foreign_origin" => "the request came from a page of another origin",
        "not_recorded" => "the login could not be recorded",
        "role_missing" => "the app role ExternalApi is not assigned",
        "scope_missing" => "the access token lacks a scope required to sign in",
        "too_often" => "over the limit of sign-ins or failures",
        // Denied administrative access.
        "csrf" => "the form belongs to another session",
        "minted_session" => "gateway-issued session",
        "not_an_administrator" => "the app role Admin is not assigned",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: EventKind, reason: &str) -> Record {
        Record::refused(kind, reason)
    }

    #[test]
    fn a_session_over_the_limit_is_displayed_as_replaced() {
        let ended = Record::ended(EndReason::TooMany { limit: 16 });
        assert_eq!(ended.summary(), "session replaced");
        assert_eq!(
            ended.reason_in_words().unwrap(),
            "replaced by a newer sign-in: limit of 16 sessions per person"
        );
        // The kind and the reason code are public since the first version.
        assert_eq!((ended.kind, ended.reason.as_deref()), (EventKind::Logout, Some("too_many")));
        let of_an_older_version = Record { text: None, ..ended };
        assert!(of_an_older_version.reason_in_words().unwrap().ends_with("of this person"));
        assert_eq!(Record::ended(EndReason::Replaced).summary(), "session replaced");
        assert_eq!(Record::new(EventKind::Logout).summary(), "logged out");
        assert_eq!(Record::new(EventKind::Logout).reason_in_words(), None);
    }

    #[test]
    fn an_unknown_reason_code_is_displayed_with_spaces() {
        let denied = record(EventKind::LoginDenied, "some_later_code");
        assert_eq!(denied.reason_in_words().unwrap(), "some later code");
        let denied = record(EventKind::LoginDenied, "role_missing");
        assert_eq!(denied.reason_in_words().unwrap(), "the app role ExternalApi is not assigned");
    }
}
