//! Where a chunked body ends (RFC 9112 §7.1). The bytes pass as they are; they are read strictly,
//! so that no other reader can find another end.

use memchr::memchr;

use super::{Fields, Malformed};

/// A chunk's size, its extensions and the line end.
const MAX_SIZE_LINE: usize = 1024;
/// The trailer section, its empty line counted.
const MAX_TRAILERS: usize = 16 * 1024;

/// A chunked body on its way.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: ChunkState,
    /// Whether a field of this name may stand in the trailer section.
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

/// What lies at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// So many bytes that frame the data.
    Frame(usize),
    /// So many bytes of the data.
    Data(usize),
    /// More bytes are needed to tell.
    Unclear,
}

impl Chunks {
    pub(crate) fn new(may_trail: fn(&[u8]) -> bool) -> Self {
        Self { state: ChunkState::Size, may_trail }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// Takes what lies at the front of `bytes`. A line is taken whole or not yet.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Part, Malformed> {
        let (part, next) = match self.state {
            ChunkState::Size => {
                let line = &bytes[..bytes.len().min(MAX_SIZE_LINE)];
                let Some(end) = memchr(b'\n', line) else {
                    return if line.len() == MAX_SIZE_LINE {
                        Err(Malformed("a chunk's size has no end"))
                    } else {
                        // Told early: what cannot become a size.
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
                _ => return Err(Malformed("a chunk is longer than its size")),
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
                Err(Malformed("its trailers have no end"))
            } else {
                Ok(None)
            };
        };
        let section = bytes::Bytes::copy_from_slice(&within[..end]);
        let fields = Fields::parse(section, 0).map_err(|_| Malformed("its trailers"))?;
        if fields.iter().all(|(name, _)| (self.may_trail)(name)) {
            Ok(Some(end))
        } else {
            Err(Malformed("a trailer that belongs in the head"))
        }
    }
}

/// How many hexadecimal digits a line begins with.
fn hex_digits(line: &[u8]) -> Result<usize, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // 16 digits are 64 bits; none is not a size.
    if digits > 16 || digits == 0 && !line.is_empty() {
        return Err(Malformed("a chunk's size"));
    }
    Ok(digits)
}

/// The size on a line that ends before its LF.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let wrong = Malformed("a chunk's size");
    let line = line.strip_suffix(b"\r").ok_or(wrong)?;
    let (digits, extension) = line.split_at(hex_digits(line)?);
    let is_plain = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    if !(extension.is_empty() || extension[0] == b';' && extension.iter().all(is_plain)) {
        return Err(wrong);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong)?;
    u64::from_str_radix(digits, 16).map_err(|_| wrong)
}
