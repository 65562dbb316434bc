//! Redis authentication: an access key, the app's managed identity, or a key in Key Vault.

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{Reader, reader::word};

/// Redis authentication method.
#[derive(Debug, Clone)]
pub(crate) enum RedisAuth {
    /// Access key: this one, or else the one in the URL.
    Key(Option<SecretString>),
    /// Tokens of the app's identity.
    ManagedIdentity {
        /// Identity that requests the tokens.
        identity: AzureIdentity,
        /// Scope of the tokens.
        scope: String,
    },
    /// Access key stored in Key Vault.
    KeyVault {
        /// Identity that may read the secret.
        identity: AzureIdentity,
        /// Location of the secret.
        secret: VaultSecret,
    },
}

/// The app's identity in Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AzureIdentity {
    /// Client id, required if the app has several identities.
    pub(crate) client_id: Option<String>,
    /// True for workload identity: a Kubernetes token is exchanged for the identity's.
    pub(crate) is_federated: bool,
}

/// A secret in Key Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VaultSecret {
    /// `https://VAULT.vault.azure.net`.
    pub(crate) vault: String,
    pub(crate) name: String,
    /// `None`: the latest version.
    pub(crate) version: Option<String>,
}

/// Host suffixes of Key Vault in the public, US government and China clouds.
const VAULTS: [&str; 3] = [".vault.azure.net", ".vault.usgovcloudapi.net", ".vault.azure.cn"];

#[derive(Clone, Copy)]
enum AuthMethod {
    Key,
    ManagedIdentity,
    KeyVault,
}

/// Reads the method and its settings. `url`: the Redis URL.
pub(super) fn read(reader: &mut Reader, url: &SecretString) -> RedisAuth {
    let methods = [
        ("key", AuthMethod::Key),
        ("managed_identity", AuthMethod::ManagedIdentity),
        ("key_vault", AuthMethod::KeyVault),
    ];
    let method = reader.read("REDIS_AUTH", word(&methods)).unwrap_or(AuthMethod::Key);
    let password = reader.given("REDIS_PASSWORD").map(SecretString::from);
    if !matches!(method, AuthMethod::KeyVault)
        && reader.given("REDIS_KEY_VAULT_SECRET_URL").is_some()
    {
        reader.warn("REDIS_KEY_VAULT_SECRET_URL", "is not used without REDIS_AUTH=key_vault");
    }
    if let AuthMethod::Key = method {
        return RedisAuth::Key(password);
    }
    if password.is_some() {
        reader.problem(
            "REDIS_PASSWORD",
            "must not be set: REDIS_AUTH names another source of the key",
        );
    }
    let url = Url::parse(url.expose_secret()).ok();
    if url.as_ref().is_some_and(|url| url.password().is_some()) {
        reader.problem(
            "REDIS_URL",
            "must not hold a password: REDIS_AUTH names another source of the key",
        );
    }
    let identity = identity(reader);
    if let AuthMethod::KeyVault = method {
        let secret = reader.require("REDIS_KEY_VAULT_SECRET_URL", vault_secret);
        let secret = secret.unwrap_or_else(|| VaultSecret {
            vault: String::new(),
            name: String::new(),
            version: None,
        });
        return RedisAuth::KeyVault { identity, secret };
    }
    if url.as_ref().is_some_and(|url| !url.username().is_empty()) {
        let why =
            "must not name a user: with REDIS_AUTH=managed_identity the user is the token's oid";
        reader.problem("REDIS_URL", why);
    }
    if url.as_ref().is_some_and(sends_in_the_clear) {
        reader.warn("REDIS_URL", "has no TLS: the identity's tokens are sent in clear text");
    }
    let scope = reader.text("REDIS_TOKEN_SCOPE").unwrap_or_default();
    if !scope.ends_with("/.default") {
        reader.problem("REDIS_TOKEN_SCOPE", "must end in /.default");
    }
    RedisAuth::ManagedIdentity { identity, scope }
}

fn identity(reader: &mut Reader) -> AzureIdentity {
    let client_id = reader.given("AZURE_CLIENT_ID");
    let is_federated = reader.given("AZURE_FEDERATED_TOKEN_FILE").is_some();
    if is_federated && client_id.is_none() {
        let why = "is required with workload identity (AZURE_FEDERATED_TOKEN_FILE is set)";
        reader.problem("AZURE_CLIENT_ID", why);
    }
    AzureIdentity { client_id, is_federated }
}

fn sends_in_the_clear(url: &Url) -> bool {
    let is_plain = url.scheme().starts_with("redis") && !url.scheme().starts_with("rediss");
    let is_plain =
        is_plain || url.scheme().starts_with("valkey") && !url.scheme().starts_with("valkeys");
    is_plain
        && match url.host() {
            Some(Host::Ipv4(address)) => !address.is_loopback(),
            Some(Host::Ipv6(address)) => !address.is_loopback(),
            // `url` parses an IPv4 address as a name if the scheme is not a web scheme.
            Some(Host::Domain(name)) => name != "localhost" && !name.starts_with("127."),
            None => false,
        }
}

/// A secret's URL: `https://VAULT.vault.azure.net/secrets/NAME[/VERSION]`.
fn vault_secret(text: &str) -> Result<VaultSecret, String> {
    let wrong = || "expected https://VAULT.vault.azure.net/secrets/NAME[/VERSION]".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?;
    let is_plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_plain {
        return Err(wrong());
    }
    if !VAULTS.iter().any(|vault| host.strip_suffix(vault).is_some_and(|name| !name.is_empty())) {
        return Err(format!("expected a Key Vault host: *{}", VAULTS.join(", *")));
    }
    let is_name = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let parts: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let (name, version) = match parts[..] {
        ["secrets", name] | ["secrets", name, ""] => (name, None),
        ["secrets", name, version] => (name, Some(version)),
        _ => return Err(wrong()),
    };
    if !is_name(&name) || version.is_some_and(|version| !is_name(&version)) {
        return Err(wrong());
    }
    Ok(VaultSecret {
        vault: format!("https://{host}"),
        name: name.to_owned(),
        version: version.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_url_names_a_vault_of_a_known_cloud() {
        for vault in ["kv.vault.azure.net", "kv.vault.usgovcloudapi.net", "kv.vault.azure.cn"] {
            let secret = vault_secret(&format!("https://{vault}/secrets/redis-key")).unwrap();
            assert_eq!(secret.vault, format!("https://{vault}"));
            assert_eq!((secret.name.as_str(), secret.version), ("redis-key", None));
        }
        let versioned = vault_secret("https://kv.vault.azure.net/secrets/redis-key/0a1b").unwrap();
        assert_eq!(versioned.version.as_deref(), Some("0a1b"));
        for wrong in [
            "http://kv.vault.azure.net/secrets/a",
            "https://vault.azure.net/secrets/a",
            "https://.vault.azure.net/secrets/a",
            "https://kv.vault.azure.net.example/secrets/a",
            "https://kv.vault.azure.net/keys/a",
            "https://kv.vault.azure.net/secrets/",
            "https://kv.vault.azure.net/secrets/a/b/c",
            "https://kv.vault.azure.net/secrets/a?x=1",
            "https://u:p@kv.vault.azure.net/secrets/a",
            "kv/secrets/a",
        ] {
            assert!(vault_secret(wrong).is_err(), "{wrong}");
        }
    }
}
