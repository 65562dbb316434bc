//! Pairs of a `Cookie` header, parsed as Werkzeug 3.1 parses them.

/// Pair of a `Cookie` header (`werkzeug/sansio/http.py`, `parse_cookie`, 3.1.6).
pub(super) struct CookiePair<'a> {
    /// Unchanged bytes, without the separator.
    pub(super) raw: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) value: Vec<u8>,
}

/// `\s` of Python's `re` with `re.ASCII`.
fn is_ascii_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// Whitespace that `str.strip` removes from a text decoded as Latin-1.
fn is_latin1_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | 0x1c..=b' ' | 0x85 | 0xa0)
}

pub(super) fn strip(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_latin1_space(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_latin1_space(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Pairs of a `Cookie` header. Its lines must be joined.
pub(super) fn pairs(header: &[u8]) -> Vec<CookiePair<'_>> {
    let mut pairs = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let name_end = rest.iter().position(|b| matches!(b, b'=' | b';')).unwrap_or(rest.len());
        let (value_start, end) = if rest.get(name_end) == Some(&b'=') {
            let spaces = rest[name_end + 1..].iter().take_while(|b| is_ascii_space(**b)).count();
            let start = name_end + 1 + spaces;
            let semicolon = || rest[start..].iter().position(|b| *b == b';').map(|at| start + at);
            (start, quoted_end(rest, start).or_else(semicolon).unwrap_or(rest.len()))
        } else {
            (name_end, name_end)
        };
        let name = strip(&rest[..name_end]);
        if !name.is_empty() {
            let value = unquoted(strip(&rest[value_start..end]));
            pairs.push(CookiePair { raw: &rest[..end], name, value });
        }
        rest = rest.get(end + 1..).unwrap_or_default();
        let spaces = rest.iter().take_while(|b| is_ascii_space(**b)).count();
        rest = &rest[spaces..];
    }
    pairs
}

/// End of a pair whose value is quoted, with only whitespace after the closing quote.
fn quoted_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    let spaces = bytes[at + 1..].iter().take_while(|b| is_ascii_space(**b)).count();
    let end = at + 1 + spaces;
    matches!(bytes.get(end), None | Some(b';')).then_some(end)
}

/// Value without quotes and escapes, as Werkzeug decodes it.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let [b'"', inner @ .., b'"'] = value else { return value.to_vec() };
    let mut plain = Vec::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..] => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                more
            }
            [b'\\', byte, more @ ..] | [byte, more @ ..] => {
                plain.push(*byte);
                more
            }
        };
    }
    plain
}
