//! Settings of the tenant, the app and the cloud, and the addresses of its OpenID Connect documents.

use url::Url;
use uuid::Uuid;

use super::{Reader, reader::word};
use crate::authz::token::ExpectedClaims;

/// Value of `AZURE_ENVIRONMENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    /// Azure's worldwide cloud.
    Public,
    /// Azure Government (US).
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
    /// Another cloud, named by its URLs.
    Custom,
}

/// Expected claims of tokens, and the sources of keys and issuers.
#[derive(Debug, Clone)]
pub(crate) struct EntraConfig {
    pub(crate) cloud: Cloud,
    pub(crate) expected: ExpectedClaims,
    /// The tenant's v2 OpenID Connect metadata.
    pub(crate) metadata_v2: Url,
    /// The tenant's v1 OpenID Connect metadata.
    pub(crate) metadata_v1: Url,
    /// The app's own v2 and v1 metadata: with claims mapping the app has its own signing keys. `None` if the
    /// documents above are already the app's.
    pub(crate) metadata_of_app: Option<[Url; 2]>,
    /// v1 issuer to use if the v1 metadata answers 404; `None`: the metadata is required.
    pub(crate) issuer_v1_fallback: Option<String>,
    /// `authorization_servers` of the gateway's own metadata.
    pub(crate) authority: String,
}

pub(super) fn read(reader: &mut Reader) -> EntraConfig {
    let guid = |text: &str| Uuid::try_parse(text).map_err(|_| "expected a GUID".to_owned());
    let tenant = reader.require("TENANT_ID", guid).unwrap_or_default();
    let client_id = reader.require("CLIENT_ID", guid).unwrap_or_default();
    let audiences = reader
        .list("GATEWAY_AUDIENCES", |text| Ok(text.replace("$CLIENT_ID", &client_id.to_string())));
    let expected = ExpectedClaims { tenant, client_id, audiences };

    let clouds = [
        ("public", Cloud::Public),
        ("usgovernment", Cloud::UsGovernment),
        ("china", Cloud::China),
        ("custom", Cloud::Custom),
    ];
    let given = reader.require("AZURE_ENVIRONMENT", word(&clouds));
    let cloud = given.unwrap_or(Cloud::Custom);
    let host = match cloud {
        Cloud::Public => Some("https://login.microsoftonline.com"),
        Cloud::UsGovernment => Some("https://login.microsoftonline.us"),
        Cloud::China => Some("https://login.partner.microsoftonline.cn"),
        Cloud::Custom => None,
    };
    let document = |authority: &str| {
        Url::parse(&format!("{authority}/.well-known/openid-configuration"))
            .map_err(|_| "expected a URL".to_owned())
    };
    if let Some(host) = host {
        let authority = format!("{host}/{tenant}/v2.0");
        let of = |authority: &str| document(authority).unwrap_or_else(|_| placeholder_url());
        let metadata_v2 = of(&authority);
        let metadata_v1 = of(&format!("{host}/{tenant}"));
        return EntraConfig {
            metadata_of_app: of_app([&metadata_v2, &metadata_v1], client_id),
            metadata_v2,
            metadata_v1,
            issuer_v1_fallback: None,
            authority,
            cloud,
            expected,
        };
    }

    if given == Some(Cloud::Custom) {
        for name in ["CUSTOM_IDENTITY_URL_VALUE", "CUSTOM_OIDC_METADATA_URL_VALUE"] {
            if reader.given(name).is_none() {
                reader.problem(name, "is required with AZURE_ENVIRONMENT=custom");
            }
        }
    }
    let metadata_v2 = reader.read("CUSTOM_OIDC_METADATA_URL_VALUE", identity_url);
    let metadata_v2 = metadata_v2.unwrap_or_else(placeholder_url);
    let identity = reader.read("CUSTOM_IDENTITY_URL_VALUE", identity_url);
    let identity =
        identity.map_or_else(String::new, |url| url.as_str().trim_end_matches('/').to_owned());
    let mut metadata_v1 = metadata_v2.clone();
    metadata_v1.set_path(&metadata_v2.path().replace("/v2.0/", "/"));
    EntraConfig {
        issuer_v1_fallback: Some(format!("https://sts.windows.net/{tenant}/")),
        authority: format!("{identity}/{tenant}/v2.0"),
        metadata_of_app: of_app([&metadata_v2, &metadata_v1], client_id),
        metadata_v2,
        metadata_v1,
        cloud,
        expected,
    }
}

/// URLs of the app's own metadata: the tenant's with the query parameter `appid` (Microsoft identity
/// platform, "Access tokens", "Validate the signature").
fn of_app(metadata: [&Url; 2], client_id: Uuid) -> Option<[Url; 2]> {
    let is_of_app = |url: &&Url| url.query_pairs().any(|(name, _)| name == "appid");
    if metadata.iter().any(is_of_app) {
        return None;
    }
    Some(metadata.map(|url| {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("appid", &client_id.to_string());
        url
    }))
}

fn placeholder_url() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://invalid.invalid/").expect("a URL")
}

/// A URL with `https://`, or with `http://` on loopback.
fn identity_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "expected a URL".to_owned())?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err("expected https://; http:// is accepted on loopback only".to_owned()),
        _ => Err("expected https://".to_owned()),
    }
}
