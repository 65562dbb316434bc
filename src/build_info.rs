//! Which build this is: version, commit, and whether its cryptography is the FIPS module.

/// Version and commit.
#[cfg(not(feature = "fips"))]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");
/// Version and commit, and that this build has the FIPS module.
#[cfg(feature = "fips")]
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ", FIPS)");

/// Whether cryptography and TLS are done by AWS-LC's FIPS module, as the module itself says.
pub(crate) fn is_fips() -> bool {
    aws_lc_rs::try_fips_mode().is_ok() && rustls::crypto::aws_lc_rs::default_provider().fips()
}

/// Whether a build that promises the FIPS module has it; any other promises nothing.
pub(crate) fn is_as_promised() -> bool {
    !cfg!(feature = "fips") || is_fips()
}
