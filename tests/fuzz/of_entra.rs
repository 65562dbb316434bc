//! Key documents.

use super::documents::{KeySet, usable};

/// Whatever is published, only RSA keys of a sound size count, each id once.
pub(crate) fn keys(data: &[u8]) {
    let Ok(KeySet { keys }) = serde_json::from_slice(data) else { return };
    let count = keys.len();
    let mut ids: Vec<String> = usable(keys).into_iter().map(|(id, _)| id).collect();
    assert!(ids.len() <= count);
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}
