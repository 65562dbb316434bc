//! `application/x-www-form-urlencoded` as Python's `urllib.parse.parse_qsl` reads it, which Werkzeug uses
//! for queries and bodies: pairs are separated by `&` and split at the first `=`, `+` is a space, escapes
//! are decoded once.

use percent_encoding::percent_decode;

use super::{ExpectedValue, SubjectFault, USER_ID};

/// Maximum number of bytes that encode one byte: an escape.
const ESCAPED: usize = 3;

/// Streaming parser of pairs.
#[derive(Debug)]
pub(crate) struct Urlencoded {
    expected: ExpectedValue,
    at: UrlencodedState,
    /// Undecoded bytes of the name or value, up to the length that can match.
    raw: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UrlencodedState {
    Name,
    /// In the value of `user_id`.
    Value,
    /// In a pair with another name.
    Other,
}

impl Urlencoded {
    pub(super) fn new(expected: ExpectedValue) -> Self {
        Self { expected, at: UrlencodedState::Name, raw: Vec::new() }
    }

    pub(super) fn read(&mut self, data: &[u8]) -> Result<(), SubjectFault> {
        let mut rest = data;
        while !rest.is_empty() {
            let stops: fn(&u8) -> bool = if self.at == UrlencodedState::Name {
                |b| matches!(b, b'&' | b'=')
            } else {
                |b| *b == b'&'
            };
            let end = rest.iter().position(stops);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.append(part)?;
            match after.first() {
                Some(b'=') => self.name_ends(),
                Some(_) => self.pair_ends()?,
                None => {}
            }
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), SubjectFault> {
        self.pair_ends()
    }

    fn append(&mut self, part: &[u8]) -> Result<(), SubjectFault> {
        let max = match self.at {
            UrlencodedState::Other => return Ok(()),
            UrlencodedState::Name => USER_ID.len() * ESCAPED,
            UrlencodedState::Value => self.expected.value.len() * ESCAPED,
        };
        if self.raw.len() + part.len() <= max {
            self.raw.extend_from_slice(part);
            Ok(())
        } else if self.at == UrlencodedState::Name {
            self.at = UrlencodedState::Other;
            Ok(())
        } else {
            Err(SubjectFault::Mismatch)
        }
    }

    fn name_ends(&mut self) {
        if self.at == UrlencodedState::Name {
            self.at = if decoded(&self.raw) == USER_ID {
                UrlencodedState::Value
            } else {
                UrlencodedState::Other
            };
            self.raw.clear();
        }
    }

    fn pair_ends(&mut self) -> Result<(), SubjectFault> {
        // A name without `=` has an empty value.
        self.name_ends();
        if self.at == UrlencodedState::Value {
            self.expected.begin();
            self.expected.take(&decoded(&self.raw))?;
            self.expected.end()?;
        }
        self.at = UrlencodedState::Name;
        self.raw.clear();
        Ok(())
    }
}

/// Decodes escapes. `+` is not decoded: neither the name nor the expected value contains a space.
fn decoded(raw: &[u8]) -> Vec<u8> {
    percent_decode(raw).collect()
}
