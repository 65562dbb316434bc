//! Header fields (RFC 9112 §5), as ranges of the bytes of a head.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::{HeadError, MAX_FIELDS, Malformed};

/// Number of fields that is enough for most heads.
const FEW: usize = 32;

/// Fields in the order received. Names are tokens; values have no control bytes except TAB, and no leading or
/// trailing white space.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The complete head, first line included.
    pub(super) head: Bytes,
    lines: Vec<FieldLine>,
}

#[derive(Debug)]
struct FieldLine {
    name: Range<u32>,
    value: Range<u32>,
}

impl Fields {
    /// Parses the fields from `from` to the empty line at the end of `head`. Precondition: every LF in `head`
    /// follows a CR.
    pub(super) fn parse(head: Bytes, from: usize) -> Result<Self, HeadError> {
        let lines = all_lines(&head, from)?;
        Ok(Self { head, lines })
    }

    /// Parses the fields of a response as [`Self::parse`] does. Spaces and tabs between a name and its colon,
    /// malformed in a request, are removed first (RFC 9112 §5.1). The bytes are copied only if there are any.
    pub(super) fn parse_of_response(head: Bytes, from: usize) -> Result<Self, HeadError> {
        match all_lines(&head, from) {
            Err(HeadError::Malformed(fault)) => match without_space_before_colons(&head, from)? {
                Some(cleaned) => Self::parse(cleaned, from),
                None => Err(fault.into()),
            },
            lines => Ok(Self { lines: lines?, head }),
        }
    }

    /// Length of the head in bytes, first line included.
    pub(crate) fn head_length(&self) -> usize {
        self.head.len()
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.at(&line.name), self.at(&line.value)))
    }

    /// The values of all lines with a name, case-insensitive.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        let is_named = move |line: &&FieldLine| {
            line.name.len() == name.len()
                && self.at(&line.name).eq_ignore_ascii_case(name.as_bytes())
        };
        self.lines.iter().filter(is_named).map(|line| self.at(&line.value))
    }

    /// True if there is a line with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The members of a comma-separated list over all its lines, trimmed, without empty ones.
    pub(crate) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|line| line.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// The fields as a map of the `http` crate, names in lower case.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for (name, value) in self.iter() {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                map.append(name, value);
            }
        }
        map
    }

    fn at(&self, range: &Range<u32>) -> &[u8] {
        &self.head[range.start as usize..range.end as usize]
    }
}

/// Removes the spaces and tabs before the colons of a response's fields; `None`: there are none. A folded line is
/// malformed (RFC 9112 §5.2): the response is discarded and replaced by a 502.
fn without_space_before_colons(head: &[u8], from: usize) -> Result<Option<Bytes>, Malformed> {
    let mut cleaned = Vec::with_capacity(head.len());
    cleaned.extend_from_slice(head.get(..from).unwrap_or_default());
    for line in head.get(from..).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(Malformed("a field is folded over several lines"));
        }
        let (name, rest) = line.split_at(memchr(b':', line).unwrap_or(0));
        let space = name.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
        cleaned.extend_from_slice(&name[..name.len() - space]);
        cleaned.extend_from_slice(rest);
    }
    Ok((cleaned.len() < head.len()).then(|| cleaned.into()))
}

/// Parses the fields from `from`.
fn all_lines(head: &[u8], from: usize) -> Result<Vec<FieldLine>, HeadError> {
    match lines::<FEW>(head, from) {
        Err(HeadError::TooManyFields) => lines::<MAX_FIELDS>(head, from),
        other => other,
    }
}

fn lines<const MAX: usize>(head: &[u8], from: usize) -> Result<Vec<FieldLine>, HeadError> {
    let mut found = [httparse::EMPTY_HEADER; MAX];
    let bytes = head.get(from..).unwrap_or_default();
    let fields = match httparse::parse_headers(bytes, &mut found) {
        Ok(httparse::Status::Complete((end, fields))) if end == bytes.len() => fields,
        Ok(_) => return Err(Malformed("the header section is incomplete").into()),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::HeaderName) => return Err(Malformed("bad field name").into()),
        Err(_) => return Err(Malformed("bad field value").into()),
    };
    let range_of = |part: &[u8]| {
        if part.is_empty() {
            return 0..0;
        }
        // Within `head`, which is far shorter than 4 GiB.
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        start..start.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX))
    };
    Ok(fields
        .iter()
        .map(|field| FieldLine {
            name: range_of(field.name.as_bytes()),
            value: range_of(field.value),
        })
        .collect())
}
