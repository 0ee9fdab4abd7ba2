//! Nodes with real actors in one process, and a network between them that can be cut and clogged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use weald_broadcast::messages::GOSSIP;
use weald_broadcast::{
    Behind, BroadcastHandle, Config, Events, MergeFailure, Merging, Parts, Source, Stats,
};
use weald_peers::{
    Channel, Cluster, Dots, Inbox, Liveness, Member, Network, SendError, Status, WireDelta,
};
use weald_proto::Frame;
use weald_storage::{Actor, Clock, Dot, NodeId, ReadError};
use weald_supervision::{Intensity, Root, Scope, Strategy, SupervisorSpec};

use crate::tables::node;

/// Events in memory, as a stream that is no part of the store.
pub(crate) struct Log(Mutex<Events_>);

struct Events_ {
    actor: Actor,
    events: BTreeMap<Dot, WireDelta>,
    clock: Clock,
    refuses: bool,
}

impl Log {
    pub(crate) fn new(own: NodeId) -> Arc<Self> {
        let actor = Actor { node: own, incarnation: 1 };
        let (events, clock) = (BTreeMap::new(), Clock::default());
        Arc::new(Self(Mutex::new(Events_ { actor, events, clock, refuses: false })))
    }

    /// Writes events of this node.
    pub(crate) fn write(&self, count: u64) {
        let mut log = self.0.lock().unwrap();
        let actor = log.actor;
        let last = log.clock.get(&actor).map_or(0, |seen| seen.base());
        for counter in last + 1..=last + count {
            let dot = Dot { actor, counter };
            let dots = Dots::from_iter([dot]);
            let key = counter.to_be_bytes().to_vec();
            log.clock.insert(dot);
            log.events.insert(dot, WireDelta { table: "t".into(), key, object: vec![7; 40], dots });
        }
    }

    pub(crate) fn renew(&self) {
        self.0.lock().unwrap().actor.incarnation += 1;
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.0.lock().unwrap().refuses = refuses;
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().events.len()
    }
}

impl Source for Log {
    fn actor(&self) -> Actor {
        self.0.lock().unwrap().actor
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        Ok(self.0.lock().unwrap().clock.clone())
    }

    fn after(&self, actor: &Actor, after: u64, bytes_max: usize) -> Result<Events, ReadError> {
        let log = self.0.lock().unwrap();
        let first = Dot { actor: *actor, counter: after + 1 };
        let last = Dot { actor: *actor, counter: u64::MAX };
        let max = bytes_max / 100;
        let mut found: Vec<_> = log.events.range(first..=last).take(max + 1).collect();
        let more = found.len() > max;
        found.truncate(max);
        let last = found.last().map(|(dot, _)| dot.counter);
        Ok(Events {
            events: found.into_iter().map(|(_, event)| event.clone()).collect(),
            last,
            more,
        })
    }

    fn of(&self, dots: &[Dot]) -> Result<(Vec<WireDelta>, Vec<Dot>), ReadError> {
        let log = self.0.lock().unwrap();
        let unknown = dots.iter().filter(|dot| !log.events.contains_key(dot)).copied().collect();
        Ok((dots.iter().filter_map(|dot| log.events.get(dot)).cloned().collect(), unknown))
    }

    fn merge(&self, events: Vec<WireDelta>) -> Merging {
        let mut log = self.0.lock().unwrap();
        let refuses = log.refuses;
        let mut take = |event: WireDelta| {
            if refuses {
                return Err(MergeFailure::Refused { reason: "told so".into() });
            }
            let dot = event.dots.iter().next().unwrap();
            log.events.insert(dot, event);
            Ok(log.clock.insert(dot))
        };
        let results = events.into_iter().map(&mut take).collect();
        async move { results }.boxed()
    }
}

/// The network.
#[derive(Default)]
pub(crate) struct World {
    nodes: Mutex<BTreeMap<NodeId, BroadcastHandle>>,
    /// Directions in which nothing goes, and those whose queue is full.
    pub(crate) cut: Mutex<BTreeSet<(u8, u8)>>,
    pub(crate) full: Mutex<BTreeSet<(u8, u8)>>,
    pub(crate) gossips: Mutex<u64>,
}

struct Port(u8, Arc<World>);

impl Network for Port {
    fn send(&self, to: NodeId, channel: Channel, _: u64, frame: &Frame) -> Result<(), SendError> {
        let way = (self.0, to.0[0]);
        if self.1.cut.lock().unwrap().contains(&way) {
            return Err(SendError::NotConnected);
        }
        if frame.kind == GOSSIP {
            if self.1.full.lock().unwrap().contains(&way) {
                return Err(SendError::Full { waiting: 1 });
            }
            *self.1.gossips.lock().unwrap() += 1;
        }
        let receiver = self.1.nodes.lock().unwrap().get(&to).cloned();
        let receiver = receiver.ok_or(SendError::NotConnected)?;
        receiver.frame(node(self.0), channel, frame.clone());
        Ok(())
    }

    fn has_room(&self, _: NodeId, _: Channel) -> bool {
        true
    }
}

#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeSet<NodeId>>);

impl Told {
    pub(crate) fn has(&self, n: u8) -> bool {
        self.0.lock().unwrap().contains(&node(n))
    }
}

impl Behind for Told {
    fn behind(&self, peer: NodeId) {
        self.0.lock().unwrap().insert(peer);
    }
}

/// A node.
pub(crate) struct Peer {
    pub(crate) handle: BroadcastHandle,
    pub(crate) told: Arc<Told>,
    pub(crate) scope: Scope,
    cluster: watch::Sender<Arc<Cluster>>,
    root: Root,
}

impl Peer {
    /// A node with these streams.
    pub(crate) async fn start(
        world: &Arc<World>,
        n: u8,
        sources: BTreeMap<u16, Arc<dyn Source>>,
    ) -> Self {
        let member = Member {
            node: node(n),
            name: format!("n{n}"),
            incarnation: 1,
            version: 1,
            addresses: vec![],
            status: Status::Joined,
            liveness: Liveness::Up,
            seen_ms: 0,
        };
        let (cluster, watch) = watch::channel(Arc::new(Cluster::alone(member)));
        let told = Arc::new(Told::default());
        let parts = Parts {
            config: Config { lazy_tick_ms: 100, demote_ms: 60_000, ..Config::default() },
            network: Arc::new(Port(n, Arc::clone(world))),
            cluster: watch,
            behind: Arc::clone(&told) as Arc<dyn Behind>,
            sources,
        };
        let handle = BroadcastHandle::new(parts).unwrap();
        let scope = Scope::new(&format!("n{n}"), None);
        let intensity = Intensity { max_restarts: 10, window: Duration::from_secs(5) };
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(intensity)
            .child(handle.child_spec());
        let root = Root::start(&scope, "node", spec).await.unwrap();
        world.nodes.lock().unwrap().insert(node(n), handle.clone());
        Self { handle, told, scope, cluster, root }
    }

    pub(crate) fn neighbours(&self, of: &[u8], is_full_mesh: bool) {
        self.cluster.send_modify(|cluster| {
            let neighbours = of.iter().map(|n| node(*n)).collect();
            *cluster = Arc::new(Cluster { neighbours, is_full_mesh, ..Cluster::clone(cluster) });
        });
    }

    pub(crate) fn stats(&self) -> Stats {
        self.handle.stats()
    }

    pub(crate) async fn stop(self) {
        self.root.shutdown(Duration::from_secs(5)).await;
    }
}

/// Waits until something holds.
pub(crate) async fn wait_until(what: &str, state: impl Fn() -> (bool, String)) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (holds, text) = state();
        if holds {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {what}; {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
