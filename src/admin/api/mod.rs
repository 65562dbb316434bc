//! JSON twins of the pages, under `/gateway/api/`.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod blocks;
pub(crate) mod call;
pub(crate) mod guide;
pub(crate) mod health;
pub(crate) mod sessions;
