//! Records in words, for the page, the `activity` command and the log. JSON, CSV and telemetry have the codes.

use std::borrow::Cow;

use super::record::{EndReason, EventKind, Record};

impl Record {
    /// Event in words: those of its kind, or more exact ones where the reason tells two events apart.
    pub(crate) fn summary(&self) -> &'static str {
        match (self.kind, self.reason.as_deref()) {
            (EventKind::Logout, Some(EndReason::REPLACED | EndReason::TOO_MANY)) => {
                "session replaced"
            }
            (kind, _) => kind.words(),
        }
    }

    /// Reason in words.
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

/// `None`: a code of another version.
fn words(code: &str) -> Option<&'static str> {
    Some(match code {
        // Sessions that end.
        EndReason::REPLACED => "replaced by the next sign-in of the same caller",
        EndReason::TOO_MANY => "replaced by a newer sign-in: too many sessions of this person",
        "blocked" => "blocked by an administrator",
        // Tokens that are not accepted.
        "keys_unavailable" => "the issuer’s metadata has not been read yet",
        "malformed_bearer" => "the Authorization header is not one bearer token",
        "repeated_authorization" => "two Authorization headers",
        "token_audience" => "the access token is meant for another application",
        "token_claim" => "the access token lacks a valid claim",
        "token_expired" => "the access token expired",
        "token_for_graph" => "the access token is meant for Microsoft Graph",
        "token_issuer" => "the access token has another issuer",
        "token_malformed" => "the access token is malformed",
        "token_not_yet_valid" => "the access token is not valid yet",
        "token_signature" => "the signature of the access token is not valid",
        "token_tenant" => "the access token belongs to another tenant",
        "token_unknown_key" => "the access token is signed with an unknown key",
        "token_wrong_type" => "not an access token",
        // Callers that are not admitted.
        "app_only_not_allowed" => "app-only tokens may not sign in",
        "client_not_allowed" => "the client app is not in GATEWAY_ALLOWED_CLIENTS",
        "foreign_origin" => "asked for by a page of another origin",
        "not_recorded" => "the login could not be recorded",
        "role_missing" => "the app role ExternalApi is not assigned",
        "scope_missing" => "the access token lacks a scope that admits to signing in",
        "too_often" => "over the limit of sign-ins or failures",
        // Requests for what is an administrator's alone.
        "csrf" => "a form of another session",
        "minted_session" => "a minted session",
        "not_an_administrator" => "without the app role Admin",
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
    fn a_session_over_the_limit_does_not_read_as_a_logout() {
        let ended = Record::ended(EndReason::TooMany { limit: 16 });
        assert_eq!(ended.summary(), "session replaced");
        assert_eq!(
            ended.reason_in_words().unwrap(),
            "replaced by a newer sign-in: limit of 16 sessions per person"
        );
        // As the code has been public from the first version on.
        assert_eq!((ended.kind, ended.reason.as_deref()), (EventKind::Logout, Some("too_many")));
        let of_an_older_version = Record { text: None, ..ended };
        assert!(of_an_older_version.reason_in_words().unwrap().ends_with("of this person"));
        assert_eq!(Record::ended(EndReason::Replaced).summary(), "session replaced");
        assert_eq!(Record::new(EventKind::Logout).summary(), "logged out");
        assert_eq!(Record::new(EventKind::Logout).reason_in_words(), None);
    }

    #[test]
    fn a_code_without_words_of_its_own_is_spelled_out() {
        let denied = record(EventKind::LoginDenied, "some_later_code");
        assert_eq!(denied.reason_in_words().unwrap(), "some later code");
        let denied = record(EventKind::LoginDenied, "role_missing");
        assert_eq!(denied.reason_in_words().unwrap(), "the app role ExternalApi is not assigned");
    }
}
