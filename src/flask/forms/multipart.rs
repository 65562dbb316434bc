//! `multipart/form-data` (RFC 7578), restricted to the spelling on which all parsers agree.
//!
//! ```text
//! --B CRLF                                             begins with the boundary
//! Content-Disposition: form-data; name="user_id" CRLF  plainly quoted, each name once
//! CRLF
//! VALUE CRLF
//! --B-- [CRLF]                                         nothing after it
//! ```
//!
//! Werkzeug also ends lines at a single CR or LF, skips bytes before the first boundary, and accepts
//! continued, extended and escaped parameters (RFC 2231). All of these are rejected, and so is `--B` outside
//! a boundary.

use memchr::memmem::Finder;

use super::{ExpectedValue, SubjectFault, USER_ID};

/// Longest header of a part, in bytes.
const MAX_HEADER: usize = 8 * 1024;
/// Longest boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Boundary in the parameters of a media type.
pub(super) fn boundary(parameters: &[u8]) -> Result<Vec<u8>, SubjectFault> {
    let unreadable = SubjectFault::Unreadable("the parameters of its Content-Type");
    let mut boundary = None;
    for parameter in parameters.split(|b| *b == b';') {
        let parameter = parameter.trim_ascii();
        let equals = parameter.iter().position(|b| *b == b'=').ok_or(unreadable)?;
        let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
        // Characters of a token in Werkzeug, and characters that it does not decode within quotes.
        let in_token = |b: &u8| b.is_ascii_alphanumeric() || b"-_.+'".contains(b);
        let in_quotes = |b: &u8| in_token(b) || b"(),/:=?".contains(b);
        let is_boundary = name.eq_ignore_ascii_case(b"boundary");
        let value = match value {
            [b'"', inner @ .., b'"'] if inner.iter().all(in_quotes) => inner,
            token if token.iter().all(in_token) => token,
            _ => return Err(unreadable),
        };
        let is_empty = value.is_empty() || value.len() > MAX_BOUNDARY;
        if is_empty || !is_boundary && !name.eq_ignore_ascii_case(b"charset") {
            return Err(unreadable);
        }
        if is_boundary && boundary.replace(value.to_vec()).is_some() {
            return Err(unreadable);
        }
    }
    boundary.ok_or(unreadable)
}

/// Streaming parser of parts.
#[derive(Debug)]
pub(crate) struct Multipart {
    expected: ExpectedValue,
    /// Searches for `--B`.
    dashes: Finder<'static>,
    at: MultipartState,
    /// Bytes that are not checked yet.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MultipartState {
    /// Before the first boundary.
    Start,
    Header,
    /// In the value of a part.
    Value {
        is_user_id: bool,
    },
    /// After the last boundary.
    End,
}

impl Multipart {
    pub(super) fn new(expected: ExpectedValue, boundary: &[u8]) -> Self {
        let dashes = Finder::new(&[b"--", boundary].concat()).into_owned();
        Self { expected, dashes, at: MultipartState::Start, held: Vec::new() }
    }

    pub(super) fn read(&mut self, data: &[u8]) -> Result<(), SubjectFault> {
        self.held.extend_from_slice(data);
        while self.step()? {}
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), SubjectFault> {
        let is_whole = self.at == MultipartState::End && matches!(&*self.held, b"" | b"\r\n");
        if is_whole { Ok(()) } else { Err(SubjectFault::Unreadable("it is incomplete")) }
    }

    /// Checks held bytes as far as possible; false: more bytes are needed.
    fn step(&mut self) -> Result<bool, SubjectFault> {
        match self.at {
            MultipartState::Start => {
                let dashes = self.dashes.needle();
                let there = self.held.len().min(dashes.len());
                if self.held[..there] != dashes[..there] {
                    return Err(SubjectFault::Unreadable("it does not begin with its boundary"));
                }
                if there < dashes.len() { Ok(false) } else { self.pass_boundary(0) }
            }
            MultipartState::Header => self.header(),
            MultipartState::Value { is_user_id } => self.value(is_user_id),
            MultipartState::End if b"\r\n".starts_with(&self.held) => Ok(false),
            MultipartState::End => Err(SubjectFault::Unreadable("bytes follow its end")),
        }
    }

    /// Reads the bytes after a boundary that begins at `start`.
    fn pass_boundary(&mut self, start: usize) -> Result<bool, SubjectFault> {
        let end = start + self.dashes.needle().len();
        match self.held.get(end..end + 2) {
            Some(b"\r\n") => self.at = MultipartState::Header,
            Some(b"--") => self.at = MultipartState::End,
            Some(_) => return Err(SubjectFault::Unreadable("a boundary")),
            None => return Ok(false),
        }
        self.held.drain(..end + 2);
        Ok(true)
    }

    fn header(&mut self) -> Result<bool, SubjectFault> {
        const BLANK: &[u8] = b"\r\n\r\n";
        let within = &self.held[..self.held.len().min(MAX_HEADER)];
        let Some(end) = memchr::memmem::find(within, BLANK) else {
            return if within.len() < MAX_HEADER {
                Ok(false)
            } else {
                Err(SubjectFault::Unreadable("the header of a part is too long"))
            };
        };
        if self.dashes.find(&within[..end]).is_some() {
            return Err(SubjectFault::Unreadable("its boundary occurs in the header of a part"));
        }
        let is_user_id = name_of(&within[..end])? == USER_ID;
        self.expected.begin();
        self.at = MultipartState::Value { is_user_id };
        self.held.drain(..end + BLANK.len());
        Ok(true)
    }

    fn value(&mut self, is_user_id: bool) -> Result<bool, SubjectFault> {
        if let Some(start) = self.dashes.find(&self.held) {
            let Some(value) = self.held[..start].strip_suffix(b"\r\n") else {
                return Err(SubjectFault::Unreadable("its boundary occurs in a value"));
            };
            if is_user_id {
                self.expected.take(value)?;
                self.expected.end()?;
            }
            // If more bytes are needed, the next call checks an empty rest of the value.
            let checked = value.len();
            self.held.drain(..checked);
            return self.pass_boundary(b"\r\n".len());
        }
        // Bytes that may begin a boundary are retained.
        let retained = b"\r\n".len() + self.dashes.needle().len() - 1;
        let checked = self.held.len().saturating_sub(retained);
        if is_user_id {
            self.expected.take(&self.held[..checked])?;
        }
        self.held.drain(..checked);
        Ok(false)
    }
}

/// `name` of a part, from its header.
fn name_of(header: &[u8]) -> Result<&[u8], SubjectFault> {
    let unreadable = SubjectFault::Unreadable("a part's header");
    let text = std::str::from_utf8(header).map_err(|_| unreadable)?;
    let mut name = None;
    for line in text.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or(unreadable)?;
        let in_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let is_field = !field.is_empty() && field.bytes().all(in_token);
        if !is_field || value.bytes().any(|b| b.is_ascii_control()) {
            return Err(unreadable);
        }
        if field.eq_ignore_ascii_case("content-disposition")
            && name.replace(plain_name(value.trim_matches(' ')).ok_or(unreadable)?).is_some()
        {
            return Err(unreadable);
        }
    }
    name.map(str::as_bytes).ok_or(unreadable)
}

/// Name in `form-data; name="…"`, with an optional `filename="…"` and no other parameters.
fn plain_name(disposition: &str) -> Option<&str> {
    let mut rest = disposition.strip_prefix("form-data")?;
    let (mut name, mut filename) = (None, None);
    while !rest.is_empty() {
        let parameter = rest.trim_start_matches(' ').strip_prefix(';')?.trim_start_matches(' ');
        let (key, value) = parameter.split_once("=\"")?;
        let (value, after) = value.split_once('"')?;
        let before = match key {
            "name" => name.replace(value),
            "filename" => filename.replace(value),
            _ => return None,
        };
        if before.is_some() || value.contains('\\') {
            return None;
        }
        rest = after;
    }
    name
}
