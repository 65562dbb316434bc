//! What we ask of a record that Flask wrote: its user, and when that was last seen.
//!
//! Such a record holds whatever SimpleChat put there. msgspec writes times as extension types, numbers
//! beyond JSON's, keys that are no texts: what we do not know is passed over, or read as null.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{
    SessionsError,
    account::Account,
    flask_format::{DEEPEST, from_file},
};

/// The members that we ask for.
const USER: &str = "user";
const LAST_ACTIVITY: &str = "last_activity_epoch";

/// A record of Flask's, as far as we ask.
#[derive(Debug, Default)]
pub(super) struct FlaskRecord {
    user: Option<Value>,
    last_activity: Option<Value>,
}

impl FlaskRecord {
    /// Whose session it is; `None`: nobody's.
    pub(super) fn account(&self) -> Option<Account> {
        self.user.as_ref().filter(|user| !user.is_null()).map(Account::of)
    }

    /// The client app that it was minted for, by the token's claims.
    pub(super) fn client(&self) -> Option<String> {
        let user = self.user.as_ref()?;
        let client = ["azp", "appid"].iter().find_map(|name| user.get(name)?.as_str());
        client.map(str::to_owned)
    }

    /// When its user was last seen, in Unix milliseconds.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and SimpleChat rounds too")]
    pub(super) fn last_seen(&self) -> Option<i64> {
        let epoch = self.last_activity.as_ref()?;
        let whole = epoch.as_i64().map(|seconds| seconds.saturating_mul(1000));
        whole.or_else(|| epoch.as_f64().map(|seconds| (seconds * 1000.0) as i64))
    }

    /// From Redis, msgpack or JSON, as Flask-Session reads both.
    pub(super) fn from_redis(bytes: &[u8]) -> Result<Self, SessionsError> {
        let read = match bytes.first() {
            // Nothing at all is a session in which nobody is signed in.
            None => return Ok(Self::default()),
            Some(b'{') => serde_json::from_slice(bytes).ok(),
            Some(_) => {
                let mut reader = rmp_serde::Deserializer::new(bytes);
                reader.set_max_depth(DEEPEST);
                let read = Self::deserialize(&mut reader).ok();
                read.filter(|_| reader.get_ref().is_empty())
            }
        };
        read.ok_or(SessionsError::Decoding)
    }

    /// From one of cachelib's files; `None`: it has expired. `now` in Unix seconds.
    pub(super) fn from_file(bytes: &[u8], now: i64) -> Result<Option<Self>, SessionsError> {
        let (expires_at, value) = from_file(bytes)?;
        if expires_at != 0 && i64::from(expires_at) <= now {
            return Ok(None);
        }
        let mut members = match value {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(SessionsError::Decoding),
        };
        let mut take = |name| members.remove(name);
        Ok(Some(Self { user: take(USER), last_activity: take(LAST_ACTIVITY) }))
    }
}

impl<'de> Deserialize<'de> for FlaskRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = FlaskRecord;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(FlaskRecord::default())
    }

    /// Of members that come twice the last one counts, as in Python.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut record = FlaskRecord::default();
        while let Some(Plain(name)) = members.next_key()? {
            match name.as_str() {
                Some(USER) => record.user = Some(members.next_value::<Plain>()?.0),
                Some(LAST_ACTIVITY) => {
                    record.last_activity = Some(members.next_value::<Plain>()?.0);
                }
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(record)
    }
}

/// A value with null for whatever JSON cannot say.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<Plain, E> {
        Ok(Plain(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
        Ok(Plain(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Plain, E> {
        Ok(Plain(Value::Null))
    }

    /// One of msgpack's extension types.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Plain, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        let mut list = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Plain(Value::Array(list)))
    }

    /// Members whose names are no texts are left out.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let mut map = Map::new();
        while let Some(Plain(name)) = members.next_key()? {
            let Plain(value) = members.next_value()?;
            if let Value::String(name) = name {
                map.insert(name, value);
            }
        }
        Ok(Plain(Value::Object(map)))
    }
}
