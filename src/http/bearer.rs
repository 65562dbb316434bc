//! Parser of `Authorization: Bearer` (RFC 6750 §2.1). Tokens in other places are ignored.

use http::{HeaderMap, HeaderValue, header};

use super::error::Refusal;
use crate::authz::token::BearerToken;

/// Reads the token of a request. Another scheme is the same as no credentials.
pub(crate) fn parse(headers: &HeaderMap) -> Result<BearerToken, Refusal> {
    parse_lines(headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes))
}

/// Reads the token from the values of the `Authorization` lines.
pub(crate) fn parse_lines<'a>(
    mut lines: impl Iterator<Item = &'a [u8]>,
) -> Result<BearerToken, Refusal> {
    let text = lines.next().ok_or(Refusal::NoCredentials)?;
    if lines.next().is_some() {
        return Err(Refusal::RepeatedAuthorization);
    }
    let scheme_end = text.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (scheme, rest) = text.split_at(scheme_end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Refusal::NoCredentials);
    }
    // One or more spaces (RFC 9110 §11.4: `1*SP`), no other white space.
    let spaces = rest.iter().take_while(|b| **b == b' ').count();
    let token = Some(&rest[spaces..]).filter(|_| spaces > 0);
    token
        .and_then(|token| std::str::from_utf8(token).ok())
        .and_then(BearerToken::parse)
        .ok_or(Refusal::MalformedBearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_texts(lines: &[&str]) -> Result<BearerToken, Refusal> {
        parse_lines(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn one_bearer_token_in_any_case_of_the_scheme() {
        for line in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER a.b-_~+/c==",
            // spring-projects/spring-security#19500.
            "Bearer  a.b.c",
            "bEARER     a.b.c",
        ] {
            assert!(of_texts(&[line]).is_ok(), "{line}");
        }
    }

    #[test]
    fn missing_credentials_differ_from_malformed_ones() {
        for lines in [&[][..], &["Basic YTpi"], &["DPoP a.b.c"], &["a.b.c"], &[""]] {
            assert!(matches!(of_texts(lines), Err(Refusal::NoCredentials)), "{lines:?}");
        }
        for line in [
            "Bearer",
            "Bearer ",
            "Bearer   ",
            "Bearer\ta",
            "Bearer \ta",
            "Bearer\t a",
            "Bearer\u{a0}a",
            "Bearer a b",
            "Bearer  a  b",
            "Bearer a,b",
            "Bearer =",
        ] {
            assert!(matches!(of_texts(&[line]), Err(Refusal::MalformedBearer)), "{line}");
        }
        let twice = of_texts(&["Bearer a", "Bearer a"]);
        assert!(matches!(twice, Err(Refusal::RepeatedAuthorization)));
    }
}
