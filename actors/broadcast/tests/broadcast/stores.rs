//! Actors over real stores: what is written anywhere is everywhere, and the replicas are equal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};

use futures::FutureExt;
use weald_broadcast::{MergeFailure, Merging, Sink, Source, StoreSource, stream_of};
use weald_storage::{
    Delta, Evidence, Key, Replicated, Resolver, Resolvers, Space, Store, StoreConfig, TableKind,
    TableName, TableSpec, Write, WriteOp,
};

use crate::world::{Peer, World, wait_until};

const PARTITIONS: u16 = 2;

struct Merges(Store);

impl Sink for Merges {
    fn merge(&self, partition: u16, _: Space, deltas: Vec<Delta>) -> Merging {
        let (tx, rx) = mpsc::channel();
        let count = deltas.len();
        let write = |(place, delta): (usize, Delta)| {
            let Delta { table, key, object, dots } = delta;
            let tx = tx.clone();
            Write {
                op: WriteOp::Merge { table, key, object, dots, evidence: Evidence::Own },
                reply: Box::new(move |outcome| tx.send((place, outcome)).unwrap()),
            }
        };
        let batch = deltas.into_iter().enumerate().map(write).collect();
        drop(tx);
        self.0.partition(partition).submit(batch, Box::new(|_| {}));
        let wait = tokio::task::spawn_blocking(move || {
            let outcomes: BTreeMap<_, _> = rx.iter().collect();
            assert_eq!(outcomes.len(), count);
            let failed =
                |e: weald_storage::WriteError| MergeFailure::Refused { reason: e.to_string() };
            outcomes.into_values().map(|o| o.map(|written| written.fresh).map_err(failed)).collect()
        });
        async move { wait.await.unwrap() }.boxed()
    }
}

struct Replica {
    store: Store,
    peer: Peer,
    _dir: tempfile::TempDir,
}

fn table(name: &str) -> TableName {
    TableName::parse(name).unwrap()
}

fn open(dir: &Path) -> Store {
    let config = StoreConfig { partitions: PARTITIONS, ..StoreConfig::default() };
    let check = |_: &Path| Err(std::io::Error::other("a fresh store needs no check"));
    Store::open(dir, config, Resolvers::default(), &check, &mut Vec::new()).unwrap()
}

async fn replica(world: &Arc<World>, n: u8) -> Replica {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let sink: Arc<dyn Sink> = Arc::new(Merges(store.clone()));
    let mut sources: BTreeMap<u16, Arc<dyn Source>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for space in [Space::Durable, Space::Memory] {
            let replicated = Arc::new(store.partition(partition).space(space));
            let sink = Arc::clone(&sink);
            let source = StoreSource { replicated, sink, partition, space };
            sources.insert(stream_of(partition, space), Arc::new(source));
        }
    }
    let peer = Peer::start(world, n, sources).await;
    let handle = peer.handle.clone();
    store.set_commit_hook(Box::new(move |partition, space, _| handle.committed(partition, space)));
    Replica { store, peer, _dir: dir }
}

fn roots(store: &Store) -> Vec<String> {
    let spaces = [Space::Durable, Space::Memory];
    let parts = (0..PARTITIONS).flat_map(|p| spaces.map(|space| store.partition(p).space(space)));
    parts
        .map(|part| format!("{:?} {:?}", part.tree_root().unwrap(), part.clock().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_become_equal() {
    let world = Arc::new(World::default());
    let nodes = [replica(&world, 1).await, replica(&world, 2).await, replica(&world, 3).await];
    nodes[0].peer.neighbours(&[2, 3], true);
    nodes[1].peer.neighbours(&[1, 3], true);
    nodes[2].peer.neighbours(&[1, 2], true);
    // Neighbours are known before anything is written: without them there is nobody to push to.
    wait_until("the neighbours are known", || {
        (nodes.iter().all(|n| n.peer.stats().neighbours == 2), String::new())
    })
    .await;
    for node in &nodes {
        let (resolver, ttl_default) = (Resolver::default(), None);
        let spec = TableSpec { kind: TableKind::Memory, resolver, ttl_default };
        node.store.declare_table(&table("memory"), spec).unwrap();
    }
    let writers: Vec<_> = (0_u8..)
        .zip(&nodes)
        .map(|(n, node)| {
            let store = node.store.clone();
            tokio::task::spawn_blocking(move || {
                for i in 0..200_u32 {
                    // Some keys are written by all, some deleted again.
                    let name = if i % 4 == 0 { "memory" } else { "durable" };
                    let key = Key::new(&(i % 60 + u32::from(n) * 20).to_be_bytes()).unwrap();
                    let (table, context) = (table(name), None);
                    store
                        .write(if i % 7 == 6 {
                            WriteOp::Delete { table, key, context }
                        } else {
                            WriteOp::Put { table, key, value: vec![n; 30], context, ttl: None }
                        })
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    wait_until("equal replicas", || {
        let all: Vec<_> = nodes.iter().map(|node| roots(&node.store)).collect();
        let stats: Vec<_> = nodes.iter().map(|node| node.peer.stats()).collect();
        (all.windows(2).all(|pair| pair[0] == pair[1]), format!("{all:#?} {stats:#?}"))
    })
    .await;
    for Replica { store, peer, _dir } in nodes {
        assert!(peer.stats().published >= 200 && peer.stats().merge_failures == 0);
        peer.stop().await;
        store.close().unwrap();
    }
}
