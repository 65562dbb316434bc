//! Certificates for servers of this host.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority (`ca.pem`), and a certificate of it for `localhost` alone (`server.pem`, `server.key`).
pub(crate) fn certificates() -> TempDir {
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
    let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a certificate");
    write("server.pem", server.signed_by(&key, &authority).expect("a certificate").pem());
    write("server.key", key.serialize_pem());
    write("ca.pem", authority.pem());
    folder
}
