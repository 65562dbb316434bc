//! Session cookie: read as Werkzeug 3.1 reads it, written as Flask writes it.
//!
//! Werkzeug removes quotes, octal escapes and whitespace, and uses the first pair of a name. Upstream must
//! not accept a minted id in a spelling that the gateway does not recognize: a session pair that is not
//! plainly spelled is dropped.

mod pairs;

use std::borrow::Cow;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret;
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
    pub(crate) live: Option<MintedCookie>,
    /// First minted id that was dropped because its session has ended.
    pub(crate) over: Option<SessionId>,
}

/// Active minted session named by a cookie.
pub(crate) struct MintedCookie {
    pub(crate) id: SessionId,
    /// Value of the cookie.
    pub(crate) value: String,
}

/// Reads, signs and writes the session cookie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionCookie<'a>(pub(crate) &'a CookieConfig);

impl SessionCookie<'_> {
    /// Reads the `Cookie` lines of a request and drops ended minted sessions. `is_over` returns true for an
    /// ended session; its error is returned.
    pub(crate) fn read<'a, E>(
        self,
        lines: impl Iterator<Item = &'a [u8]>,
        mut is_over: impl FnMut(&SessionId) -> Result<bool, E>,
    ) -> Result<Cookies<'a>, E> {
        let mut text = joined(lines);
        let mut cookies = Cookies::default();
        // Dropping a pair may change how the rest is parsed (an open quote): repeat until no pair is
        // dropped.
        loop {
            let mut forwarded: Vec<&[u8]> = Vec::new();
            let mut is_first = true;
            let all = pairs(&text);
            cookies.live = None;
            for pair in &all {
                if !self.is_session(pair) {
                    forwarded.push(pair.raw);
                    continue;
                }
                let Some(value) = self.plainly_spelled(pair.raw) else { continue };
                if let Some(id) = self.minted(value) {
                    let Some(id) = id else { continue };
                    if is_over(&id)? {
                        cookies.over.get_or_insert(id);
                        continue;
                    }
                    if is_first {
                        cookies.live = Some(MintedCookie { id, value: value.to_owned() });
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
            let id = std::str::from_utf8(&pair.value).ok().and_then(|value| self.minted(value));
            if let Some(Some(id)) = id
                && !found.contains(&id)
                && found.len() < MAX_MINTED
            {
                found.push(id);
            }
        }
        found
    }

    /// Flask's own session id of a request: the first session cookie, as Werkzeug reads it, with a valid
    /// signature if upstream signs. `None`: no session cookie, or a minted id.
    pub(crate) fn flask_id(self, headers: &HeaderMap) -> Option<FlaskId> {
        let text = joined(lines(headers));
        let first = pairs(&text).into_iter().find(|pair| self.is_session(pair))?;
        let value = String::from_utf8(first.value).ok()?;
        let Some(key) = &self.0.signing_key else { return FlaskId::parse(&value) };
        let (id, signature) = value.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = signing_key(key.expose_secret());
        hmac::verify(&key, id.as_bytes(), &signature).ok()?;
        FlaskId::parse(id)
    }

    /// True if a request has a session cookie with a value.
    pub(crate) fn is_borne(self, headers: &HeaderMap) -> bool {
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

    /// `Some` if a plainly spelled value has the form of a minted id; with the id if it is valid. The
    /// signature is not verified here: upstream verifies it.
    #[expect(clippy::option_option, reason = "not a minted id, an invalid one, a valid one")]
    fn minted(self, value: &str) -> Option<Option<SessionId>> {
        let id = match &self.0.signing_key {
            Some(_) => value.rsplit_once('.')?.0,
            None => value,
        };
        SessionId::is_formed_like_one(id).then(|| SessionId::parse(id))
    }

    /// Value of the cookie for a session.
    pub(crate) fn value(self, id: &SessionId) -> String {
        let id = id.to_string();
        match &self.0.signing_key {
            None => id,
            Some(key) => {
                let signature = hmac::sign(&signing_key(key.expose_secret()), id.as_bytes());
                format!("{id}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }

    /// `Set-Cookie` (RFC 6265 §4.1) for a session. `over_https`: the scheme of the caller's request.
    pub(crate) fn set(self, id: &SessionId, over_https: bool) -> Option<HeaderValue> {
        const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        let CookieConfig { name, path, domain, same_site, secure, .. } = self.0;
        let expires = OffsetDateTime::from_unix_timestamp(id.expires_at()).ok()?;
        let expires = expires.format(IMF_FIXDATE).ok()?;
        let value = self.value(id);
        let domain = domain.as_ref().map(|d| format!("; Domain={d}")).unwrap_or_default();
        let secure = if secure.unwrap_or(over_https) { "; Secure" } else { "" };
        HeaderValue::try_from(format!(
            "{name}={value}; HttpOnly; Path={path}; SameSite={same_site}; Expires={expires}{domain}{secure}"
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

/// Key of itsdangerous 2.2 `Signer(SECRET_KEY, salt="flask-session", key_derivation="hmac")`: HMAC-SHA1 with
/// the HMAC of the salt as key.
fn signing_key(secret_key: &str) -> hmac::Key {
    let algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let derived = hmac::sign(&hmac::Key::new(algorithm, secret_key.as_bytes()), b"flask-session");
    hmac::Key::new(algorithm, derived.as_ref())
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

    use secrecy::SecretString;
    use tower_sessions::session::Id;

    use super::*;

    fn config(signing_key: Option<&str>) -> CookieConfig {
        CookieConfig {
            name: "session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: "Lax",
            secure: None,
            signing_key: signing_key.map(SecretString::from),
        }
    }

    fn request(lines: &[&[u8]]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_bytes(line).unwrap())).collect()
    }

    fn forwarded(lines: &[&[u8]], over: bool) -> Option<String> {
        let config = config(None);
        let read =
            SessionCookie(&config).read::<Infallible>(lines.iter().copied(), |_| Ok(over)).unwrap();
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
        let config = config(None);
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
    fn signatures_are_those_of_itsdangerous() {
        // Signer("secret", salt="flask-session", key_derivation="hmac").sign("abc")
        let config = config(Some("secret"));
        let cookie = SessionCookie(&config);
        let signature = hmac::sign(&signing_key("secret"), b"abc");
        assert_eq!(URL_SAFE_NO_PAD.encode(signature), "UOOlglGtLOKQM3OFkrI8bWIohNg");
        let id = SessionId::new(Id::default(), 1_795_384_800);
        assert_eq!(cookie.minted(&cookie.value(&id)), Some(Some(id)));
        assert_eq!(cookie.minted(&id.to_string()), None, "unsigned");
    }

    #[test]
    fn flask_id_is_the_first_session_cookie_unless_it_is_minted() {
        let plain = config(None);
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
    fn with_a_signing_key_only_signed_flask_ids_are_accepted() {
        // Signer("secret", salt="flask-session", key_derivation="hmac").sign("a" * 43)
        const SIGNED: &str =
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.Lw-LrlpGD9dbPB9QKqzX_UtdF8Q";
        let (right, wrong) = (config(Some("secret")), config(Some("another")));
        let bare = "a".repeat(43);
        let of = |config: &CookieConfig, value: &str| {
            SessionCookie(config).flask_id(&request(&[format!("session={value}").as_bytes()]))
        };
        assert!(of(&right, SIGNED) == FlaskId::parse(&bare) && of(&right, SIGNED).is_some());
        assert!(of(&wrong, SIGNED).is_none(), "signature with another key");
        assert!(of(&right, &SIGNED.replacen('a', "b", 1)).is_none(), "another id");
        assert!(of(&right, &bare).is_none(), "unsigned");
        assert!(of(&right, &format!("{bare}.")).is_none(), "empty signature");
        assert!(of(&config(None), SIGNED).is_none(), "upstream does not sign");
    }

    #[test]
    fn renews_is_true_for_a_renewal_and_false_for_a_deletion() {
        let config = config(None);
        let cookie = SessionCookie(&config);
        let renewal = b"session=abc.1; Expires=Thu, 01 Jan 2027 00:00:00 GMT; Path=/";
        assert!(cookie.renews(renewal, "abc.1"));
        assert!(!cookie.renews(b"session=; Max-Age=0; Path=/", "abc.1"));
        assert!(!cookie.renews(b"other=abc.1", "abc.1"));
    }
}
