//! Settings of external access, sign-in policy, published metadata and the edge.

use std::{net::IpAddr, time::Duration};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

use super::{
    EntraConfig, Reader,
    reader::{duration, flag, word},
};
use crate::authz::{
    client_info::{EdgePolicy, Origin, TrustedProxies},
    policy::{Policy, RoleCeiling, SessionBinding},
};

/// Mode of external access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExternalAccessMode {
    /// Disabled: metadata and login answer 404.
    Off,
    /// Enabled.
    On {
        /// Name of the person who accepted that tenant and app ids become public.
        accepted_by: String,
    },
    /// As administrators decide; their decision is in the database.
    Managed,
}

impl ExternalAccessMode {
    /// Value of `GATEWAY_EXTERNAL_ACCESS`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On { .. } => "on",
            Self::Managed => "managed",
        }
    }

    /// Logs the mode, and who accepted the exposure.
    pub(crate) fn log(&self) {
        match self {
            Self::Off => tracing::info!("external access is disabled"),
            Self::On { accepted_by } => {
                tracing::info!(
                    accepted_by,
                    "external access is enabled: tenant and app ids are public"
                );
            }
            Self::Managed => tracing::info!("external access is managed by administrators"),
        }
    }
}

/// Contents of the OAuth metadata and of challenges.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceConfig {
    pub(crate) scopes: Vec<String>,
    /// Scopes that permit a login, fully qualified, for `insufficient_scope` challenges.
    pub(crate) login_scopes: Vec<String>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) root_metadata: RootMetadata,
}

/// Program that answers `/.well-known/oauth-protected-resource`, without a path, while external access is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RootMetadata {
    #[default]
    Gateway,
    Upstream,
}

impl RootMetadata {
    /// Value of `GATEWAY_ROOT_METADATA`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// Value of `GATEWAY_EXTERNAL_ACCESS`.
#[derive(Clone, Copy)]
enum Word {
    Off,
    On,
    Managed,
}

pub(super) fn external_access(reader: &mut Reader) -> ExternalAccessMode {
    let words = [("off", Word::Off), ("on", Word::On), ("managed", Word::Managed)];
    match reader.require("GATEWAY_EXTERNAL_ACCESS", word(&words)) {
        Some(Word::On) => {}
        Some(Word::Managed) => {
            if reader.given("DATABASE_URL").is_none() {
                reader.problem(
                    "DATABASE_URL",
                    "is required with GATEWAY_EXTERNAL_ACCESS=managed: it stores the administrators' decisions (sqlite:/absolute/path for one instance, postgres:// for several)",
                );
            }
            return ExternalAccessMode::Managed;
        }
        Some(Word::Off) | None => return ExternalAccessMode::Off,
    }
    let accepted_by = reader.text("GATEWAY_EXPOSURE_ACCEPTED_BY").unwrap_or_default();
    if accepted_by.is_empty() {
        reader.problem(
            "GATEWAY_EXPOSURE_ACCEPTED_BY",
            "is required with GATEWAY_EXTERNAL_ACCESS=on: the metadata makes tenant and app ids public; set the name of the person who accepted that",
        );
    }
    ExternalAccessMode::On { accepted_by }
}

pub(super) fn policy(reader: &mut Reader) -> Policy {
    let login_scopes = if reader.is_word("GATEWAY_LOGIN_SCOPES", "none") {
        Vec::new()
    } else {
        reader.list("GATEWAY_LOGIN_SCOPES", scope)
    };
    let session_roles = if reader.is_word("GATEWAY_SESSION_ROLES", "*") {
        RoleCeiling::All
    } else {
        RoleCeiling::Only(reader.list("GATEWAY_SESSION_ROLES", |role| Ok(role.to_owned())))
    };
    let session_max_age = reader.require("GATEWAY_SESSION_MAX_AGE", |text| {
        let longest = Duration::from_hours(31 * 24);
        let age = duration(text)?;
        let is_sound = !age.is_zero() && age <= longest;
        if is_sound { Ok(age) } else { Err("expected 1s to 31d".to_owned()) }
    });
    let bindings =
        [("when-present", SessionBinding::WhenPresent), ("required", SessionBinding::Required)];
    let session_binding = reader.read("GATEWAY_SESSION_BINDING", word(&bindings));
    Policy {
        allowed_clients: reader.list("GATEWAY_ALLOWED_CLIENTS", |text| {
            Uuid::try_parse(text).map_err(|_| "expected a GUID".to_owned())
        }),
        login_scopes,
        login_app_only: reader.read("GATEWAY_LOGIN_APP_ONLY", flag).unwrap_or_default(),
        session_roles,
        session_max_age: session_max_age.unwrap_or_default(),
        session_binding: session_binding.unwrap_or(SessionBinding::Required),
        bind_subject: reader.read("GATEWAY_BIND_SUBJECT", flag).unwrap_or(true),
    }
}

/// A `scope-token` of RFC 6749 §3.3.
fn scope(text: &str) -> Result<String, String> {
    let is_token = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if is_token {
        Ok(text.to_owned())
    } else {
        Err("expected a scope without spaces, quotes or backslashes".to_owned())
    }
}

pub(super) fn resource(
    reader: &mut Reader,
    entra: &EntraConfig,
    policy: &Policy,
) -> ResourceConfig {
    let client_id = entra.expected.client_id.to_string();
    let given = reader.text("GATEWAY_SCOPES").unwrap_or_default();
    if given.split(',').all(|entry| entry.trim().is_empty()) {
        // Without scopes clients would guess what to request.
        reader.problem("GATEWAY_SCOPES", "must name at least one scope");
    }
    let answerers = [RootMetadata::Gateway, RootMetadata::Upstream].map(|it| (it.word(), it));
    ResourceConfig {
        scopes: reader
            .list("GATEWAY_SCOPES", |text| scope(&text.replace("$CLIENT_ID", &client_id))),
        login_scopes: policy
            .login_scopes
            .iter()
            .map(|scope| format!("api://{client_id}/{scope}"))
            .collect(),
        allowed_origins: reader
            .list("GATEWAY_ALLOWED_ORIGINS", origin)
            .iter()
            .map(Origin::to_string)
            .collect(),
        root_metadata: reader.read("GATEWAY_ROOT_METADATA", word(&answerers)).unwrap_or_default(),
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).ok_or_else(|| "expected an origin such as https://chat.example".to_owned())
}

pub(super) fn edge(reader: &mut Reader) -> EdgePolicy {
    let mut public_urls = reader.list("GATEWAY_PUBLIC_URLS", origin);
    if !public_urls.is_empty() {
        let app_service = reader.given("WEBSITE_HOSTNAME");
        let container_app = reader
            .given("CONTAINER_APP_NAME")
            .zip(reader.given("CONTAINER_APP_ENV_DNS_SUFFIX"))
            .map(|(name, suffix)| format!("{name}.{suffix}"));
        for host in [app_service, container_app].into_iter().flatten() {
            match Origin::parse(&format!("https://{host}")) {
                Some(origin) if public_urls.contains(&origin) => {}
                Some(origin) => public_urls.push(origin),
                None => reader.warn(
                    "GATEWAY_PUBLIC_URLS",
                    "the host name that the platform sets is malformed; it was not added",
                ),
            }
        }
    }

    let trusts_everyone = reader.is_word("GATEWAY_TRUSTED_PROXIES", "everyone");
    let trusted = if reader.is_word("GATEWAY_TRUSTED_PROXIES", "private") {
        TrustedProxies::Private
    } else if reader.is_word("GATEWAY_TRUSTED_PROXIES", "none") {
        TrustedProxies::None
    } else if trusts_everyone {
        TrustedProxies::Networks(vec![Ipv4Net::default().into(), Ipv6Net::default().into()])
    } else {
        TrustedProxies::Networks(reader.list("GATEWAY_TRUSTED_PROXIES", |text| {
            let network: IpNet = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| "expected private, none, everyone, or CIDRs".to_owned())?;
            Ok(network)
        }))
    };
    if let TrustedProxies::Networks(networks) = &trusted {
        // Aggregated first: 0.0.0.0/1 and 128.0.0.0/1 together cover every address.
        let everyone = IpNet::aggregate(networks).iter().any(|network| network.prefix_len() == 0);
        if everyone && !trusts_everyone {
            reader.problem(
                "GATEWAY_TRUSTED_PROXIES",
                "covers every address; to trust all peers, set GATEWAY_TRUSTED_PROXIES=everyone",
            );
        }
    }
    let front_door = reader.read("GATEWAY_FRONT_DOOR_ID", |text| {
        Uuid::try_parse(text).map_err(|_| "expected a GUID".to_owned())
    });
    EdgePolicy { public_urls, trusted, front_door }
}
