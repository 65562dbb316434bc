//! Key documents.

use super::documents::{KeySet, usable};

/// Only RSA keys of a valid size are used, each id once, whatever is published.
pub(crate) fn keys(data: &[u8]) {
    let Ok(KeySet { keys }) = serde_json::from_slice(data) else { return };
    let count = keys.len();
    let mut ids: Vec<String> = usable(keys).into_iter().map(|(id, _)| id).collect();
    assert!(ids.len() <= count);
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}
