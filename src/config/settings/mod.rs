//! Table of settings: name, form, default and meaning, in groups. Source of the reader, of the
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
    /// As in the environment and in the TOML file.
    pub(crate) name: &'static str,
    /// What a value looks like.
    pub(crate) form: &'static str,
    /// What counts when it is not set; empty: nothing.
    pub(crate) default: &'static str,
    /// What it decides.
    pub(crate) meaning: &'static str,
    /// Never shown; may come from a file named by `NAME_FILE`.
    pub(crate) secret: bool,
    /// Whether a change counts at SIGHUP; else at the next start.
    pub(crate) live: bool,
}

impl Setting {
    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

const fn setting(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, form, default, meaning, secret: false, live: false }
}

const fn secret(name: &'static str, form: &'static str, meaning: &'static str) -> Setting {
    Setting { name, form, default: "", meaning, secret: true, live: false }
}

/// Standard setting outside the table: neither its form nor its meaning is printed.
const fn tuning(name: &'static str, default: &'static str) -> Setting {
    setting(name, "", default, "")
}

/// Settings that one heading of the table covers.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) settings: &'static [Setting],
}

/// The table, in the order of `settings` and of the reference page.
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

/// Names that platforms put into every container: they join a list of public origins that the
/// operator began (App Service; Container Apps).
pub(crate) static PLATFORM_NAMES: &[&str] = &[
    "WEBSITE_HOSTNAME",
    "WEBSITE_AUTH_ENABLED",
    "WEBSITE_AUTH_OPENID_ISSUER",
    "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES",
    "AZURE_FEDERATED_TOKEN_FILE",
    "CONTAINER_APP_NAME",
    "CONTAINER_APP_ENV_DNS_SUFFIX",
];

/// Whether Kubernetes injected a name for a Service called `gateway` or `gateway-…`:
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
    fn what_kubernetes_injects_is_told_from_a_typo() {
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
    fn no_name_stands_twice() {
        let mut names: Vec<_> = all().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }
}
