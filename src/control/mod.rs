//! Decisions of administrators and operators, and their effect on every instance.

pub(crate) mod exposure;
pub(crate) mod external_access;
pub(crate) mod health_registry;
pub(crate) mod restrictions;
pub(crate) mod revocation;
pub(crate) mod sign_in;
pub(crate) mod startup_audit;
