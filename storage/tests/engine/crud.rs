//! Writing and reading single keys: values, contexts, siblings, conflicts, batches.

use std::time::Duration;

use weald_storage::{
    ChangeKind, Context, Resolver, Resolvers, Space, TableKind, TableSpec, VersionVector,
    WriteError, WriteOp,
};

use crate::support::{
    Clock, Short, START_MS, assert_tree_is_sound, config, key, open, open_with, put_op, table,
};

#[test]
fn put_get_delete_and_their_contexts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(2));
    let (t, k) = (table("t"), key("k"));
    let absent = store.read(&t, &k);
    assert!(absent.values.is_empty() && absent.context.vector().is_empty());
    let first = store.put(&t, &k, b"one");
    assert_eq!(store.read(&t, &k).context, first.context);
    assert_eq!(first.dot.unwrap().actor, store.actor(Space::Durable));
    let second = store.put_ctx(&t, &k, b"two", &first.context).unwrap();
    assert!(second.context.vector().dominates(first.context.vector()));
    assert_eq!(store.value(&t, &k).unwrap(), b"two");
    let gone = store.delete(&t, &k);
    let got = store.read(&t, &k);
    assert!(got.values.is_empty());
    assert_eq!(got.context, gone.context, "a deleted key has the context of its tombstone");
    assert_tree_is_sound(&store);
    store.close().unwrap();
}
