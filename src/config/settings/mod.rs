//! Table of settings: name, type, default and meaning, in groups. Source of the reader, of the
//! `settings` command and of `docs/reference/settings.md`.

mod database;
mod edge;
mod exposure;
mod limits;
mod policy;
mod required;
mod sessions;
mod telemetry;

pub(super) use self::telemetry::TUNING;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Name in the environment and in the TOML file.
    pub(crate) name: &'static str,
    /// Type: form or accepted words of a value.
    pub(crate) value_type: &'static str,
    /// Value of an unset setting; empty: none.
    pub(crate) default: &'static str,
    /// Meaning, as the reference page prints it; begins with a noun phrase.
    pub(crate) meaning: &'static str,
    /// True for secrets: never shown, and readable from the file that `NAME_FILE` names.
    pub(crate) secret: bool,
    /// True if SIGHUP applies a change; others require a restart.
    pub(crate) live: bool,
}

impl Setting {
    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

const fn setting(
    name: &'static str,
    value_type: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, value_type, default, meaning, secret: false, live: false }
}

const fn secret(name: &'static str, value_type: &'static str, meaning: &'static str) -> Setting {
    Setting { name, value_type, default: "", meaning, secret: true, live: false }
}

/// A setting outside the table: neither its type nor its meaning is printed.
const fn tuning(name: &'static str, default: &'static str) -> Setting {
    setting(name, "", default, "")
}

/// Settings below one heading of the table.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) settings: &'static [Setting],
}

/// The table, in the order in which it is printed.
pub(super) static GROUPS: [Group; 8] = [
    Group { title: "Required and general", settings: required::SETTINGS },
    Group { title: "Exposure", settings: exposure::SETTINGS },
    Group { title: "Edge and proxies", settings: edge::SETTINGS },
    Group { title: "Policy", settings: policy::SETTINGS },
    Group { title: "Sessions and Redis", settings: sessions::SETTINGS },
    Group { title: "Database", settings: database::SETTINGS },
    Group { title: "Limits and timeouts", settings: limits::SETTINGS },
    Group { title: "Telemetry", settings: telemetry::SETTINGS },
];

/// Every setting that is read: the table and [`TUNING`].
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings).chain(TUNING)
}

/// Variables that platforms set in every container (App Service, Container Apps, workload identity). They
/// are read, but an operator does not set them.
pub(crate) static PLATFORM_NAMES: &[&str] = &[
    "WEBSITE_HOSTNAME",
    "WEBSITE_AUTH_ENABLED",
    "WEBSITE_AUTH_OPENID_ISSUER",
    "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES",
    "AZURE_FEDERATED_TOKEN_FILE",
    "CONTAINER_APP_NAME",
    "CONTAINER_APP_ENV_DNS_SUFFIX",
];

/// True if Kubernetes injects a name for a Service called `gateway` or `gateway-…`:
/// `GATEWAY_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?)`.
pub(crate) fn is_injected_by_kubernetes(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("GATEWAY_") else { return false };
    let is_service_variable = |tail: &str| {
        let numbered = |after: &str| {
            after
                .strip_prefix('_')
                .and_then(|after| after.split_once('_'))
                .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        tail == "SERVICE_HOST"
            || tail
                .strip_prefix("SERVICE_PORT")
                .is_some_and(|after| after.is_empty() || after.starts_with('_'))
            || tail.strip_prefix("PORT").is_some_and(|after| after.is_empty() || numbered(after))
    };
    is_service_variable(rest)
        || rest.match_indices('_').any(|(at, _)| is_service_variable(&rest[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_injects_are_distinguished_from_typing_mistakes() {
        for injected in [
            "GATEWAY_SERVICE_HOST",
            "GATEWAY_SERVICE_PORT",
            "GATEWAY_SERVICE_PORT_HTTP",
            "GATEWAY_PORT",
            "GATEWAY_PORT_8080_TCP_ADDR",
            "GATEWAY_STAGING_SERVICE_HOST",
            "GATEWAY_STAGING_PORT_443_TCP",
        ] {
            assert!(is_injected_by_kubernetes(injected), "{injected}");
        }
        for typo in ["GATEWAY_LISTEM", "GATEWAY_PORTS", "GATEWAY_PORT_TCP", "GATEWAY_LISTEN_PORT_"]
        {
            assert!(!is_injected_by_kubernetes(typo), "{typo}");
        }
    }

    #[test]
    fn setting_names_are_unique() {
        let mut names: Vec<_> = all().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }
}
