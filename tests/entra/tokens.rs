//! Tokens in the shape of Entra's, and in shapes that Entra never issues.
//!
//! Sources: Microsoft identity platform, "Access token claims reference", "Optional claims
//! reference" (`idtyp`, `upn`) and "ID token claims reference" for claims, their names, and the
//! versions and kinds of token that carry them. Order of claims as in the samples in "Access
//! tokens": `aud`, `iss`, `iat`, `nbf`, `exp`, then by name. Headers as in the first source: `x5t`
//! in v1 tokens only.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest::{self, SHA256},
    hmac, rand,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    APP_OID, CLIENT, OTHER_CLIENT, TENANT, USER_OID,
    keys::{self, Key},
};

/// Age of new tokens in seconds.
const AGE: i64 = 60;

/// Subject of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Access token of a user through an app.
    Delegated,
    /// Access token of an app itself.
    AppOnly,
    /// ID token of a user for the app itself.
    Id,
}

/// Algorithm and key of the signature.
#[derive(Clone, Copy)]
enum Signing {
    Rs256,
    Ps256,
    Unpublished,
    Hs256WithPublicKey,
    Unsigned,
}

/// Change to a JSON object; `None` removes the member.
type Edit = (String, Option<Value>);

/// Token builder. The order of calls matters only between [`Self::claim`] and [`Self::without`],
/// which apply after everything else.
#[derive(Clone)]
pub(crate) struct TokenBuilder {
    issuer_v1: String,
    issuer_v2: String,
    key: &'static Key,
    is_v1: bool,
    kind: Kind,
    roles: Option<Vec<String>>,
    scopes: Option<String>,
    oid: Option<String>,
    expires_in: i64,
    claim_edits: Vec<Edit>,
    header_edits: Vec<Edit>,
    signing: Signing,
}

impl TokenBuilder {
    pub(super) fn new(issuer_v1: String, issuer_v2: String, key: &'static Key) -> Self {
        Self {
            issuer_v1,
            issuer_v2,
            key,
            is_v1: false,
            kind: Kind::Delegated,
            roles: None,
            scopes: None,
            oid: None,
            expires_in: 3600,
            claim_edits: Vec::new(),
            header_edits: Vec::new(),
            signing: Signing::Rs256,
        }
    }

    /// Version 1, for `api://CLIENT`: `appid` instead of `azp`, and the v1 user claims.
    pub(crate) fn v1(mut self) -> Self {
        self.is_v1 = true;
        self
    }

    /// Issuers of the v1 and the v2 token.
    pub(crate) fn issued_by(mut self, v1: &str, v2: &str) -> Self {
        (self.issuer_v1, self.issuer_v2) = (v1.to_owned(), v2.to_owned());
        self
    }

    /// App-only token (client credentials) with the role `ExternalApi`.
    pub(crate) fn app_only(mut self) -> Self {
        self.kind = Kind::AppOnly;
        self
    }

    /// ID token for [`CLIENT`]: same issuer, keys, audience and roles, but not an access token.
    pub(crate) fn id_token(mut self) -> Self {
        self.kind = Kind::Id;
        self
    }

    /// App roles; an empty list omits the claim.
    pub(crate) fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = Some(roles.iter().copied().map(str::to_owned).collect());
        self
    }

    /// Scopes, separated by spaces; for any subject.
    pub(crate) fn scopes(mut self, scopes: &str) -> Self {
        self.scopes = Some(scopes.to_owned());
        self
    }

    /// Object id of the user or service principal; `sub` follows it.
    pub(crate) fn oid(mut self, oid: &str) -> Self {
        self.oid = Some(oid.to_owned());
        self
    }

    /// Seconds until expiry. An expired token was issued an hour before its expiry.
    pub(crate) fn expires_in(mut self, seconds: i64) -> Self {
        self.expires_in = seconds;
        self
    }

    /// Sets a claim in place, or appends it.
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claim_edits.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Removes a claim.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claim_edits.push((name.to_owned(), None));
        self
    }

    /// Sets a header parameter; `null` removes it.
    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.header_edits.push((name.to_owned(), (!value.is_null()).then_some(value)));
        self
    }

    /// Sets the key id; the signing key stays the same.
    pub(crate) fn kid(self, kid: &str) -> Self {
        self.header("kid", kid)
    }

    /// Signed with an unpublished key, under the current key's id.
    pub(crate) fn signed_with_unpublished_key(mut self) -> Self {
        self.signing = Signing::Unpublished;
        self
    }

    /// `alg` is `none`, and the signature is empty.
    pub(crate) fn unsigned(mut self) -> Self {
        self.signing = Signing::Unsigned;
        self
    }

    /// `alg` is `HS256`, with the public key's PEM text as secret.
    pub(crate) fn hs256_with_public_key(mut self) -> Self {
        self.signing = Signing::Hs256WithPublicKey;
        self
    }

    /// `alg` is `PS256`, with a matching signature by the current key.
    pub(crate) fn ps256(mut self) -> Self {
        self.signing = Signing::Ps256;
        self
    }

    /// Builds the token. Each has its own `uti`.
    pub(crate) fn build(&self) -> String {
        self.build_with(&Value::Object(self.claims()).to_string())
    }

    /// Builds the token with this text as payload.
    pub(crate) fn build_with(&self, payload: &str) -> String {
        let header = Value::Object(self.jose_header()).to_string();
        let message = [header.as_str(), payload].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = match self.signing {
            Signing::Rs256 => self.key.sign(&RSA_PKCS1_SHA256, message.as_bytes()),
            Signing::Ps256 => self.key.sign(&RSA_PSS_SHA256, message.as_bytes()),
            Signing::Unpublished => keys::unpublished().sign(&RSA_PKCS1_SHA256, message.as_bytes()),
            Signing::Hs256WithPublicKey => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_pem().as_bytes());
                hmac::sign(&secret, message.as_bytes()).as_ref().to_vec()
            }
            Signing::Unsigned => Vec::new(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jose_header(&self) -> Map<String, Value> {
        let alg = match self.signing {
            Signing::Rs256 | Signing::Unpublished => "RS256",
            Signing::Ps256 => "PS256",
            Signing::Hs256WithPublicKey => "HS256",
            Signing::Unsigned => "none",
        };
        let kid = self.key.kid();
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        header.insert("alg".to_owned(), alg.into());
        if self.is_v1 {
            header.insert("x5t".to_owned(), kid.as_str().into());
        }
        header.insert("kid".to_owned(), kid.into());
        edit(&mut header, &self.header_edits);
        header
    }

    /// The claims as signed.
    pub(crate) fn claims(&self) -> Map<String, Value> {
        let exp = now() + self.expires_in;
        let iat = if self.expires_in > 0 { now() - AGE } else { exp - 3600 };
        let has_client_id_audience = !self.is_v1 || self.kind == Kind::Id;
        let aud = if has_client_id_audience { CLIENT.into() } else { format!("api://{CLIENT}") };
        let iss = if self.is_v1 { &self.issuer_v1 } else { &self.issuer_v2 };
        let first = [
            ("aud", json!(aud)),
            ("iss", json!(iss)),
            ("iat", json!(iat)),
            ("nbf", json!(iat)),
            ("exp", json!(exp)),
        ];

        let is_app_only = self.kind == Kind::AppOnly;
        let oid = self.oid.as_deref().unwrap_or(if is_app_only { APP_OID } else { USER_OID });
        let mut rest = BTreeMap::from([
            ("aio", json!("ATQAy/8TAAAA0TFVm7dWm2Yq4o3cR1sJ8kLwXzGgPqH5nB6vE+tUuCaDfI9jMhOl")),
            ("oid", json!(oid)),
            ("rh", json!("1.AAAAqrvMAAAAzBERERHd3SIi7u4RERERqqqqIiK7u7szM8zMREQAAA.")),
            ("sub", json!(if is_app_only { oid.to_owned() } else { pairwise(oid) })),
            ("tid", json!(TENANT)),
            ("uti", json!(unique())),
            ("ver", json!(if self.is_v1 { "1.0" } else { "2.0" })),
        ]);
        match self.kind {
            Kind::Delegated => {
                rest.extend(self.user_claims());
                rest.insert("scp", json!("access_as_user"));
            }
            Kind::AppOnly => {
                rest.insert("idtyp", json!("app"));
                if self.is_v1 {
                    rest.insert("idp", json!(iss));
                }
            }
            Kind::Id => {
                rest.extend(self.user_claims());
                rest.insert("nonce", json!("678910"));
            }
        }
        if self.kind != Kind::Id {
            let [client, credential] =
                if self.is_v1 { ["appid", "appidacr"] } else { ["azp", "azpacr"] };
            rest.insert(client, json!(OTHER_CLIENT));
            rest.insert(credential, json!("1"));
        }
        let roles = match (&self.roles, self.kind) {
            (Some(roles), _) => json!(roles),
            (None, Kind::AppOnly) => json!(["ExternalApi"]),
            (None, _) => json!(["User", "ExternalApi"]),
        };
        if roles != json!([]) {
            rest.insert("roles", roles);
        }
        if let Some(scopes) = &self.scopes {
            rest.insert("scp", json!(scopes));
        }

        let named = |(name, value): (&str, Value)| (name.to_owned(), value);
        let mut claims: Map<String, Value> = first.into_iter().chain(rest).map(named).collect();
        edit(&mut claims, &self.claim_edits);
        claims
    }

    /// Default claims about a user.
    fn user_claims(&self) -> Vec<(&'static str, Value)> {
        let name = ("name", json!("Ada Example"));
        let username = json!("ada@contoso.example");
        if self.is_v1 {
            vec![
                name,
                ("acr", json!("1")),
                ("amr", json!(["pwd", "mfa"])),
                ("family_name", json!("Example")),
                ("given_name", json!("Ada")),
                ("ipaddr", json!("192.0.2.7")),
                ("unique_name", username.clone()),
                ("upn", username),
            ]
        } else {
            vec![name, ("preferred_username", username)]
        }
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "tokens are made now")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(since.as_secs()).expect("seconds fit into i64")
}

/// A user's `sub`: opaque, stable, different for each user and app.
fn pairwise(oid: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&SHA256, format!("{oid} at {CLIENT}").as_bytes()))
}

/// A token's `uti`: 16 random bytes.
fn unique() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn edit(object: &mut Map<String, Value>, edits: &[Edit]) {
    for (name, value) in edits {
        match value {
            Some(value) => object.insert(name.clone(), value.clone()),
            // The remaining members stay in order.
            None => object.shift_remove(name),
        };
    }
}

/// See [`super::Entra::every_malformed_kind`]; `good` is the base of all tokens.
pub(super) fn every_malformed_kind(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    let mut kinds = Vec::new();
    kinds.extend(of_another_time_or_place(good));
    kinds.extend(with_a_claim_missing(good));
    kinds.extend(with_a_claim_of_another_type(good));
    kinds.extend(with_another_header_or_signature(good));
    kinds.extend(of_another_type(good));
    kinds.extend(of_another_form(good));
    kinds
}

fn of_another_time_or_place(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    const ELSEWHERE: &str = "22223333-cccc-4444-dddd-5555eeee6666";
    let v1 = good.clone().v1();
    let later = now() + 1800;
    let with = |name: &str, value: &str| good.clone().claim(name, value).build();
    vec![
        ("expired", good.clone().expires_in(-3600).build()),
        ("expired, v1", v1.clone().expires_in(-3600).build()),
        ("not yet valid", good.clone().claim("nbf", later).build()),
        ("issued in the future", good.clone().claim("iat", later).build()),
        ("for another audience", with("aud", OTHER_CLIENT)),
        (
            "for another audience, v1",
            v1.clone().claim("aud", "https://graph.microsoft.com").build(),
        ),
        ("for the audience of v1, but v2", with("aud", &format!("api://{CLIENT}"))),
        ("of another issuer", with("iss", &good.issuer_v2.replace(TENANT, ELSEWHERE))),
        ("of another issuer, v1", v1.clone().claim("iss", "https://sts.example/").build()),
        ("of an issuer but for a slash", with("iss", &format!("{}/", good.issuer_v2))),
        ("of the v1 issuer, but v2", with("iss", &good.issuer_v1)),
        ("of the v2 issuer, but v1", v1.claim("iss", good.issuer_v2.as_str()).build()),
        ("of another tenant", with("tid", ELSEWHERE)),
        ("of an unknown version", with("ver", "3.0")),
    ]
}

fn with_a_claim_missing(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    let without = |name| good.clone().without(name).build();
    vec![
        ("without exp", without("exp")),
        ("without nbf", without("nbf")),
        ("without iat", without("iat")),
        ("without iss", without("iss")),
        ("without aud", without("aud")),
        ("without tid", without("tid")),
        ("without oid", without("oid")),
        ("without ver", without("ver")),
        ("without azp", without("azp")),
        ("without appid, v1", good.clone().v1().without("appid").build()),
    ]
}

fn with_a_claim_of_another_type(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    let with = |name: &str, value: Value| good.clone().claim(name, value).build();
    vec![
        ("exp is text", with("exp", json!((now() + 3600).to_string()))),
        ("exp is null", with("exp", Value::Null)),
        ("nbf is text", with("nbf", json!((now() - AGE).to_string()))),
        ("iat is text", with("iat", json!((now() - AGE).to_string()))),
        ("aud is a list", with("aud", json!([CLIENT]))),
        ("iss is a list", with("iss", json!([good.issuer_v2]))),
        ("tid is a list", with("tid", json!([TENANT]))),
        ("oid is no GUID", with("oid", json!("ada"))),
        ("oid is empty", with("oid", json!(""))),
        ("azp is no GUID", with("azp", json!("simplechat"))),
        ("scp is a list", with("scp", json!(["access_as_user"]))),
        ("ver is a number", with("ver", json!(2.0))),
        ("idtyp is a list", with("idtyp", json!(["user"]))),
    ]
}

fn with_another_header_or_signature(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    let with = |name: &str, value: Value| good.clone().header(name, value).build();
    let unpublished = || good.clone().signed_with_unpublished_key();
    vec![
        ("without a key id", with("kid", Value::Null)),
        ("with an empty key id", with("kid", json!(""))),
        ("with an unknown key id", with("kid", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAA"))),
        ("with a critical parameter", with("crit", json!(["exp"]))),
        ("with an unencoded payload", {
            good.clone().header("crit", json!(["b64"])).header("b64", false).build()
        }),
        ("compressed", with("zip", json!("DEF"))),
        ("of the type of a DPoP proof", with("typ", json!("dpop+jwt"))),
        ("alg is none", good.clone().unsigned().build()),
        ("alg is None", good.clone().unsigned().header("alg", "None").build()),
        ("alg is missing", with("alg", Value::Null)),
        ("alg is HS256, with the public key", good.clone().hs256_with_public_key().build()),
        ("alg is PS256", good.clone().ps256().build()),
        ("alg is RS384, signed with RS256", with("alg", json!("RS384"))),
        ("signed with PS256, alg is RS256", good.clone().ps256().header("alg", "RS256").build()),
        ("RS256, but unsigned", good.clone().unsigned().header("alg", "RS256").build()),
        ("signed with an unpublished key", unpublished().build()),
        ("signed with an unpublished key sent along", {
            unpublished().header("jwk", keys::unpublished().jwk(None)).build()
        }),
    ]
}

fn of_another_type(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    let app_only = || good.clone().app_only();
    vec![
        ("an ID token", good.clone().id_token().build()),
        ("an ID token, v1", good.clone().v1().id_token().build()),
        ("an ID token without roles", good.clone().id_token().roles(&[]).build()),
        ("app-only with a scope", app_only().scopes("access_as_user").build()),
        ("the scope / of a user", app_only().scopes("/").claim("idtyp", "user").build()),
        ("of a user without a scope", app_only().claim("idtyp", "user").build()),
        ("a public client on its own", {
            app_only().without("idtyp").claim("azpacr", "0").build()
        }),
    ]
}

fn of_another_form(good: &TokenBuilder) -> Vec<(&'static str, String)> {
    // A token whose signature differs between base64 and base64url.
    let token = std::iter::repeat_with(|| good.build())
        .find(|token| token.rsplit('.').next().is_some_and(|part| part.contains(['-', '_'])))
        .expect("39,999 of 40,000 tokens match");
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { unreachable!("a token has three parts") };
    let promoted = Value::Object(good.clone().roles(&["Admin"]).claims()).to_string();
    let promoted = URL_SAFE_NO_PAD.encode(promoted);
    let claims = Value::Object(good.claims()).to_string();
    let twice = claims.replacen('{', r#"{"roles":["Admin"],"#, 1);
    vec![
        ("with another payload", format!("{header}.{promoted}.{signature}")),
        ("with a shorter signature", format!("{header}.{payload}.{}", &signature[4..])),
        ("with the start of a signature", format!("{header}.{payload}.{}", &signature[..338])),
        ("without a signature", format!("{header}.{payload}.")),
        ("without a third part", format!("{header}.{payload}")),
        // Only here does padding form a valid `b64token` (RFC 6750 §2.1).
        ("with padding", format!("{token}==")),
        ("in base64 instead of base64url", {
            format!("{header}.{payload}.{}", signature.replace('-', "+").replace('_', "/"))
        }),
        ("a claim occurs twice", good.build_with(&twice)),
        ("the claims are a list", good.build_with(&format!("[{claims}]"))),
        ("the claims are no JSON", good.build_with("claims")),
        ("with something behind the claims", good.build_with(&format!("{claims}{{}}"))),
        ("no token", "a.b.c".to_owned()),
        ("one word", "token".to_owned()),
        ("five parts", format!("{header}.{payload}.{signature}.{payload}.{signature}")),
    ]
}
