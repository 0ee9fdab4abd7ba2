//! Scans: every length of key, groups of long keys, bounds, prefixes, pages and their tokens.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use weald_storage::{PageToken, ReadError, Resolver, Scan, Store, TableKind, TableName, TableSpec};

use crate::support::{START_MS, Short, config, delete_op, fast_dir, key, open, put_op, table};

fn fill(store: &Store, t: &TableName, rows: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut batches = vec![Vec::new(); usize::from(store.partitions())];
    for (k, value) in rows {
        let k = key(k);
        batches[usize::from(store.partition_of(t, &k))].push(put_op(t, &k, value));
    }
    for (index, ops) in (0..).zip(batches) {
        assert!(store.batch(index, ops).iter().all(Result::is_ok));
    }
}

/// All pages of a scan; each within its limits, the whole ascending.
fn pages(store: &Store, scan: &Scan) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut scan = scan.clone();
    let mut all: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    loop {
        let page = store.scan(&scan, START_MS).unwrap();
        assert!(page.items.len() <= scan.limit_items.max(1));
        for item in page.items {
            assert!(all.last().is_none_or(|(last, _)| last.as_slice() < item.key.as_bytes()));
            assert_eq!(item.context, store.read(&scan.table, &item.key).context);
            all.push((item.key.as_bytes().to_vec(), item.values));
        }
        let Some(next) = page.next else { return all };
        scan.after = Some(PageToken::from_bytes(next.as_bytes()));
    }
}

#[test]
fn keys_of_every_length_are_kept_apart_and_in_order() {
    let dir = fast_dir();
    let store = open(dir.path(), config(2));
    let t = table("a-table-with-a-rather-long-name");
    let rows: BTreeMap<_, _> =
        (1..=4096_usize).map(|len| (vec![b'k'; len], len.to_be_bytes().to_vec())).collect();
    fill(&store, &t, &rows);
    for (k, value) in &rows {
        assert_eq!(store.value(&t, &key(k)).as_ref(), Some(value), "{} bytes", k.len());
    }
    let scan = Scan { limit_items: 700, limit_bytes: usize::MAX, ..Scan::new(t) };
    let all = pages(&store, &scan);
    assert!(all.iter().map(|(k, values)| (k, &values[0])).eq(rows.iter()));
}

#[test]
fn long_keys_with_a_common_prefix_are_paged_in_order() {
    let dir = fast_dir();
    let store = open(dir.path(), config(3));
    store
        .declare_table(
            &table("mem"),
            TableSpec { kind: TableKind::Memory, resolver: Resolver::Lww, ttl_default: None },
        )
        .unwrap();
    for t in [table("t"), table("mem")] {
        let mut rows = BTreeMap::new();
        for prefix in [b'a', b'b'] {
            let long = vec![prefix; 493];
            // The row of this key is the 495 bytes that the rows of the others begin with.
            rows.insert(long.clone(), b"short".to_vec());
            for n in 0..60_u32 {
                let tail = n.wrapping_mul(2_654_435_761).to_be_bytes();
                rows.insert([&long[..], &tail[..], &[prefix; 30][..]].concat(), tail.to_vec());
            }
        }
        rows.insert(vec![b'a'; 4096], b"end".to_vec());
        rows.insert(b"aa".to_vec(), b"first".to_vec());
        rows.insert(b"c".to_vec(), b"last".to_vec());
        fill(&store, &t, &rows);
        for limit_items in [1, 7, 1_000] {
            let all = pages(&store, &Scan { limit_items, ..Scan::new(t.clone()) });
            assert!(all.iter().map(|(k, values)| (k, &values[0])).eq(rows.iter()), "{limit_items}");
        }
        // Bounds within a group.
        let inside: Vec<_> =
            rows.keys().filter(|k| k.len() > 500).nth(20).cloned().into_iter().collect();
        for from in [Bound::Included(inside[0].clone()), Bound::Excluded(inside[0].clone())] {
            let scan = Scan { from: from.clone(), limit_items: 5, ..Scan::new(t.clone()) };
            let expected = rows.range((from, Bound::Unbounded));
            let all = pages(&store, &scan);
            assert!(all.iter().map(|(k, values)| (k, &values[0])).eq(expected));
        }
    }
}

#[test]
fn tokens_of_another_scan_are_refused() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let t = table("t");
    fill(&store, &t, &(0..9_u8).map(|n| (vec![n + 1], vec![n])).collect());
    let scan = Scan { limit_items: 3, ..Scan::new(t) };
    let token = store.scan(&scan, START_MS).unwrap().next.unwrap();
    let with = |scan: &Scan, token: &PageToken| {
        store.scan(&Scan { after: Some(token.clone()), ..scan.clone() }, START_MS)
    };
    assert_eq!(with(&scan, &token).unwrap().items.len(), 3);
    for other in [
        Scan { prefix: vec![1], ..scan.clone() },
        Scan { to: Bound::Excluded(vec![9]), ..scan.clone() },
        Scan { table: table("other"), ..scan.clone() },
    ] {
        assert!(matches!(with(&other, &token), Err(ReadError::BadPageToken)));
    }
    for bad in [&[][..], &[1, 2], &[9; 20]] {
        let token = PageToken::from_bytes(bad);
        assert!(matches!(with(&scan, &token), Err(ReadError::BadPageToken)));
    }
}

#[test]
fn deleted_rows_do_not_end_a_scan_early() {
    let dir = fast_dir();
    let store = open(dir.path(), config(2));
    let t = table("t");
    let rows: BTreeMap<_, _> = (0..500_u16).map(|n| (n.to_be_bytes().to_vec(), vec![1])).collect();
    fill(&store, &t, &rows);
    for k in rows.keys().take(450) {
        let k = key(k);
        store.batch(store.partition_of(&t, &k), vec![delete_op(&t, &k)]);
    }
    assert_eq!(pages(&store, &Scan { limit_items: 10, ..Scan::new(t) }).len(), 50);
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let bytes = || prop::collection::vec(0_u8..4, 0..5);
    prop_oneof![
        Just(Bound::Unbounded),
        bytes().prop_map(Bound::Included),
        bytes().prop_map(Bound::Excluded),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn scans_are_ranges_of_a_map(
        keys in prop::collection::btree_map(
            prop::collection::vec(0_u8..4, 1..6),
            (prop::collection::vec(any::<u8>(), 0..30), any::<bool>()),
            0..60,
        ),
        queries in prop::collection::vec(
            (bound(), bound(), prop::collection::vec(0_u8..4, 0..3), 1_usize..9, 1_usize..200, any::<bool>()),
            1..12,
        ),
        memory in any::<bool>(),
    ) {
        let dir = fast_dir();
        let store = open(dir.path(), config(3));
        let t = table("t");
        // A neighbour on each side, which must never show.
        for other in ["s", "t.", "t0"] {
            fill(&store, &table(other), &[(vec![0], vec![]), (vec![3, 3], vec![])].into());
        }
        let kind = if memory { TableKind::Memory } else { TableKind::Durable };
        store.declare_table(&t, TableSpec { kind, ..TableSpec::UNDECLARED }).unwrap();
        fill(&store, &t, &keys.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect());
        let mut model = BTreeMap::new();
        for (k, (value, keep)) in &keys {
            if *keep {
                model.insert(k.clone(), value.clone());
            } else {
                store.batch(store.partition_of(&t, &key(k)), vec![delete_op(&t, &key(k))]);
            }
        }
        for (from, to, prefix, limit_items, limit_bytes, keys_only) in queries {
            let wanted = |k: &Vec<u8>| {
                let above = match &from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => k >= from,
                    Bound::Excluded(from) => k > from,
                };
                let below = match &to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => k <= to,
                    Bound::Excluded(to) => k < to,
                };
                above && below && k.starts_with(&prefix)
            };
            let expected: Vec<_> = model
                .iter()
                .filter(|(k, _)| wanted(k))
                .map(|(k, v)| (k.clone(), if keys_only { vec![] } else { vec![v.clone()] }))
                .collect();
            let scan = Scan {
                table: t.clone(),
                from,
                to,
                prefix,
                after: None,
                limit_items,
                limit_bytes,
                keys_only,
            };
            prop_assert_eq!(pages(&store, &scan), expected);
        }
    }
}
