//! Session cookie: read as Werkzeug 3.1 reads it, written as Flask writes it.
//!
//! Werkzeug removes quotes, octal escapes and whitespace, and uses the first pair of a name. Upstream must
//! not accept a minted id in a spelling that the gateway does not recognize: a session pair that is not
//! plainly spelled is dropped.

mod pairs;

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use self::pairs::{CookiePair, pairs, strip};
use super::account::FlaskId;
use crate::{authz::session::SessionId, config::CookieConfig};

/// Maximum number of minted ids read from one request.
const MAX_MINTED: usize = 8;

/// Cookies of a request, with its minted sessions.
#[derive(Default)]
pub(crate) struct Cookies<'a> {
    /// `Cookie` header for upstream, borrowed if unchanged; `None`: no cookies are left.
    pub(crate) header: Option<Cow<'a, [u8]>>,
    /// Active minted session that upstream will use as its session.
    pub(crate) active: Option<MintedCookie>,
    /// First minted id that was dropped because its session has ended.
    pub(crate) ended: Option<SessionId>,
}

/// Active minted session named by a cookie.
pub(crate) struct MintedCookie {
    pub(crate) id: SessionId,
    /// Value of the cookie.
    pub(crate) value: String,
}

/// Reads and writes the session cookie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionCookie<'a>(pub(crate) &'a CookieConfig);

impl SessionCookie<'_> {
    /// Reads the `Cookie` lines of a request and drops ended minted sessions. `is_ended` returns true for an
    /// ended session; its error is returned.
    pub(crate) fn read<'a, E>(
        self,
        lines: impl Iterator<Item = &'a [u8]>,
        mut is_ended: impl FnMut(&SessionId) -> Result<bool, E>,
    ) -> Result<Cookies<'a>, E> {
        let mut text = joined(lines);
        let mut cookies = Cookies::default();
        // Dropping a pair may change how the rest is parsed (an open quote): repeat until no pair is
        // dropped.
        loop {
            let mut forwarded: Vec<&[u8]> = Vec::new();
            let mut is_first = true;
            let all = pairs(&text);
            cookies.active = None;
            for pair in &all {
                if !self.is_session(pair) {
                    forwarded.push(pair.raw);
                    continue;
                }
                let Some(value) = self.plainly_spelled(pair.raw) else { continue };
                if let Some(id) = minted(value) {
                    let Some(id) = id else { continue };
                    if is_ended(&id)? {
                        cookies.ended.get_or_insert(id);
                        continue;
                    }
                    if is_first {
                        cookies.active = Some(MintedCookie { id, value: value.to_owned() });
                    }
                }
                is_first = false;
                forwarded.push(pair.raw);
            }
            if forwarded.len() == all.len() {
                break;
            }
            text = Cow::Owned(forwarded.join(b"; ".as_slice()));
        }
        cookies.header = (!text.is_empty()).then_some(text);
        Ok(cookies)
    }

    /// First [`MAX_MINTED`] minted ids in the cookies of a request, in every spelling that upstream reads.
    pub(crate) fn minted_in(self, headers: &HeaderMap) -> Vec<SessionId> {
        let mut found = Vec::new();
        for pair in pairs(&joined(lines(headers))).iter().filter(|pair| self.is_session(pair)) {
            let id = std::str::from_utf8(&pair.value).ok().and_then(minted);
            if let Some(Some(id)) = id
                && !found.contains(&id)
                && found.len() < MAX_MINTED
            {
                found.push(id);
            }
        }
        found
    }

    /// Flask's own session id of a request: the first session cookie, as Werkzeug reads it. `None`: no session
    /// cookie, or a minted id.
    pub(crate) fn flask_id(self, headers: &HeaderMap) -> Option<FlaskId> {
        let text = joined(lines(headers));
        let first = pairs(&text).into_iter().find(|pair| self.is_session(pair))?;
        FlaskId::parse(std::str::from_utf8(&first.value).ok()?)
    }

    /// True if a request has a session cookie with a value.
    pub(crate) fn is_present(self, headers: &HeaderMap) -> bool {
        pairs(&joined(lines(headers)))
            .iter()
            .any(|pair| self.is_session(pair) && !pair.value.is_empty())
    }

    fn is_session(self, pair: &CookiePair<'_>) -> bool {
        pair.name == self.0.name.as_bytes()
    }

    /// Value of a pair that is spelled `NAME=[A-Za-z0-9_.-]*`.
    fn plainly_spelled(self, raw: &[u8]) -> Option<&str> {
        let value = raw.strip_prefix(self.0.name.as_bytes())?.strip_prefix(b"=")?;
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        value.iter().all(is_plain).then(|| std::str::from_utf8(value).ok()).flatten()
    }

    /// `Set-Cookie` (RFC 6265 §4.1) for a session. `over_https`: the scheme of the caller's request.
    pub(crate) fn set(self, id: &SessionId, over_https: bool) -> Option<HeaderValue> {
        const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        let CookieConfig { name, path, domain, same_site, secure, .. } = self.0;
        let expires = OffsetDateTime::from_unix_timestamp(id.expires_at()).ok()?;
        let expires = expires.format(IMF_FIXDATE).ok()?;
        let domain = domain.as_ref().map(|d| format!("; Domain={d}")).unwrap_or_default();
        let secure = if secure.unwrap_or(over_https) { "; Secure" } else { "" };
        HeaderValue::try_from(format!(
            "{name}={id}; HttpOnly; Path={path}; SameSite={same_site}; Expires={expires}{domain}{secure}"
        ))
        .ok()
    }

    /// True if a `Set-Cookie` of upstream renews this cookie. That would remove `Secure` and `SameSite` and
    /// extend it to 31 days. A `Set-Cookie` that deletes the cookie has another value.
    pub(crate) fn renews(self, set_cookie: &[u8], value: &str) -> bool {
        let pair = set_cookie.split(|b| *b == b';').next().unwrap_or_default();
        self.plainly_spelled(strip(pair)) == Some(value)
    }
}

/// `Some` if a plainly spelled value has the form of a minted id; with the id if it is valid.
#[expect(clippy::option_option, reason = "not a minted id, an invalid one, a valid one")]
fn minted(value: &str) -> Option<Option<SessionId>> {
    SessionId::is_formed_like_one(value).then(|| SessionId::parse(value))
}

/// Joins `Cookie` lines with a semicolon (RFC 9113 §8.2.3); gunicorn would use a comma.
fn joined<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Cow<'a, [u8]> {
    let mut text = Cow::Borrowed(lines.next().unwrap_or_default());
    for line in lines {
        let text = text.to_mut();
        text.extend_from_slice(b"; ");
        text.extend_from_slice(line);
    }
    text
}

fn lines(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower_sessions_core::session::Id;

    use super::*;

    fn config() -> CookieConfig {
        CookieConfig {
            name: "session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: "Lax",
            secure: None,
        }
    }

    fn request(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_bytes(line).unwrap())).collect()
    }

    fn forwarded(lines: &[&[u8]], ended: bool) -> Option<String> {
        let config = config();
        let read = SessionCookie(&config)
            .read::<Infallible>(lines.iter().copied(), |_| Ok(ended))
            .unwrap();
        read.header.map(|header| String::from_utf8_lossy(&header).into_owned())
    }

    #[test]
    fn other_cookies_are_forwarded_unchanged_and_lines_are_joined() {
        assert_eq!(forwarded(&[b"a=1;b = 2;  c"], true).as_deref(), Some("a=1;b = 2;  c"));
        assert_eq!(forwarded(&[b"a=1", b"b=\"x; y\""], true).as_deref(), Some("a=1; b=\"x; y\""));
        assert_eq!(forwarded(&[], true), None);
    }

    #[test]
    fn an_ended_session_is_dropped_in_every_position() {
        let id = SessionId::new(Id::default(), 1_795_384_800).to_string();
        let text = format!("a=1; session={id}; b=2; session={id}");
        assert_eq!(forwarded(&[text.as_bytes()], true).as_deref(), Some("a=1; b=2"));
        assert_eq!(forwarded(&[text.as_bytes()], false), Some(text));
        let impossible = format!("session={id}00000000000000000000; c=3");
        assert_eq!(forwarded(&[impossible.as_bytes()], false).as_deref(), Some("c=3"));
    }

    #[test]
    fn flask_ids_are_forwarded_and_unusual_spellings_are_dropped() {
        let flask = format!("session={}", "a".repeat(43));
        assert_eq!(forwarded(&[flask.as_bytes()], true), Some(flask));
        for odd in [
            b"session=\"abc\"".as_slice(),
            b"session =abc",
            b"session= abc",
            b"session=abc ;a=1",
            b"session\xa0=abc",
            b"session=\x85abc",
            b"session=\"\\141bc\"",
            b"session",
            b"session=a,b",
        ] {
            let cookies = forwarded(&[odd], false);
            assert!(!cookies.unwrap_or_default().contains("session"), "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn minted_ids_are_found_in_every_spelling() {
        let id = SessionId::new(Id::default(), 1_795_384_800);
        let config = config();
        let octal: Vec<String> = id.to_string().bytes().map(|b| format!("\\{b:03o}")).collect();
        let octal = octal.concat();
        for text in [
            format!("session={id}"),
            format!("a=\"x; session={id}"),
            format!("session = \"{id}\" ; b=1"),
            format!("session=\"{octal}\""),
            format!("session=x; session={id}"),
        ] {
            let found = SessionCookie(&config).minted_in(&request(&[text.as_bytes()]));
            assert_eq!(found, [id], "{text}");
        }
        let swallowed = format!("a=\"x; session={id}\"");
        assert!(SessionCookie(&config).minted_in(&request(&[swallowed.as_bytes()])).is_empty());
    }

    #[test]
    fn flask_id_is_the_first_session_cookie_unless_it_is_minted() {
        let plain = config();
        let of = |text: &str| SessionCookie(&plain).flask_id(&request(&[text.as_bytes()]));
        let (one, other) = ("aB3_-".repeat(9)[..43].to_owned(), "b".repeat(43));
        let expected = FlaskId::parse(&one);
        assert!(expected.is_some());
        for text in [
            format!("session={one}"),
            format!("a=1; session={one}; session={other}"),
            format!("session = \"{one}\""),
            format!("xsession={other}; session={one}"),
        ] {
            assert!(of(&text) == expected, "{text}");
        }
        let minted = SessionId::new(Id::default(), 1_795_384_800);
        for text in [
            format!("session={minted}; session={one}"),
            format!("session=; session={one}"),
            format!("session={one}a"),
            format!("session={}", &one[1..]),
            format!("session={}.", &one[1..]),
            format!("session={}é", &one[2..]),
            format!("other={one}"),
            format!("a=\"x; session={one}\""),
        ] {
            assert!(of(&text).is_none(), "{text}");
        }
        assert!(SessionCookie(&plain).flask_id(&request(&[])).is_none());
    }

    #[test]
    fn signed_ids_are_neither_flask_ids_nor_minted_ids() {
        // Signer("secret", salt="flask-session", key_derivation="hmac").sign("a" * 43)
        const SIGNED: &str =
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.Lw-LrlpGD9dbPB9QKqzX_UtdF8Q";
        let config = config();
        let request = request(&[format!("session={SIGNED}").as_bytes()]);
        assert!(SessionCookie(&config).flask_id(&request).is_none());
        assert_eq!(SessionCookie(&config).minted_in(&request), []);
    }

    #[test]
    fn a_signed_minted_id_is_not_minted() {
        let config = config();
        let id = SessionId::new(Id::default(), 1_795_384_800);
        let text = format!("session={id}.UOOlglGtLOKQM3OFkrI8bWIohNg");
        assert_eq!(SessionCookie(&config).minted_in(&request(&[text.as_bytes()])), []);
    }

    #[test]
    fn renews_is_true_for_a_renewal_and_false_for_a_deletion() {
        let config = config();
        let cookie = SessionCookie(&config);
        let renewal = b"session=abc.1; Expires=Thu, 01 Jan 2027 00:00:00 GMT; Path=/";
        assert!(cookie.renews(renewal, "abc.1"));
        assert!(!cookie.renews(b"session=; Max-Age=0; Path=/", "abc.1"));
        assert!(!cookie.renews(b"other=abc.1", "abc.1"));
    }
}
