//! `WWW-Authenticate` of refused requests (RFC 6750 §3, RFC 9728 §5.1).

use crate::gateway::Resource;

/// Kind of challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge {
    None,
    /// Without an error code: the request had no credentials (RFC 6750 §3.1).
    Credentials,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
    /// Sign-in with a browser (draft-broyer-http-cookie-auth-00); browsers ignore it.
    Cookie,
}

impl Challenge {
    /// Value of the header field. `url`: of the metadata; `detail`: of the refusal. While external access is off no
    /// ids are published: `Bearer`, with the error code at most.
    pub(super) fn write(
        self,
        resource: &Resource,
        url: Option<&str>,
        detail: &str,
    ) -> Option<String> {
        let (scopes, login_scopes) = (&resource.config.scopes, &resource.config.login_scopes);
        let (error, scopes, description) = match self {
            Self::None => return None,
            Self::Cookie => {
                return Some("Cookie realm=\"SimpleChat\", form-action=\"/login\"".to_owned());
            }
            Self::Credentials => (None, Some(scopes), None),
            Self::InvalidRequest => (Some("invalid_request"), None, None),
            Self::InvalidToken => (Some("invalid_token"), Some(scopes), Some(detail)),
            Self::InsufficientScope => (Some("insufficient_scope"), Some(login_scopes), None),
        };
        let error = error.map(|error| ("error", error.to_owned()));
        // The description is last: some clients search the whole text for `scope=`.
        let published = [
            url.map(|url| ("resource_metadata", url.to_owned())),
            scopes.map(|scopes| ("scope", scopes.join(" "))),
            description.map(|text| ("error_description", text.to_owned())),
        ];
        let published = published.into_iter().flatten().filter(|_| resource.is_on());
        let members: Vec<_> = error
            .into_iter()
            .chain(published)
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        Some(format!("Bearer {}", members.join(", ")).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Refusal, *};
    use crate::{
        authz::{policy::Denial, token::TokenError},
        config::ResourceConfig,
        entra::EntraError,
    };

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
        let detail = refusal.detail(&resource);
        refusal.answer().challenge.write(&resource, Some("https://h/m"), &detail)
    }

    #[test]
    fn challenges_have_the_members_of_rfc_6750_and_9728() {
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
    fn no_ids_are_published_while_external_access_is_off() {
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
