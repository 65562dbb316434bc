//! How long a body is (RFC 9112 §6.3), and how much of it has gone by.

use super::{
    Fields, Malformed, RequestHead, ResponseHead, Version,
    chunks::{Chunks, Part},
};

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none, whatever the header says.
    None,
    /// So many bytes.
    Sized(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

impl Length {
    /// Of a request. What one reader could find longer than another is malformed.
    pub(crate) fn of_request(head: &RequestHead) -> Result<Self, Malformed> {
        let length = content_length(&head.fields)?;
        let mut codings = head.fields.all("transfer-encoding");
        match (codings.next(), codings.next(), length) {
            (None, _, None) => Ok(Self::None),
            (None, _, Some(length)) => Ok(Self::Sized(length)),
            (Some(_), _, Some(_)) => Err(Malformed("it has both a length and a transfer coding")),
            (Some(coding), None, None)
                if head.version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Self::Chunked)
            }
            _ => Err(Malformed("its transfer coding is not chunked")),
        }
    }

    /// Of the response to a request with this method.
    pub(crate) fn of_response(head: &ResponseHead, method: &str) -> Result<Self, Malformed> {
        let mut codings = head.fields.all("transfer-encoding");
        let is_chunked = match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(coding), None)
                if head.version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                true
            }
            _ => return Err(Malformed("its transfer coding is not chunked")),
        };
        let length = content_length(&head.fields)?;
        Ok(match (head.status, is_chunked, length) {
            (100..=199 | 204 | 304, _, _) => Self::None,
            _ if method == "HEAD" => Self::None,
            // Chunks win over a length.
            (_, true, _) => Self::Chunked,
            (_, false, Some(length)) => Self::Sized(length),
            (_, false, None) => Self::UntilClose,
        })
    }
}

fn content_length(fields: &Fields) -> Result<Option<u64>, Malformed> {
    let mut lines = fields.all("content-length");
    let Some(line) = lines.next() else { return Ok(None) };
    let is_number = !line.is_empty() && line.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(line).ok().filter(|_| is_number);
    match (number.and_then(|text| text.parse().ok()), lines.next()) {
        (Some(length), None) => Ok(Some(length)),
        (Some(_), Some(_)) => Err(Malformed("it has more than one length")),
        (None, _) => Err(Malformed("its length is no number")),
    }
}

/// A body on its way.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes are to come.
    Sized(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Body {
    /// `may_trail`: whether a field of this name may stand among the trailers.
    pub(crate) fn new(length: Length, may_trail: fn(&[u8]) -> bool) -> Self {
        match length {
            Length::None => Self::Sized(0),
            Length::Sized(length) => Self::Sized(length),
            Length::Chunked => Self::Chunked(Chunks::new(may_trail)),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// Whether all of it has been taken.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Sized(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether it is whole if the connection ends here.
    pub(crate) fn may_end_here(&self) -> bool {
        matches!(self, Self::UntilClose) || self.is_done()
    }

    /// How many bytes at the front of `bytes` are the body's, frames included. What is left may
    /// belong to what comes after, or need more bytes to be read.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        self.take_with(bytes, |_| Ok(()))
    }

    /// As [`Self::take`], and `see` is shown the data alone, without frames.
    pub(crate) fn take_with<E: From<Malformed>>(
        &mut self,
        bytes: &[u8],
        mut see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        match self {
            Self::Sized(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                see(&bytes[..here])?;
                Ok(here)
            }
            Self::Chunked(chunks) => {
                let mut taken = 0;
                loop {
                    match chunks.take(&bytes[taken..])? {
                        Part::Frame(length) => taken += length,
                        Part::Data(length) => {
                            see(&bytes[taken..taken + length])?;
                            taken += length;
                        }
                        Part::Unclear => return Ok(taken),
                    }
                }
            }
            Self::UntilClose => {
                see(bytes)?;
                Ok(bytes.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(fields: &str) -> Result<Length, Malformed> {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        Length::of_request(&RequestHead::parse(Bytes::from(text)).expect("a head"))
    }

    fn response(line: &str, fields: &str, method: &str) -> Result<Length, Malformed> {
        let text = format!("{line}\r\n{fields}\r\n");
        Length::of_response(&ResponseHead::parse(Bytes::from(text)).expect("a head"), method)
    }

    #[test]
    fn a_request_says_its_length_once() {
        assert_eq!(request(""), Ok(Length::None));
        assert_eq!(request("Content-Length: 007\r\n"), Ok(Length::Sized(7)));
        assert_eq!(request("transfer-encoding: Chunked\r\n"), Ok(Length::Chunked));
        for wrong in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert!(request(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_response_may_have_no_body_whatever_it_says() {
        let sized = "Content-Length: 5\r\n";
        assert_eq!(response("HTTP/1.1 200 OK", sized, "GET"), Ok(Length::Sized(5)));
        assert_eq!(response("HTTP/1.1 200 OK", sized, "HEAD"), Ok(Length::None));
        assert_eq!(response("HTTP/1.1 304 Not Modified", sized, "GET"), Ok(Length::None));
        assert_eq!(response("HTTP/1.1 204 No Content", "", "GET"), Ok(Length::None));
        assert_eq!(response("HTTP/1.1 200 OK", "", "GET"), Ok(Length::UntilClose));
        let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(response("HTTP/1.1 200 OK", both, "GET"), Ok(Length::Chunked));
        let twice = "Content-Length: 5\r\nContent-Length: 6\r\n";
        assert!(response("HTTP/1.1 200 OK", twice, "GET").is_err());
        assert!(response("HTTP/1.1 200 OK", "Transfer-Encoding: gzip\r\n", "GET").is_err());
        // By their names without space before the colon.
        let spaced = "Content-Length : 5\r\nTransfer-Encoding\t: chunked\r\n";
        assert_eq!(response("HTTP/1.1 200 OK", spaced, "GET"), Ok(Length::Chunked));
        let spaced = "Content-Length : 5\r\n";
        assert_eq!(response("HTTP/1.1 200 OK", spaced, "GET"), Ok(Length::Sized(5)));
        let twice = "Content-Length: 5\r\nContent-Length : 6\r\n";
        assert!(response("HTTP/1.1 200 OK", twice, "GET").is_err());
    }

    fn read(bytes: &[u8], step: usize) -> Result<(usize, Vec<u8>, bool), Malformed> {
        let mut body = Body::new(Length::Chunked, |name| name != b"host");
        let (mut at, mut scanned, mut data) = (0, 0, Vec::new());
        while scanned < bytes.len() {
            scanned = (scanned + step).min(bytes.len());
            at += body.take_with(&bytes[at..scanned], |more| {
                data.extend_from_slice(more);
                Ok::<_, Malformed>(())
            })?;
        }
        Ok((at, data, body.is_done()))
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        for (bytes, rest) in [
            (&b"5\r\nhello\r\n0006;a=\"b\"\r\n world\r\n0\r\n\r\nNEXT"[..], 4),
            (b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", 0),
        ] {
            for step in 1..bytes.len() {
                let (taken, data, done) = read(bytes, step).unwrap();
                assert_eq!(
                    (taken, data.as_slice(), done),
                    (bytes.len() - rest, &b"hello world"[..], true),
                    "{step}"
                );
            }
        }
    }

    #[test]
    fn chunks_that_two_readers_could_read_differently_are_malformed() {
        for bytes in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"\r\n5\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nhost: a\r\n\r\n",
            b"0\r\n\n",
        ] {
            for step in [1, 3, bytes.len()] {
                let read = read(bytes, step);
                assert!(read.is_err(), "{:?} {read:?}", String::from_utf8_lossy(bytes));
            }
        }
        assert!(read(&[b"5;".as_slice(), &[b'a'; 2000]].concat(), 100).is_err());
        assert!(read(&[b"0\r\na:".as_slice(), &vec![b'a'; 20_000]].concat(), 100).is_err());
    }
}
