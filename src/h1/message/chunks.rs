//! Parser of the chunked transfer coding (RFC 9112 §7.1). Bytes are forwarded unchanged; the parser is strict, so
//! that no other parser can find another end.

use memchr::memchr;

use super::{Fields, Malformed};

/// Maximum length of a chunk-size line in bytes: size, extensions and line end.
const MAX_SIZE_LINE: usize = 1024;
/// Maximum length of the trailer section in bytes, its empty line included.
const MAX_TRAILERS: usize = 16 * 1024;

/// Chunked body in transit.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: ChunkState,
    /// True if a field of this name may be in the trailer section.
    may_trail: fn(&[u8]) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size,
    Data { left: u64 },
    AfterData,
    Trailers,
    Done,
}

/// Kind of the leading bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Number of framing bytes.
    Frame(usize),
    /// Number of data bytes.
    Data(usize),
    /// More bytes are needed.
    Unclear,
}

impl Chunks {
    pub(crate) fn new(may_trail: fn(&[u8]) -> bool) -> Self {
        Self { state: ChunkState::Size, may_trail }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Takes the leading bytes of one kind. A line is taken only when complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Part, Malformed> {
        let (part, next) = match self.state {
            ChunkState::Size => {
                let line = &bytes[..bytes.len().min(MAX_SIZE_LINE)];
                let Some(end) = memchr(b'\n', line) else {
                    return if line.len() == MAX_SIZE_LINE {
                        Err(Malformed("the chunk-size line is too long"))
                    } else {
                        // Rejects early a prefix that cannot become a size.
                        hex_digits(line).map(|_| Part::Unclear)
                    };
                };
                let next = match size(&line[..end])? {
                    0 => ChunkState::Trailers,
                    left => ChunkState::Data { left },
                };
                (Part::Frame(end + 1), next)
            }
            ChunkState::Data { left } => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                if here == 0 {
                    return Ok(Part::Unclear);
                }
                let left = left - here as u64;
                (
                    Part::Data(here),
                    if left == 0 { ChunkState::AfterData } else { ChunkState::Data { left } },
                )
            }
            ChunkState::AfterData => match bytes {
                [b'\r', b'\n', ..] => (Part::Frame(2), ChunkState::Size),
                [] | [b'\r'] => return Ok(Part::Unclear),
                _ => return Err(Malformed("the chunk is longer than its size")),
            },
            ChunkState::Trailers => match self.trailers(bytes)? {
                Some(end) => (Part::Frame(end), ChunkState::Done),
                None => return Ok(Part::Unclear),
            },
            ChunkState::Done => return Ok(Part::Unclear),
        };
        self.state = next;
        Ok(part)
    }

    fn trailers(&self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if bytes.starts_with(b"\r\n") {
            return Ok(Some(2));
        }
        let within = &bytes[..bytes.len().min(MAX_TRAILERS)];
        let Some(end) = crate::h1::message::find_end(within, 0)? else {
            return if within.len() == MAX_TRAILERS {
                Err(Malformed("the trailer section is too long"))
            } else {
                Ok(None)
            };
        };
        let section = bytes::Bytes::copy_from_slice(&within[..end]);
        let fields =
            Fields::parse(section, 0).map_err(|_| Malformed("the trailer section is malformed"))?;
        if fields.iter().all(|(name, _)| (self.may_trail)(name)) {
            Ok(Some(end))
        } else {
            Err(Malformed("the trailer section has a field that is allowed only in the head"))
        }
    }
}

/// Number of leading hexadecimal digits of a line.
fn hex_digits(line: &[u8]) -> Result<usize, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // 16 digits are 64 bits; a size has at least one digit.
    if digits > 16 || digits == 0 && !line.is_empty() {
        return Err(Malformed("the chunk size is malformed"));
    }
    Ok(digits)
}

/// Chunk size of a line, given without its LF.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let wrong = Malformed("the chunk size is malformed");
    let line = line.strip_suffix(b"\r").ok_or(wrong)?;
    let (digits, extension) = line.split_at(hex_digits(line)?);
    let is_plain = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    if !(extension.is_empty() || extension[0] == b';' && extension.iter().all(is_plain)) {
        return Err(wrong);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong)?;
    u64::from_str_radix(digits, 16).map_err(|_| wrong)
}
