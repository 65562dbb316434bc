//! Public URLs that Entra accepts as identifier URIs of an app registration.
//!
//! An `https://` URI needs a domain that is verified in the tenant, or a subdomain. No tenant can verify a
//! domain that belongs to a platform.

use url::{Host, Url};

use crate::authz::client_info::Origin;

/// Resources with metadata of their own: clients send their URLs to Entra as `resource`. The bare origin is
/// omitted: clients send it as `https://host/`, and Entra accepts no trailing slash.
pub(super) const PATHS: [&str; 2] = ["/external/login", "/external"];

/// Domains that belong to a platform.
const PLATFORMS: [&str; 38] = [
    "azurewebsites.net",
    "azurewebsites.us",
    "chinacloudsites.cn",
    "appserviceenvironment.net",
    "appserviceenvironment.us",
    "azurecontainerapps.io",
    "azurecontainerapps.us",
    "azurecontainerapps.cn",
    "azurecontainer.io",
    "azurestaticapps.net",
    "azurefd.net",
    "azurefd.us",
    "azurefd.cn",
    "azureedge.net",
    "azureedge.us",
    "azure-api.net",
    "azure-api.us",
    "azure-api.cn",
    "azure.com",
    "azure.us",
    "azure.cn",
    "windows.net",
    "cloudapp.net",
    "usgovcloudapi.net",
    "usgovcloudapp.net",
    "chinacloudapp.cn",
    "trafficmanager.net",
    "usgovtrafficmanager.net",
    "trafficmanager.cn",
    "devtunnels.ms",
    "github.dev",
    "ngrok.io",
    "ngrok.app",
    "ngrok.dev",
    "ngrok-free.app",
    "ngrok-free.dev",
    "trycloudflare.com",
    "amazonaws.com",
];

/// Top-level names that are not public domains (RFC 6761, RFC 6762, RFC 8375, and common usage).
const PRIVATE: [&str; 11] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "test",
    "invalid",
    "arpa",
];

/// Reason for which Entra rejects identifier URIs at an origin, as the end of "Entra accepts no identifier
/// URI …"; `None`: it accepts them if the domain is verified.
pub(super) fn refusal(origin: &Origin) -> Option<String> {
    let Ok(url) = Url::parse(&origin.to_string()) else {
        return Some("that is not a URL".to_owned());
    };
    if url.scheme() != "https" {
        return Some("with http://".to_owned());
    }
    if url.port().is_some() {
        return Some("with a port".to_owned());
    }
    let Some(Host::Domain(host)) = url.host() else {
        return Some("with an IP address".to_owned());
    };
    let is_plain = host.split('.').all(|label| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(is_plain)
    });
    if !is_plain {
        return Some("with a host name that is not a domain name".to_owned());
    }
    let Some((_, top)) = host.rsplit_once('.') else {
        return Some("with a bare host name, which is not a domain".to_owned());
    };
    if PRIVATE.contains(&top) {
        return Some(format!("in .{top}, where no domain can be verified"));
    }
    let is_below = |platform: &&&str| {
        host.strip_suffix(**platform).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    PLATFORMS.iter().find(is_below).map(|platform| {
        format!("in {platform}, a domain of the platform, which no tenant can verify")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_reason_wherever_there_is_one() {
        for origin in
            ["https://localhost:8443", "https://10.0.0.4:8443", "https://a.azurewebsites.net:8443"]
        {
            let reason = refusal(&Origin::parse(origin).unwrap());
            assert_eq!(reason.as_deref(), Some("with a port"), "{origin}");
        }
    }

    #[test]
    fn platforms_private_names_and_addresses_are_refused() {
        for rejected in [
            "https://chat.azurewebsites.net",
            "https://chat.azurewebsites.us",
            "https://chat.scm.azurewebsites.net",
            "https://chat.blue-1.eastus.azurecontainerapps.io",
            "https://chat.blue-1.usgovvirginia.azurecontainerapps.us",
            "https://chat.eastus.cloudapp.azure.com",
            "https://chat-a1.z01.azurefd.net",
            "https://localhost",
            "https://chat",
            "https://chat.corp.internal",
            "https://10.0.0.4",
            "https://[fd00::2]",
            "http://chat.contoso.com",
            "https://chat.contoso.com:8443",
            "https://chat_1.contoso.com",
            "https://chat.contoso.com.",
        ] {
            assert!(refusal(&Origin::parse(rejected).unwrap()).is_some(), "{rejected}");
        }
        for accepted in [
            "https://chat.contoso.com",
            "https://contoso.onmicrosoft.com",
            "https://notazurewebsites.net",
            "https://chat.contoso.com:443",
        ] {
            assert_eq!(refusal(&Origin::parse(accepted).unwrap()), None, "{accepted}");
        }
    }
}
