//! Signing keys: generated once per process, published in the shape of Entra's key documents.

use std::sync::OnceLock;

use aws_lc_rs::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY},
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RsaEncoding},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{CertificateParams, DnType};
use serde_json::{Value, json};

/// Maximum number of published keys.
const PUBLISHABLE: usize = 3;

/// Generated on first use, because generation is slow; the last key is never published.
static KEYS: [OnceLock<Key>; PUBLISHABLE + 1] = [const { OnceLock::new() }; PUBLISHABLE + 1];

fn nth(index: usize) -> &'static Key {
    KEYS[index].get_or_init(Key::generate)
}

/// A key that the key documents do not hold.
pub(super) fn unpublished() -> &'static Key {
    nth(PUBLISHABLE)
}

/// An RSA key of 2048 bits with its certificate.
pub(super) struct Key {
    pair: KeyPair,
    certificate: Vec<u8>,
}

impl Key {
    fn generate() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("the system has randomness");
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("a key has an encoding");
        let certified = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
            &pkcs8.as_ref().into(),
            &rcgen::PKCS_RSA_SHA256,
        )
        .expect("rcgen reads what aws-lc-rs wrote");
        // Entra's certificates have no other field either.
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "accounts.accesscontrol.windows.net");
        let certificate = params.self_signed(&certified).expect("valid parameters");
        Self { pair, certificate: certificate.der().to_vec() }
    }

    /// Key id: the certificate's SHA-1 thumbprint (`x5t`, RFC 7517 §4.8), as in Entra.
    pub(super) fn kid(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.certificate))
    }

    /// The key as Entra publishes it: without `alg`; with `issuer` in the v2 document.
    pub(super) fn jwk(&self, issuer: Option<&str>) -> Value {
        let [modulus, exponent] = self.modulus_and_exponent();
        let kid = self.kid();
        let mut jwk = json!({
            "kty": "RSA",
            "use": "sig",
            "kid": kid,
            "x5t": kid,
            "n": URL_SAFE_NO_PAD.encode(modulus),
            "e": URL_SAFE_NO_PAD.encode(exponent),
            "x5c": [STANDARD.encode(&self.certificate)],
        });
        if let Some(issuer) = issuer {
            jwk["issuer"] = issuer.into();
        }
        jwk
    }

    /// The public key in PEM. Some verifiers have taken this text for an HMAC secret.
    pub(super) fn public_pem(&self) -> String {
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(self.pair.public_key())
            .expect("a key has an encoding");
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in STANDARD.encode(der.as_ref()).as_bytes().chunks(64) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem + "-----END PUBLIC KEY-----\n"
    }

    pub(super) fn sign(&self, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(padding, &SystemRandom::new(), message, &mut signature)
            .expect("a generated key signs");
        signature
    }

    /// Parses `RSAPublicKey` (RFC 8017 §A.1.1): `SEQUENCE { INTEGER n, INTEGER e }`. For 2048 bits
    /// every length is known.
    fn modulus_and_exponent(&self) -> [&[u8]; 2] {
        let der = self.pair.public_key().as_ref();
        let head = [0x30, 0x82, 0x01, 0x0A, 0x02, 0x82, 0x01, 0x01, 0x00];
        assert!(der.len() == 270 && der.starts_with(&head), "2048 bits and the exponent 65537");
        [&der[9..265], &der[267..]]
    }
}

/// Published keys and the key that signs.
#[derive(Default)]
pub(super) struct Keyring {
    current: usize,
    old: Vec<usize>,
    /// Published in the app's own documents only.
    of_app: Vec<usize>,
    is_app_withdrawn: bool,
    raw: Vec<Value>,
}

impl Keyring {
    pub(super) fn signing(&self) -> &'static Key {
        nth(self.current)
    }

    pub(super) fn rotate(&mut self) {
        self.old.push(self.current);
        self.current = (self.current + 1) % PUBLISHABLE;
        assert!(!self.old.contains(&self.current), "three keys are published: withdraw_old first");
    }

    pub(super) fn rotate_for_app(&mut self) {
        self.rotate();
        self.of_app.push(self.current);
    }

    pub(super) fn withdraw_of_app(&mut self) {
        self.is_app_withdrawn = true;
    }

    pub(super) fn withdraw_old(&mut self) {
        self.old.clear();
        self.raw.clear();
    }

    pub(super) fn publish_raw(&mut self, jwk: Value) {
        self.raw.push(jwk);
    }

    /// The tenant's keys; with `is_of_app` the app's keys as well.
    pub(super) fn jwks(&self, issuer: Option<&str>, is_of_app: bool) -> Vec<Value> {
        let has_app_keys = is_of_app && !self.is_app_withdrawn;
        let is_published = |index: &&usize| has_app_keys || !self.of_app.contains(index);
        let ours = self.old.iter().chain([&self.current]).filter(is_published);
        let ours = ours.map(|index| nth(*index).jwk(issuer));
        ours.chain(self.raw.iter().cloned()).collect()
    }
}
