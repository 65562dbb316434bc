//! Messages for operators about failures of Redis: address, cause, and the setting to change.

use std::fmt;

use fred::{
    error::{Error, ErrorKind},
    types::config::Server,
};

use crate::{config::RedisAuth, connect_fault::ConnectFault};

/// Address of Redis and the way the gateway authenticates there, as input for the advice.
#[derive(Debug, Clone)]
pub(crate) struct RedisEndpoint {
    /// `HOST:PORT`, several separated by commas.
    pub(crate) address: String,
    pub(crate) has_tls: bool,
    pub(crate) auth: Auth,
}

/// Source of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    Key,
    ManagedIdentity,
    KeyVault,
}

impl From<&RedisAuth> for Auth {
    fn from(auth: &RedisAuth) -> Self {
        match auth {
            RedisAuth::Key(_) => Self::Key,
            RedisAuth::ManagedIdentity { .. } => Self::ManagedIdentity,
            RedisAuth::KeyVault { .. } => Self::KeyVault,
        }
    }
}

/// A failure of Redis: `HOST:PORT: cause; advice`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(crate) struct RedisFault {
    text: String,
}

impl RedisFault {
    /// Describes an error of the client library. `server`: its origin, if known.
    pub(crate) fn new(error: &Error, server: Option<&Server>, endpoint: &RedisEndpoint) -> Self {
        let address = server.map_or_else(|| endpoint.address.clone(), Server::to_string);
        let (cause, advice) = Cause::of(error).described(endpoint);
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        Self { text: format!("{address}: {cause}{advice}") }
    }
}

enum Cause<'a> {
    Connect(ConnectFault),
    /// The server rejected the credentials.
    WrongCredentials,
    /// The server requires credentials, and none were sent.
    CredentialsRequired,
    /// Credentials were sent, and the server has none configured for the user.
    CredentialsNotExpected,
    /// The user lacks the permission for a command.
    NotPermitted(&'a str),
    /// Azure issued no credentials.
    NoCredentials(&'a str),
    Other(String),
}

impl<'a> Cause<'a> {
    fn of(error: &'a Error) -> Self {
        let details = error.details();
        let begins = |words: &[&str]| words.iter().any(|word| details.starts_with(word));
        if let Some(why) = details.strip_prefix(NO_CREDENTIALS) {
            return Self::NoCredentials(why);
        }
        // The second message is that of Redis before 6.
        if begins(&["WRONGPASS", "ERR invalid password"]) {
            return Self::WrongCredentials;
        }
        if details.contains("without any password configured")
            || details.contains("no password is set")
        {
            return Self::CredentialsNotExpected;
        }
        if begins(&["NOAUTH"]) {
            return Self::CredentialsRequired;
        }
        if begins(&["NOPERM"]) {
            return Self::NotPermitted(details);
        }
        if let Some(fault) = ConnectFault::of_debug_text(details) {
            return Self::Connect(fault);
        }
        match error.kind() {
            ErrorKind::Timeout => Self::Connect(ConnectFault::TimedOut),
            _ => Self::Other(plain(details)),
        }
    }

    /// Cause, and advice for the operator.
    fn described(self, endpoint: &RedisEndpoint) -> (String, &'static str) {
        let advice = match &self {
            Self::Connect(fault) => return (fault.to_string(), connect_advice(*fault, endpoint)),
            Self::WrongCredentials => match endpoint.auth {
                Auth::Key => "see REDIS_PASSWORD, or user and password in REDIS_URL",
                Auth::ManagedIdentity => {
                    "with REDIS_AUTH=managed_identity the identity must be a user of this Redis (AZURE_CLIENT_ID selects the identity)"
                }
                Auth::KeyVault => "see the secret at REDIS_KEY_VAULT_SECRET_URL",
            },
            Self::CredentialsRequired => "set REDIS_PASSWORD, or REDIS_AUTH",
            Self::CredentialsNotExpected => "remove REDIS_PASSWORD, or the password in REDIS_URL",
            Self::NotPermitted(_) => {
                "give the user of REDIS_URL the rights in docs/hardening.md, \"The session store\""
            }
            Self::NoCredentials(_) => match endpoint.auth {
                Auth::KeyVault => "see REDIS_KEY_VAULT_SECRET_URL and AZURE_CLIENT_ID",
                Auth::ManagedIdentity | Auth::Key => "see REDIS_AUTH and AZURE_CLIENT_ID",
            },
            Self::Other(_) => "see REDIS_URL",
        };
        (self.to_string(), advice)
    }
}

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(fault) => fault.fmt(f),
            Self::WrongCredentials => f.write_str("wrong password or user (WRONGPASS)"),
            Self::CredentialsRequired => f.write_str("password required (NOAUTH)"),
            Self::CredentialsNotExpected => f.write_str("this user has no password here"),
            Self::NotPermitted(words) => f.write_str(words),
            Self::NoCredentials(why) => write!(f, "{NO_CREDENTIALS}{why}"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// Prefix of errors of [`crate::sessions::backend::redis_credentials`].
pub(crate) const NO_CREDENTIALS: &str = "no credentials: ";

fn connect_advice(fault: ConnectFault, endpoint: &RedisEndpoint) -> &'static str {
    match fault {
        ConnectFault::NameNotFound => "check the host in REDIS_URL and the DNS servers",
        ConnectFault::Refused => "does Redis run there? See the port in REDIS_URL",
        // A server without TLS takes the handshake for the beginning of a command and waits.
        ConnectFault::TimedOut if endpoint.has_tls => {
            "does Redis speak TLS at this port? Else write redis:// in REDIS_URL; does a firewall or private endpoint let the gateway through?"
        }
        ConnectFault::Unreachable | ConnectFault::TimedOut => {
            "see REDIS_URL; does a firewall or private endpoint let the gateway through?"
        }
        ConnectFault::Closed if !endpoint.has_tls => {
            "is it a port for TLS? Then REDIS_URL begins with rediss://"
        }
        ConnectFault::NotTls => {
            "write redis:// in REDIS_URL, or the port on which Redis speaks TLS"
        }
        ConnectFault::CertificateNotTrusted | ConnectFault::CertificateNotAccepted => {
            "set REDIS_CA_FILE to the certificate of its authority (PEM)"
        }
        ConnectFault::CertificateForAnotherName => {
            "write the host name that the certificate holds in REDIS_URL"
        }
        ConnectFault::CertificateExpired => {
            "renew the certificate of Redis, or check this host's clock"
        }
        ConnectFault::Closed | ConnectFault::NoSocket | ConnectFault::NotPermitted => {
            "see REDIS_URL"
        }
    }
}

/// Message of the library, extracted from its `Debug` form.
fn plain(details: &str) -> String {
    let is_debug = details.contains(" { ") && details.contains(": ");
    let quoted = details.rsplit_once('"').and_then(|(rest, _)| rest.rsplit_once('"'));
    match quoted {
        Some((_, message)) if is_debug => message.to_owned(),
        _ if is_debug => "connection failed".to_owned(),
        _ => details.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_errors_are_shown_without_their_debug_form() {
        let endpoint =
            RedisEndpoint { address: "h:6380".to_owned(), has_tls: true, auth: Auth::Key };
        for (kind, details, expected) in [
            (
                ErrorKind::IO,
                "Custom { kind: Other, error: \"something new\" }",
                "h:6380: something new; see REDIS_URL",
            ),
            (
                ErrorKind::IO,
                "Os { code: 99, kind: AddrNotAvailable, message: \"Cannot assign requested address\" }",
                "h:6380: Cannot assign requested address; see REDIS_URL",
            ),
            (
                ErrorKind::Tls,
                "PeerIncompatible { why: NoCipherSuites }",
                "h:6380: connection failed; see REDIS_URL",
            ),
            (
                ErrorKind::Unknown,
                "LOADING Redis is loading the dataset in memory",
                "h:6380: LOADING Redis is loading the dataset in memory; see REDIS_URL",
            ),
            // Redis 5.
            (
                ErrorKind::Unknown,
                "ERR Client sent AUTH, but no password is set",
                "h:6380: this user has no password here; remove REDIS_PASSWORD, or the password in REDIS_URL",
            ),
        ] {
            let fault = RedisFault::new(&Error::new(kind, details), None, &endpoint);
            assert_eq!(fault.to_string(), expected);
        }
    }
}
