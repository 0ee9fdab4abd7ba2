//! The actors between real stores, over a network in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use weald_exchange::{
    Config, Deps, ExchangeHandle, Lives, MergeFailure, NotCaughtUp, Partitions, RunError,
    SessionToken, Sink,
};
use weald_peers::{
    Channel, Cluster, Inbox, Liveness, Member, Network, PeerEvent, PeerInfo, SendError, Status,
};
use weald_proto::Frame;
use weald_storage::{
    CheckVerdict, Delta, Dot, Evidence, Key, NodeId, Replicated, Resolvers, Space, Store,
    StoreConfig, TableName, WriteOp,
};
use weald_supervision::{Root, Scope, Strategy, SupervisorSpec};

/// Everybody's inbox, while it is connected.
#[derive(Default)]
struct Hub {
    inboxes: Mutex<BTreeMap<NodeId, Arc<ExchangeHandle>>>,
    /// Who is connected with whom.
    links: Mutex<BTreeSet<(NodeId, NodeId)>>,
    cut: AtomicBool,
    frames: AtomicUsize,
}

struct Wire {
    own: NodeId,
    hub: Arc<Hub>,
}

impl Network for Wire {
    fn send(&self, to: NodeId, channel: Channel, _: u64, frame: &Frame) -> Result<(), SendError> {
        let inbox = self.hub.inboxes.lock().unwrap().get(&to).cloned();
        let is_linked = self.hub.links.lock().unwrap().contains(&(self.own, to));
        let inbox = inbox.filter(|_| is_linked && !self.hub.cut.load(Ordering::SeqCst));
        let inbox = inbox.ok_or(SendError::NotConnected)?;
        self.hub.frames.fetch_add(1, Ordering::SeqCst);
        inbox.frame(self.own, channel, frame.clone());
        Ok(())
    }

    fn has_room(&self, _: NodeId, _: Channel) -> bool {
        true
    }
}

/// Merges straight into a store; may be told to panic.
struct Into {
    store: Arc<Store>,
    panics: Arc<AtomicBool>,
}

impl Sink for Into {
    fn merge(
        &self,
        partition: u16,
        _: Space,
        items: Vec<(Delta, Evidence)>,
    ) -> BoxFuture<'static, Vec<Result<bool, MergeFailure>>> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "as told");
        let results: Vec<_> = items
            .into_iter()
            .map(|(Delta { table, key, object, dots }, evidence)| {
                let (reply, result) = oneshot::channel();
                let op = WriteOp::Merge { table, key, object, dots, evidence };
                let reply = Box::new(move |written| drop(reply.send(written)));
                (weald_storage::Write { op, reply }, result)
            })
            .collect();
        let (batch, results): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        self.store.partition(partition).submit(batch, Box::new(|_| {}));
        Box::pin(async move {
            let mut merged = Vec::new();
            for result in results {
                let written = result.await.unwrap();
                let failure = |e: weald_storage::WriteError| MergeFailure::Other(e.to_string());
                merged.push(written.map(|w| w.fresh).map_err(failure));
            }
            merged
        })
    }
}

struct NoLives;

impl Lives for NoLives {
    fn renew(&self, _: u32) {}
}

struct Node {
    store: Arc<Store>,
    handle: ExchangeHandle,
    root: Root,
    panics: Arc<AtomicBool>,
    cluster: watch::Sender<Arc<Cluster>>,
    _dir: tempfile::TempDir,
}

fn wall_ms() -> u64 {
    weald_storage::WallClock::system().now_ms()
}

fn open(dir: &Path) -> Store {
    let config = StoreConfig {
        partitions: 2,
        durability: weald_storage::Durability::Relaxed,
        ..StoreConfig::default()
    };
    let check = |_: &Path| Ok(CheckVerdict::Sound { rows: 0, ms: 0 });
    Store::open(dir, config, Resolvers::default(), &check, &mut Vec::new()).unwrap()
}

fn member(node: NodeId) -> Member {
    Member {
        node,
        name: node.to_string(),
        incarnation: 1,
        version: 1,
        addresses: Vec::new(),
        status: Status::Joined,
        liveness: Liveness::Up,
        seen_ms: 0,
    }
}

/// Two nodes, connected.
async fn pair(config: &Config) -> (Arc<Hub>, [Node; 2]) {
    line(config).await
}

/// Nodes of which each is connected with the one before and the one after it.
async fn line<const N: usize>(config: &Config) -> (Arc<Hub>, [Node; N]) {
    let hub = Arc::new(Hub::default());
    let dirs = [(); N].map(|()| tempfile::tempdir().unwrap());
    let stores: Vec<_> = dirs.iter().map(|dir| Arc::new(open(dir.path()))).collect();
    let ids: Vec<NodeId> = stores.iter().map(|store| store.node_id()).collect();
    for pair in ids.windows(2) {
        hub.links.lock().unwrap().extend([(pair[0], pair[1]), (pair[1], pair[0])]);
    }
    let links = hub.links.lock().unwrap().clone();
    let mut nodes = Vec::new();
    for ((number, store), dir) in stores.into_iter().enumerate().zip(dirs) {
        let own = ids[number];
        let cluster = Cluster {
            own,
            members: ids.iter().map(|id| (*id, member(*id))).collect(),
            neighbours: links.iter().filter(|(a, _)| *a == own).map(|(_, b)| *b).collect(),
            is_full_mesh: N == 2,
        };
        let (cluster, watch) = watch::channel(Arc::new(cluster));
        let partitions = Partitions::new((0..store.partitions()).map(|n| store.partition(n)));
        let panics = Arc::new(AtomicBool::new(false));
        let deps = Deps {
            own,
            stores: Arc::new(partitions.clone()),
            upkeep: Arc::new(partitions),
            sink: Arc::new(Into { store: Arc::clone(&store), panics: Arc::clone(&panics) }),
            lives: Arc::new(NoLives),
            network: Arc::new(Wire { own, hub: Arc::clone(&hub) }),
            cluster: watch,
            wall_ms,
            seed: number as u64 * 1_000_000,
        };
        let handle = ExchangeHandle::new(config.clone(), deps);
        let hook = handle.clone();
        store
            .set_commit_hook(Box::new(move |partition, space, _| hook.committed(partition, space)));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(handle.child_spec());
        let root = Root::start(&Scope::new("test", None), "node", spec).await.unwrap();
        hub.inboxes.lock().unwrap().insert(own, Arc::new(handle.clone()));
        nodes.push(Node { store, handle, root, panics, cluster, _dir: dir });
    }
    for (own, other) in &links {
        let own = nodes.iter().find(|node: &&Node| node.id() == *own).unwrap();
        own.handle.peer(&PeerEvent::Up(Arc::new(PeerInfo {
            node: *other,
            name: String::new(),
            incarnation: 1,
            addresses: Vec::new(),
            capabilities: Vec::new(),
        })));
    }
    (hub, nodes.try_into().ok().unwrap())
}

/// No exchange but those that are asked for, or pulled.
fn quiet() -> Config {
    Config {
        exchange_timer: Duration::from_secs(3_600),
        clocks_timer: Duration::from_millis(50),
        sweep_timer: Duration::from_millis(100),
        ..Config::default()
    }
}

impl Node {
    fn id(&self) -> NodeId {
        self.store.node_id()
    }

    fn write(&self, op: WriteOp) -> (u16, Dot) {
        let (table, key) = op.target();
        let partition = self.store.partition_of(table, key);
        (partition, self.store.write(op).unwrap().dot.unwrap())
    }

    fn put(&self, n: u64) -> (u16, Dot) {
        let (table, key) = name(n);
        self.write(WriteOp::Put { table, key, value: vec![1; 100], context: None, ttl: None })
    }

    fn delete(&self, n: u64) -> (u16, Dot) {
        let (table, key) = name(n);
        self.write(WriteOp::Delete { table, key, context: None })
    }

    fn has(&self, n: u64) -> bool {
        let (table, key) = name(n);
        !self.store.get(&table, &key, wall_ms()).unwrap().values.is_empty()
    }

    fn roots(&self) -> Vec<weald_storage::TreeNode> {
        (0..2).map(|n| self.store.partition(n).tree_root(Space::Durable).unwrap()).collect()
    }

    async fn stop(self) {
        self.root.shutdown(Duration::from_secs(5)).await;
    }
}

fn name(n: u64) -> (TableName, Key) {
    (TableName::parse("t").unwrap(), Key::new(format!("k{n}").as_bytes()).unwrap())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = soon();
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_connected_before_it_is_a_member_is_known_when_it_becomes_one() {
    let (_hub, [a, b]) = pair(&quiet()).await;
    let up = async || {
        let status = a.handle.status().await.unwrap();
        status.peers.get(&b.id()).is_some_and(|peer| peer.up)
    };
    let whole = Arc::clone(&a.cluster.borrow());
    until("the peer is connected", async || up().await).await;
    a.cluster.send_replace(Arc::new(Cluster::alone(member(a.id()))));
    until("it is no member", async || !up().await).await;
    a.cluster.send_replace(whole);
    until("it is a member, and connected as before", async || up().await).await;
    a.handle.diff(b.id(), soon()).await.unwrap();
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_converge_by_themselves_and_forget_what_was_deleted() {
    let config =
        Config { exchange_timer: Duration::from_millis(200), min_age: Duration::ZERO, ..quiet() };
    let (_hub, [a, b]) = pair(&config).await;
    (0..300).for_each(|n| _ = a.put(n));
    (300..400).for_each(|n| _ = b.put(n));
    until("both have all", async || a.has(399) && b.has(0) && a.roots() == b.roots()).await;
    (0..400).for_each(|n| _ = a.delete(n));
    let empty = weald_storage::TreeNode::default();
    until("all is gone on both", async || {
        a.roots() == b.roots() && a.roots().iter().all(|root| *root == empty)
    })
    .await;
    until("and forgotten", async || {
        let (a, b) = (a.handle.status().await.unwrap(), b.handle.status().await.unwrap());
        a.reaped >= 400 && b.reaped >= 400 && a.swept >= 800 && b.swept >= 800
    })
    .await;
    let status = a.handle.status().await.unwrap();
    let peer = &status.peers[&b.id()];
    assert!(peer.up && peer.convergence_age_ms.is_some() && peer.failures == 0, "{peer:?}");
    assert!(status.unknown.is_empty());
    let diff = a.handle.diff(b.id(), soon()).await.unwrap();
    assert_eq!((diff.shards, diff.first.len()), (0, 0));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_are_forgotten_in_a_line_whose_ends_never_meet() {
    let config =
        Config { exchange_timer: Duration::from_millis(200), min_age: Duration::ZERO, ..quiet() };
    let (_hub, nodes) = line::<3>(&config).await;
    let [a, b, c] = &nodes;
    (0..100).for_each(|n| _ = a.put(n));
    (100..200).for_each(|n| _ = c.put(n));
    until("all have all", async || {
        a.has(199) && c.has(0) && a.roots() == b.roots() && b.roots() == c.roots()
    })
    .await;
    (0..100).for_each(|n| _ = c.delete(n));
    (100..200).for_each(|n| _ = a.delete(n));
    until("all is forgotten", async || {
        let mut least = u64::MAX;
        for node in &nodes {
            let status = node.handle.status().await.unwrap();
            assert!(status.peers.len() <= 2, "the ends are not connected");
            least = least.min(if status.unknown.is_empty() { status.reaped } else { 0 });
        }
        least >= 200
    })
    .await;
    assert!(nodes.iter().all(|node| node.roots().iter().all(|root| root.count == 0)));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_with_a_token_pulls_what_it_waits_for_or_ends_in_time() {
    let (hub, [a, b]) = pair(&quiet()).await;
    a.handle.run(b.id(), soon()).await.unwrap();
    let (partition, dot) = a.put(1);
    let mut token = SessionToken::new();
    token.raise(partition, Space::Durable, dot);
    let token = SessionToken::decode(&token.encode()).unwrap();
    assert_eq!(a.handle.caught_up(token.clone(), soon()).await, Ok(()));
    assert_eq!(b.handle.caught_up(token.clone(), soon()).await, Ok(()));
    assert!(b.has(1));
    hub.cut.store(true, Ordering::SeqCst);
    let (partition, dot) = a.put(2);
    token_raise_and_expect_late(&b, token, partition, dot).await;
    a.stop().await;
    b.stop().await;
}

/// Messages of commits are for those who wait only: here nothing else says that something was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_with_the_commit_they_wait_for() {
    let config = Config { clocks_timer: Duration::from_secs(3_600), ..quiet() };
    let (_hub, [a, b]) = pair(&config).await;
    until("clocks are known", async || {
        let (a, b) = (a.handle.status().await.unwrap(), b.handle.status().await.unwrap());
        a.unknown.is_empty() && b.unknown.is_empty()
    })
    .await;
    let (partition, dot) = a.put(0);
    let mut token = SessionToken::new();
    token.raise(partition, Space::Durable, dot);
    assert_eq!(b.handle.caught_up(token, soon()).await, Ok(()));
    // What comes as a broadcast brings it. A question about clocks holds for a second, and is repeated with later writes.
    let mut n = 0;
    until("a write is acknowledged", async || {
        n += 1;
        let (partition, dot) = a.put(n);
        let handle = a.handle.clone();
        let acked = tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(2);
            handle.wait_acked(partition, Space::Durable, vec![dot], 1, deadline).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let space = a.store.partition(partition).space(Space::Durable);
        let items = space.deltas_of(&[dot]).unwrap().0.into_iter();
        let items = items.map(|delta| (delta, Evidence::Own)).collect();
        let sink = Into { store: Arc::clone(&b.store), panics: Arc::clone(&b.panics) };
        let merged = sink.merge(partition, Space::Durable, items).await;
        assert!(merged.iter().all(Result::is_ok), "{merged:?}");
        acked.await.unwrap() == Ok(1)
    })
    .await;
    a.stop().await;
    b.stop().await;
}

async fn token_raise_and_expect_late(b: &Node, mut token: SessionToken, partition: u16, dot: Dot) {
    token.raise(partition, Space::Durable, dot);
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(150);
    assert_eq!(b.handle.caught_up(token, deadline).await, Err(NotCaughtUp));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_waits_for_as_many_peers_as_it_asks_for() {
    let (_hub, [a, b]) = pair(&quiet()).await;
    let (partition, dot) = a.put(1);
    let wait = |needed, deadline| {
        a.handle.wait_acked(partition, Space::Durable, vec![dot], needed, deadline)
    };
    assert_eq!(wait(0, soon()).await, Ok(0));
    a.handle.run(b.id(), soon()).await.unwrap();
    assert_eq!(wait(1, soon()).await, Ok(1));
    let deadline = Instant::now() + Duration::from_millis(100);
    assert_eq!(wait(2, deadline).await, Err(1));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_a_session_ends_that_session_only() {
    let (_hub, [a, b]) = pair(&quiet()).await;
    let mut written = 0;
    // Sessions of the nodes' own, the first after coming up, may meet the crash in its place.
    until("the session asked for crashes", async || {
        (written..written + 50).for_each(|n| _ = b.put(n));
        written += 50;
        a.panics.store(true, Ordering::SeqCst);
        matches!(a.handle.run(b.id(), soon()).await, Err(RunError::Failed(_)))
    })
    .await;
    a.panics.store(false, Ordering::SeqCst);
    until("it is tried again and goes through", async || (0..written).all(|n| a.has(n))).await;
    let report = a.handle.run(b.id(), soon()).await.unwrap();
    assert!(report.converged);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connection_ends_sessions_at_once() {
    let (hub, [a, b]) = pair(&quiet()).await;
    hub.cut.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let lost = a.handle.run(b.id(), soon()).await;
    assert_eq!(lost, Err(RunError::Failed(weald_exchange::core::Failed::Disconnected)));
    a.handle.peer(&PeerEvent::Down { node: b.id(), why: "cut".to_owned(), is_agreed: false });
    let lost = a.handle.run(b.id(), soon()).await;
    assert!(lost.is_err() && begun.elapsed() < Duration::from_secs(5));
    assert!(hub.frames.load(Ordering::SeqCst) < 1_000);
    a.stop().await;
    b.stop().await;
}
