//! Control plane: decisions of administrators and operators, and their effect on every instance.
//!
//! - [`external_access`]: the decision whether the OAuth metadata and the login are served, and the blocks in force.
//!   Reads both from the database twice a second, checks callers against the blocks, and runs the background loops:
//!   heartbeat, retention, size limit. `http` calls it on every login and guarded request; `admin` passes it the
//!   decisions of administrators; `server` spawns its loops.
//! - [`restrictions`]: decisions that take access away (disable, block, end sessions). They take effect even if the
//!   database cannot be written: here at once, on other instances through the session store, and they are recorded
//!   later. Called by `external_access`, `revocation` and the commands `access` and `sessions`.
//! - [`revocation`]: ends sessions on behalf of an administrator or a block, each with its record, and records expired
//!   sessions. Called by `external_access` for blocks, by `admin`, and by the commands.
//! - [`sign_in`]: exchange of an access token for a session: checks, session, activity record. Called by the login
//!   handler in `http`.
//! - [`decisions`]: enable, disable, block, unblock and end all sessions, with their checks. Called by the
//!   administrators' API and pages, and by the command `access`.
//! - [`exposure`]: the text that an administrator accepts before external access is enabled. Called by `admin`, the
//!   command `access` and `startup_audit`.
//! - [`health_registry`]: current failures of background work by component. Written by `external_access`, `canary` and
//!   the reload in `server`; read by the health endpoints and the administrators' pages.
//! - [`startup_audit`]: records the loaded configuration at startup and on reload. Called by `server`.
//!
//! A decision that takes access away: `decisions` creates a [`Restriction`](crate::activity::Restriction);
//! `external_access` applies it on this instance; `restrictions` records it in the database or adds it to the session
//! store; `revocation` ends the sessions that it concerns. A command calls `restrictions` directly: instances read its
//! decision from the database or the session store. A decision that gives access (enable, unblock) is recorded first
//! and takes effect when an instance reads the database.

pub(crate) mod decisions;
pub(crate) mod exposure;
pub(crate) mod external_access;
pub(crate) mod health_registry;
pub(crate) mod restrictions;
pub(crate) mod revocation;
pub(crate) mod sign_in;
pub(crate) mod startup_audit;
