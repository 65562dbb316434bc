//! Escaping of control characters in text that a terminal may display: paths, names, user agents and errors are
//! untrusted.
//!
//! Escaped are C0, DEL and C1 controls (ECMA-48), which move the cursor, change colours or start a line, and
//! Unicode's bidirectional controls (UAX #9), which reorder the displayed text.

use std::{borrow::Cow, fmt::Write as _};

/// Text with control characters as `\u` escapes of four hexadecimal digits, except those in `allowed`.
/// Text without any is borrowed. JSON stays valid and parses to the same text: there such characters are
/// only found within strings.
pub(crate) fn escape<'a>(text: &'a str, allowed: &[char]) -> Cow<'a, str> {
    // Nearly all text is printable ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let is_escaped = |c: char| is_control(c) && !allowed.contains(&c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn is_control(c: char) -> bool {
    // Arabic letter mark, directional marks, embeddings and overrides, isolates.
    let is_bidirectional = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || is_bidirectional
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIDIRECTIONAL: [char; 12] = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
        '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
    ];

    #[test]
    fn every_control_character_is_escaped_and_nothing_else() {
        for c in '\0'..='\u{ffff}' {
            let is_control = matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
            let text = format!("a{c}é");
            if is_control || BIDIRECTIONAL.contains(&c) {
                let expected = format!("a\\u{:04x}é", u32::from(c));
                assert_eq!(escape(&text, &[]), expected);
                assert_eq!(escape(&text, &[c]), text);
            } else {
                assert!(matches!(escape(&text, &[]), Cow::Borrowed(_)), "{c:?}");
            }
        }
    }

    #[test]
    fn escaped_json_parses_to_the_same_text() {
        let controls = ('\0'..='\u{9f}').chain(BIDIRECTIONAL);
        for c in controls {
            // A preceding backslash is a separate escape.
            let text = format!("\\{c}\"\\u{c}{c}");
            let json = serde_json::json!({ &text: text }).to_string();
            let escaped = escape(&json, &[]);
            assert!(!escaped.contains(is_control), "{c:?}");
            let read: serde_json::Value = serde_json::from_str(&escaped).expect("JSON");
            assert_eq!(read[&text], text);
            assert_eq!(escape(&escaped, &[]), escaped, "escaped once");
        }
    }
}
