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
    Removed {
        name: "GATEWAY_FORWARDED_HEADER",
        accepted: &["x-forwarded"],
        advice: X_FORWARDED_ONLY,
    },
    Removed { name: "GATEWAY_TRUST_EVERYONE", accepted: OFF, advice: EVERYONE },
    Removed { name: "SESSION_USE_SIGNER", accepted: OFF, advice: FLASK_SESSION_OPTIONS },
    Removed {
        name: "SESSION_SERIALIZATION_FORMAT",
        accepted: &["msgpack"],
        advice: FLASK_SESSION_OPTIONS,
    },
];

const X_FORWARDED_ONLY: &str = "was removed: only X-Forwarded-For, -Proto and -Host are read; remove this setting and let the proxy send those";
const EVERYONE: &str =
    "was removed: remove this setting; to trust every peer, set GATEWAY_TRUSTED_PROXIES=everyone";
const OFF: &[&str] = &["false", "no", "off", "0"];
const FLASK_SESSION_OPTIONS: &str = "Flask-Session's signer and JSON serialization are not supported, and SimpleChat uses neither; remove this setting";

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

    #[test]
    fn values_that_ask_for_the_supported_behaviour_are_accepted() {
        let signer = Removed::of("SESSION_USE_SIGNER").unwrap();
        for off in ["", " ", "false", "False", "0", "off", "no"] {
            assert!(signer.accepts(off), "{off:?}");
        }
        for on in ["true", "1", "yes", "on", "False!"] {
            assert!(!signer.accepts(on), "{on:?}");
        }
        let format = Removed::of("SESSION_SERIALIZATION_FORMAT").unwrap();
        assert!(format.accepts("msgpack") && format.accepts("MsgPack"));
        assert!(!format.accepts("json"));
        assert!(Removed::of("SESSION_KEY_PREFIX").is_none());
    }
}
