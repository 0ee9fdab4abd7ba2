//! The change log, the tree and the commit hook as their readers use them.

use std::sync::{Arc, Mutex};

use weald_storage::{
    Bucket, ChangeKind, EntryDigest, Resolver, Space, StoreConfig, TableKind, TableSpec, TreeNode,
    TreePath,
};

use crate::support::{Short, assert_tree_is_sound, config, fast_dir, key, open, put_op, table};

#[test]
fn reader_resumes_where_it_stopped_and_is_told_what_was_dropped() {
    let dir = fast_dir();
    let settings = StoreConfig { changes_retained: 50, ..config(1) };
    let store = open(dir.path(), settings.clone());
    let memory = table("m");
    let spec = TableSpec { kind: TableKind::Memory, resolver: Resolver::Lww, ttl_default: None };
    store.declare_table(&memory, spec).unwrap();
    for (t, space) in [(table("t"), Space::Durable), (memory, Space::Memory)] {
        let partition = store.partition(0);
        let start = partition.last_seq(space);
        for n in 0..30 {
            store.put(&t, &key(format!("k{n}")), b"v");
        }
        store.delete(&t, &key("k0"));
        let (mut at, mut seen) = (start, Vec::new());
        loop {
            let changes = partition.changes(space, at, 7).unwrap();
            assert!(!changes.truncated() && changes.events.len() <= 7);
            let Some(last) = changes.events.last() else { break };
            at = last.seq;
            seen.extend(changes.events);
        }
        assert_eq!(seen.len(), 31);
        assert!(seen.iter().zip(start + 1..).all(|(event, seq)| event.seq == seq));
        assert_eq!(seen[30].kind, ChangeKind::Delete);
        assert_eq!((seen[30].key.clone(), at), (key("k0"), partition.last_seq(space)));
        for n in 0..400 {
            store.put(&t, &key(format!("k{}", n % 5)), b"w");
        }
        let changes = partition.changes(space, at, usize::MAX).unwrap();
        assert!(changes.truncated(), "{changes:?}");
        assert_eq!(changes.last_seq, at + 400);
        assert_eq!(changes.events.len(), 50);
        assert_eq!(changes.events[0].seq, changes.first_retained);
        let kept = partition.changes(space, changes.first_retained - 1, 1).unwrap();
        assert!(!kept.truncated() && kept.events.len() == 1);
        let end = partition.changes(space, changes.last_seq, 9).unwrap();
        assert!(!end.truncated() && end.events.is_empty());
    }
    let last = store.partition(0).last_seq(Space::Durable);
    store.close().unwrap();
    // A lowered limit is reached step by step; numbers go on after a start.
    let store = open(dir.path(), StoreConfig { changes_retained: 5, ..settings });
    let next = store.put(&table("t"), &key("k"), b"v");
    assert_eq!(next.seq, Some(last + 1));
    store.put(&table("t"), &key("k"), b"v");
    let changes = store.partition(0).changes(Space::Durable, 0, 100).unwrap();
    assert_eq!(changes.events.len(), 5);
    assert_tree_is_sound(&store);
}

#[test]
fn long_keys_are_whole_in_the_log_and_in_buckets() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let (t, k) = (table("t"), key(vec![7; 3_000]));
    store.put(&t, &k, b"v");
    let partition = store.partition(0);
    let changes = partition.changes(Space::Durable, 0, 9).unwrap();
    assert_eq!(changes.events.last().unwrap().key, k);
    let bucket = Bucket::of(&t, &k);
    let page = partition.bucket_entries(Space::Durable, bucket, None, 10).unwrap();
    assert!(page.entries.iter().any(|entry| entry.key == k));
}

#[test]
fn hook_hears_of_each_commit_and_the_number_is_there_already() {
    let dir = fast_dir();
    let store = open(dir.path(), config(2));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (to, reader) = (Arc::clone(&heard), store.clone());
    store.set_commit_hook(Box::new(move |index, space, seq| {
        assert!(reader.partition(index).last_seq(space) >= seq);
        to.lock().unwrap().push((index, seq));
    }));
    let t = table("t");
    let mut expected = Vec::new();
    for n in 0..10 {
        let k = key(format!("k{n}"));
        let index = store.partition_of(&t, &k);
        let ops = vec![put_op(&t, &k, b"1"), put_op(&t, &k, b"2")];
        store.batch(index, ops);
        expected.push((index, store.partition(index).last_seq(Space::Durable)));
    }
    assert_eq!(*heard.lock().unwrap(), expected);
    // The hook holds the store: end the circle.
    store.set_commit_hook(Box::new(|_, _, _| {}));
    store.close().unwrap();
}

#[test]
fn tree_is_walked_down_to_the_objects() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let memory = table("m");
    let spec = TableSpec { kind: TableKind::Memory, resolver: Resolver::Lww, ttl_default: None };
    store.declare_table(&memory, spec).unwrap();
    for (t, space) in [(table("t"), Space::Durable), (memory, Space::Memory)] {
        let ops = (0..600).map(|n| put_op(&t, &key(format!("k{n}")), b"v")).collect();
        assert!(store.batch(0, ops).iter().all(Result::is_ok));
        let partition = store.partition(0);
        let mut found = 0;
        for branch in TreePath::Root.children() {
            let leaves = partition.tree_children(space, branch).unwrap();
            for (leaf, path) in leaves.iter().zip(branch.children()) {
                let TreePath::Leaf(bucket) = path else { panic!("{path:?}") };
                assert_eq!(partition.tree_children(space, path).unwrap(), []);
                let (mut after, mut sum) = (None, TreeNode::default());
                loop {
                    let page = partition.bucket_entries(space, bucket, after, 1).unwrap();
                    for entry in &page.entries {
                        let object = partition.object(&entry.table, &entry.key).unwrap().unwrap();
                        let digest = EntryDigest::of(&entry.table, &entry.key, &object).unwrap();
                        assert_eq!(entry.digest, digest);
                        sum = TreeNode::sum([sum, TreeNode { count: 1, digest: digest.0 }]);
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(sum, *leaf);
                found += sum.count;
            }
        }
        assert_eq!(found, partition.tree_root(space).unwrap().count);
        assert!(found >= 600);
    }
}

#[test]
fn equal_objects_make_equal_trees_whatever_the_order() {
    let dirs = [fast_dir(), fast_dir()];
    let stores = dirs.each_ref().map(|dir| open(dir.path(), config(1)));
    let t = table("t");
    for n in 0..50 {
        stores[0].put(&t, &key(format!("k{n}")), b"v");
    }
    stores[0].delete(&t, &key("k7"));
    let from = stores[0].partition(0);
    for n in (0..50).rev() {
        let k = key(format!("k{n}"));
        let object = from.object(&t, &k).unwrap().unwrap();
        let op = weald_storage::WriteOp::Merge {
            table: t.clone(),
            key: k,
            object,
            dots: Vec::new(),
            evidence: Default::default(),
        };
        stores[1].write(op).unwrap();
    }
    let roots =
        stores.each_ref().map(|store| store.partition(0).tree_root(Space::Durable).unwrap());
    assert_eq!(roots[0], roots[1]);
    assert_eq!(stores[0].all(&t), stores[1].all(&t));
}
