//! JSON API below `/gateway/api`.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod blocks;
pub(crate) mod call;
pub(crate) mod cause;
pub(crate) mod guide;
pub(crate) mod health;
pub(crate) mod sessions;
