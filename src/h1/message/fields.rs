//! Header fields (RFC 9112 §5), where they lie in a head's bytes.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::{HeadError, MAX_FIELDS, Malformed};

/// Most heads have no more fields than this.
const FEW: usize = 32;

/// Fields in the order in which they came. Names are tokens; values bear no control bytes but TAB,
/// and no white space around them.
#[derive(Debug)]
pub(crate) struct Fields {
    /// All of the head, the first line too.
    pub(super) head: Bytes,
    lines: Vec<FieldLine>,
}

#[derive(Debug)]
struct FieldLine {
    name: Range<u32>,
    value: Range<u32>,
}

impl Fields {
    /// Reads the fields that begin at `from` and end with the empty line at the end of `head`, in
    /// which every LF is known to follow a CR.
    pub(super) fn parse(head: Bytes, from: usize) -> Result<Self, HeadError> {
        let lines = all_lines(&head, from)?;
        Ok(Self { head, lines })
    }

    /// Reads a response's fields as [`Self::parse`] does. Spaces and tabs between a name and its colon,
    /// which are malformed in a request, are removed first (RFC 9112 §5.1): the bytes are copied only
    /// where there are any.
    pub(super) fn parse_of_response(head: Bytes, from: usize) -> Result<Self, HeadError> {
        match all_lines(&head, from) {
            Err(HeadError::Malformed(fault)) => match without_space_before_colons(&head, from)? {
                Some(cleaned) => Self::parse(cleaned, from),
                None => Err(fault.into()),
            },
            lines => Ok(Self { lines: lines?, head }),
        }
    }

    /// Bytes of the head, the first line included.
    pub(crate) fn head_length(&self) -> usize {
        self.head.len()
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.at(&line.name), self.at(&line.value)))
    }

    /// The values of the lines with a name, in any case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        let is_named = move |line: &&FieldLine| {
            line.name.len() == name.len()
                && self.at(&line.name).eq_ignore_ascii_case(name.as_bytes())
        };
        self.lines.iter().filter(is_named).map(|line| self.at(&line.value))
    }

    /// Whether there is a line with a name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The members of a comma-separated list over all its lines, trimmed, empty ones passed over.
    pub(crate) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|line| line.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// The same as the `http` crate has it, names in lower case.
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

/// A response's head without the spaces and tabs before the colons of its fields; `None`: it has none
/// there. A folded line is malformed (RFC 9112 §5.2): the answer is discarded and replaced with a 502.
fn without_space_before_colons(head: &[u8], from: usize) -> Result<Option<Bytes>, Malformed> {
    let mut cleaned = Vec::with_capacity(head.len());
    cleaned.extend_from_slice(head.get(..from).unwrap_or_default());
    for line in head.get(from..).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(Malformed("a field is folded over more than one line"));
        }
        let (name, rest) = line.split_at(memchr(b':', line).unwrap_or(0));
        let space = name.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
        cleaned.extend_from_slice(&name[..name.len() - space]);
        cleaned.extend_from_slice(rest);
    }
    Ok((cleaned.len() < head.len()).then(|| cleaned.into()))
}

/// The fields that begin at `from`.
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
        Ok(_) => return Err(Malformed("its header ends in the middle").into()),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::HeaderName) => return Err(Malformed("a field's name").into()),
        Err(_) => return Err(Malformed("a field's value").into()),
    };
    let place = |part: &[u8]| {
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
        .map(|field| FieldLine { name: place(field.name.as_bytes()), value: place(field.value) })
        .collect())
}
