//! Subject binding of guarded requests: SimpleChat's `/external/public_documents` trusts the `user_id` of the
//! caller, so every `user_id` in a request with a user's token must be the id of that user.
//!
//! Flask 3.1 reads forms of two media types with Werkzeug 3.1 (`werkzeug/formparser.py`,
//! `werkzeug/sansio/multipart.py`, 3.1.6). A body that Werkzeug could read differently is rejected.

mod multipart;
mod urlencoded;

use uuid::Uuid;

use self::{multipart::Multipart, urlencoded::Urlencoded};

/// Form field that names a user.
const USER_ID: &[u8] = b"user_id";

/// Reasons for rejecting a request, before or during its body.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubjectFault {
    #[error("Every user_id must be the subject of this token")]
    Mismatch,
    /// Two parsers could find different fields.
    #[error("The form could be read in more than one way: {0}")]
    Unreadable(&'static str),
}

/// The only permitted value of `user_id`.
#[derive(Debug, Clone)]
pub(crate) struct SubjectBinding(Box<str>);

impl SubjectBinding {
    pub(crate) fn to(subject: Uuid) -> Self {
        Self(subject.to_string().into())
    }

    /// Checks the query of a request target, without its question mark.
    pub(crate) fn check_query(&self, query: &[u8]) -> Result<(), SubjectFault> {
        let mut reader = Urlencoded::new(self.value());
        reader.read(query)?;
        reader.end()
    }

    /// Parser for a body with these `Content-Type` lines; `None`: SimpleChat reads no form fields from it.
    pub(crate) fn reader<'a>(
        &self,
        mut content_types: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<FormReader>, SubjectFault> {
        let Some(content_type) = content_types.next() else { return Ok(None) };
        if content_types.next().is_some() {
            return Err(SubjectFault::Unreadable("more than one Content-Type"));
        }
        if !content_type.iter().all(|b| matches!(b, b' '..=b'~')) {
            return Err(SubjectFault::Unreadable("its Content-Type"));
        }
        let (essence, parameters) = match content_type.iter().position(|b| *b == b';') {
            Some(at) => (&content_type[..at], &content_type[at + 1..]),
            None => (content_type, &[][..]),
        };
        Ok(match essence.trim_ascii().to_ascii_lowercase().as_slice() {
            b"multipart/form-data" => {
                let boundary = multipart::boundary(parameters)?;
                Some(FormReader::Multipart(Multipart::new(self.value(), &boundary)))
            }
            b"application/x-www-form-urlencoded" => {
                Some(FormReader::Urlencoded(Urlencoded::new(self.value())))
            }
            _ => None,
        })
    }

    fn value(&self) -> ExpectedValue {
        ExpectedValue { value: self.0.clone(), matched: 0 }
    }
}

/// Streaming form parser. Bytes that were read without a fault may be forwarded; the end of the body only
/// after [`Self::end`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "at most one per request, boxed")]
pub(crate) enum FormReader {
    Urlencoded(Urlencoded),
    Multipart(Multipart),
}

impl FormReader {
    /// Parses the next bytes.
    pub(crate) fn read(&mut self, data: &[u8]) -> Result<(), SubjectFault> {
        match self {
            Self::Urlencoded(reader) => reader.read(data),
            Self::Multipart(reader) => reader.read(data),
        }
    }

    /// Checks that the form is complete.
    pub(crate) fn end(&mut self) -> Result<(), SubjectFault> {
        match self {
            Self::Urlencoded(reader) => reader.end(),
            Self::Multipart(reader) => reader.end(),
        }
    }
}

/// Streaming comparison with the expected value.
#[derive(Debug)]
struct ExpectedValue {
    value: Box<str>,
    matched: usize,
}

impl ExpectedValue {
    fn begin(&mut self) {
        self.matched = 0;
    }

    fn take(&mut self, part: &[u8]) -> Result<(), SubjectFault> {
        if !self.value.as_bytes()[self.matched..].starts_with(part) {
            return Err(SubjectFault::Mismatch);
        }
        self.matched += part.len();
        Ok(())
    }

    fn end(&self) -> Result<(), SubjectFault> {
        if self.matched == self.value.len() { Ok(()) } else { Err(SubjectFault::Mismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb";
    const OTHER: &str = "aaaaaaaa-0000-1111-2222-cccccccccccc";

    fn binding() -> SubjectBinding {
        SubjectBinding::to(OID.parse().unwrap())
    }

    /// Result for a body; the same for every division into chunks.
    fn check(content_type: &str, body: &str) -> Result<(), SubjectFault> {
        let checked: Vec<_> = [1, 2, 7, 64, usize::MAX]
            .into_iter()
            .map(|step| {
                let lines = [content_type.as_bytes()];
                let Some(mut reader) = binding().reader(lines.into_iter())? else { return Ok(()) };
                body.as_bytes().chunks(step).try_for_each(|part| reader.read(part))?;
                reader.end()
            })
            .collect();
        assert!(checked.iter().all(|one| *one == checked[0]), "{checked:?}: {body}");
        checked[0]
    }

    const UNREADABLE: fn(Result<(), SubjectFault>) -> bool =
        |checked| matches!(checked, Err(SubjectFault::Unreadable(_)));

    #[test]
    fn every_user_id_in_a_query_must_be_the_subject() {
        for query in [
            String::new(),
            "page=1&page_size=10".to_owned(),
            format!("user_id={OID}"),
            format!("user_id={OID}&a=b&user_id={OID}&"),
            format!("user%5Fid={}", OID.replace('a', "%61")),
            "xuser_id=1&user_id_x=2&USER_ID=3&user+id=4&a=user_id=5&user%255Fid=6".to_owned(),
        ] {
            assert_eq!(binding().check_query(query.as_bytes()), Ok(()), "{query}");
        }
        for query in [
            format!("user_id={OTHER}"),
            format!("user_id={OID}&user_id={OTHER}"),
            format!("user_id={OTHER}&user_id={OID}"),
            format!("%75%73%65%72%5f%69%64={OTHER}"),
            format!("user_id={}", OID.to_uppercase()),
            format!("user_id={OID}%20"),
            format!("user_id={OID}%00"),
            format!("user_id=+{OID}"),
            format!("user_id={OID}={OID}"),
            "user_id".to_owned(),
            "user_id=".to_owned(),
            "a&user_id&b".to_owned(),
        ] {
            let checked = binding().check_query(query.as_bytes());
            assert_eq!(checked, Err(SubjectFault::Mismatch), "{query}");
        }
    }

    #[test]
    fn an_urlencoded_body_is_checked_like_a_query() {
        for form in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; a=b"]
        {
            assert_eq!(check(form, &format!("a=b&user_id={OID}")), Ok(()));
            let checked = check(form, &format!("a={}&user_id={OTHER}", "x".repeat(5000)));
            assert_eq!(checked, Err(SubjectFault::Mismatch));
        }
        assert_eq!(check("application/json", &format!("user_id={OTHER}")), Ok(()), "no form");
    }

    fn part(disposition: &str, value: &str) -> String {
        format!("--B\r\nContent-Disposition: {disposition}\r\n\r\n{value}\r\n")
    }

    #[test]
    fn every_user_id_in_a_multipart_body_must_be_the_subject() {
        let form = "multipart/form-data; boundary=B";
        let file =
            part("form-data; name=\"file\"; filename=\"a;b \u{e4}.pdf\"", "%PDF\r\n-\n--\r\n--A");
        let good = part("form-data; name=\"user_id\"", OID);
        let bad = part("form-data; name=\"user_id\"", OTHER);
        assert_eq!(check(form, &format!("{file}{good}--B--\r\n")), Ok(()));
        assert_eq!(check(form, &format!("{file}--B--")), Ok(()));
        assert_eq!(check(form, "--B--\r\n"), Ok(()));
        for body in [
            format!("{file}{bad}--B--\r\n"),
            format!("{good}{file}{bad}--B--\r\n"),
            format!("{}--B--\r\n", part("form-data; name=\"user_id\"; filename=\"\"", OTHER)),
            format!("{}--B--\r\n", part("form-data; name=\"user_id\"", "")),
            format!("{}--B--\r\n", part("form-data; name=\"user_id\"", &format!("{OID}\r\n"))),
        ] {
            assert_eq!(check(form, &body), Err(SubjectFault::Mismatch), "{body}");
        }
    }

    #[test]
    fn an_ambiguous_multipart_body_is_rejected() {
        let form = "multipart/form-data; boundary=B";
        let good = part("form-data; name=\"user_id\"", OID);
        for body in [
            String::new(),
            "--B".to_owned(),
            good.clone(),
            format!("\r\n{good}--B--"),
            format!("preamble\r\n{good}--B--"),
            format!("{good}--B--\r\nepilogue"),
            format!("{good}--B \r\n{good}--B--"),
            format!("{good}--B\n{good}--B--"),
            good.replace("\r\n", "\n") + "--B--",
            format!("{}--B--", part("form-data; name=\"a\"", "x\n--B\nfoo")),
            format!("{}--B--", part("form-data; name=\"a\"", "x--Bx")),
            format!("{}--B--", part("form-data; name=\"a\"; filename=\"--B\"", OID)),
            format!("{}--B--", part("form-data; name=user_id", OID)),
            format!("{}--B--", part("form-data; Name=\"user_id\"", OID)),
            format!("{}--B--", part("form-data; name=\"a\"; name=\"user_id\"", OID)),
            format!("{}--B--", part("form-data; name=\"a\\\"b\"", OID)),
            format!("{}--B--", part("form-data; name*=utf-8''user_id", OID)),
            format!("{}--B--", part("form-data; name=\"a\"; filename*=utf-8''b", OID)),
            format!("{}--B--", part("form-data", OID)),
            format!("{}--B--", part("attachment; name=\"user_id\"", OID)),
            format!("{}--B--", part("form-data; name=\"a\"\r\n b", OID)),
            format!(
                "{}--B--",
                part("form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"", OID)
            ),
            "--B\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--".to_owned(),
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--B--".to_owned(),
            format!("--B\r\nX: {}", "x".repeat(20_000)),
        ] {
            assert!(UNREADABLE(check(form, &body)), "{:?}: {body}", check(form, &body));
        }
    }

    #[test]
    fn an_ambiguous_content_type_is_rejected() {
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a/b",
            "multipart/form-data; boundary=\"a%22b\"",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary*=utf-8''a",
            "multipart/form-data; boundary*0=a",
            "multipart/form-data; x=\";boundary=b\"; boundary=a",
            "\u{a0}multipart/form-data; boundary=a",
        ] {
            assert!(UNREADABLE(check(content_type, "")), "{content_type}");
        }
        let quoted = "multipart/form-data;charset=utf-8; BOUNDARY=\"a/b=c?\" ";
        assert_eq!(check(quoted, "--a/b=c?--"), Ok(()));
        let twice = [&b"text/plain"[..], b"multipart/form-data; boundary=a"];
        assert!(binding().reader(twice.into_iter()).is_err());
    }
}
