//! Actors with a network between them that loses nothing unless told.

use std::collections::BTreeMap;
use std::sync::Arc;

use weald_broadcast::Source;
use weald_broadcast::messages::{GOSSIP, I_HAVE};
use weald_peers::{Channel, Inbox};
use weald_proto::Frame;

use crate::tables::node;
use crate::world::{Log, Peer, World, wait_until};

const STREAMS: [u16; 2] = [0x8001, 0x8002];

struct Nodes {
    world: Arc<World>,
    peers: Vec<Peer>,
    logs: Vec<[Arc<Log>; 2]>,
}

impl Nodes {
    /// Nodes 1 to `count`.
    async fn start(count: u8) -> Self {
        let world = Arc::new(World::default());
        let (mut peers, mut logs) = (Vec::new(), Vec::new());
        for n in 1..=count {
            let own = [Log::new(node(n)), Log::new(node(n))];
            let sources: BTreeMap<u16, Arc<dyn Source>> = STREAMS
                .into_iter()
                .zip(&own)
                .map(|(stream, log)| (stream, Arc::clone(log) as Arc<dyn Source>))
                .collect();
            peers.push(Peer::start(&world, n, sources).await);
            logs.push(own);
        }
        Self { world, peers, logs }
    }

    async fn full_mesh(count: u8) -> Self {
        let nodes = Self::start(count).await;
        for n in 1..=count {
            let others: Vec<u8> = (1..=count).filter(|m| *m != n).collect();
            nodes.peer(n).neighbours(&others, true);
        }
        nodes.settle().await;
        nodes
    }

    /// Waits until every actor knows its neighbours, and gives each node an event.
    async fn settle(&self) {
        wait_until("the neighbours are known", || {
            (self.peers.iter().all(|peer| peer.stats().neighbours > 0), String::new())
        })
        .await;
        for n in (1..).take(self.peers.len()) {
            self.write(n, 0, 1);
        }
        let all = self.peers.len();
        wait_until("the first events", || {
            (self.logs.iter().all(|logs| logs[0].len() == all), String::new())
        })
        .await;
    }

    fn peer(&self, n: u8) -> &Peer {
        &self.peers[usize::from(n) - 1]
    }

    fn log(&self, n: u8, stream: usize) -> &Log {
        &self.logs[usize::from(n) - 1][stream]
    }

    fn write(&self, n: u8, stream: usize, count: u64) {
        self.log(n, stream).write(count);
        self.peer(n).handle.stirred(STREAMS[stream]);
    }

    async fn wait_for(&self, nodes: &[u8], stream: usize, len: usize) {
        wait_until("events at all", || {
            let lens: Vec<_> = nodes.iter().map(|n| self.log(*n, stream).len()).collect();
            let all = lens.iter().all(|have| *have == len);
            (all, format!("{lens:?} of {len}: {:?}", self.peer(nodes[0]).stats()))
        })
        .await;
    }

    async fn stop(self) {
        for peer in self.peers {
            peer.stop().await;
        }
    }
}

#[tokio::test]
async fn full_mesh_spreads_batches_of_all_writers() {
    let nodes = Nodes::full_mesh(3).await;
    *nodes.world.gossips.lock().unwrap() = 0;
    for _ in 0..50 {
        for (n, stream) in [(1, 0), (2, 0), (3, 0), (1, 1)] {
            nodes.write(n, stream, 100);
        }
        tokio::task::yield_now().await;
    }
    nodes.wait_for(&[1, 2, 3], 0, 15_003).await;
    nodes.wait_for(&[1, 2, 3], 1, 5000).await;
    let gossips = *nodes.world.gossips.lock().unwrap();
    // At most 200 batches for two peers each, and what a busy machine asks for twice.
    assert!(gossips <= 450, "{gossips} gossips for 20,000 events");
    // What is merged is counted a moment after it is there.
    wait_until("all is counted and nothing waits", || {
        let stats = nodes.peer(2).stats();
        let counts = (stats.published, stats.merged, stats.waiting_bytes);
        (counts == (5001, 15_002, 0), format!("{stats:?}"))
    })
    .await;
    // On a machine that is busy a graft may overtake the push.
    let stats = nodes.peer(2).stats();
    assert!(stats.merge_failures == 0 && stats.trees.duplicate <= 10, "{stats:?}");
    nodes.stop().await;
}

#[tokio::test]
async fn line_forwards_what_was_new() {
    let nodes = Nodes::start(3).await;
    nodes.peer(1).neighbours(&[2], false);
    nodes.peer(2).neighbours(&[1, 3], false);
    nodes.peer(3).neighbours(&[2], false);
    nodes.settle().await;
    nodes.write(1, 1, 500);
    nodes.wait_for(&[1, 2, 3], 1, 500).await;
    nodes.stop().await;
}

#[tokio::test]
async fn cut_path_is_grafted_around() {
    let nodes = Nodes::full_mesh(3).await;
    nodes.world.cut.lock().unwrap().insert((1, 3));
    nodes.write(1, 0, 10);
    // By way of 2, which announces them to 3.
    nodes.wait_for(&[2, 3], 0, 13).await;
    assert!(nodes.peer(3).stats().trees.graft > 0);
    assert!(nodes.peer(1).told.has(3) && !nodes.peer(1).told.has(2));
    nodes.stop().await;
}

#[tokio::test]
async fn clogged_peer_is_behind_and_asks_others() {
    let nodes = Nodes::full_mesh(3).await;
    nodes.world.full.lock().unwrap().insert((1, 3));
    nodes.write(1, 0, 10);
    nodes.wait_for(&[2, 3], 0, 13).await;
    assert!(nodes.peer(1).told.has(3));
    nodes.stop().await;
}

#[tokio::test]
async fn restarted_actor_pushes_what_was_committed_meanwhile() {
    let nodes = Nodes::full_mesh(2).await;
    for round in 1..=3 {
        nodes.peer(1).scope.kill("node/broadcast").unwrap();
        nodes.write(1, 0, 100);
        nodes.wait_for(&[1, 2], 0, 2 + round * 100).await;
    }
    nodes.stop().await;
}

#[tokio::test]
async fn new_incarnation_goes_on_after_the_old_one() {
    let nodes = Nodes::full_mesh(2).await;
    nodes.log(1, 0).write(10);
    nodes.log(1, 0).renew();
    nodes.write(1, 0, 10);
    nodes.wait_for(&[1, 2], 0, 22).await;
    nodes.write(1, 0, 5);
    nodes.wait_for(&[1, 2], 0, 27).await;
    nodes.stop().await;
}

#[tokio::test]
async fn failed_merge_is_not_forwarded_and_the_sender_is_exchanged_with() {
    let nodes = Nodes::full_mesh(2).await;
    nodes.log(2, 0).refuse(true);
    nodes.write(1, 0, 3);
    wait_until("the failures", || {
        let stats = nodes.peer(2).stats();
        (stats.merge_failures == 3, format!("{stats:?}"))
    })
    .await;
    assert!(nodes.peer(2).told.has(1));
    nodes.log(2, 0).refuse(false);
    nodes.write(1, 0, 3);
    nodes.wait_for(&[2], 0, 5).await;
    nodes.stop().await;
}

#[tokio::test]
async fn garbage_is_counted_and_nothing_more() {
    let nodes = Nodes::full_mesh(2).await;
    let garbage = |kind, body: &[u8]| {
        let frame = Frame { kind, corr: 0, body: body.to_vec() };
        nodes.peer(2).handle.frame(node(1), Channel::Data, frame);
    };
    let mut head = vec![1; 18];
    head.extend_from_slice(&STREAMS[0].to_be_bytes());
    garbage(GOSSIP, b"short");
    garbage(GOSSIP, &[0; 30]);
    garbage(GOSSIP, &[head, vec![0xff; 30]].concat());
    garbage(I_HAVE, &[0xff; 30]);
    garbage(0x12ff, b"");
    wait_until("all counted", || {
        let stats = nodes.peer(2).stats();
        (stats.malformed == 5, format!("{stats:?}"))
    })
    .await;
    nodes.write(1, 0, 1);
    nodes.wait_for(&[1, 2], 0, 3).await;
    nodes.stop().await;
}
