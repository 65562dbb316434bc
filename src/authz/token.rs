//! Entra access tokens: from the received text to verified claims.
//!
//! v1 and v2 tokens of one tenant for one app. ID tokens of the same app have the same issuer, keys, audience
//! and even `roles`, so the token type is checked too (Microsoft identity platform, "Access tokens" and
//! "Claims validation").

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{PublicEncryptingKey, PublicKeyComponents},
    signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Maximum length of a token, in bytes.
pub(crate) const LONGEST: usize = 16 * 1024;
/// Tolerated clock difference, in seconds.
const LEEWAY: i64 = 60;
/// Maximum lifetime of a token, in seconds: Entra's longest (continuous access evaluation) is 28 hours.
const MAX_LIFETIME: f64 = 28.0 * 3600.0 + 600.0;

/// `aud` of tokens for Microsoft Graph, without `https://` and the trailing slash: its application id and its
/// hosts in Azure's clouds (Microsoft Graph, "National cloud deployments").
const GRAPH: [&str; 6] = [
    "00000003-0000-0000-c000-000000000000",
    "graph.microsoft.com",
    "graph.microsoft.us",
    "dod-graph.microsoft.us",
    "microsoftgraph.chinacloudapi.cn",
    "graph.microsoft.de",
];

/// A received bearer token, checked for the syntax `b64token` (RFC 6750 §2.1) only.
pub(crate) struct BearerToken(String);

impl BearerToken {
    /// Takes the text after `Bearer `; `None` if it is not one `b64token`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let body = text.trim_end_matches('=');
        let is_b64token = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
        };
        (!body.is_empty() && body.bytes().all(is_b64token)).then(|| Self(text.to_owned()))
    }

    /// SHA-256 of the token: identifies it without disclosing it.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Fingerprint(bytes)
    }

    /// Id of the key that the token names (`kid`).
    pub(crate) fn unverified_key_id(&self) -> Result<String, TokenError> {
        let kid = self.unverified_header()?.kid;
        kid.filter(|kid| !kid.is_empty()).ok_or(TokenError::Malformed("no kid"))
    }

    /// The header, if Entra could have written it (RFC 7515 §4). Only `kid` is used: never `jku`, `x5u`, `jwk`
    /// or `x5c`.
    pub(crate) fn unverified_header(&self) -> Result<Header, TokenError> {
        if self.0.len() > LONGEST {
            return Err(TokenError::Malformed("longer than 16 KiB"));
        }
        let header = jsonwebtoken::decode_header(&self.0)
            .map_err(|_| TokenError::Malformed("not a signed JWT"))?;
        let is_access_token = |typ: &str| {
            typ.eq_ignore_ascii_case("JWT")
                || typ.eq_ignore_ascii_case("at+jwt")
                || typ.eq_ignore_ascii_case("application/at+jwt")
        };
        if header.alg != Algorithm::RS256 {
            return Err(TokenError::Malformed("not signed with RS256"));
        }
        if header.crit.is_some() || header.extras.inner().contains_key("b64") {
            return Err(TokenError::Malformed("critical header parameters"));
        }
        if header.zip.is_some() || header.enc.is_some() || header.cty.is_some() {
            return Err(TokenError::Malformed("encrypted, compressed or nested"));
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(TokenError::WrongType);
        }
        Ok(header)
    }

    /// True for tokens with Microsoft Graph as audience. Entra hashes the `nonce` in their header before it
    /// signs, so that only Graph can verify them. For the error text only: nothing is verified.
    pub(crate) fn is_for_graph(&self) -> bool {
        #[derive(Deserialize)]
        struct Audience {
            aud: String,
        }
        let has_nonce = || self.unverified_header().is_ok_and(|header| header.nonce.is_some());
        let audience = || {
            let payload = URL_SAFE_NO_PAD.decode(self.0.split('.').nth(1)?).ok()?;
            serde_json::from_slice::<Audience>(&payload).ok()
        };
        let is_graph = |aud: &str| {
            let aud = aud.trim_end_matches('/').to_ascii_lowercase();
            GRAPH.contains(&aud.strip_prefix("https://").unwrap_or(&aud))
        };
        has_nonce() || audience().is_some_and(|Audience { aud }| is_graph(&aud))
    }

    /// Verifies the signature and validates the claims. `now`: Unix seconds.
    pub(crate) fn verify(
        &self,
        key: &SigningKey,
        issuers: &Issuers,
        expected: &ExpectedClaims,
        now: i64,
    ) -> Result<Claims, TokenError> {
        // Not jsonwebtoken's `decode`: it parses the key each time, its claim checks accept missing claims and
        // claims of another type, and it reads a clock itself.
        let payload = self.payload_signed_by(key)?;
        let UniqueMembers(all) = serde_json::from_slice(&payload)
            .map_err(|_| TokenError::Malformed("claims are not one JSON object"))?;
        Claims::validate(all, key, issuers, expected, now)
    }

    /// The payload, if this key signed it.
    pub(crate) fn payload_signed_by(&self, key: &SigningKey) -> Result<Vec<u8>, TokenError> {
        let malformed = TokenError::Malformed("not a signed JWT");
        let (message, signature) = self.0.rsplit_once('.').ok_or(malformed)?;
        let (_, payload) = message.split_once('.').ok_or(malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Signature)?;
        if !key.has_signed(message.as_bytes(), &signature) {
            return Err(TokenError::Signature);
        }
        URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed)
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

/// SHA-256 of a token, displayed as base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A public key of Entra, parsed once.
#[derive(Clone)]
pub(crate) struct SigningKey {
    verifying: Arc<ParsedPublicKey>,
    issuer: Option<String>,
}

impl SigningKey {
    /// Builds an RSA key from its big-endian numbers; `None` if they are not a valid key. `issuer`: the key's
    /// `issuer` member in Entra's key document.
    pub(crate) fn new(modulus: &[u8], exponent: &[u8], issuer: Option<String>) -> Option<Self> {
        let key: PublicEncryptingKey =
            PublicKeyComponents { n: without_zeros(modulus), e: without_zeros(exponent) }
                .try_into()
                .ok()?;
        let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&key).ok()?;
        let verifying = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der.as_ref()).ok()?;
        Some(Self { verifying: Arc::new(verifying), issuer })
    }

    /// True if this key made the signature of the message (RSASSA-PKCS1-v1_5 with SHA-256).
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifying.verify_sig(message, signature).is_ok()
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Accepted issuers, from the tenant's metadata documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issuers {
    /// Issuer of v2 tokens; `None` until the v2 document is read.
    pub(crate) v2: Option<String>,
    /// Issuer of v1 tokens; `None` until the v1 document is read.
    pub(crate) v1: Option<String>,
}

/// Claim values that a token must have.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedClaims {
    /// The Entra tenant.
    pub(crate) tenant: Uuid,
    /// SimpleChat's app registration.
    pub(crate) client_id: Uuid,
    /// Accepted `aud` of v1 tokens.
    pub(crate) audiences: Vec<String>,
}

/// Reasons for rejecting a token. Callers receive the text of [`fmt::Display`]: fixed words, nothing of the
/// token itself, and never `scope` or `error` with an equals sign (some clients search for those with a
/// regular expression).
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    #[error("The access token is malformed: {0}")]
    Malformed(&'static str),
    #[error("The access token is signed with an unknown key")]
    UnknownKey,
    #[error("Invalid token signature")]
    Signature,
    #[error("Missing or invalid token claim: {0}")]
    Claim(&'static str),
    #[error("The access token expired")]
    Expired,
    #[error("The access token is not valid yet")]
    NotYetValid,
    #[error("Invalid token issuer")]
    Issuer,
    #[error("Invalid token audience")]
    Audience,
    /// Only Graph can verify the signature of these tokens: see [`BearerToken::is_for_graph`].
    #[error("The access token is meant for Microsoft Graph")]
    ForGraph,
    #[error("Invalid token tenant")]
    Tenant,
    #[error("Not an access token")]
    WrongType,
    /// Temporary: the metadata for the token's version has not been read yet.
    #[error("The issuer for this token version has not been loaded yet")]
    IssuerUnknownYet,
}

/// Kind of caller that a token was issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A user, through a client app, with these scopes.
    Delegated {
        /// `scp`, split at spaces.
        scopes: Vec<String>,
    },
    /// An app without a user.
    AppOnly,
}

/// Subject, client and roles of a verified token; made by [`BearerToken::verify`] only.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    subject: Uuid,
    client: String,
    caller: TokenKind,
    roles: Vec<String>,
    expires_at: i64,
}

/// Claims of a verified token; made by [`BearerToken::verify`] only.
#[derive(Clone)]
pub(crate) struct Claims {
    all: Map<String, Value>,
    identity: Identity,
}

impl Claims {
    pub(super) fn validate(
        all: Map<String, Value>,
        key: &SigningKey,
        issuers: &Issuers,
        expected: &ExpectedClaims,
        now: i64,
    ) -> Result<Self, TokenError> {
        let text = |name: &'static str| {
            all.get(name).and_then(Value::as_str).ok_or(TokenError::Claim(name))
        };
        let tenant = expected.tenant.to_string();

        let version_2 = match text("ver")? {
            "1.0" => false,
            "2.0" => true,
            _ => return Err(TokenError::Claim("ver")),
        };
        let issuer = text("iss")?;
        let accepted = if version_2 { &issuers.v2 } else { &issuers.v1 };
        if issuer != accepted.as_ref().ok_or(TokenError::IssuerUnknownYet)? {
            return Err(TokenError::Issuer);
        }
        // The v1 key documents name no issuer for a key, and some name the v2 issuer for both versions.
        let key_may_sign = key.issuer.as_ref().is_none_or(|template| {
            let filled = template.replace("{tenantid}", &tenant);
            filled == issuer || Some(filled) == issuers.v2
        });
        if !key_may_sign {
            return Err(TokenError::Issuer);
        }
        if text("tid")? != tenant {
            return Err(TokenError::Tenant);
        }
        let audience = text("aud")?;
        let for_us = if version_2 {
            audience == expected.client_id.to_string()
        } else {
            let bare = audience.strip_suffix('/').unwrap_or(audience);
            expected.audiences.iter().any(|accepted| accepted == audience || accepted == bare)
        };
        if !for_us {
            return Err(TokenError::Audience);
        }
        let expires_at = check_times(&all, now)?;

        let client = match (version_2, all.get("azp"), all.get("appid")) {
            (true, Some(azp), _) => azp,
            (false, _, Some(appid)) => appid,
            // ID tokens name no client app.
            _ => return Err(TokenError::WrongType),
        };
        let client = client.as_str().and_then(guid).ok_or(TokenError::Claim("azp"))?.to_string();
        let subject = guid(text("oid")?).ok_or(TokenError::Claim("oid"))?;
        let roles = match all.get("roles") {
            Some(Value::Array(roles)) => {
                roles.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let caller = check_type(&all, version_2)?;
        let identity = Identity { subject, client, caller, roles, expires_at };
        Ok(Self { all, identity })
    }

    /// Subject, client and roles of the token.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// As [`Self::identity`], without the claims.
    pub(crate) fn into_identity(self) -> Identity {
        self.identity
    }

    /// Value of a claim, if it is a string.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str)
    }

    /// Every claim, in the token's order.
    pub(crate) fn into_all(self) -> Map<String, Value> {
        self.all
    }
}

impl Identity {
    /// The subject: Entra's object id, unique within the tenant.
    pub(crate) fn subject(&self) -> Uuid {
        self.subject
    }

    /// The client app: `azp` (v2) or `appid` (v1), a GUID in lower case.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    /// Kind of caller that the token was issued to.
    pub(crate) fn caller(&self) -> &TokenKind {
        &self.caller
    }

    /// True if `roles` is a list that holds exactly this string.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }

    /// `roles`; empty if missing or not a list.
    pub(crate) fn roles(&self) -> &[String] {
        &self.roles
    }

    /// `exp`, in whole Unix seconds.
    pub(crate) fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// Checks the expiry of a token that was verified before. `now`: Unix seconds.
    pub(crate) fn recheck(&self, now: i64) -> Result<(), TokenError> {
        if self.expires_at + LEEWAY > now { Ok(()) } else { Err(TokenError::Expired) }
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Checks `exp`, `nbf` and `iat`: numbers (RFC 7519 §2, NumericDate), all three required. Returns `exp`.
fn check_times(all: &Map<String, Value>, now: i64) -> Result<i64, TokenError> {
    let seconds =
        |name: &'static str| all.get(name).and_then(Value::as_f64).ok_or(TokenError::Claim(name));
    let (exp, nbf, iat) = (seconds("exp")?, seconds("nbf")?, seconds("iat")?);
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds fit into 52 bits")]
    let (earliest, latest) = ((now - LEEWAY) as f64, (now + LEEWAY) as f64);
    if exp <= earliest {
        return Err(TokenError::Expired);
    }
    if nbf > latest || iat > latest {
        return Err(TokenError::NotYetValid);
    }
    if exp - iat > MAX_LIFETIME {
        return Err(TokenError::Claim("exp"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "near `now`, as just checked")]
    Ok(exp.floor() as i64)
}

/// Distinguishes access tokens of users and of apps, by the claims that only those carry. Agent identities get
/// app-only tokens with the scope `/`, which is not a scope. An app without an assigned role gets a valid token
/// without `roles`, which gives no access.
fn check_type(all: &Map<String, Value>, v2: bool) -> Result<TokenKind, TokenError> {
    let scopes: Vec<String> = match all.get("scp") {
        None => Vec::new(),
        Some(Value::String(scp)) => {
            scp.split(' ').filter(|s| !s.is_empty() && *s != "/").map(str::to_owned).collect()
        }
        Some(_) => return Err(TokenError::Claim("scp")),
    };
    let idtyp = match all.get("idtyp") {
        None => None,
        Some(Value::String(idtyp)) => Some(idtyp.as_str()),
        Some(_) => return Err(TokenError::Claim("idtyp")),
    };
    let credential = all.get(if v2 { "azpacr" } else { "appidacr" });
    let is_confidential = credential.is_none_or(|acr| matches!(acr.as_str(), Some("1" | "2")));
    match (scopes.is_empty(), idtyp) {
        (false, Some("app")) => Err(TokenError::WrongType),
        (false, _) => Ok(TokenKind::Delegated { scopes }),
        (true, Some("app")) => Ok(TokenKind::AppOnly),
        (true, None) if is_confidential => Ok(TokenKind::AppOnly),
        (true, _) => Err(TokenError::WrongType),
    }
}

/// Parses a GUID in Entra's hyphenated form.
fn guid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// A JSON object without duplicate members (RFC 7519 §4 permits rejecting those).
pub(super) struct UniqueMembers(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> de::Visitor<'de> for MembersVisitor {
            type Value = UniqueMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<UniqueMembers, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("duplicate member"));
                    }
                }
                Ok(UniqueMembers(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
