//! Authorization: the caller's identity, address and public origin, and the caller's permissions.
//!
//! Pure: no I/O and no HTTP types. Time, keys and header values are arguments, and each type is made only
//! from the one before it: [`token::BearerToken`] → [`token::Claims`] → [`policy::Grant`]
//! → [`session::SessionRecord`] → [`session::SessionId`].

pub(crate) mod admin;
pub(crate) mod client_info;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_access.rs"]
pub(crate) mod fuzzing;
pub(crate) mod policy;
pub(crate) mod session;
pub(crate) mod token;
