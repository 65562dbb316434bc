//! Settings of earlier versions that no longer exist.

/// Name of each removed setting, and the problem reported while it is set.
pub(super) static REMOVED: &[(&str, &str)] = &[
    (
        "GATEWAY_FORWARDED_HEADER",
        "was removed: only X-Forwarded-For, -Proto and -Host are read; unset it, and let the proxy send those",
    ),
    (
        "GATEWAY_TRUST_EVERYONE",
        "was removed: to trust every peer, set GATEWAY_TRUSTED_PROXIES=everyone; unset it otherwise",
    ),
];

/// The problem to report for a removed setting; `None` for every other name.
pub(super) fn problem(name: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(removed, _)| *removed == name).map(|(_, problem)| *problem)
}
