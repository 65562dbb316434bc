//! Request target as upstream routes it.
//!
//! gunicorn 25 percent-decodes a path once; Werkzeug 3.1 reduces leading slashes to one, merges runs of
//! slashes (with a redirect) and compares case-sensitively: [`upstream_path`]. Both leave dot segments
//! unchanged. Proxies in front of the gateway and later upstream versions may also remove dot segments or
//! decode twice. [`Target::read`] covers these readings too, so that no spelling of a path under
//! `/external/` bypasses the guard.

use percent_encoding::{percent_decode, percent_decode_str};

/// Path that upstream compares with its routes: `split_request_uri` and `PATH_INFO` of gunicorn 25.0.3
/// (`gunicorn/util.py`, `gunicorn/http/wsgi.py`), then `MapAdapter.match` of Werkzeug 3.1.6
/// (`werkzeug/routing/map.py`). The target must not contain bytes that need an escape; `h1::message` rejects
/// those.
pub(crate) fn upstream_path(target: &[u8]) -> Vec<u8> {
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let decoded: Vec<u8> = percent_decode(path).collect();
    let slashes = decoded.iter().take_while(|b| **b == b'/').count();
    [b"/", &decoded[slashes..]].concat()
}

/// Classification of a target for the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// No reader routes it under `/external/`.
    Open,
    /// Under `/external/`, in a spelling that every reader interprets alike.
    Guarded,
    /// Under `/external/` for at least one reader, in a spelling that readers interpret differently.
    NonCanonical,
}

impl Target {
    /// Classifies the path of a request target (RFC 9112 §3.2.1), without its query.
    pub(crate) fn read(path: &str) -> Self {
        if is_plain(path) {
            return if is_external(path) { Self::Guarded } else { Self::Open };
        }
        let once = decode(path);
        let twice = decode(&once);
        // Readers decode, merge slashes and remove dot segments in different orders; each result is one
        // of these.
        let readings = [
            flat(&String::from_utf8_lossy(&upstream_path(path.as_bytes()))),
            flat(path),
            flat(&once),
            flat(&twice),
            flat(&without_dots(path)),
            flat(&without_dots(&flat(&once))),
            flat(&without_dots(&flat(&twice))),
            flat(&without_dots(&twice.replace('\\', "/"))),
        ];
        if !readings.iter().any(|reading| is_external(reading)) {
            Self::Open
        } else if is_canonical(path) {
            Self::Guarded
        } else {
            Self::NonCanonical
        }
    }
}

/// True if all readers agree on a path: no escapes, no empty or dotted segments.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let is_plain = byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'~')
                || matches!(byte, b'/' | b'.') && before != b'/'
                || byte == b'/' && before == 0;
            before = byte;
            is_plain
        })
}

fn is_external(path: &str) -> bool {
    path == "/external" || path.starts_with("/external/")
}

/// Percent-decodes once and removes TAB, CR and LF, which Python's `urlsplit` removes anywhere in a target.
fn decode(path: &str) -> String {
    let mut decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
    decoded.retain(|c| !matches!(c, '\t' | '\r' | '\n'));
    decoded
}

/// Path with one leading slash, without empty segments and without leading characters below U+0021.
fn flat(path: &str) -> String {
    let path = path.trim_start_matches(|c: char| c <= ' ');
    let mut flat = String::with_capacity(path.len() + 1);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        flat.push('/');
        flat.push_str(segment);
    }
    if path.ends_with('/') || flat.is_empty() {
        flat.push('/');
    }
    flat
}

/// Removes dot segments (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut remaining: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => {
                remaining.pop();
            }
            _ => remaining.push(segment),
        }
    }
    format!("/{}", remaining.join("/"))
}

/// True for a literal `/external`, followed by non-empty segments other than `.` and `..`, with escapes only
/// for bytes that have no other spelling.
fn is_canonical(path: &str) -> bool {
    is_external(path)
        && !path.contains("//")
        && path.split('/').all(|segment| segment != "." && segment != "..")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && escapes_are_needed(path)
}

fn escapes_are_needed(path: &str) -> bool {
    let needed = |pair: Option<&str>| {
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        byte.is_some_and(|byte| {
            !(byte.is_ascii_alphanumeric() || byte.is_ascii_control() || b"-._~/\\".contains(&byte))
        })
    };
    path.split('%').skip(1).all(|rest| needed(rest.get(..2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// True if Werkzeug answers from a route under `/external/`, or with a redirect to one.
    fn is_routed_externally(path: &[u8]) -> bool {
        let mut merged = path.to_vec();
        merged.dedup_by(|b, a| *a == b'/' && *b == b'/');
        merged == b"/external" || merged.starts_with(b"/external/")
    }

    /// Byte of `/external/login`, plain or escaped once or twice, or a character that may hide it.
    fn piece() -> impl Strategy<Value = String> {
        let word = prop::sample::select(&b"/external/login"[..]).prop_flat_map(|byte| {
            prop_oneof![
                4 => Just(char::from(byte).to_string()),
                2 => Just(format!("%{byte:02x}")),
                1 => Just(format!("%25{byte:02X}")),
                1 => Just("/external/".to_owned()),
            ]
        });
        let odd = prop::sample::select(
            &[
                "%2f", "/", "//", ".", "..", "%2e", "%2E%2e", "\\", "%5c", "%09", "%0a", "%00",
                "%", "%zz", ";", ":", "\u{e4}", "@",
            ][..],
        );
        prop_oneof![3 => word, 1 => odd.prop_map(str::to_owned), 1 => "[!-\"$-;=@-~]"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn open_paths_are_not_routed_under_external(
            pieces in prop::collection::vec(piece(), 0..16),
            begins in prop::sample::select(&["/", "//", "/external", "/%65xternal", "/x/../external/"][..]),
        ) {
            let path = format!("{begins}{}", pieces.concat());
            let read = Target::read(&path);
            let is_external = is_routed_externally(&upstream_path(path.as_bytes()));
            prop_assert!(!is_external || read != Target::Open, "{}", path);
            // All readers agree on paths that may pass the guard.
            prop_assert!(read != Target::Guarded || path.starts_with("/external"), "{}", path);
        }
    }

    #[test]
    fn unusual_spellings_of_paths_under_external_are_non_canonical() {
        for path in [
            "//external/login",
            "/%65xternal/login",
            "/external%2Flogin",
            "/%2fexternal%2flogin",
            "/%2Fexternal/login",
            "///external///login",
            "/external//login",
            "/x/../external/login",
            "/%2e%2e/external/login",
            "/%2565xternal/login",
            "/external/%2e%2e/api",
            "/external/a%2Fb",
            "/external/./login",
            "/%09/external/login",
            "/exter%09nal/login",
            "/%5c..%5c/external/login",
        ] {
            assert_eq!(Target::read(path), Target::NonCanonical, "{path}");
        }
    }

    #[test]
    fn canonical_paths_under_external_are_guarded() {
        for path in [
            "/external",
            "/external/",
            "/external/login",
            "/external/healthcheck",
            "/external/public_documents/3f2a",
            "/external/public_documents/a%20b",
            "/external/public_documents/h%C3%A4llo",
        ] {
            assert_eq!(Target::read(path), Target::Guarded, "{path}");
        }
    }

    #[test]
    fn other_paths_are_open() {
        for path in [
            "/",
            "/api/external/x",
            "/External/login",
            "/externals",
            "/static/a%2Fb",
            "/external;a/b",
        ] {
            assert_eq!(Target::read(path), Target::Open, "{path}");
        }
    }
}
