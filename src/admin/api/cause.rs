//! Error chains in words for administrators.

/// Segments of libraries' errors that add nothing.
const NOISE: [&str; 5] = [
    "error sending request",
    "client error (Connect)",
    "tcp connect error",
    "dns error",
    "error trying to connect",
];
/// Beginnings of segments of rustls, the operating system, the resolver and reqwest, and their
/// meaning.
const CAUSES: [(&str, &str); 12] = [
    ("invalid peer certificate", "the TLS certificate is invalid"),
    ("UnknownIssuer", "its issuer is not trusted"),
    ("NotValidForName", "it is for another host name"),
    ("certificate not valid for name", "it is for another host name"),
    ("certificate expired", "it has expired"),
    ("Connection refused", "connection refused"),
    ("Connection reset", "connection reset"),
    ("failed to lookup address", "the host name cannot be resolved"),
    ("Network is unreachable", "network unreachable"),
    ("No route to host", "no route to the host"),
    ("operation timed out", "timed out"),
    ("deadline has elapsed", "timed out"),
];

/// Replaces the segments of libraries in an error chain (`a: b: c`) by their meaning.
pub(crate) fn in_words(chain: &str) -> String {
    let segments = chain.split(": ").filter(|segment| !NOISE.contains(segment));
    let words = segments.map(|segment| {
        let known = CAUSES.iter().find(|(beginning, _)| segment.starts_with(beginning));
        known.map_or(segment, |(_, meaning)| meaning)
    });
    let mut words: Vec<_> = words.collect();
    if chain.contains("failed to lookup address") {
        // The resolver's own text follows.
        words.retain(|segment| *segment != "Name or service not known");
    }
    if words.is_empty() { chain.to_owned() } else { words.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_libraries_are_replaced_by_their_meaning() {
        for (chain, words) in [
            (
                "error sending request: client error (Connect): invalid peer certificate: UnknownIssuer",
                "the TLS certificate is invalid: its issuer is not trusted",
            ),
            (
                "error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)",
                "connection refused",
            ),
            (
                "error sending request: client error (Connect): dns error: failed to lookup address information: Name or service not known",
                "the host name cannot be resolved",
            ),
            ("error sending request: operation timed out", "timed out"),
            (
                "PostgreSQL at db:5432 cannot be reached (DATABASE_URL): Connection refused (os error 111)",
                "PostgreSQL at db:5432 cannot be reached (DATABASE_URL): connection refused",
            ),
            ("503 Service Unavailable", "503 Service Unavailable"),
        ] {
            assert_eq!(in_words(chain), words, "{chain}");
        }
    }
}
