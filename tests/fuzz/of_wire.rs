//! Heads and bodies: nothing panics, a result does not depend on how the bytes are cut, and
//! accepted input is what a simple second parser reads.

use bytes::Bytes;

use super::{self as message, Body, Length, RequestHead, ResponseHead};

/// HTTP/1.1 from callers and from upstream.
pub(crate) fn wire(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let step = usize::from(step % 61) + 1;
    match step % 3 {
        0 => request(bytes, step),
        1 => response(bytes),
        _ => chunks(bytes, step),
    }
}

/// End of a head whose bytes arrive `step` at a time.
fn find_end_by_steps(bytes: &[u8], step: usize) -> Result<Option<usize>, message::Malformed> {
    let mut seen = 0;
    while seen < bytes.len() {
        let here = (seen + step).min(bytes.len());
        if let Some(end) = message::find_end(&bytes[..here], seen)? {
            return Ok(Some(end));
        }
        seen = here;
    }
    Ok(None)
}

fn request(bytes: &[u8], step: usize) {
    let whole = message::find_end(bytes, 0);
    assert_eq!(whole, find_end_by_steps(bytes, step), "cut every {step}");
    let Ok(Some(end)) = whole else { return };
    let Ok(head) = RequestHead::parse(Bytes::copy_from_slice(&bytes[..end])) else { return };

    // Simple second parser: lines at CRLF, parts at spaces, names at colons.
    let text = &bytes[..end - 4];
    let mut lines = split(text, b"\r\n");
    let first = lines.remove(0);
    let parts: Vec<&[u8]> = first.split(|b| *b == b' ').collect();
    assert_eq!(parts.len(), 3, "{first:?}");
    assert_eq!(parts[0], head.method().as_bytes());
    assert_eq!(parts[1], head.target());
    assert!(head.target().iter().all(|b| *b > b' ' && *b != 0x7f && !b"#<>".contains(b)));
    assert_eq!(lines.len(), head.fields.iter().count());
    for (line, (name, value)) in lines.iter().zip(head.fields.iter()) {
        let colon = line.iter().position(|b| *b == b':').expect("a colon");
        assert_eq!(&line[..colon], name);
        assert_eq!(trim(&line[colon + 1..]), value);
        assert!(!name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && *b != b':'));
        assert!(value.iter().all(|b| *b == b'\t' || !b.is_ascii_control()));
    }
    let Ok(length) = Length::of_request(&head) else { return };
    let lengths = head.fields.all("content-length").count();
    let codings = head.fields.all("transfer-encoding").count();
    assert!(lengths + codings <= 1, "one framing at most");
    assert_eq!(length == Length::Chunked, codings == 1);
    assert_eq!(matches!(length, Length::Sized(_)), lengths == 1);
}

fn response(bytes: &[u8]) {
    let Ok(Some(end)) = message::find_end(bytes, 0) else { return };
    let Ok(head) = ResponseHead::parse(Bytes::copy_from_slice(&bytes[..end])) else { return };
    assert!((100..=999).contains(&head.status));
    assert!(head.status_and_reason().starts_with(head.status.to_string().as_bytes()));
    // Names lose white space before the colon (RFC 9112 §5.1), and nothing else.
    let mut lines = split(&bytes[..end - 4], b"\r\n");
    lines.remove(0);
    assert_eq!(lines.len(), head.fields.iter().count());
    for (line, (name, value)) in lines.iter().zip(head.fields.iter()) {
        let colon = line.iter().position(|b| *b == b':').expect("a colon");
        assert!(!matches!(line.first(), Some(b' ' | b'\t')), "{line:?} is folded");
        assert_eq!(trim(&line[..colon]), name);
        assert_eq!(trim(&line[colon + 1..]), value);
        assert!(!name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && *b != b':'));
    }
    for method in ["GET", "HEAD"] {
        let Ok(length) = Length::of_response(&head, method) else { continue };
        let bodiless = method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304);
        assert_eq!(length == Length::None, bodiless);
    }
}

fn chunks(bytes: &[u8], step: usize) {
    let whole = take(bytes, bytes.len().max(1));
    let cut = take(bytes, step);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut, "cut every {step}"),
        // A fault may be found after fewer bytes were read, never after it was accepted.
        (Err(_), Err(_)) => {}
        _ => panic!("{whole:?} but cut every {step} {cut:?}"),
    }
    let Ok((taken, data, true)) = whole else { return };
    assert_eq!(plainly_decoded(&bytes[..taken]), Some(data));
}

/// Number of bytes taken from a chunked body, its data, and true if it ended.
fn take(bytes: &[u8], step: usize) -> Result<(usize, Vec<u8>, bool), message::Malformed> {
    let mut body = Body::new(Length::Chunked, |name| name != b"host");
    let (mut at, mut seen, mut data) = (0, 0, Vec::new());
    while seen < bytes.len() && !body.is_done() {
        seen = (seen + step).min(bytes.len());
        at += body.take_with(&bytes[at..seen], |more| {
            data.extend_from_slice(more);
            Ok::<_, message::Malformed>(())
        })?;
    }
    Ok((at, data, body.is_done()))
}

/// Complete chunked body by a second parser, which implements RFC 9112 §7.1 only.
fn plainly_decoded(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let lines = split(bytes, b"\r\n");
        let line = *lines.first()?;
        bytes = bytes.get(line.len() + 2..)?;
        let size = std::str::from_utf8(line.split(|b| *b == b';').next()?).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    bytes.ends_with(b"\r\n").then_some(data)
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let Some(found) = rest.windows(at.len()).position(|window| window == at) {
        parts.push(&rest[..found]);
        rest = &rest[found + at.len()..];
    }
    parts.push(rest);
    parts
}

fn trim(value: &[u8]) -> &[u8] {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !is_space(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_space(b)).map_or(start, |at| at + 1);
    &value[start..end]
}
