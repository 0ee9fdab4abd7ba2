//! Names, rows and partitions.

use proptest::prelude::*;
use weald_storage::key::{KEY_BYTES_MAX, ROW_BYTES_MAX, ROW_PREFIX_BYTES, row_lower_bound};
use weald_storage::{
    Key, KeyError, KeyHash, TableName, TableNameError, parse_row, partition_of, row_key,
    table_range,
};

use crate::history::Random;

fn table(text: &str) -> TableName {
    TableName::parse(text).unwrap()
}

fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::new(bytes.as_ref()).unwrap()
}

/// Keys that are close together: short ones, and long ones that share most of their bytes.
fn close_key() -> impl Strategy<Value = Key> {
    let tail = prop::collection::vec(prop::sample::select(vec![0_u8, 1, b'a', b'b', 0xff]), 1..6);
    let prefix_len =
        prop::sample::select(vec![0_usize, 1, 300, 485, 488, 489, 490, 491, 600, 4090]);
    (prefix_len, tail).prop_map(|(len, tail)| key([vec![b'p'; len], tail].concat()))
}

fn close_table() -> impl Strategy<Value = TableName> {
    prop::sample::select(vec!["a", "a-", "a.b", "a0", "ab", "users", "z"]).prop_map(table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn rows_sort_like_keys_within_the_prefix(
        (t, x) in (close_table(), close_key()),
        (u, y) in (close_table(), close_key()),
    ) {
        let (row_x, row_y) = (row_key(&t, &x), row_key(&u, &y));
        prop_assert_eq!(row_x == row_y, (&t, &x) == (&u, &y));
        let prefix = |row: &[u8]| row[..row.len().min(ROW_PREFIX_BYTES)].to_vec();
        let same_group = row_x.is_truncated() && row_y.is_truncated()
            && prefix(&row_x) == prefix(&row_y);
        if !same_group {
            prop_assert_eq!(row_x.cmp(&row_y), (t.as_str(), &x).cmp(&(u.as_str(), &y)));
        }
        // A scan that starts at y finds x when x is at or after y.
        let bound = row_lower_bound(&t, y.as_bytes());
        prop_assert!(x < y || row_x.as_bytes() >= bound.as_slice());
    }

    #[test]
    fn rows_parse_back(t in close_table(), k in close_key()) {
        let row = row_key(&t, &k);
        let parsed = parse_row(&row).unwrap();
        prop_assert_eq!(parsed.table, t.as_str());
        prop_assert_eq!(parsed.truncated, row.is_truncated());
        if parsed.truncated {
            prop_assert_eq!(row.len(), ROW_BYTES_MAX);
            prop_assert!(k.as_bytes().starts_with(parsed.key));
            prop_assert_eq!(&row[ROW_PREFIX_BYTES..], KeyHash::of(&t, &k).prefix::<16>());
        } else {
            prop_assert_eq!(parsed.key, k.as_bytes());
        }
        let (start, end) = table_range(&t);
        prop_assert!(start.as_slice() <= row.as_bytes() && row.as_bytes() < end.as_slice());
    }

    #[test]
    fn table_ranges_hold_no_other_table(t in close_table(), u in close_table(), k in close_key()) {
        let (start, end) = table_range(&t);
        let row = row_key(&u, &k);
        let within = start.as_slice() <= row.as_bytes() && row.as_bytes() < end.as_slice();
        prop_assert_eq!(within, t == u);
    }

    #[test]
    fn parsing_random_rows_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(row) = parse_row(&bytes) {
            prop_assert!(TableName::parse(row.table).is_ok() && !row.key.is_empty());
        }
    }
}

#[test]
fn row_bytes_are_frozen() {
    let users = table("users");
    assert_eq!(row_key(&users, &key("k")).as_bytes(), b"users\0k");
    // 495 bytes are kept in full, one more is not.
    assert_eq!(row_key(&users, &key([b'k'; 489])).len(), 495);
    let long = row_key(&users, &key([b'k'; 490]));
    assert_eq!((long.len(), long.is_truncated()), (511, true));
    let row = row_key(&users, &key([b'k'; 600]));
    assert_eq!(row[..495], [&b"users\0"[..], &[b'k'; 489]].concat());
    let hash: String = row[495..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, "2c2befd96b704f1d9374dcdc75b5558f");
    assert_eq!(blake3::hash(b"").to_hex()[..16], *"af1349b9f5f9a1a6"); // published vector
    for bytes in [&b""[..], b"users", b"\0k", b"users\0", b"Users\0k", &[b'a'; 500], &[b'a'; 512]] {
        assert!(parse_row(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn table_names_follow_the_rules() {
    for text in ["a", "_", "users", "weald.tables", "a-b_c.9", &"a".repeat(64)] {
        assert_eq!(table(text).to_string(), text);
    }
    let too_long = "a".repeat(65);
    for (text, error, message) in [
        ("", TableNameError::Empty, "table name is empty"),
        (
            too_long.as_str(),
            TableNameError::TooLong { len: 65 },
            "table name has 65 bytes; at most 64 are allowed",
        ),
        (
            "9a",
            TableNameError::Start { found: '9' },
            "table name starts with '9'; it must start with a-z or _",
        ),
        (
            "aB",
            TableNameError::Character { found: 'B' },
            "table name holds 'B'; only a-z, 0-9, _, . and - are allowed",
        ),
        (
            "a\0b",
            TableNameError::Character { found: '\0' },
            "table name holds '\\0'; only a-z, 0-9, _, . and - are allowed",
        ),
        (
            "\u{fc}",
            TableNameError::Character { found: '\u{fc}' },
            "table name holds '\u{fc}'; only a-z, 0-9, _, . and - are allowed",
        ),
    ] {
        assert_eq!(TableName::parse(text), Err(error.clone()), "{text:?}");
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(TableName::parse(".a"), Err(TableNameError::Start { found: '.' }));
    assert_eq!(serde_json::to_string(&table("a")).unwrap(), "\"a\"");
    assert!(serde_json::from_str::<TableName>("\"A\"").is_err());
}

#[test]
fn keys_have_1_to_4096_bytes() {
    assert_eq!(Key::new(b""), Err(KeyError::Empty));
    assert!(Key::new(&[0; KEY_BYTES_MAX]).is_ok());
    assert_eq!(Key::new(&[0; KEY_BYTES_MAX + 1]), Err(KeyError::TooLong { len: 4097 }));
    assert_eq!(format!("{:?}", key(b"a\0\"")), r#""a\x00\"""#);
    let bytes = postcard::to_stdvec(&key("k")).unwrap();
    assert_eq!(postcard::from_bytes::<Key>(&bytes).unwrap(), key("k"));
    assert!(postcard::from_bytes::<Key>(&[0]).is_err());
}

#[test]
fn partitions_are_frozen() {
    assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2); // published vector
    let keys = ["k", "alice", "com.example.topic", "", "x"];
    let keys = keys.map(|text| if text.is_empty() { key([b'k'; 600]) } else { key(text) });
    let of = |partitions| {
        keys.iter().map(|key| partition_of(&table("users"), key, partitions)).collect::<Vec<_>>()
    };
    assert_eq!(of(8), [2, 4, 0, 3, 7]);
    assert_eq!(of(256), [83, 128, 5, 117, 254]);
    assert_eq!(of(u16::MAX), [21_336, 32_889, 1_498, 30_015, 65_177]);
    assert_eq!(of(1), [0; 5]);
}

/// The two ways to hash (one slice, streamed) give the same partition.
#[test]
fn partition_of_keys_around_the_buffer_length() {
    for len in 480..540 {
        let k = key(vec![b'q'; len]);
        let full = [b"users\0", k.as_bytes()].concat();
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&full, 0x5745_414c_4420_5031);
        let expected = (u128::from(hash) * 1_000) >> 64;
        assert_eq!(u128::from(partition_of(&table("users"), &k, 1_000)), expected, "{len}");
        assert_eq!(KeyHash::of(&table("users"), &k).0, *blake3::hash(&full).as_bytes(), "{len}");
    }
}

#[test]
fn partitions_receive_their_share_of_keys() {
    const KEYS: u32 = 64_000;
    let mut random = Random(7);
    let random_keys: Vec<Key> = (0..KEYS).map(|_| key(random.bytes(12))).collect();
    let counted_keys: Vec<Key> = (0..KEYS).map(|i| key(format!("com.example.{i}"))).collect();
    // Bound of chi squared at p = 0.0001 for 1, 2, 7, 8 and 255 degrees of freedom.
    for (partitions, bound) in [(2, 15.1), (3, 18.4), (8, 29.9), (9, 31.8), (256, 346.0)] {
        for keys in [&random_keys, &counted_keys] {
            let mut counts = vec![0_u32; usize::from(partitions)];
            for key in keys {
                counts[usize::from(partition_of(&table("t"), key, partitions))] += 1;
            }
            let expected = f64::from(KEYS) / f64::from(partitions);
            let chi2: f64 =
                counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
            assert!(chi2 < bound, "{partitions} partitions: {chi2:.1} >= {bound}");
        }
    }
}
