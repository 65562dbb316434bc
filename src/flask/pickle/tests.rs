//! Unit tests of the parent module.

use serde_json::json;

use super::*;

/// A session with many Python types, in protocols 2, 3 and 5: aware and naive times, a UUID, a
/// decimal, an `OrderedDict`, a `defaultdict`, one list in two places, sets, bytes, infinity, whole numbers
/// of any size, a number as a key, half a surrogate pair, a complex number.
const WITH_OBJECTS: [&[u8]; 3] = [
        b"\x80\x02}q\x00(X\n\x00\x00\x00_permanentq\x01\x88X\x04\x00\x00\x00userq\x02}q\x03(X\x03\x00\x00\x00oidq\x04X$\x00\x00\x00a1b2c3d4-0000-4000-8000-000000000001q\x05X\x04\x00\x00\x00nameq\x06X\x04\x00\x00\x00Zo\xc3\xabq\x07X\x12\x00\x00\x00preferred_usernameq\x08X\x0f\x00\x00\x00zoe@example.orgq\x09X\x05\x00\x00\x00rolesq\n]q\x0b(X\x04\x00\x00\x00Userq\x0cX\x05\x00\x00\x00Adminq\x0deuX\x0b\x00\x00\x00token_cacheq\x0eX\x02\x00\x00\x00{}q\x0fX\x13\x00\x00\x00last_activity_epochq\x10J\xe0e\x03kX\x08\x00\x00\x00_flashesq\x11]q\x12X\x07\x00\x00\x00messageq\x13X\x02\x00\x00\x00hiq\x14\x86q\x15aX\x04\x00\x00\x00whenq\x16cdatetime\ndatetime\nq\x17c_codecs\nencode\nq\x18X\x0b\x00\x00\x00\x07\xc3\xaa\x0b\x1a\x0e\x00\x00\x00\x00\x00q\x19X\x06\x00\x00\x00latin1q\x1a\x86q\x1bRq\x1ccdatetime\ntimezone\nq\x1dcdatetime\ntimedelta\nq\x1eK\x00K\x00K\x00\x87q\x1fRq \x85q!Rq\"\x86q#Rq$X\x05\x00\x00\x00naiveq%h\x17h\x18X\x0b\x00\x00\x00\x07\xc3\xaa\x0b\x1a\x00\x00\x00\x00\x00\x00q&h\x1a\x86q'Rq(\x85q)Rq*X\x02\x00\x00\x00idq+cuuid\nUUID\nq,)\x81q-}q.X\x03\x00\x00\x00intq/K\x07sbX\x05\x00\x00\x00priceq0cdecimal\nDecimal\nq1X\x03\x00\x00\x001.5q2\x85q3Rq4X\x07\x00\x00\x00orderedq5ccollections\nOrderedDict\nq6)Rq7X\x01\x00\x00\x00aq8K\x01sX\x07\x00\x00\x00countedq9ccollections\ndefaultdict\nq:c__builtin__\nlist\nq;\x85q<Rq=h8]q>K\x01asX\x04\x00\x00\x00sameq?h\x0bX\x03\x00\x00\x00setq@c__builtin__\nset\nqA]qBX\x01\x00\x00\x00xqCa\x85qDRqEX\x06\x00\x00\x00frozenqFc__builtin__\nfrozenset\nqG]qHhCa\x85qIRqJX\x03\x00\x00\x00rawqKh\x18X\x03\x00\x00\x00\x00\xc3\xbfqLh\x1a\x86qMRqNX\x06\x00\x00\x00bufferqOc__builtin__\nbytearray\nqPh\x18X\x02\x00\x00\x00abqQh\x1a\x86qRRqS\x85qTRqUX\x03\x00\x00\x00infqVG\x7f\xf0\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00nanqWG\x7f\xf8\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00bigqX\x8a\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01X\x05\x00\x00\x00smallqY\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0X\x03\x00\x00\x00maxqZ\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00K\x07X\x05\x00\x00\x00sevenq[X\x04\x00\x00\x00halfq\\X\x03\x00\x00\x00\xed\xa0\x80q]X\x07\x00\x00\x00complexq^c__builtin__\ncomplex\nq_G\x00\x00\x00\x00\x00\x00\x00\x00G?\xf0\x00\x00\x00\x00\x00\x00\x86q`RqaX\x05\x00\x00\x00emptyqbhA]qc\x85qdRqeX\x04\x00\x00\x00lastqfX\x04\x00\x00\x00hereqgu.",
        b"\x80\x03}q\x00(X\n\x00\x00\x00_permanentq\x01\x88X\x04\x00\x00\x00userq\x02}q\x03(X\x03\x00\x00\x00oidq\x04X$\x00\x00\x00a1b2c3d4-0000-4000-8000-000000000001q\x05X\x04\x00\x00\x00nameq\x06X\x04\x00\x00\x00Zo\xc3\xabq\x07X\x12\x00\x00\x00preferred_usernameq\x08X\x0f\x00\x00\x00zoe@example.orgq\x09X\x05\x00\x00\x00rolesq\n]q\x0b(X\x04\x00\x00\x00Userq\x0cX\x05\x00\x00\x00Adminq\x0deuX\x0b\x00\x00\x00token_cacheq\x0eX\x02\x00\x00\x00{}q\x0fX\x13\x00\x00\x00last_activity_epochq\x10J\xe0e\x03kX\x08\x00\x00\x00_flashesq\x11]q\x12X\x07\x00\x00\x00messageq\x13X\x02\x00\x00\x00hiq\x14\x86q\x15aX\x04\x00\x00\x00whenq\x16cdatetime\ndatetime\nq\x17C\n\x07\xea\x0b\x1a\x0e\x00\x00\x00\x00\x00q\x18cdatetime\ntimezone\nq\x19cdatetime\ntimedelta\nq\x1aK\x00K\x00K\x00\x87q\x1bRq\x1c\x85q\x1dRq\x1e\x86q\x1fRq X\x05\x00\x00\x00naiveq!h\x17C\n\x07\xea\x0b\x1a\x00\x00\x00\x00\x00\x00q\"\x85q#Rq$X\x02\x00\x00\x00idq%cuuid\nUUID\nq&)\x81q'}q(X\x03\x00\x00\x00intq)K\x07sbX\x05\x00\x00\x00priceq*cdecimal\nDecimal\nq+X\x03\x00\x00\x001.5q,\x85q-Rq.X\x07\x00\x00\x00orderedq/ccollections\nOrderedDict\nq0)Rq1X\x01\x00\x00\x00aq2K\x01sX\x07\x00\x00\x00countedq3ccollections\ndefaultdict\nq4cbuiltins\nlist\nq5\x85q6Rq7h2]q8K\x01asX\x04\x00\x00\x00sameq9h\x0bX\x03\x00\x00\x00setq:cbuiltins\nset\nq;]q<X\x01\x00\x00\x00xq=a\x85q>Rq?X\x06\x00\x00\x00frozenq@cbuiltins\nfrozenset\nqA]qBh=a\x85qCRqDX\x03\x00\x00\x00rawqEC\x02\x00\xffqFX\x06\x00\x00\x00bufferqGcbuiltins\nbytearray\nqHC\x02abqI\x85qJRqKX\x03\x00\x00\x00infqLG\x7f\xf0\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00nanqMG\x7f\xf8\x00\x00\x00\x00\x00\x00X\x03\x00\x00\x00bigqN\x8a\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01X\x05\x00\x00\x00smallqO\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0X\x03\x00\x00\x00maxqP\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00K\x07X\x05\x00\x00\x00sevenqQX\x04\x00\x00\x00halfqRX\x03\x00\x00\x00\xed\xa0\x80qSX\x07\x00\x00\x00complexqTcbuiltins\ncomplex\nqUG\x00\x00\x00\x00\x00\x00\x00\x00G?\xf0\x00\x00\x00\x00\x00\x00\x86qVRqWX\x05\x00\x00\x00emptyqXh;]qY\x85qZRq[X\x04\x00\x00\x00lastq\\X\x04\x00\x00\x00hereq]u.",
        b"\x80\x05\x95\x11\x03\x00\x00\x00\x00\x00\x00}\x94(\x8c\n_permanent\x94\x88\x8c\x04user\x94}\x94(\x8c\x03oid\x94\x8c$a1b2c3d4-0000-4000-8000-000000000001\x94\x8c\x04name\x94\x8c\x04Zo\xc3\xab\x94\x8c\x12preferred_username\x94\x8c\x0fzoe@example.org\x94\x8c\x05roles\x94]\x94(\x8c\x04User\x94\x8c\x05Admin\x94eu\x8c\x0btoken_cache\x94\x8c\x02{}\x94\x8c\x13last_activity_epoch\x94J\xe0e\x03k\x8c\x08_flashes\x94]\x94\x8c\x07message\x94\x8c\x02hi\x94\x86\x94a\x8c\x04when\x94\x8c\x08datetime\x94\x8c\x08datetime\x94\x93\x94C\n\x07\xea\x0b\x1a\x0e\x00\x00\x00\x00\x00\x94h\x17\x8c\x08timezone\x94\x93\x94h\x17\x8c\x09timedelta\x94\x93\x94K\x00K\x00K\x00\x87\x94R\x94\x85\x94R\x94\x86\x94R\x94\x8c\x05naive\x94h\x19C\n\x07\xea\x0b\x1a\x00\x00\x00\x00\x00\x00\x94\x85\x94R\x94\x8c\x02id\x94\x8c\x04uuid\x94\x8c\x04UUID\x94\x93\x94)\x81\x94}\x94\x8c\x03int\x94K\x07sb\x8c\x05price\x94\x8c\x07decimal\x94\x8c\x07Decimal\x94\x93\x94\x8c\x031.5\x94\x85\x94R\x94\x8c\x07ordered\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01a\x94K\x01s\x8c\x07counted\x94h8\x8c\x0bdefaultdict\x94\x93\x94\x8c\x08builtins\x94\x8c\x04list\x94\x93\x94\x85\x94R\x94h<]\x94K\x01as\x8c\x04same\x94h\x0b\x8c\x03set\x94\x8f\x94(\x8c\x01x\x94\x90\x8c\x06frozen\x94(hI\x91\x94\x8c\x03raw\x94C\x02\x00\xff\x94\x8c\x06buffer\x94\x96\x02\x00\x00\x00\x00\x00\x00\x00ab\x94\x8c\x03inf\x94G\x7f\xf0\x00\x00\x00\x00\x00\x00\x8c\x03nan\x94G\x7f\xf8\x00\x00\x00\x00\x00\x00\x8c\x03big\x94\x8a\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x8c\x05small\x94\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0\x8c\x03max\x94\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00K\x07\x8c\x05seven\x94\x8c\x04half\x94\x8c\x03\xed\xa0\x80\x94\x8c\x07complex\x94h@\x8c\x07complex\x94\x93\x94G\x00\x00\x00\x00\x00\x00\x00\x00G?\xf0\x00\x00\x00\x00\x00\x00\x86\x94R\x94\x8c\x05empty\x94\x8f\x94\x8c\x04last\x94\x8c\x04here\x94u.",
    ];

#[test]
fn pickles_of_python_are_read() {
    // pickle.dumps({"_permanent": True, "user": {"roles": ["User", "User"], "n": -1, "f": 0.5}}, 5)
    let pickled = b"\x80\x05\x95D\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\n_permanent\x94\x88\x8c\x04user\x94}\x94(\x8c\x05roles\x94]\x94(\x8c\x04User\x94h\x06e\x8c\x01n\x94J\xff\xff\xff\xff\x8c\x01f\x94G?\xe0\x00\x00\x00\x00\x00\x00uu.";
    let expected =
        json!({"_permanent": true, "user": {"roles": ["User", "User"], "n": -1, "f": 0.5}});
    assert_eq!(read(pickled, 64), Some(expected));
}

#[test]
fn objects_are_null_and_the_plain_members_beside_them_are_read() {
    for (pickled, sets) in WITH_OBJECTS.into_iter().zip([
        [Value::Null, Value::Null, Value::Null],
        [Value::Null, Value::Null, Value::Null],
        [json!(["x"]), json!(["x"]), json!([])],
    ]) {
        let [set, frozen, empty] = sets;
        let expected = json!({
            "_permanent": true,
            "user": {"oid": "a1b2c3d4-0000-4000-8000-000000000001", "name": "Zoë",
                "preferred_username": "zoe@example.org", "roles": ["User", "Admin"]},
            "token_cache": "{}",
            "last_activity_epoch": 1_795_384_800,
            "_flashes": [["message", "hi"]],
            "when": null, "naive": null, "id": null, "price": null, "ordered": null, "counted": null,
            "same": ["User", "Admin"],
            "set": set, "frozen": frozen, "raw": null, "buffer": null,
            "inf": null, "nan": null, "big": null, "small": null, "max": u64::MAX,
            "half": null, "complex": null, "empty": empty,
            "last": "here",
        });
        assert_eq!(read(pickled, 64), Some(expected));
        // Every truncation is malformed.
        for end in 0..pickled.len() {
            assert_eq!(read(&pickled[..end], 64), None, "{end}");
        }
    }
    // 2**3000: LONG4, with more bytes than any supported number
    let huge = [b"\x80\x05]\x8bx\x01\x00\x00".as_slice(), &[0; 375], b"\x01aK\x07a."].concat();
    assert_eq!(read(&huge, 64), Some(json!([null, 7])));
}

#[test]
fn a_pickle_that_calls_something_is_not_run() {
    // os.system("true"), protocols 0, 2 and 4: the last two yield null, and nothing else happens.
    assert_eq!(read(b"cposix\nsystem\n(S'true'\ntR.", 64), None);
    assert_eq!(
        read(b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.", 64),
        Some(Value::Null)
    );
    assert_eq!(
        read(
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
            64
        ),
        Some(Value::Null)
    );
    // Only classes can be called.
    assert_eq!(read(b"\x80\x04\x8c\x04true)R.", 64), None);
    assert_eq!(read(b"\x80\x04})\x81.", 64), None);
    assert_eq!(read(b"\x80\x04}}b.", 64), None);
}

#[test]
fn the_content_of_an_object_does_not_leak_into_other_values() {
    // [OrderedDict(roles=["Admin"])]
    let filled =
        b"\x80\x04]ccollections\nOrderedDict\n)R\x8c\x05roles](\x8c\x05AdminesN\x8c\x01xsa.";
    assert_eq!(read(filled, 64), Some(json!([null])));
}

#[test]
fn nesting_is_bounded() {
    let nested =
        |levels: usize| [vec![b']'; levels], vec![b'a'; levels - 1], b".".to_vec()].concat();
    assert!(read(&nested(64), 64).is_some());
    assert_eq!(read(&nested(65), 64), None);
    assert_eq!(read(&nested(1_000_000), 64), None);
}

#[test]
fn a_container_in_itself_is_refused() {
    // l = []; l.append(l), and t = ([],); t[0].append(t) in a dict
    assert_eq!(read(b"\x80\x04\x95\x06\x00\x00\x00\x00\x00\x00\x00]\x94h\x00a.", 64), None);
    assert_eq!(read(b"\x80\x04\x95\x12\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94]\x94h\x02\x85\x94a0h\x03s.", 64), None);
}

#[test]
fn copies_are_bounded() {
    // Each list holds the one before it twice.
    let doubled = |levels: usize| {
        let mut pickle = b"]\x94".to_vec();
        for level in 0..levels {
            let before = u8::try_from(level).unwrap();
            pickle.extend([b'0', b']', 0x94, b'h', before, b'a', b'h', before, b'a']);
        }
        pickle.push(b'.');
        pickle
    };
    assert!(read(&doubled(10), 64).is_some());
    assert_eq!(read(&doubled(40), 64), None);
    // A text of 64 KiB, a hundred times.
    let text = [b"](X\x00\x00\x01\x00".as_slice(), &b"a".repeat(0x1_0000), b"\x94"].concat();
    let copied = |times: usize| [text.clone(), b"h\x00".repeat(times), b"e.".to_vec()].concat();
    assert!(read(&copied(10), 64).is_some());
    assert_eq!(read(&copied(100), 64), None);
    // Values without end on the stack, in the memo, and in a list.
    for many in [b"N".as_slice(), b"(", b"]2", b"]\x94"] {
        assert_eq!(read(&[many.repeat(300_000), b".".to_vec()].concat(), 64), None);
    }
    assert_eq!(read(&[b"](".as_slice(), &b"N".repeat(300_000), b"e."].concat(), 64), None);
}

#[test]
fn odd_pickles_are_refused() {
    for odd in [
        b"".as_slice(),
        b".",
        b"(.",
        b"N",
        b"NN.",
        b"]h\x00.",
        b"}Na.",
        b"}(Nu.",
        b"}(]e.",
        b"\x8a\xff.",
        b"X\xff\xff\xff\xffa.",
        b"C\xffa.",
        b"cposix\n.",
        b"\x93.",
        b"0.",
        b"1.",
        b"(2.",
        b"\x84\x01\x00.",
        b"Q.",
    ] {
        assert_eq!(read(odd, 64), None, "{odd:?}");
    }
}
