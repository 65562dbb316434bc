//! TLS client configuration for Redis, upstream and exporters: rustls with AWS-LC, the system's root certificates
//! and those of the operator. reqwest for Entra's documents has its own configuration from the same crates.

use std::{fmt, fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Builds a configuration that trusts the system's root certificates and those in `ca_file` (PEM).
///
/// # Errors
/// When there is no root certificate, or `ca_file` cannot be read.
pub(crate) fn client(ca_file: Option<&Path>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unreadable =
            |error: &dyn fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        let bytes = fs::read(path).map_err(|error| unreadable(&error))?;
        // A byte order mark would hide the first certificate.
        let pem = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"holds no PEM certificate"));
        }
    }
    if roots.is_empty() {
        return Err(io::Error::other("this system has no trusted root certificates"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
