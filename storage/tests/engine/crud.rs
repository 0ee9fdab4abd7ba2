//! Writing and reading single keys: values, contexts, siblings, conflicts, batches.

use std::time::Duration;

use weald_storage::{
    Actor, ChangeKind, Context, DeclareError, Dot, Hlc, Key, NodeId, Object, Resolver, Resolvers,
    Space, Store, TableKind, TableName, TableSpec, Value, VersionVector, WriteError, WriteOp,
};

use crate::support::{
    Clock, START_MS, Short, assert_tree_is_sound, config, delete_op, fast_dir, key, open,
    open_with, put_op, table,
};

fn declare(store: &Store, name: &str, kind: TableKind, resolver: Resolver) -> TableName {
    let name = table(name);
    store.declare_table(&name, TableSpec { kind, resolver, ttl_default: None }).unwrap();
    name
}

fn put_if(t: &TableName, k: &Key, value: &[u8], expected: Option<Context>) -> WriteOp {
    WriteOp::PutIf { table: t.clone(), key: k.clone(), value: value.to_vec(), expected, ttl: None }
}

fn repair(t: &TableName, k: &Key, read: &Context) -> WriteOp {
    WriteOp::Repair { table: t.clone(), key: k.clone(), read: read.clone() }
}

const PEER: Actor = Actor { node: NodeId([0xee; 16]), incarnation: 5 };

fn peer_object(counter: u64, payload: &[u8], stamp_ms: u64) -> Object {
    let mut object = Object::new();
    let value =
        Value { stamp: Hlc::new(stamp_ms, 0), expires_ms: None, payload: Some(payload.to_vec()) };
    object.write(&VersionVector::new(), Dot { actor: PEER, counter }, value);
    object
}

fn merge(t: &TableName, k: &Key, object: &Object) -> WriteOp {
    WriteOp::Merge {
        table: t.clone(),
        key: k.clone(),
        object: object.clone(),
        dots: object.live_dots().collect(),
        evidence: Default::default(),
    }
}

#[test]
fn put_get_delete_and_their_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(2));
    for (name, kind) in [("t", TableKind::Durable), ("m", TableKind::Memory)] {
        let (t, k) = (declare(&store, name, kind, Resolver::Lww), key("k"));
        let absent = store.read(&t, &k);
        assert!(absent.values.is_empty() && absent.context.vector().is_empty());
        let first = store.put(&t, &k, b"one");
        assert_eq!(store.read(&t, &k).context, first.context);
        let space = if kind == TableKind::Memory { Space::Memory } else { Space::Durable };
        assert_eq!((first.space, first.dot.unwrap().actor), (space, store.actor(space)));
        let second = store.put_ctx(&t, &k, b"two", &first.context).unwrap();
        assert!(second.context.vector().dominates(first.context.vector()));
        assert_eq!(store.value(&t, &k).unwrap(), b"two");
        let gone = store.delete(&t, &k);
        let got = store.read(&t, &k);
        assert!(got.values.is_empty());
        assert_eq!(got.context, gone.context, "a deleted key has the context of its tombstone");
        assert_eq!(store.all(&t), []);
    }
    assert_tree_is_sound(&store);
    store.close().unwrap();
}

#[test]
fn stale_context_keeps_siblings_and_repair_resolves_what_was_read() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    for kind in [TableKind::Durable, TableKind::Memory] {
        let names = if kind == TableKind::Memory { ["ms", "ml"] } else { ["ds", "dl"] };
        let siblings = declare(&store, names[0], kind, Resolver::Siblings);
        let lww = declare(&store, names[1], kind, Resolver::Lww);
        let k = key("k");
        for t in [&siblings, &lww] {
            let first = store.put(t, &k, b"a");
            store.put_ctx(t, &k, b"b", &first.context).unwrap();
            store.put_ctx(t, &k, b"c", &first.context).unwrap();
        }
        let mut values = store.read(&siblings, &k).values;
        values.sort();
        assert_eq!(values, [b"b", b"c"]);
        assert!(!store.read(&siblings, &k).needs_repair);
        let read = store.read(&lww, &k);
        assert_eq!((read.values, read.needs_repair), (vec![b"c".to_vec()], true));
        // A sibling that arrives after the read survives the repair.
        store.put_ctx(&lww, &k, b"d", &Context::new(&lww, &k, VersionVector::new())).unwrap();
        let repaired = store.write(repair(&lww, &k, &read.context)).unwrap();
        assert!(repaired.dot.is_some());
        let index = store.partition_of(&lww, &k);
        let object = store.partition(index).object(&lww, &k).unwrap().unwrap();
        let mut live: Vec<_> = object.values().filter_map(|value| value.payload.clone()).collect();
        live.sort();
        assert_eq!(live, [b"c", b"d"]);
        assert_eq!(store.value(&lww, &k).unwrap(), b"d", "repair keeps the stamp of the winner");
        let read = store.read(&lww, &k);
        store.write(repair(&lww, &k, &read.context)).unwrap();
        let read = store.read(&lww, &k);
        assert!(!read.needs_repair);
        let nothing = store.write(repair(&lww, &k, &read.context)).unwrap();
        assert_eq!((nothing.dot, nothing.seq), (None, None));
    }
    assert_tree_is_sound(&store);
}

#[test]
fn put_if_compares_with_what_is_there() {
    let dir = fast_dir();
    let clock = Clock::new();
    let store = open(dir.path(), weald_storage::StoreConfig { clock: clock.wall(), ..config(1) });
    let (t, k) = (table("t"), key("k"));
    let first = store.write(put_if(&t, &k, b"1", None)).unwrap();
    match store.write(put_if(&t, &k, b"2", None)) {
        Err(WriteError::Conflict { values, context }) => {
            assert_eq!(values, [b"1"]);
            assert_eq!(context, first.context);
        }
        other => panic!("{other:?}"),
    }
    let second = store.write(put_if(&t, &k, b"2", Some(first.context.clone()))).unwrap();
    assert!(matches!(
        store.write(put_if(&t, &k, b"3", Some(first.context))),
        Err(WriteError::Conflict { .. })
    ));
    assert_eq!(store.value(&t, &k).unwrap(), b"2");
    store.delete(&t, &k);
    assert!(matches!(
        store.write(put_if(&t, &k, b"3", Some(second.context))),
        Err(WriteError::Conflict { .. })
    ));
    store.write(put_if(&t, &k, b"4", None)).unwrap();
    // An expired value counts as absent, before anything has swept it.
    let expiring = WriteOp::Put {
        table: t.clone(),
        key: key("e"),
        value: b"x".to_vec(),
        context: None,
        ttl: Some(Duration::from_millis(10)),
    };
    store.write(expiring).unwrap();
    assert!(store.write(put_if(&t, &key("e"), b"y", None)).is_err());
    clock.advance(10);
    store.write(put_if(&t, &key("e"), b"y", None)).unwrap();
}

#[test]
fn forged_and_foreign_contexts_are_refused() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let memory = declare(&store, "m", TableKind::Memory, Resolver::Lww);
    for (t, space) in [(table("t"), Space::Durable), (memory, Space::Memory)] {
        let k = key("k");
        let written = store.put(&t, &k, b"v");
        let forge = |counter| {
            let vector = [(store.actor(space), counter)].into_iter().collect();
            Context::new(&t, &k, vector)
        };
        let counter = written.dot.unwrap().counter;
        for op in [
            WriteOp::Delete { table: t.clone(), key: k.clone(), context: Some(forge(counter + 1)) },
            put_if(&t, &k, b"w", Some(forge(u64::MAX))),
            repair(&t, &k, &forge(counter + 1)),
            WriteOp::Expire { table: t.clone(), key: k.clone(), read: forge(counter + 1) },
        ] {
            let refused = store.write(op.clone());
            assert!(matches!(refused, Err(WriteError::ForgedContext { .. })), "{op:?}");
        }
        assert!(matches!(
            store.put_ctx(&t, &k, b"w", &forge(counter + 1)),
            Err(WriteError::ForgedContext { known, .. }) if known == counter
        ));
        let elsewhere = store.put(&t, &key("other"), b"v").context;
        assert!(matches!(store.put_ctx(&t, &k, b"w", &elsewhere), Err(WriteError::ForeignContext)));
        assert_eq!(store.value(&t, &k).unwrap(), b"v");
        // What a client read at a peer may be ahead of us.
        let vector = [(PEER, 99)].into_iter().collect();
        store.put_ctx(&t, &k, b"w", &Context::new(&t, &k, vector)).unwrap();
    }
    assert_tree_is_sound(&store);
}

#[test]
fn failing_writes_of_a_batch_fail_alone_and_keys_keep_their_order() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let m = declare(&store, "m", TableKind::Memory, Resolver::Lww);
    let seq = store.partition(0).last_seq(Space::Durable);
    let t = table("t");
    let outcomes = store.batch(
        0,
        vec![
            put_op(&t, &key("b"), b"1"),
            put_if(&t, &key("b"), b"2", None),
            put_op(&t, &key("a"), b"3"),
            put_op(&table("weald.secret"), &key("a"), b"4"),
            put_op(&m, &key("a"), b"5"),
            delete_op(&t, &key("b")),
            put_op(&t, &key("c"), &vec![0; weald_storage::VALUE_BYTES_MAX + 1]),
            put_op(&t, &key("b"), b"6"),
        ],
    );
    assert!(matches!(outcomes[1], Err(WriteError::Conflict { .. })));
    assert!(matches!(outcomes[3], Err(WriteError::ReservedTable(_))));
    assert!(matches!(outcomes[6], Err(WriteError::ValueTooLarge { .. })));
    for good in [0, 2, 4, 5, 7] {
        assert!(outcomes[good].is_ok(), "{good}: {:?}", outcomes[good]);
    }
    let all = [(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"6".to_vec())];
    assert_eq!(store.all(&t), all);
    assert_eq!(store.value(&m, &key("a")).unwrap(), b"5");
    let changes = store.partition(0).changes(Space::Durable, seq, 100).unwrap();
    let of_b: Vec<_> = changes.events.iter().filter(|event| event.key == key("b")).collect();
    let kinds: Vec<_> = of_b.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [ChangeKind::Put, ChangeKind::Delete, ChangeKind::Put]);
    assert!(of_b.windows(2).all(|pair| pair[0].dot < pair[1].dot && pair[0].seq < pair[1].seq));
    let dots: Vec<_> = changes.events.iter().map(|event| event.dot.counter).collect();
    let first = dots[0];
    assert_eq!(dots, (first..first + 4).collect::<Vec<_>>(), "refused writes use up no dot");
    assert_tree_is_sound(&store);
}

#[test]
fn writes_for_another_partition_are_refused() {
    let dir = fast_dir();
    let store = open(dir.path(), config(4));
    let t = table("t");
    let here: Vec<_> = (0..40).map(|n| key(format!("k{n}"))).collect();
    let ops = here.iter().map(|k| put_op(&t, k, b"v")).collect();
    for (k, outcome) in here.iter().zip(store.batch(2, ops)) {
        let belongs = store.partition_of(&t, k);
        match outcome {
            Ok(_) => assert_eq!(belongs, 2),
            Err(WriteError::WrongPartition { sent_to: 2, belongs_to }) => {
                assert_eq!(belongs_to, belongs);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn writer_panic_aborts_the_batch_and_the_next_one_works() {
    let dir = fast_dir();
    let mut resolvers = Resolvers::default();
    resolvers.register("boom", |_, _, _| panic!("injected"));
    let store = open_with(dir.path(), config(1), resolvers).0.unwrap();
    for (name, kind) in [("d", TableKind::Durable), ("m", TableKind::Memory)] {
        let t = declare(&store, name, kind, Resolver::Merge("boom".to_owned()));
        let k = key("k");
        let first = store.put(&t, &k, b"a");
        store.put_ctx(&t, &k, b"b", &Context::new(&t, &k, VersionVector::new())).unwrap();
        assert_eq!(first.dot.unwrap().actor.node, store.node_id());
        let space = first.space;
        let seq = store.partition(0).last_seq(space);
        let index = store.partition_of(&t, &k);
        let context = Context::of(&t, &k, &store.partition(index).object(&t, &k).unwrap().unwrap());
        let outcomes = store.batch(
            0,
            vec![
                put_op(&t, &key("a"), b"1"),
                repair(&t, &k, &context),
                put_op(&t, &key("z"), b"2"),
            ],
        );
        for outcome in outcomes {
            assert!(matches!(&outcome, Err(WriteError::Aborted(why)) if **why == *"injected"));
        }
        assert_eq!(store.partition(0).last_seq(space), seq);
        assert_eq!(store.read(&t, &key("a")).values, Vec::<Vec<u8>>::new());
        store.put(&t, &key("a"), b"3");
        assert_eq!(store.value(&t, &key("a")).unwrap(), b"3");
    }
    assert_tree_is_sound(&store);
    store.close().unwrap();
}

#[test]
fn panicking_reply_does_not_disturb_the_others() {
    use std::sync::mpsc::channel;
    use weald_storage::Write;
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let t = table("t");
    let (tx, rx) = channel();
    let good = tx.clone();
    let writes = vec![
        Write { op: put_op(&t, &key("a"), b"1"), reply: Box::new(|_| panic!("injected")) },
        Write {
            op: put_op(&t, &key("b"), b"2"),
            reply: Box::new(move |outcome| good.send(outcome.is_ok()).unwrap()),
        },
    ];
    store.partition(0).submit(writes, Box::new(move |report| tx.send(report.failed == 0).unwrap()));
    assert_eq!(rx.iter().collect::<Vec<_>>(), [true, true]);
    assert_eq!(store.all(&t).len(), 2);
}

#[test]
fn merge_takes_what_is_new_and_notices_a_lost_past() {
    let dir = fast_dir();
    let store = open(dir.path(), config(1));
    let m = declare(&store, "m", TableKind::Memory, Resolver::Lww);
    for (t, space) in [(table("t"), Space::Durable), (m.clone(), Space::Memory)] {
        let k = key("k");
        store.put(&t, &k, b"mine");
        let old = peer_object(3, b"theirs", 1_000);
        let merged = store.write(merge(&t, &k, &old)).unwrap();
        assert!(merged.dot.is_none() && merged.seq.is_some());
        let again = store.write(merge(&t, &k, &old)).unwrap();
        assert_eq!(again.seq, None, "nothing new");
        let read = store.read(&t, &k);
        assert_eq!(read.values, [b"mine"]);
        assert!(read.needs_repair);
        let clock = store.partition(0).clock(space).unwrap();
        assert!(clock.contains(&Dot { actor: PEER, counter: 3 }));
        assert!(!clock.contains(&Dot { actor: PEER, counter: 2 }));
        let own = clock.get(&store.actor(space)).unwrap();
        assert!(own.runs().is_empty() && own.base() >= 1);
    }
    // A peer knows an event of ours that we do not: our disk is older than what we told, or the number of this process was that
    // of one before it, since the clock was set back.
    for (t, space) in [(table("t"), Space::Durable), (m, Space::Memory)] {
        let k = key("k");
        store.put(&t, &k, b"before");
        let mut lost = Object::new();
        let actor = store.actor(space);
        lost.write(
            &VersionVector::new(),
            Dot { actor, counter: 1_000 },
            Value::tombstone(Hlc::new(START_MS, 0)),
        );
        let refused = store.write(merge(&t, &k, &lost));
        assert!(matches!(refused, Err(WriteError::OwnEventUnknown { counter: 1_000, .. })));
        assert!(!store.is_above(actor.incarnation));
        store.renew_incarnation(actor.incarnation).unwrap();
        assert!(store.is_above(actor.incarnation));
        let renewed = store.actor(space);
        assert!(renewed.incarnation > actor.incarnation);
        store.write(merge(&t, &k, &lost)).unwrap();
        let next = store.put(&t, &k, b"after");
        assert_eq!(next.dot.unwrap(), Dot { actor: renewed, counter: 1 });
        let clock = store.partition(0).clock(space).unwrap();
        assert!(clock.contains(&Dot { actor, counter: 1 }), "the past life stays in the clock");
    }
    let (t, k, renewed) = (table("t"), key("k"), store.actor(Space::Durable));
    assert_tree_is_sound(&store);
    store.close().unwrap();
    let store = open(dir.path(), config(1));
    assert_eq!(store.actor(Space::Durable), renewed, "a clean stop keeps the renewed life");
    assert_eq!(store.value(&t, &k).unwrap(), b"after");
}

#[test]
fn values_expire_and_are_swept_with_their_own_stamp() {
    let dir = fast_dir();
    let clock = Clock::new();
    let config = weald_storage::StoreConfig { clock: clock.wall(), ..config(1) };
    let store = open(dir.path(), config);
    for (name, kind) in [("d", TableKind::Durable), ("m", TableKind::Memory)] {
        let t = table(name);
        let spec = TableSpec {
            kind,
            resolver: Resolver::Lww,
            ttl_default: Some(Duration::from_millis(100)),
        };
        store.declare_table(&t, spec).unwrap();
        let put = |k: &str, ttl: Option<u64>| WriteOp::Put {
            table: t.clone(),
            key: key(k),
            value: b"v".to_vec(),
            context: None,
            ttl: ttl.map(Duration::from_millis),
        };
        let start = clock.now();
        let space = store.write(put("table", None)).unwrap().space;
        store.write(put("short", Some(10))).unwrap();
        store.write(put("long", Some(1_000))).unwrap();
        store.write(put("moved", Some(10))).unwrap();
        store.write(put("moved", Some(1_000))).unwrap();
        let visible = |now: u64, k: &str| !store.get(&t, &key(k), now).unwrap().values.is_empty();
        assert!(visible(start + 9, "short") && !visible(start + 10, "short"));
        let due = |now: u64| {
            let due = store.partition(0).expire_due(space, now, 100).unwrap();
            due.into_iter().map(|(_, k, _)| k).collect::<Vec<_>>()
        };
        assert_eq!(due(start + 9), []);
        assert_eq!(due(start + 10), [key("short")]);
        assert_eq!(due(start + 100), [key("short"), key("table")]);
        let found = store.partition(0).expire_due(space, start + 10, 100).unwrap();
        let expire = |read: &Context| WriteOp::Expire {
            table: t.clone(),
            key: key("short"),
            read: read.clone(),
        };
        // Too early by the clock of the writer: nothing happens.
        assert_eq!(store.write(expire(&found[0].2)).unwrap().seq, None);
        clock.advance(10);
        let swept = store.write(expire(&found[0].2)).unwrap();
        assert!(swept.dot.is_some());
        assert_eq!(due(clock.now()), []);
        // A value that came after the sweep was decided is not swept.
        store.write(put("short", Some(1_000))).unwrap();
        assert_eq!(store.write(expire(&found[0].2)).unwrap().seq, None);
        assert!(visible(clock.now(), "short"));
    }
    assert_tree_is_sound(&store);
}

#[test]
fn tables_are_declared_once_and_remembered() {
    let dir = fast_dir();
    let store = open(dir.path(), config(4));
    let durable = declare(&store, "users", TableKind::Durable, Resolver::Siblings);
    let memory = declare(&store, "sessions", TableKind::Memory, Resolver::Lww);
    let spec = |kind, resolver| TableSpec { kind, resolver, ttl_default: None };
    assert!(matches!(
        store.declare_table(&durable, spec(TableKind::Memory, Resolver::Lww)),
        Err(DeclareError::KindDiffers { existing: TableKind::Durable, .. })
    ));
    assert!(matches!(
        store.declare_table(&table("weald.mine"), TableSpec::UNDECLARED),
        Err(DeclareError::Reserved(_))
    ));
    assert!(matches!(
        store.declare_table(&table("x"), spec(TableKind::Durable, Resolver::Merge("no".into()))),
        Err(DeclareError::UnknownMerge(_))
    ));
    store.declare_system_table(&table("weald.mine"), TableSpec::UNDECLARED).unwrap();
    store.put(&table("implicit"), &key("k"), b"v");
    store.put(&memory, &key("k"), b"v");
    assert!(matches!(
        store.declare_table(&table("implicit"), spec(TableKind::Memory, Resolver::Lww)),
        Err(DeclareError::KindDiffers { .. })
    ));
    let before = store.tables();
    store.close().unwrap();
    let store = open(dir.path(), config(4));
    assert_eq!(store.tables(), before);
    assert_eq!(store.table(&durable).resolver, Resolver::Siblings);
    assert!(store.tables().iter().any(|t| t.name == table("implicit") && !t.declared));
    assert_eq!(store.all(&memory), [], "memory tables are empty after a start");
    // A declaration that comes from a peer takes effect, but never changes the kind.
    let (tables, name) = (table("weald.tables"), key("peer"));
    let json = serde_json::to_vec(&spec(TableKind::Memory, Resolver::Lww)).unwrap();
    store.write(merge(&tables, &name, &peer_object(1, &json, START_MS))).unwrap();
    assert_eq!(store.table(&table("peer")).kind, TableKind::Memory);
    let now_ms = weald_storage::WallClock::system().now_ms();
    let json = serde_json::to_vec(&spec(TableKind::Memory, Resolver::Lww)).unwrap();
    store.write(merge(&tables, &key("users"), &peer_object(2, &json, now_ms + 100))).unwrap();
    assert_eq!(store.table(&durable).kind, TableKind::Durable);
}
