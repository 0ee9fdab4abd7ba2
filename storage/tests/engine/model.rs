//! Random operations against a `BTreeMap`, with the store closed and opened in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weald_storage::{Resolver, Space, TableKind, TableSpec, WriteOp};

use crate::support::{
    Short, assert_tree_is_sound, config, delete_op, fast_dir, key, open, put_op, table,
};

#[derive(Debug, Clone)]
enum Step {
    /// Writes to single keys, as one batch per partition. `None` deletes.
    Batch(Vec<(u8, Option<Vec<u8>>)>),
    PutIfAbsent(u8, Vec<u8>),
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let step = prop_oneof![
        6 => prop::collection::vec((0_u8..24, value), 1..12).prop_map(Step::Batch),
        3 => (0_u8..24, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(k, v)| Step::PutIfAbsent(k, v)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn store_is_a_map(steps in steps(), partitions in 1_u16..4) {
        let dir = fast_dir();
        let mut store = open(dir.path(), config(partitions));
        let tables = [table("durable"), table("memory")];
        let spec = TableSpec {
            kind: TableKind::Memory,
            resolver: Resolver::Lww,
            ttl_default: None,
        };
        store.declare_table(&tables[1], spec).unwrap();
        let mut models = [BTreeMap::new(), BTreeMap::new()];
        // Long keys among them, so that truncated rows take part.
        let name = |k: u8| {
            let mut bytes = vec![b'k', k];
            if k.is_multiple_of(3) {
                bytes.splice(0..0, [b'x'; 600]);
            }
            key(bytes)
        };
        let mut last_dots = BTreeMap::new();
        for step in steps {
            match step {
                Step::Batch(writes) => {
                    for (t, model) in tables.iter().zip(&mut models) {
                        let mut batches = vec![Vec::new(); usize::from(partitions)];
                        for (k, value) in &writes {
                            let k = name(*k);
                            let op = value.as_ref().map_or_else(
                                || delete_op(t, &k),
                                |value| put_op(t, &k, value),
                            );
                            batches[usize::from(store.partition_of(t, &k))].push(op);
                            match value {
                                Some(value) => model.insert(k.as_bytes().to_vec(), value.clone()),
                                None => model.remove(k.as_bytes()),
                            };
                        }
                        for (index, ops) in (0..).zip(batches).filter(|(_, ops)| !ops.is_empty()) {
                            for outcome in store.batch(index, ops) {
                                let dot = outcome.unwrap().dot.unwrap();
                                let last = last_dots.insert((index, dot.actor), dot.counter);
                                prop_assert!(last != Some(dot.counter));
                            }
                        }
                    }
                }
                Step::PutIfAbsent(k, value) => {
                    for (t, model) in tables.iter().zip(&mut models) {
                        let k = name(k);
                        let outcome = store.write(WriteOp::PutIf {
                            table: t.clone(),
                            key: k.clone(),
                            value: value.clone(),
                            expected: None,
                            ttl: None,
                        });
                        let absent = !model.contains_key(k.as_bytes());
                        prop_assert_eq!(outcome.is_ok(), absent);
                        if absent {
                            model.insert(k.as_bytes().to_vec(), value.clone());
                        }
                    }
                }
                Step::Reopen | Step::Crash => {
                    if matches!(step, Step::Reopen) {
                        store.close().unwrap();
                    }
                    let before = store.actor(Space::Durable);
                    drop(store);
                    store = open(dir.path(), config(partitions));
                    let renewed = store.actor(Space::Durable) != before;
                    prop_assert_eq!(renewed, matches!(step, Step::Crash));
                    models[1].clear();
                }
            }
            assert_tree_is_sound(&store);
            for (t, model) in tables.iter().zip(&models) {
                let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                prop_assert_eq!(store.all(t), expected);
            }
        }
        for k in 0..24 {
            for (t, model) in tables.iter().zip(&models) {
                let k = name(k);
                prop_assert_eq!(store.value(t, &k), model.get(k.as_bytes()).cloned());
            }
        }
    }
}
