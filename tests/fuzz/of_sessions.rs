//! Content of the session store, which is untrusted: upstream and everything else with write access
//! can put it there.

use serde_json::Value;

use super::{pickle, session_record::FlaskRecord};

/// Nesting depth of a value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Values in Redis: msgpack.
pub(crate) fn stored(data: &[u8]) {
    if let Ok(record) = FlaskRecord::from_redis(data) {
        let _ = (record.account(), record.client(), record.last_activity());
    }
}

/// Files of cachelib: a pickle behind an expiry.
pub(crate) fn pickle(data: &[u8]) {
    let _ = FlaskRecord::from_file(data, 0).map(|record| record.map(|record| record.account()));
    if let Some(value) = pickle::read(data, 64) {
        assert!(depth(&value) <= 64);
    }
}
