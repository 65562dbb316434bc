//! Length of a message body (RFC 9112 §6.3), and the position of its end in a stream of bytes.

use super::{
    Fields, Malformed, RequestHead, ResponseHead, Version,
    chunks::{Chunks, Part},
};

/// Delimiter of a message body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// No body, whatever the header fields declare.
    None,
    /// `Content-Length`, in bytes.
    Sized(u64),
    /// The last chunk.
    Chunked,
    /// The close of the connection; responses only.
    UntilClose,
}

impl Length {
    /// Length of a request body. A length that two parsers could interpret differently is malformed.
    pub(crate) fn of_request(head: &RequestHead) -> Result<Self, Malformed> {
        let length = content_length(&head.fields)?;
        let mut codings = head.fields.all("transfer-encoding");
        match (codings.next(), codings.next(), length) {
            (None, _, None) => Ok(Self::None),
            (None, _, Some(length)) => Ok(Self::Sized(length)),
            (Some(_), _, Some(_)) => Err(Malformed("both Content-Length and Transfer-Encoding")),
            (Some(coding), None, None)
                if head.version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(Self::Chunked)
            }
            _ => Err(Malformed("the transfer coding is not chunked")),
        }
    }

    /// Length of the body of a response to a request with this method.
    pub(crate) fn of_response(head: &ResponseHead, method: &str) -> Result<Self, Malformed> {
        let mut codings = head.fields.all("transfer-encoding");
        let is_chunked = match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(coding), None)
                if head.version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") =>
            {
                true
            }
            _ => return Err(Malformed("the transfer coding is not chunked")),
        };
        let length = content_length(&head.fields)?;
        Ok(match (head.status, is_chunked, length) {
            (100..=199 | 204 | 304, _, _) => Self::None,
            _ if method == "HEAD" => Self::None,
            // The chunked coding overrides a length.
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
        (Some(_), Some(_)) => Err(Malformed("more than one Content-Length is present")),
        (None, _) => Err(Malformed("the Content-Length is not a number")),
    }
}

/// Body in transit.
#[derive(Debug)]
pub(crate) enum Body {
    /// Number of bytes to come.
    Sized(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Body {
    /// `may_trail`: true if a field of this name may be in the trailer section.
    pub(crate) fn new(length: Length, may_trail: fn(&[u8]) -> bool) -> Self {
        match length {
            Length::None => Self::Sized(0),
            Length::Sized(length) => Self::Sized(length),
            Length::Chunked => Self::Chunked(Chunks::new(may_trail)),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// True if all of the body has been taken.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Sized(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// True if the body is complete when the connection closes here.
    pub(crate) fn may_end_here(&self) -> bool {
        matches!(self, Self::UntilClose) || self.is_done()
    }

    /// Takes the leading bytes of `bytes` that belong to the body, framing included; returns their number. The rest
    /// belongs to the next message, or needs more bytes to be parsed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        self.take_with(bytes, |_| Ok(()))
    }

    /// As [`Self::take`]; passes the data, without framing, to `on_data`.
    pub(crate) fn take_with<E: From<Malformed>>(
        &mut self,
        bytes: &[u8],
        mut on_data: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        match self {
            Self::Sized(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                on_data(&bytes[..here])?;
                Ok(here)
            }
            Self::Chunked(chunks) => {
                let mut taken = 0;
                loop {
                    match chunks.take(&bytes[taken..])? {
                        Part::Frame(length) => taken += length,
                        Part::Data(length) => {
                            on_data(&bytes[taken..taken + length])?;
                            taken += length;
                        }
                        Part::Unclear => return Ok(taken),
                    }
                }
            }
            Self::UntilClose => {
                on_data(bytes)?;
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
    fn a_request_may_declare_one_length_only() {
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
    fn status_and_method_override_the_declared_length_of_a_response() {
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
        // Space before the colon is removed before the length is read.
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
    fn a_chunked_body_has_the_same_end_for_every_split() {
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
    fn ambiguous_chunks_are_malformed() {
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
