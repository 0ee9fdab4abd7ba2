//! Damage that is met while running: found by a read or a scrub, healed by a peer or a rebuild.
//!
//! The files are changed with plain LMDB between two starts, and the check at boot is told to look
//! away.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, RwTxn};
use weald_storage::{
    Bucket, CheckVerdict, Clock, Key, ReadError, Replicated, Resolvers, Scan, Space, Store,
    WriteError, WriteOp,
};

use crate::support::{Short, assert_tree_is_sound, config, fast_dir, key, open, put_op, table};

/// Changes a row of a closed partition.
fn tamper(
    dir: &Path,
    database: &str,
    change: impl FnOnce(&heed::Database<'_, Bytes, Bytes>, &mut RwTxn<'_>),
) {
    let env = weald_storage::open_raw(&dir.join("partition-0"), 64 << 20, 8).unwrap();
    let txn = env.write_txn().unwrap();
    env.create_databases_and_commit(txn, |opener, txn| {
        let rows = opener.create_database::<Bytes, Bytes>(txn, Some(database))?;
        change(&rows, txn);
        // The head names the transaction that wrote it: else that would be all the check finds.
        let meta = opener.create_database::<Bytes, Bytes>(txn, Some("meta"))?;
        let mut head = meta.get(txn, b"head")?.unwrap()[..64].to_vec();
        head[32..40].copy_from_slice(&(txn.id() as u64).to_be_bytes());
        head.extend_from_slice(&crc32c::crc32c(&head).to_be_bytes());
        meta.put(txn, b"head", &head)?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(()))
    })
    .unwrap();
    env.prepare_for_closing().wait();
}

fn open_unchecked(dir: &Path) -> Store {
    let check = |_: &Path| Ok(CheckVerdict::Sound { rows: 0, ms: 0 });
    Store::open(dir, config(1), Resolvers::default(), &check, &mut Vec::new()).unwrap()
}

#[test]
fn damaged_record_is_never_read_and_a_peer_heals_it() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let t = table("t");
    for n in 0..20 {
        store.put(&t, &key(format!("k{n:02}")), b"value");
    }
    let bad = key("k07");
    store
        .write(WriteOp::Put {
            table: t.clone(),
            key: bad.clone(),
            value: b"value".to_vec(),
            context: None,
            ttl: Some(std::time::Duration::from_secs(99_999_999)),
        })
        .unwrap();
    let good = store.partition(0).object(&t, &bad).unwrap().unwrap();
    store.close().unwrap();
    tamper(dir.path(), "objects", |objects, txn| {
        let row = weald_storage::row_key(&t, &bad);
        let mut record = objects.get(txn, &row).unwrap().unwrap().to_vec();
        let at = record.len() - 6;
        record[at] ^= 1;
        objects.put(txn, &row, &record).unwrap();
    });
    let store = open_unchecked(dir.path());
    assert!(matches!(store.get(&t, &bad, 0), Err(ReadError::Corrupt(_))));
    assert!(matches!(store.partition(0).object(&t, &bad), Err(ReadError::Corrupt(_))));
    let page = store.scan(&Scan::new(t.clone()), 0).unwrap();
    assert_eq!((page.items.len(), page.corrupt), (19, 1));
    // A write would drop what is there without having seen it.
    let outcomes = store.batch(0, vec![put_op(&t, &bad, b"new"), put_op(&t, &key("k08"), b"ok")]);
    assert!(matches!(outcomes[0], Err(WriteError::Corrupt(_))));
    assert!(outcomes[1].is_ok());
    let bucket = Bucket::of(&t, &bad);
    let report = store.partition(0).scrub(Space::Durable, bucket..=bucket).unwrap();
    assert_eq!((report.corrupt, report.mismatches), (1, vec![bucket]));
    let merge = WriteOp::Merge {
        table: t.clone(),
        key: bad.clone(),
        object: good,
        dots: Vec::new(),
        evidence: Default::default(),
    };
    // The object is of a past life of this node, as a peer would send it back.
    store.write(merge).unwrap();
    assert_eq!(store.value(&t, &bad).unwrap(), b"value");
    assert_tree_is_sound(&store);
    store.put(&t, &bad, b"new");
    store.close().unwrap();
    assert!(matches!(
        weald_storage::check_env(&dir.path().join("partition-0")),
        CheckVerdict::Sound { .. }
    ));
}

/// What a lost row held must not be told to be dead, neither before nor after its bucket was rebuilt without it.
#[test]
fn events_of_a_lost_row_are_not_told() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let (t, lost) = (table("t"), key("lost"));
    store.put(&t, &lost, b"value");
    store.put(&t, &key("other"), b"value");
    store.close().unwrap();
    tamper(dir.path(), "objects", |objects, txn| {
        assert!(objects.delete(txn, &weald_storage::row_key(&t, &lost)).unwrap());
    });
    let store = open_unchecked(dir.path());
    let space = store.partition(0).space(Space::Durable);
    let bucket = Bucket::of(&t, &lost);
    for repaired in [false, true] {
        if repaired {
            store.partition(0).repair_tree(bucket).unwrap();
        }
        let missing = space.missing(&Clock::default(), None, usize::MAX).unwrap();
        let told: Vec<&Key> = missing.found.deltas.iter().map(|delta| &delta.key).collect();
        assert_eq!((told, missing.needs_walk), (vec![&key("other")], true), "{repaired}");
    }
    store.partition(0).compared(Space::Durable, &[bucket]).unwrap();
    let missing = space.missing(&Clock::default(), None, usize::MAX).unwrap();
    assert_eq!((missing.found.deltas.len(), missing.needs_walk), (2, false), "nobody has it");
}

/// A record that nobody can heal: its events do not hold up a sweep, what its bucket lacks is no evidence, and once it was
/// compared with every member the record goes.
#[test]
fn damaged_record_is_given_up_once_its_bucket_was_compared() {
    for bad in [key("k07"), Key::new(&[b'k'; 2_000]).unwrap()] {
        let dir = fast_dir();
        let store = open(dir.path(), config(1));
        let t = table("t");
        for n in 0..20 {
            store.put(&t, &key(format!("k{n:02}")), b"value");
        }
        store.put(&t, &bad, b"value");
        store.close().unwrap();
        tamper(dir.path(), "objects", |objects, txn| {
            let row = weald_storage::row_key(&t, &bad);
            let mut record = objects.get(txn, &row).unwrap().unwrap().to_vec();
            let at = record.len() - 6;
            record[at] ^= 1;
            objects.put(txn, &row, &record).unwrap();
        });
        let store = open_unchecked(dir.path());
        let bucket = Bucket::of(&t, &bad);
        let space = |store: &Store| store.partition(0).space(Space::Durable);
        assert!(!space(&store).bucket(bucket).unwrap().sound);
        assert_eq!(space(&store).damaged().unwrap(), []);
        store.partition(0).repair_tree(bucket).unwrap();
        drop(store);
        let store = open_unchecked(dir.path());
        assert!(!space(&store).bucket(bucket).unwrap().sound, "it adds up, and is marked");
        assert_eq!(space(&store).damaged().unwrap(), [bucket]);
        let report = store.partition(0).scrub(Space::Durable, bucket..=bucket).unwrap();
        assert!(report.mismatches.is_empty());
        let stable = space(&store).clock().unwrap().bases().into();
        let report = store.partition(0).sweep(Space::Durable, &stable, u64::MAX, 0, 99).unwrap();
        assert_eq!(report.swept, 21);
        assert!(matches!(store.get(&t, &bad, 0), Err(ReadError::Corrupt(_))));
        store.partition(0).compared(Space::Durable, &[bucket]).unwrap();
        assert!(space(&store).bucket(bucket).unwrap().sound);
        assert_eq!(space(&store).damaged().unwrap(), []);
        assert!(store.read(&t, &bad).values.is_empty());
        store.put(&t, &bad, b"anew");
        assert_tree_is_sound(&store);
        store.close().unwrap();
        let verdict = weald_storage::check_env(&dir.path().join("partition-0"));
        assert!(matches!(verdict, CheckVerdict::Sound { .. }), "{verdict:?}");
    }
}

#[test]
fn rows_that_do_not_fit_together_are_found() {
    type Tamper = fn(&heed::Database<'_, Bytes, Bytes>, &mut RwTxn<'_>);
    let lose: Tamper = |rows, txn| {
        let key = rows.iter(txn).unwrap().nth(3).unwrap().unwrap().0.to_vec();
        rows.delete(txn, &key).unwrap();
    };
    let garble: Tamper = |rows, txn| {
        let key = rows.iter(txn).unwrap().last().unwrap().unwrap().0.to_vec();
        rows.put(txn, &key, b"garbage").unwrap();
    };
    let misplace: Tamper = |rows, txn| {
        let (to, _) = rows.iter(txn).unwrap().nth(2).unwrap().unwrap();
        let to = to.to_vec();
        let record = rows.iter(txn).unwrap().nth(3).unwrap().unwrap().1.to_vec();
        rows.put(txn, &to, &record).unwrap();
    };
    let nothing: Tamper = |_, _| {};
    let cases: [(&str, Tamper, Option<&str>); 12] = [
        ("objects", nothing, None),
        ("objects", lose, Some("buckets")),
        ("objects", garble, Some("record")),
        ("objects", misplace, Some("checksum")),
        ("buckets", lose, Some("buckets")),
        ("buckets", misplace, Some("buckets")),
        ("expiry", lose, Some("expiry")),
        ("expiry", misplace, Some("expiry")),
        ("changes", lose, Some("gap")),
        ("changes", garble, Some("damaged")),
        ("clock", garble, Some("clock")),
        ("tree", garble, Some("tree")),
    ];
    for (database, change, expected) in cases {
        let dir = fast_dir();
        let t = table("t");
        for round in 0..2 {
            let store = open(dir.path(), config(1));
            for n in 0..8 {
                let put = WriteOp::Put {
                    table: t.clone(),
                    key: key(format!("{round}-{n}")),
                    value: b"v".to_vec(),
                    context: None,
                    ttl: Some(std::time::Duration::from_secs(60 + n)),
                };
                store.write(put).unwrap();
            }
            // Not closed: the next life leaves a row in the clock.
        }
        drop(open(dir.path(), config(1)));
        tamper(dir.path(), database, change);
        match (weald_storage::check_env(&dir.path().join("partition-0")), expected) {
            (CheckVerdict::Sound { rows: 16, .. }, None) => {}
            (CheckVerdict::Damaged { why }, Some(text)) if why.contains(text) => {}
            (verdict, _) => panic!("{database}: {verdict:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn wrong_sum_is_found_by_a_scrub_and_rebuilt() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let t = table("t");
    let ops = (0..700).map(|n| put_op(&t, &key(format!("k{n}")), b"v")).collect();
    assert!(store.batch(0, ops).iter().all(Result::is_ok));
    store.close().unwrap();
    let wrong = Bucket::of(&t, &key("k5"));
    tamper(dir.path(), "tree", |tree, txn| {
        let mut row = tree.get(txn, &[wrong.branch()]).unwrap().unwrap().to_vec();
        row[usize::from(wrong.number() % 16) * 24 + 20] ^= 0x55;
        tree.put(txn, &[wrong.branch()], &row).unwrap();
    });
    let damaged = weald_storage::check_env(&dir.path().join("partition-0"));
    assert!(matches!(damaged, CheckVerdict::Damaged { .. }));
    let store = open_unchecked(dir.path());
    let all = Bucket::new(0).unwrap()..=Bucket::new(4095).unwrap();
    let report = store.partition(0).scrub(Space::Durable, all).unwrap();
    assert_eq!((report.mismatches, report.corrupt), (vec![wrong], 0));
    store.partition(0).repair_tree(wrong).unwrap();
    assert_tree_is_sound(&store);
    store.put(&t, &key("k5"), b"w");
    assert_tree_is_sound(&store);
    store.close().unwrap();
    assert!(matches!(
        weald_storage::check_env(&dir.path().join("partition-0")),
        CheckVerdict::Sound { .. }
    ));
}

#[test]
fn tree_stays_the_sum_while_changes_are_gathered_and_folded() {
    let dir = fast_dir();
    let mut store = open(dir.path(), config(1));
    let t = table("t");
    let mut written = 0_u32;
    for (round, size) in
        [1, 75, 1, 1, 300, 76, 77, 200, 600, 1, 511, 1, 1, 150].into_iter().enumerate()
    {
        let ops = (0..size).map(|n| put_op(&t, &key(format!("k{}", (written + n) % 900)), b"v"));
        assert!(store.batch(0, ops.collect()).iter().all(Result::is_ok));
        written += size;
        assert_tree_is_sound(&store);
        if round % 4 == 3 {
            drop(store);
            let verdict = weald_storage::check_env(&dir.path().join("partition-0"));
            assert!(matches!(verdict, CheckVerdict::Sound { .. }), "{verdict:?}");
            store = open(dir.path(), config(1));
        }
    }
}
