//! How Redis lets the gateway in: by a key, by the app's identity, or by a key out of Key Vault.

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{Reader, reader::word};

/// How Redis lets the gateway in.
#[derive(Debug, Clone)]
pub(crate) enum RedisAuth {
    /// By the URL's key, or this one in its place.
    Key(Option<SecretString>),
    /// By tokens of the app's identity.
    ManagedIdentity {
        /// Whose.
        identity: AzureIdentity,
        /// What for.
        scope: String,
    },
    /// By a key that lies in Key Vault.
    KeyVault {
        /// Who may read it.
        identity: AzureIdentity,
        /// Where.
        secret: VaultSecret,
    },
}

/// The identity that Azure gives this app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AzureIdentity {
    /// Which, where there are several.
    pub(crate) client_id: Option<String>,
    /// Whether it is had for a token of Kubernetes.
    pub(crate) is_federated: bool,
}

/// A secret in Key Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VaultSecret {
    /// `https://VAULT.vault.azure.net`.
    pub(crate) vault: String,
    pub(crate) name: String,
    /// `None`: whichever is the newest.
    pub(crate) version: Option<String>,
}

/// Key Vault's, in the public, government and China clouds.
const VAULTS: [&str; 3] = [".vault.azure.net", ".vault.usgovcloudapi.net", ".vault.azure.cn"];

#[derive(Clone, Copy)]
enum AuthMethod {
    Key,
    ManagedIdentity,
    KeyVault,
}

/// `url` is Redis'.
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
        reader.problem("REDIS_PASSWORD", "is set, and REDIS_AUTH has the key from elsewhere");
    }
    let url = Url::parse(url.expose_secret()).ok();
    if url.as_ref().is_some_and(|url| url.password().is_some()) {
        reader.problem("REDIS_URL", "holds a password, and REDIS_AUTH has the key from elsewhere");
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
        let why = "names a user, and with REDIS_AUTH=managed_identity that is the token's oid";
        reader.problem("REDIS_URL", why);
    }
    if url.as_ref().is_some_and(sends_in_the_clear) {
        reader.warn("REDIS_URL", "is without TLS: the identity's tokens can be read on the way");
    }
    let scope = reader.text("REDIS_TOKEN_SCOPE").unwrap_or_default();
    if !scope.ends_with("/.default") {
        reader.problem("REDIS_TOKEN_SCOPE", "does not end in /.default");
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
            // Schemes that are not the web's keep an address as a name.
            Some(Host::Domain(name)) => name != "localhost" && !name.starts_with("127."),
            None => false,
        }
}

/// `https://VAULT.vault.azure.net/secrets/NAME[/VERSION]`.
fn vault_secret(text: &str) -> Result<VaultSecret, String> {
    let wrong = || "is not https://VAULT.vault.azure.net/secrets/NAME[/VERSION]".to_owned();
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
        return Err(format!("lies in no Key Vault (*{})", VAULTS.join(", *")));
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
    fn a_secret_lies_in_a_vault_of_some_cloud() {
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
