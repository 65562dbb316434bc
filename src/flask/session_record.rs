//! User and last activity of a session record that Flask wrote.
//!
//! SimpleChat may store any value there. msgspec writes times as extension types, numbers beyond JSON's, and keys that
//! are not strings: unknown values are skipped, or read as null.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{
    FormatError,
    account::Account,
    session_codec::{MAX_DEPTH, from_file},
};

/// Members that are read.
const USER: &str = "user";
const LAST_ACTIVITY: &str = "last_activity_epoch";

/// The members of a record that the gateway reads.
#[derive(Default)]
pub(crate) struct FlaskRecord {
    user: Option<Value>,
    last_activity: Option<Value>,
}

impl FlaskRecord {
    /// Account of the session's user; `None` when there is none.
    pub(crate) fn account(&self) -> Option<Account> {
        self.user.as_ref().filter(|user| !user.is_null()).map(Account::of)
    }

    /// Client app of a minted session, from the token's claims.
    pub(crate) fn client(&self) -> Option<String> {
        let user = self.user.as_ref()?;
        let client = ["azp", "appid"].iter().find_map(|name| user.get(name)?.as_str());
        client.map(str::to_owned)
    }

    /// Time of the last activity, in Unix milliseconds.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and SimpleChat rounds too")]
    pub(crate) fn last_activity(&self) -> Option<i64> {
        let epoch = self.last_activity.as_ref()?;
        let whole = epoch.as_i64().map(|seconds| seconds.saturating_mul(1000));
        whole.or_else(|| epoch.as_f64().map(|seconds| (seconds * 1000.0) as i64))
    }

    /// Decodes a value of Redis.
    pub(crate) fn from_redis(bytes: &[u8]) -> Result<Self, FormatError> {
        // An empty value is a session without a user.
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = rmp_serde::Deserializer::new(bytes);
        reader.set_max_depth(MAX_DEPTH);
        let read = Self::deserialize(&mut reader).ok();
        read.filter(|_| reader.get_ref().is_empty()).ok_or(FormatError::Decoding)
    }

    /// Decodes one of cachelib's files; `None` when it has expired. `now` in Unix seconds.
    pub(crate) fn from_file(bytes: &[u8], now: i64) -> Result<Option<Self>, FormatError> {
        let (expires_at, value) = from_file(bytes)?;
        if expires_at != 0 && i64::from(expires_at) <= now {
            return Ok(None);
        }
        let mut members = match value {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(FormatError::Decoding),
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

    /// Of repeated members the last one applies, as in Python.
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

/// A value with null for everything that JSON cannot represent.
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

    /// Members whose names are not strings are dropped.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of Flask-Session 0.8.0's encoder (msgspec 0.22.0) for a session with times of 4, 8 and 12 bytes, bytes,
    /// the largest number, infinity, a number as a key, and a flashed message.
    const MSGPACK: &[u8] = b"\x8b\xaa_permanent\xc3\xa4user\x86\xa3oid\xd9$a1b2c3d4-0000-4000-8000-000000000001\xa4name\xa4Zo\xc3\xab\xb2preferred_username\xafzoe@example.org\xa5roles\x92\xa4User\xa5Admin\xa4seen\xd6\xffk\x08;`\xa3iat\xcek\x03W\xd0\xb3last_activity_epoch\xcek\x03e\xe0\xa4when\xd6\xffk\x08;`\xa4fine\xd7\xff\x00\x00N k\x08;`\xa4late\xc7\x0c\xff\x00\x00\x00\x00\x00\x00\x00:\xfe\x13\x0e\x00\xa3raw\xc4\x02\x00\xff\xa3max\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa3inf\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\x07\xa5seven\xa8_flashes\x91\x92\xa7message\xa2hi";
    const JSON: &[u8] = b"{\"_permanent\":true,\"user\":{\"oid\":\"a1b2c3d4-0000-4000-8000-000000000001\",\"name\":\"Zo\xc3\xab\",\"preferred_username\":\"zoe@example.org\",\"roles\":[\"User\",\"Admin\"],\"seen\":\"2026-11-26T14:00:00Z\",\"iat\":1795381200},\"last_activity_epoch\":1795384800,\"when\":\"2026-11-26T14:00:00Z\",\"fine\":\"2026-11-26T14:00:00.000005Z\",\"late\":\"9999-01-01T00:00:00Z\",\"raw\":\"AP8=\",\"max\":18446744073709551615,\"inf\":null,\"7\":\"seven\",\"_flashes\":[[\"message\",\"hi\"]]}";
    /// File of cachelib 0.17.0: a session with a time in it, which expires at 1798063478.
    const FILE: &[u8] = b"vE,k\x80\x05\x95\xcc\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\n_permanent\x94\x88\x8c\x04user\x94}\x94(\x8c\x03oid\x94\x8c$a1b2c3d4-0000-4000-8000-000000000001\x94\x8c\x04name\x94\x8c\x01Z\x94\x8c\x05email\x94\x8c\x0dz@example.org\x94\x8c\x05roles\x94]\x94\x8c\x05Admin\x94au\x8c\x13last_activity_epoch\x94J\xe0e\x03k\x8c\x04when\x94\x8c\x08datetime\x94\x8c\x08datetime\x94\x93\x94C\n\x07\xea\x0b\x1a\x00\x00\x00\x00\x00\x00\x94\x85\x94R\x94u.";

    fn zoe() -> Account {
        let user = serde_json::json!({"oid": "a1b2c3d4-0000-4000-8000-000000000001", "name": "Zoë",
            "preferred_username": "zoe@example.org", "roles": ["User", "Admin"]});
        Account::of(&user)
    }

    fn of_roles(roles: &[u8]) -> Account {
        let session = [b"\x81\xa4user\x81\xa5roles".as_slice(), roles].concat();
        FlaskRecord::from_redis(&session).unwrap().account().unwrap()
    }

    #[test]
    fn sessions_with_times_and_other_python_types_are_read_from_redis() {
        let record = FlaskRecord::from_redis(MSGPACK).unwrap();
        assert_eq!(record.account(), Some(zoe()));
        assert_eq!(record.last_activity(), Some(1_795_384_800_000));
        let zoe = zoe();
        assert_eq!(zoe.oid.unwrap().to_string(), "a1b2c3d4-0000-4000-8000-000000000001");
        let (name, email) = (zoe.name.as_deref(), zoe.email.as_deref());
        assert_eq!((name, email), (Some("Zoë"), Some("zoe@example.org")));
        assert!(zoe.is_admin());
    }

    #[test]
    fn a_session_is_read_from_a_file_until_it_expires() {
        let expires_at = i64::from(u32::from_ne_bytes(*FILE.first_chunk().unwrap()));
        let record = FlaskRecord::from_file(FILE, expires_at - 1).unwrap().unwrap();
        let account = record.account().unwrap();
        assert!(account.is_admin());
        let (name, email) = (account.name.as_deref(), account.email.as_deref());
        assert_eq!((name, email), (Some("Z"), Some("z@example.org")));
        assert_eq!(record.last_activity(), Some(1_795_384_800_000));
        assert!(FlaskRecord::from_file(FILE, expires_at).unwrap().is_none());
        let never = [&[0; 4], &FILE[4..]].concat();
        assert!(FlaskRecord::from_file(&never, i64::MAX).unwrap().is_some());
    }

    #[test]
    fn an_admin_has_a_list_of_roles_that_holds_exactly_admin() {
        for admin in [
            b"\x91\xa5Admin".as_slice(),
            b"\x92\xa4User\xa5Admin",
            // Beside a number, a time, bytes, and another list.
            b"\x95\x07\xd6\xff\x00\x00\x00\x00\xc4\x01a\x91\xa1b\xa5Admin",
        ] {
            assert!(of_roles(admin).is_admin(), "{}", admin.escape_ascii());
        }
        for other in [
            b"\xa5Admin".as_slice(),
            b"\x91\xa5admin",
            b"\x91\xa6Admin ",
            b"\x91\xadFeedbackAdmin",
            b"\x91\x91\xa5Admin",
            b"\x91\xc4\x05Admin",
            b"\xc4\x05Admin",
            b"\x81\xa5Admin\xc3",
            b"\x81\x00\xa5Admin",
            b"\x90",
            b"\xc0",
            b"\xc3",
        ] {
            assert!(!of_roles(other).is_admin(), "{}", other.escape_ascii());
        }
        assert!(!of_roles(b"\x90").is_admin());
    }

    #[test]
    fn records_without_a_user_have_no_account() {
        for stored in [
            b"".as_slice(),
            b"\x80",
            b"\xc0",
            b"\x81\xaa_permanent\xc3",
            b"\x81\xa4user\xc0",
            // Bytes and numbers are not names of members.
            b"\x81\xc4\x04user\x81\xa5roles\x91\xa5Admin",
            b"\x81\x00\x81\xa5roles\x91\xa5Admin",
        ] {
            let record = FlaskRecord::from_redis(stored).unwrap();
            assert_eq!(record.account(), None, "{}", stored.escape_ascii());
            assert_eq!(record.last_activity(), None);
        }
        // pickle.dumps({"_permanent": True}, 5)
        let file =
            b"\0\0\0\0\x80\x05\x95\x12\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\n_permanent\x94\x88s.";
        assert_eq!(FlaskRecord::from_file(file, 0).unwrap().unwrap().account(), None);
        // A user without any claim.
        let odd = FlaskRecord::from_redis(b"\x81\xa4user\xa3abc").unwrap().account().unwrap();
        assert_eq!((odd.oid, &odd.name, odd.is_admin()), (None, &None, false));
    }

    #[test]
    fn of_repeated_members_the_last_one_applies() {
        let twice = b"\x82\xa4user\x81\xa5roles\x91\xa5Admin\xa4user\x82\xa5roles\x91\xa5Admin\xa5roles\x90";
        let account = FlaskRecord::from_redis(twice).unwrap().account().unwrap();
        assert!(!account.is_admin());
    }

    #[test]
    fn malformed_records_are_errors_and_not_missing_users() {
        let is_refused =
            |stored: &[u8]| matches!(FlaskRecord::from_redis(stored), Err(FormatError::Decoding));
        let nested =
            |levels: usize| [b"\x81\xa1x".as_slice(), &vec![0x91; levels], b"\xc0"].concat();
        assert!(!is_refused(&nested(50)));
        for odd in [
            b"\x93\x01\x02\x03".as_slice(),
            b"\x80\xc0",
            b"\x82\xa4user\xc0",
            b"\x81\xa4user\xd9\xff",
            b"\xc1",
            b"\x07",
            b"{}",
            b"{\"user\":",
            b"[]",
            // Flask-Session's JSON serialization is not supported.
            JSON,
            &nested(5000),
            &MSGPACK[..MSGPACK.len() - 1],
        ] {
            assert!(is_refused(odd), "{}", odd.escape_ascii());
        }
        for odd in [b"\0\0\0".as_slice(), b"\0\0\0\0", b"\0\0\0\0].", &FILE[..FILE.len() - 1]] {
            assert!(matches!(FlaskRecord::from_file(odd, 0), Err(FormatError::Decoding)));
        }
    }

    #[test]
    fn the_last_activity_may_be_any_number() {
        let of = |stored: &[u8]| FlaskRecord::from_redis(stored).unwrap().last_activity();
        let name = b"\x81\xb3last_activity_epoch".as_slice();
        assert_eq!(of(&[name, b"\xcb\x40\x00\x00\x00\x00\x00\x00\x00"].concat()), Some(2000));
        assert_eq!(of(&[name, b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"].concat()), Some(i64::MAX));
        assert_eq!(of(&[name, b"\xa1x"].concat()), None);
        assert_eq!(of(&[name, b"\xc0"].concat()), None);
    }
}
