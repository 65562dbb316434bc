//! Decides: who the caller is, which way they came, what they may do.
//!
//! Nothing here does I/O or knows HTTP. Time, keys and header values are arguments, and each type is
//! made only from the one before it: [`token::BearerToken`] → [`token::Claims`] → [`policy::Grant`]
//! → [`session::SessionRecord`] → [`session::SessionId`].

pub(crate) mod admin;
pub(crate) mod client_info;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_access.rs"]
pub(crate) mod fuzzing;
pub(crate) mod policy;
pub(crate) mod session;
pub(crate) mod token;
