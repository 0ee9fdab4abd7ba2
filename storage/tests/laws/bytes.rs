//! Records and contexts as bytes: frozen forms, one form per value, and no accepted damage.
//!
//! The golden bytes were computed once by a second implementation of the written shapes. They are
//! the format: a change needs a new version and a migration, not a new constant.

use proptest::prelude::*;
use proptest::sample::Index;
use weald_storage::{
    Actor, Context, ContextError, Dot, Dvvset, Hlc, Key, NodeId, Object, RecordError, RecordView,
    TableName, Value, VersionVector, decode_object, decode_record, encode_object, encode_record,
    row_key,
};

use crate::history::{Random, World, object_of};

fn table() -> TableName {
    TableName::parse("users").unwrap()
}

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn actor(n: u8) -> Actor {
    Actor { node: NodeId([n; 16]), incarnation: 7 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn record(key: &Key, object: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    encode_record(&row_key(&table(), key), key, object, &mut out);
    out
}

fn decode(key: &Key, bytes: &[u8]) -> Result<Object, RecordError> {
    decode_record(&row_key(&table(), key), bytes).map(|record| record.object)
}

/// `bytes` with a checksum that fits `key`.
fn sealed(key: &Key, mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&row_key(&table(), key)), &bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// One of each kind of value: live, empty with an expiry, tombstone; a replaced actor; holes.
fn sample() -> Object {
    let mut object = Object::new();
    let value = |payload: Option<&[u8]>, expires_ms| Value {
        stamp: Hlc::new(1_700_000_000_000, 5),
        expires_ms,
        payload: payload.map(<[u8]>::to_vec),
    };
    let dot = |n, counter| Dot { actor: actor(n), counter };
    let nothing = VersionVector::new();
    object.write(&nothing, dot(0xcc, 300), value(Some(b"old"), None));
    object.write(&object.join(), dot(0xaa, 2), value(Some(b"hello"), None));
    object.write(&nothing, dot(0xaa, 200), value(Some(b""), Some(1_800_000_000_000)));
    object.write(&nothing, dot(0xbb, 1), value(None, None));
    object
}

/// Any object that a history can make.
fn object() -> impl Strategy<Value = Object> {
    let words = prop::collection::vec(any::<u64>(), 1..40);
    (words, any::<Index>()).prop_map(|(words, pick)| {
        let states = &World::play(&words).states[0];
        object_of(pick.get(states).set.clone())
    })
}

/// A few random changes of some bytes: overwrite, cut out, insert.
fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.word() % 3 {
        let at = usize::try_from(random.word()).unwrap() % (bytes.len() + 1);
        let byte = random.bytes(1)[0] >> (random.word() % 8);
        match random.word() % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            _ if at < bytes.len() => bytes[at] = byte,
            _ => bytes.push(byte),
        }
    }
    bytes
}

#[test]
fn record_bytes_are_frozen() {
    let expected = concat!(
        "010003",                                   // version, flags, three actors
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa00000007", // first actor
        "c80102",                                   // n = 200, two live values
        "0001018bcfe568000005",                     // dot 200: step, flags, stamp
        "000001a3185c500000",                       // expiry, empty payload
        "c60100018bcfe568000005",                   // dot 2: step 198, flags, stamp
        "0568656c6c6f",                             // payload "hello"
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb00000007", // second actor
        "01010002018bcfe568000005",                 // n = 1, one live value: a tombstone
        "cccccccccccccccccccccccccccccccc00000007", // third actor
        "ac0200",                                   // n = 300, nothing live
        "5ade7b60",                                 // checksum
    );
    let bytes = record(&key("k"), &sample());
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode(&key("k"), &bytes), Ok(sample()));
}

#[test]
fn record_of_a_truncated_row_holds_the_key() {
    let long = key(&"k".repeat(600));
    let bytes = record(&long, &sample());
    assert_eq!((bytes.len(), hex(&bytes[bytes.len() - 4..])), (723, "b4ecd765".to_owned()));
    let decoded = decode_record(&row_key(&table(), &long), &bytes).unwrap();
    assert_eq!((decoded.key.as_ref(), &decoded.object), (Some(&long), &sample()));
    // 489 bytes and the table make the longest row that holds its key.
    for (len, held) in [(1, true), (489, true), (490, false)] {
        let key = key(&"k".repeat(len));
        let decoded = decode_record(&row_key(&table(), &key), &record(&key, &sample())).unwrap();
        assert_eq!(decoded.key.is_none(), held, "{len}");
    }
}

#[test]
fn context_bytes_are_frozen() {
    let expected = concat!(
        "01",                                           // version
        "6014d05234bae7bb",                             // tag of the key
        "03",                                           // three actors
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa00000007c801", // n = 200
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0000000701",   // n = 1
        "cccccccccccccccccccccccccccccccc00000007ac02", // n = 300
        "cb2217ad",                                     // checksum
    );
    let context = Context::of(&table(), &key("k"), &sample());
    assert_eq!(hex(&context.encode()), expected);
    assert_eq!(Context::decode(&context.encode(), &table(), &key("k")), Ok(context));
}

#[test]
fn record_every_flipped_bit_is_noticed() {
    for key in [key("k"), key(&"k".repeat(600))] {
        let mut bytes = record(&key, &sample());
        for at in 0..bytes.len() * 8 {
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&key, &bytes), Err(RecordError::Checksum), "bit {at}");
            bytes[at / 8] ^= 1 << (at % 8);
        }
        for cut in 0..bytes.len() {
            let error = decode(&key, &bytes[..cut]).unwrap_err();
            assert!(matches!(error, RecordError::Checksum | RecordError::Short { .. }), "{cut}");
        }
        assert_eq!(decode(&key, &bytes), Ok(sample()));
    }
}

#[test]
fn record_in_the_row_of_another_key_is_noticed() {
    let (k, long) = (key("k"), key(&"k".repeat(600)));
    for (of, at) in [(&k, "j"), (&k, "kk"), (&long, "k")] {
        assert_eq!(decode(&key(at), &record(of, &sample())), Err(RecordError::Checksum));
    }
    // The same prefix, another key.
    let other = key(&format!("{}j", "k".repeat(599)));
    assert_eq!(decode(&other, &record(&long, &sample())), Err(RecordError::Checksum));
}

#[test]
fn record_of_another_version_is_told_from_damage() {
    let body = &record(&key("k"), &sample());
    let mut body = body[..body.len() - 4].to_vec();
    body[0] = 2;
    let bytes = sealed(&key("k"), body.clone());
    assert_eq!(decode(&key("k"), &bytes), Err(RecordError::Version { found: 2 }));
    body[0] = 1;
    body[1] = 4;
    let error = decode(&key("k"), &sealed(&key("k"), body)).unwrap_err();
    assert_eq!(error, RecordError::Malformed { what: "flags" });
}

#[test]
fn context_errors_are_told_apart() {
    let context = Context::of(&table(), &key("k"), &sample());
    let mut bytes = context.encode();
    let decode = |bytes: &[u8], k| Context::decode(bytes, &table(), &key(k));
    assert_eq!(decode(&bytes, "j"), Err(ContextError::OtherKey));
    let accounts = TableName::parse("accounts").unwrap();
    assert_eq!(Context::decode(&bytes, &accounts, &key("k")), Err(ContextError::OtherKey));
    for at in 0..bytes.len() * 8 {
        bytes[at / 8] ^= 1 << (at % 8);
        assert_eq!(decode(&bytes, "k"), Err(ContextError::Checksum), "bit {at}");
        bytes[at / 8] ^= 1 << (at % 8);
    }
    for cut in 0..bytes.len() {
        let error = decode(&bytes[..cut], "k").unwrap_err();
        assert!(matches!(error, ContextError::Malformed | ContextError::Checksum), "{cut}");
    }
    let resealed = |change: fn(&mut Vec<u8>)| {
        let mut body = bytes[..bytes.len() - 4].to_vec();
        change(&mut body);
        let crc = crc32c::crc32c(&body);
        decode(&[body, crc.to_be_bytes().to_vec()].concat(), "k").map(|_| ())
    };
    assert_eq!(resealed(|_| ()), Ok(()));
    assert_eq!(resealed(|body| body[0] = 2), Err(ContextError::Version { found: 2 }));
    // Too many entries announced; a counter of 0; entries that do not ascend; left-over bytes.
    for change in [
        (|body| body[9] = 0x7f) as fn(&mut Vec<u8>),
        |body| body[52] = 0,
        |body| body[10..26].fill(0xbb),
        |body| body[10] = 0xbc,
        |body| body.push(0),
    ] {
        assert_eq!(resealed(change), Err(ContextError::Malformed));
    }
    let empty = Context::new(&table(), &key("k"), VersionVector::new());
    assert_eq!(decode(&empty.encode(), "k"), Ok(empty));
}

#[test]
fn random_bytes_never_panic_and_what_decodes_is_canonical() {
    const ROUNDS: u64 = 100_000;
    let mut random = Random(42);
    let mut clock = Vec::new();
    encode_object(&sample(), &mut clock);
    let context = Context::of(&table(), &key("k"), &sample()).encode();
    let long = key(&"k".repeat(600));
    let long_row = row_key(&table(), &long);
    let record = record(&long, &sample());
    let (mut accepted, mut contexts_accepted, mut records_accepted) = (0_u64, 0_u64, 0_u64);
    for _ in 0..ROUNDS {
        let len = usize::try_from(random.word() % 64).unwrap();
        let noise = random.bytes(len);
        // Noise is refused by the checksum, so most rounds damage good bytes and seal them again.
        assert!(decode_record(&noise, &random.bytes(len)).is_err());
        assert!(Context::decode(&noise, &table(), &key("k")).is_err());
        for bytes in [noise, mutated(&clock, &mut random)] {
            if let Ok(object) = decode_object(&bytes) {
                let mut again = Vec::new();
                encode_object(&object, &mut again);
                assert_eq!(again, bytes, "accepted bytes are the canonical ones");
                accepted += u64::from(bytes != clock);
            }
        }
        let bytes = sealed(&long, mutated(&record[..record.len() - 4], &mut random));
        if let Ok(decoded) = decode_record(&long_row, &bytes) {
            let mut again = Vec::new();
            let key = decoded.key.unwrap();
            encode_record(&long_row, &key, &decoded.object, &mut again);
            assert_eq!(again, bytes);
            records_accepted += u64::from(bytes != record);
        }
        let mut body = mutated(&context[..context.len() - 4], &mut random);
        body.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        if let Ok(decoded) = Context::decode(&body, &table(), &key("k")) {
            assert_eq!(decoded.encode(), body);
            contexts_accepted += u64::from(body != context);
        }
    }
    for accepted in [accepted, contexts_accepted, records_accepted] {
        assert!(accepted > 1_000, "{accepted}");
    }
}

#[test]
fn clocks_of_other_forms_are_refused() {
    let head = [&[1][..], &actor(1).to_bytes()].concat();
    let with = |tail: &[u8]| decode_object(&[head.as_slice(), tail].concat());
    let value = |step: u8| [&[step, 2][..], &[0; 8]].concat();
    let two = |first, second| [&[5, 2][..], &value(first), &value(second)].concat();
    let malformed = Err(RecordError::Malformed { what: "clock" });
    assert!(with(&[5, 0]).is_ok());
    assert!(with(&two(0, 1)).is_ok());
    for (why, tail) in [
        ("n is 0", vec![0, 0]),
        ("n is written with a byte too many", vec![0x85, 0, 0]),
        ("the same dot twice", two(0, 0)),
        ("counter 0", two(0, 5)),
        ("counter below 0", two(0, 6)),
        ("more values than bytes", vec![5, 100]),
        ("left-over byte", vec![5, 0, 0]),
        ("unknown flag", [&[5, 1, 0, 4][..], &[0; 8]].concat()),
        ("payload longer than the record", [&[5, 1, 0, 0][..], &[0; 8], &[2, 1]].concat()),
    ] {
        assert_eq!(with(&tail), malformed, "{why}");
    }
    let entry = |n| [&actor(n).to_bytes()[..], &[5, 0]].concat();
    let both = |x, y| decode_object(&[&[2][..], &entry(x), &entry(y)].concat());
    assert!(both(1, 2).is_ok());
    assert_eq!((both(2, 1), both(1, 1)), (malformed.clone(), malformed.clone()));
    assert_eq!(decode_object(&[]), malformed);
    assert_eq!(decode_object(&[0]), Ok(Dvvset::new()));
}

#[test]
fn decoding_needs_memory_in_proportion_to_the_input() {
    // The densest records: nothing but tombstones, or nothing but replaced actors.
    let mut tombstones = Object::new();
    for counter in 1..=1_000 {
        let dot = Dot { actor: actor(1), counter };
        tombstones.write(&VersionVector::new(), dot, Value::tombstone(Hlc::ZERO));
    }
    let replaced: VersionVector =
        (0..1_000).map(|incarnation| (Actor { incarnation, ..actor(1) }, 1)).collect();
    let mut actors = Object::new();
    actors.discard(&replaced);
    for object in [tombstones, actors] {
        let bytes = record(&key("k"), &object);
        let decoded = decode(&key("k"), &bytes).unwrap();
        let entry_bytes = size_of::<(Actor, weald_storage::Entry<Value>)>();
        let used =
            decoded.entries().len() * entry_bytes + decoded.live_len() * size_of::<(u64, Value)>();
        assert!(used <= bytes.len() * 8, "{used} bytes for a record of {}", bytes.len());
    }
    // A record that announces more than it holds is refused before anything is reserved: a count
    // of 2^62 would otherwise abort the process.
    let huge = [&[0xff; 8][..], &[0x3f]].concat();
    assert!(decode_object(&huge).is_err());
    assert!(decode_object(&[&[1][..], &actor(1).to_bytes(), &[5], &huge].concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn contexts_round_trip(
        entries in prop::collection::vec((any::<[u8; 16]>(), 0..3_u32, any::<u64>()), 0..20),
        len in 1..600_usize,
    ) {
        let text = "k".repeat(len);
        let actor = |node, incarnation| Actor { node: NodeId(node), incarnation };
        let vector: VersionVector = entries.iter().map(|(node, i, n)| (actor(*node, *i), *n)).collect();
        let context = Context::new(&table(), &key(&text), vector.clone());
        let decoded = Context::decode(&context.encode(), &table(), &key(&text));
        prop_assert_eq!(decoded.as_ref(), Ok(&context));
        prop_assert_eq!(context.vector(), &vector);
        let other = key(&"k".repeat(len + 1));
        prop_assert!(!context.belongs_to(&table(), &other));
    }

    #[test]
    fn records_round_trip_and_views_agree(object in object(), long in any::<bool>()) {
        let key = if long { key(&"long".repeat(150)) } else { key("k") };
        let bytes = record(&key, &object);
        prop_assert_eq!(decode(&key, &bytes), Ok(object.clone()));
        let row = row_key(&table(), &key);
        let view = RecordView::open(&row, &bytes).unwrap();
        prop_assert_eq!(view.key(), long.then_some(key.as_bytes()));
        prop_assert_eq!(view.live_len(), object.live_len());
        prop_assert_eq!(view.join(), object.join());
        prop_assert!(view.values().eq(object.refs()));
        prop_assert_eq!(view.entries().len(), object.entries().len());
        for (found, (actor, entry)) in view.entries().zip(object.entries()) {
            prop_assert_eq!((found.actor, found.n), (*actor, entry.n()));
            prop_assert!(found.values().map(|v| v.dot.counter).eq(entry.values().iter().map(|v| v.0)));
        }
        prop_assert_eq!(view.to_object(), object);
    }
}
