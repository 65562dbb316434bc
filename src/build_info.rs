//! Build information: version, commit, and use of the FIPS module.

/// Version and commit.
#[cfg(not(feature = "fips"))]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");
/// Version, commit and `FIPS`.
#[cfg(feature = "fips")]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ", FIPS)");

/// True if cryptography and TLS use AWS-LC's FIPS module, as reported by the module.
pub(crate) fn is_fips() -> bool {
    aws_lc_rs::try_fips_mode().is_ok() && rustls::crypto::aws_lc_rs::default_provider().fips()
}

/// False if this is a FIPS build and the FIPS module is not in use.
pub(crate) fn is_consistent() -> bool {
    !cfg!(feature = "fips") || is_fips()
}
