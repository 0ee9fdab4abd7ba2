//! The actor in its supervisor, over a network in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weald_peers::{
    Channel, Cluster, Inbox, Liveness, Member, Network, PeerEvent, PeerInfo, SendError, Status,
};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::{Root, Scope, Strategy, SupervisorSpec};

use super::wire::{DELTA, is_interest};
use super::{Change, Config, InterestHandle, Parts, Routes, Row, Value};
use crate::registry::Kind;
use weald_wamp::message::MatchPolicy;

const ONE: Value = Value { count: 1, ..Value::GONE };

#[derive(Default)]
struct Wires {
    handles: BTreeMap<NodeId, InterestHandle>,
    connected: BTreeSet<(NodeId, NodeId)>,
    deltas: usize,
}

struct Wire {
    own: NodeId,
    wires: Arc<Mutex<Wires>>,
}

impl Network for Wire {
    fn send(&self, to: NodeId, channel: Channel, _: u64, frame: &Frame) -> Result<(), SendError> {
        assert!(is_interest(frame.kind));
        let mut wires = self.wires.lock().unwrap();
        if !wires.connected.contains(&(self.own, to)) {
            return Err(SendError::NotConnected);
        }
        wires.deltas += usize::from(frame.kind == DELTA);
        wires.handles[&to].frame(self.own, channel, frame.clone());
        Ok(())
    }

    fn has_room(&self, _to: NodeId, _channel: Channel) -> bool {
        true
    }
}

/// Rows of a node, and whether they may be used.
type Routed = (BTreeMap<Row, Value>, bool);

#[derive(Default)]
struct Table {
    nodes: Mutex<BTreeMap<NodeId, Routed>>,
    drops: AtomicUsize,
    /// Panics at the next call.
    is_broken: AtomicBool,
}

impl Routes for Table {
    fn apply(&self, node: NodeId, rows: Vec<Change>) {
        assert!(!self.is_broken.swap(false, Ordering::SeqCst), "broken for the test");
        let mut nodes = self.nodes.lock().unwrap();
        let (table, _) = nodes.entry(node).or_default();
        for (row, value) in rows {
            if value.is_gone() {
                table.remove(&row);
            } else {
                table.insert(row, value);
            }
        }
    }

    fn drop_node(&self, node: NodeId) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        self.nodes.lock().unwrap().remove(&node);
    }

    fn usable(&self, node: NodeId, is_usable: bool) {
        self.nodes.lock().unwrap().entry(node).or_default().1 = is_usable;
    }
}

impl Table {
    /// Rows of a node, and whether they may be used.
    fn of(&self, node: NodeId) -> (usize, bool) {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&node).map_or((0, false), |(rows, is_usable)| (rows.len(), *is_usable))
    }
}

struct Node {
    id: NodeId,
    handle: InterestHandle,
    table: Arc<Table>,
    cluster: watch::Sender<Arc<Cluster>>,
    scope: Scope,
    root: Root,
    wires: Arc<Mutex<Wires>>,
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn member(number: u8, status: Status) -> Member {
    Member {
        node: id(number),
        name: format!("n{number}"),
        incarnation: 1,
        version: 1,
        addresses: Vec::new(),
        status,
        liveness: Liveness::Up,
        seen_ms: 0,
    }
}

fn cluster(own: u8, of: &[u8]) -> Arc<Cluster> {
    let mut cluster = Cluster::alone(member(own, Status::Joined));
    for number in of {
        cluster.members.insert(id(*number), member(*number, Status::Joined));
    }
    Arc::new(cluster)
}

fn rows(numbers: std::ops::Range<usize>, value: Value) -> Vec<Change> {
    let row = |number| Row {
        realm: "realm1".into(),
        kind: Kind::Subscription,
        uri: format!("com.example.{number}").into(),
        policy: MatchPolicy::Exact,
    };
    numbers.map(|number| (row(number), value)).collect()
}

impl Node {
    async fn start(wires: &Arc<Mutex<Wires>>, number: u8, others: &[u8]) -> Self {
        let own = id(number);
        let (sender, receiver) = watch::channel(cluster(number, others));
        let table = Arc::new(Table::default());
        let handle = InterestHandle::new(Parts {
            own,
            incarnation: 1,
            seed: u64::from(number),
            config: Config::default(),
            network: Arc::new(Wire { own, wires: Arc::clone(wires) }),
            cluster: receiver,
            routes: Arc::<Table>::clone(&table),
        });
        wires.lock().unwrap().handles.insert(own, handle.clone());
        let scope = Scope::new(&format!("n{number}"), None);
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(handle.child_spec());
        let root = Root::start(&scope, "router", spec).await.unwrap();
        let wires = Arc::clone(wires);
        Self { id: own, handle, table, cluster: sender, scope, root, wires }
    }

    fn connect(&self, other: &Self) {
        {
            let mut wires = self.wires.lock().unwrap();
            wires.connected.extend([(self.id, other.id), (other.id, self.id)]);
        }
        for (at, peer) in [(self, other), (other, self)] {
            let info = PeerInfo {
                node: peer.id,
                name: String::new(),
                incarnation: 1,
                addresses: Vec::new(),
                capabilities: Vec::new(),
            };
            at.handle.peer(&PeerEvent::Up(Arc::new(info)));
        }
    }

    fn disconnect(&self, other: &Self) {
        {
            let mut wires = self.wires.lock().unwrap();
            wires.connected.remove(&(self.id, other.id));
            wires.connected.remove(&(other.id, self.id));
        }
        for (at, peer) in [(self, other), (other, self)] {
            at.handle.peer(&PeerEvent::Down {
                node: peer.id,
                why: "cut".to_owned(),
                is_agreed: false,
            });
        }
    }

    async fn stop(self) {
        self.root.shutdown(Duration::from_secs(5)).await;
    }
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn three() -> (Node, Node, Node) {
    let wires = Arc::default();
    let a = Node::start(&wires, 1, &[2, 3]).await;
    let b = Node::start(&wires, 2, &[1, 3]).await;
    let c = Node::start(&wires, 3, &[1, 2]).await;
    for (one, other) in [(&a, &b), (&a, &c), (&b, &c)] {
        one.connect(other);
    }
    (a, b, c)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_reach_all_nodes_and_go_with_their_node() {
    let (a, b, c) = three().await;
    a.handle.changed(rows(0..10, ONE));
    for node in [&b, &c] {
        wait_until("the rows", || node.table.of(a.id) == (10, true)).await;
        node.handle.caught_up(Instant::now() + Duration::from_secs(30)).await.unwrap();
    }
    a.handle.changed(rows(0..4, Value::GONE));
    wait_until("fewer rows", || b.table.of(a.id) == (6, true)).await;
    a.disconnect(&b);
    wait_until("not usable", || b.table.of(a.id) == (6, false)).await;
    wait_until("fewer rows there, too", || c.table.of(a.id) == (6, true)).await;
    a.connect(&b);
    wait_until("usable again", || b.table.of(a.id) == (6, true)).await;
    assert_eq!(b.table.drops.load(Ordering::SeqCst), 0);
    b.cluster.send_modify(|cluster| {
        Arc::make_mut(cluster).members.insert(id(1), member(1, Status::Evicted));
    });
    wait_until("dropped", || b.table.of(a.id) == (0, false)).await;
    assert!(b.handle.status().nodes.keys().eq([&c.id]), "{:?}", b.handle.status());
    assert_eq!((b.handle.stats().malformed, b.handle.stats().troubles), (0, 0));
    for node in [a, b, c] {
        node.stop().await;
    }
}

/// Method: the actor is killed, and rows change before its successor has come.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_actor_loses_nothing() {
    let (a, b, c) = three().await;
    a.handle.changed(rows(0..10, ONE));
    b.handle.changed(rows(0..3, ONE));
    wait_until("the rows", || {
        b.table.of(a.id) == (10, true) && a.table.of(b.id) == (3, true) && c.table.of(a.id).0 == 10
    })
    .await;
    for round in 1..=3 {
        let generation = a.handle.status();
        a.scope.kill("router/interest").unwrap();
        a.handle.changed(rows(0..round, Value::GONE));
        b.handle.changed(rows(10..10 + round, ONE));
        wait_until("changes of the killed", || b.table.of(a.id) == (10 - round, true)).await;
        wait_until("changes of the other", || a.table.of(b.id) == (3 + round, true)).await;
        assert!(generation.own.is_some());
    }
    // Neither did anybody take it for another life of the node.
    let own = a.handle.status().own.map(|own| own.incarnation);
    assert_eq!((own, b.table.drops.load(Ordering::SeqCst)), (Some(1), 0));
    for node in [a, b, c] {
        node.stop().await;
    }
}

/// Method: routing panics while rows are applied; the successor applies them again.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_applied_is_applied_by_the_successor() {
    let (a, b, c) = three().await;
    wait_until("caught up", || {
        let status = b.handle.status();
        status.is_caught_up() && status.nodes.len() == 2
    })
    .await;
    b.table.is_broken.store(true, Ordering::SeqCst);
    a.handle.changed(rows(0..10, ONE));
    wait_until("the rows", || b.table.of(a.id) == (10, true)).await;
    assert!(!b.table.is_broken.load(Ordering::SeqCst), "nothing has panicked");
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_changes_one_by_one_are_few_frames() {
    let (a, b, c) = three().await;
    for change in rows(0..10_000, ONE) {
        a.handle.changed([change]);
    }
    wait_until("all rows", || b.table.of(a.id).0 == 10_000 && c.table.of(a.id).0 == 10_000).await;
    let before = a.wires.lock().unwrap().deltas;
    a.handle.changed(rows(0..10_000, Value::GONE));
    wait_until("no rows", || b.table.of(a.id) == (0, true) && c.table.of(a.id) == (0, true)).await;
    let frames = a.wires.lock().unwrap().deltas - before;
    // About 60 bytes a row, in frames of 64 KiB, to two peers; a few more if a digest overtakes them.
    assert!(frames <= 2 * 25, "{frames} frames");
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_counted() {
    let (a, b, c) = three().await;
    b.handle.frame(a.id, Channel::Control, Frame { kind: DELTA, corr: 0, body: vec![1, 2, 3] });
    wait_until("counted", || b.handle.stats().malformed == 1).await;
    for node in [a, b, c] {
        node.stop().await;
    }
}
