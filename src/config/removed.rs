//! Settings that the gateway does not read any more. Silence would let an operator believe that they apply, so
//! each is a problem unless its value asks for what the gateway does anyway.

/// A setting that is not read any more.
pub(super) struct Removed {
    pub(super) name: &'static str,
    /// Values that are accepted without a message, compared without case.
    pub(super) accepted: &'static [&'static str],
    /// Reason and next step, shown after the name.
    pub(super) advice: &'static str,
}

pub(super) static REMOVED: &[Removed] = &[
    Removed { name: "GATEWAY_FORWARDED_HEADER", accepted: &[], advice: X_FORWARDED_ONLY },
    Removed { name: "GATEWAY_TRUST_EVERYONE", accepted: &[], advice: EVERYONE },
];

const X_FORWARDED_ONLY: &str = "was removed: only X-Forwarded-For, -Proto and -Host are read; remove this setting and let the proxy send those";
const EVERYONE: &str =
    "was removed: remove this setting; to trust every peer, set GATEWAY_TRUSTED_PROXIES=everyone";

impl Removed {
    /// Row of a name.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        REMOVED.iter().find(|removed| removed.name == name)
    }

    /// True if this value needs no message. An empty value counts as unset.
    pub(super) fn accepts(&self, value: &str) -> bool {
        let value = value.trim();
        value.is_empty() || self.accepted.iter().any(|word| word.eq_ignore_ascii_case(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    #[test]
    fn removed_names_are_not_settings() {
        for removed in REMOVED {
            assert!(settings::all().all(|setting| setting.name != removed.name));
        }
    }
}
