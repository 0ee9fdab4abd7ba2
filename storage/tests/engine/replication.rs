//! Two stores that exchange what the other lacks: on disk, in memory, and over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weald_storage::{
    Actor, Bucket, Clock, Dot, Evidence, NodeId, OpenError, Others, Replicated, Resolvers, Space,
    Stable, Store, StoreConfig, TableKind, TableSpec, TreeNode, VersionVector, WriteOp, check_env,
    stable,
};

use crate::support::{
    Short, assert_tree_is_sound, config, delete_op, fast_dir, key, open, open_with, put_op, table,
};

fn declare(store: &Store) {
    let spec = TableSpec { kind: TableKind::Memory, ..TableSpec::UNDECLARED };
    store.declare_table(&table("m"), spec).unwrap();
}

/// Sends all that `to` lacks of `space`, in small pages; whether it must walk for the rest.
fn send(from: &Store, to: &Store, space: Space) -> bool {
    let (source, target) = (from.partition(0).space(space), to.partition(0).space(space));
    let theirs = target.clock().unwrap();
    let (mut after, mut needs_walk) = (None, false);
    loop {
        let page = source.missing(&theirs, after, 2_000).unwrap();
        needs_walk |= page.needs_walk;
        let ops = page.found.deltas.into_iter().map(|delta| WriteOp::Merge {
            table: delta.table,
            key: delta.key,
            object: delta.object,
            dots: delta.dots,
            evidence: Evidence::Own,
        });
        for outcome in to.batch(0, ops.collect()) {
            outcome.unwrap();
        }
        if !page.found.more {
            return needs_walk;
        }
        after = page.found.last;
    }
}

fn stable_of(stores: &[&Store], space: Space) -> Stable {
    let clocks: Vec<Clock> =
        stores.iter().map(|store| store.partition(0).clock(space).unwrap()).collect();
    let current = stores.iter().map(|store| store.actor(space)).collect();
    stable(&clocks.iter().collect::<Vec<_>>(), &current, Others::Nobody)
}

fn assert_equal(x: &Store, y: &Store, space: Space) {
    let (x, y) = (x.partition(0).space(space), y.partition(0).space(space));
    assert_eq!(x.clock().unwrap(), y.clock().unwrap());
    assert_eq!(x.tree_root().unwrap(), y.tree_root().unwrap());
    for bucket in Bucket::all() {
        let content = x.bucket(bucket).unwrap();
        assert!(content.sound);
        assert_eq!(content, y.bucket(bucket).unwrap());
    }
}

fn sweep(store: &Store, space: Space, stable: &Stable) -> (u64, u64) {
    let (mut swept, mut reaped) = (0, 0);
    loop {
        let report = store.partition(0).sweep(space, stable, u64::MAX, 0, 700).unwrap();
        assert!(report.swept <= 700);
        (swept, reaped) = (swept + report.swept, reaped + report.reaped);
        if !report.more {
            return (swept, reaped);
        }
    }
}

#[test]
fn stores_converge_and_forget_over_restarts() {
    let dirs = [fast_dir(), fast_dir()];
    let open_all = || dirs.each_ref().map(|dir| open(dir.path(), config(1)));
    let stores = open_all();
    let spaces = [(Space::Durable, table("d")), (Space::Memory, table("m"))];
    stores.iter().for_each(declare);
    let long = key([b'k'; 2000]);
    for (space, t) in &spaces {
        for (at, store) in stores.iter().enumerate() {
            for n in 0..60 {
                store.put(t, &key(format!("k{}", n + at * 30)), &[7; 100]);
            }
            store.put(t, &long, format!("long {at}").as_bytes());
            for n in 0..20 {
                store.delete(t, &key(format!("k{}", n + at * 30)));
            }
        }
        assert!(!send(&stores[0], &stores[1], *space) && !send(&stores[1], &stores[0], *space));
        assert_equal(&stores[0], &stores[1], *space);
        stores[0].delete(t, &long);
        send(&stores[0], &stores[1], *space);
        let all = stable_of(&[&stores[0], &stores[1]], *space);
        for store in &stores {
            let (_, reaped) = sweep(store, *space, &all);
            // Those that the other wrote at the same time are siblings of their tombstones.
            assert_eq!(reaped, 21, "{space:?}");
            assert_eq!(store.partition(0).object(t, &long).unwrap(), None);
            assert_tree_is_sound(store);
        }
        assert_equal(&stores[0], &stores[1], *space);
        let behind = stores[0].partition(0).space(*space);
        assert!(behind.missing(&Clock::default(), None, 1).unwrap().needs_walk);
    }
    // What is on disk is still there after a restart, and what was swept stays so.
    stores[0].put(&table("d"), &key("last"), b"v");
    let facts = |store: &Store| {
        let space = store.partition(0).space(Space::Durable);
        (space.clock().unwrap(), space.swept().unwrap(), space.tree_root().unwrap())
    };
    let before = stores.each_ref().map(facts);
    stores.iter().for_each(|store| store.close().unwrap());
    for dir in &dirs {
        let verdict = check_env(&dir.path().join("partition-0"));
        assert!(matches!(verdict, weald_storage::CheckVerdict::Sound { .. }), "{verdict}");
    }
    let stores = open_all();
    assert_eq!(stores.each_ref().map(facts), before);
    assert!(!send(&stores[0], &stores[1], Space::Durable));
    assert_equal(&stores[0], &stores[1], Space::Durable);
}

#[test]
fn adopted_clock_is_kept_and_what_it_brought_is_not_served() {
    let (dir, other) = (fast_dir(), fast_dir());
    let (x, y) = (open(dir.path(), config(1)), open(other.path(), config(1)));
    for n in 0..10 {
        x.put(&table("d"), &key([n]), b"v");
    }
    let theirs = x.partition(0).clock(Space::Durable).unwrap();
    let behind = Clock::default();
    assert!(!x.partition(0).space(Space::Durable).missing(&behind, None, 1).unwrap().needs_walk);
    y.partition(0).adopt(Space::Durable, &theirs, &VersionVector::new(), None).unwrap();
    drop(y.close());
    let y = open(other.path(), config(1));
    let space = y.partition(0).space(Space::Durable);
    assert!(space.clock().unwrap().descends(&theirs));
    assert_eq!(space.swept().unwrap().get(&x.actor(Space::Durable)), 10);
    assert!(space.missing(&behind, None, 1).unwrap().needs_walk);
    let dot = Dot { actor: x.actor(Space::Durable), counter: 3 };
    assert_eq!(space.deltas_of(&[dot]).unwrap(), (Vec::new(), vec![dot]));
    // A clock that knows more of this node than it does is refused.
    let ahead = Dot { actor: y.actor(Space::Durable), counter: 1 };
    let mut theirs = theirs;
    theirs.insert(ahead);
    let adopted = y.partition(0).adopt(Space::Durable, &theirs, &VersionVector::new(), None);
    assert!(matches!(adopted, Err(weald_storage::WriteError::OwnEventUnknown { .. })));
}

/// A clock tells of a value that somebody else brings while the trees are compared: it may be dead there.
#[test]
fn clock_is_not_adopted_when_others_brought_what_it_tells_of() {
    let (dir, other) = (fast_dir(), fast_dir());
    let (x, y) = (open(dir.path(), config(1)), open(other.path(), config(1)));
    for (name, space) in [("d", Space::Durable), ("m", Space::Memory)] {
        [&x, &y].into_iter().for_each(declare);
        x.put(&table(name), &key("k"), b"v");
        let theirs = Arc::new(x.partition(0).clock(space).unwrap());
        let none = VersionVector::new();
        let adopt = |watch| y.partition(0).adopt(space, &theirs, &none, Some(watch));
        let watch = || y.partition(0).space(space).watch(&theirs).unwrap();
        let before = watch();
        send(&x, &y, space);
        assert!(matches!(adopt(before), Err(weald_storage::WriteError::Disturbed)), "{name}");
        assert!(adopt(watch()).is_ok(), "{name}");
    }
}

#[test]
fn commit_that_changes_only_the_clock_calls_the_hook_and_is_kept() {
    for (name, space) in [("d", Space::Durable), ("m", Space::Memory)] {
        let dir = fast_dir();
        let store = open(dir.path(), config(1));
        declare(&store);
        let t = table(name);
        // Batches end after their hooks were called.
        assert!(store.batch(0, vec![put_op(&t, &key("k"), b"v")])[0].is_ok());
        let called = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&called);
        store.set_commit_hook(Box::new(move |_, _, _| {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let seq = store.partition(0).last_seq(space);
        let actor = Actor { node: NodeId([9; 16]), incarnation: 4 };
        let dot = Dot { actor, counter: 1 };
        let op = || WriteOp::Merge {
            table: t.clone(),
            key: key("k"),
            object: store.partition(0).object(&t, &key("k")).unwrap().unwrap(),
            dots: vec![dot],
            evidence: Evidence::Own,
        };
        for (fresh, calls) in [(true, 1), (false, 1)] {
            let written = store.batch(0, vec![op()]).remove(0).unwrap();
            assert_eq!((written.fresh, written.seq), (fresh, None));
            assert_eq!(called.load(Ordering::SeqCst), calls);
        }
        assert_eq!(store.partition(0).last_seq(space), seq);
        assert!(store.partition(0).clock(space).unwrap().contains(&dot));
        let known = store.partition(0).space(space).deltas_of(&[dot]).unwrap();
        assert_eq!((known.0.len(), known.1.len()), (1, 0));
    }
}

#[test]
fn pages_of_what_was_deleted_are_used_again() {
    let dir = fast_dir();
    let log = StoreConfig { changes_retained: 100, ..config(1) };
    let store = open(dir.path(), log);
    let t = table("d");
    let used = || store.stats().partitions[0].used_bytes;
    let file = || std::fs::metadata(dir.path().join("partition-0/data.mdb")).unwrap().len();
    // The long form of the clusters' scenarios has one of this, too.
    let keys = if std::env::var_os("WEALD_CLUSTER_FULL").is_some() { 100_000 } else { 20_000_u32 };
    let fill = |value: &[u8]| {
        for chunk in (0..keys).collect::<Vec<_>>().chunks(2_000) {
            let puts = chunk.iter().map(|n| put_op(&t, &key(n.to_be_bytes()), value));
            assert!(store.batch(0, puts.collect()).iter().all(Result::is_ok));
        }
    };
    store.put(&t, &key("first"), b"v");
    let baseline = used();
    let mut first = (0, 0);
    for round in 0..3 {
        fill(&[7; 100]);
        let loaded = used();
        assert!(loaded > baseline + u64::from(keys) * 100);
        for chunk in (0..keys).collect::<Vec<_>>().chunks(2_000) {
            let deletes = chunk.iter().map(|n| delete_op(&t, &key(n.to_be_bytes())));
            assert!(store.batch(0, deletes.collect()).iter().all(Result::is_ok));
        }
        let (swept, reaped) = sweep(&store, Space::Durable, &stable_of(&[&store], Space::Durable));
        let all = u64::from(keys);
        assert_eq!((swept, reaped), (2 * all + u64::from(round == 0), all));
        assert!(used() <= baseline + 256 * 1024, "{} of {baseline}", used());
        let root = store.partition(0).tree_root(Space::Durable).unwrap();
        assert!(root.count == 1 && root != TreeNode::default());
        if round == 0 {
            first = (loaded, file());
        } else {
            assert!(loaded <= first.0 + first.0 / 8, "{loaded} after {}", first.0);
            assert!(file() <= first.1 + first.1 / 4, "{} after {}", file(), first.1);
        }
    }
    assert_tree_is_sound(&store);
    store.close().unwrap();
    let verdict = check_env(&dir.path().join("partition-0"));
    assert!(matches!(verdict, weald_storage::CheckVerdict::Sound { rows: 1, .. }), "{verdict}");
}

#[test]
fn directory_of_an_earlier_format_is_refused_and_left_alone() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    store.put(&table("d"), &key("k"), b"v");
    store.close().unwrap();
    let path = dir.path().join("store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let of_format = |format: u16| {
        let older = text.replace("\"format\": 3", &format!("\"format\": {format}"));
        assert_ne!(older, text);
        std::fs::write(&path, older).unwrap();
    };
    of_format(1);
    let (opened, events) = open_with(dir.path(), config(1), Resolvers::default());
    assert!(matches!(opened, Err(OpenError::Format { found: 1, known: 3, .. })), "{opened:?}");
    assert_eq!(events, []);
    // The one before is read, and written as the current one.
    of_format(2);
    assert_eq!(open(dir.path(), config(1)).read(&table("d"), &key("k")).values, [b"v"]);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"format\": 3"));
}
