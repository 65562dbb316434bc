//! Certificates for servers on this host.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// A CA (`ca.pem`) and its certificate for `localhost` only (`server.pem`, `server.key`).
pub(crate) fn certificates() -> TempDir {
    certificates_until(4096)
}

/// The same files with an expired certificate.
pub(crate) fn expired_certificates() -> TempDir {
    certificates_until(2001)
}

fn certificates_until(year: i32) -> TempDir {
    let folder = tempfile::tempdir().expect("a certificate");
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("a certificate");
    };
    let mut authority = CertificateParams::default();
    let name = folder.path().display().to_string();
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a certificate"))
            .expect("a certificate");
    let key = KeyPair::generate().expect("a certificate");
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a certificate");
    server.not_after = rcgen::date_time_ymd(year, 1, 1);
    write("server.pem", server.signed_by(&key, &authority).expect("a certificate").pem());
    write("server.key", key.serialize_pem());
    write("ca.pem", authority.pem());
    folder
}
