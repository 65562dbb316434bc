//! The guard's reading of a target: whatever upstream would route under `/external/` is guarded.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the gateway uses all of it")]

#[path = "../../src/access/target.rs"]
mod target;

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode;
use target::Target;

fuzz_target!(|data: &[u8]| {
    // As it comes: the gateway passes on targets without control bytes, spaces, `#`, `<` and `>`.
    let is_passed = |b: &u8| *b > b' ' && *b != 0x7f && !b"#<>?".contains(b);
    let path: Vec<u8> = [b"/", data].concat();
    if !path.iter().all(is_passed) {
        return;
    }
    let read = Target::read(&String::from_utf8_lossy(&path));
    if upstream_routes_externally(&path) {
        assert_ne!(read, Target::Open, "{}", path.escape_ascii());
    }
    if read == Target::Guarded {
        assert!(path.starts_with(b"/external"), "{}", path.escape_ascii());
    }
});

/// gunicorn 25.0.3 (`urlsplit`, one percent-decoding) and Werkzeug 3.1.6 (`lstrip("/")`, runs of
/// slashes merged by a redirect).
fn upstream_routes_externally(path: &[u8]) -> bool {
    let decoded: Vec<u8> = percent_decode(path).collect();
    let start = decoded.iter().position(|b| *b != b'/').unwrap_or(decoded.len());
    let mut merged = vec![b'/'];
    for byte in &decoded[start..] {
        if !(*byte == b'/' && merged.last() == Some(&b'/')) {
            merged.push(*byte);
        }
    }
    merged == b"/external" || merged.starts_with(b"/external/")
}
