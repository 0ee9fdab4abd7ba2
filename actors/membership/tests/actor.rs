//! The actor in its supervisor, over a network in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use weald_membership::config::Config;
use weald_membership::{
    Connector, DialError, Force, MembershipHandle, OpError, Own, Renew, RequestError, Setup,
    child_spec,
};
use weald_peers::{
    Channel, Cluster, Inbox, Liveness, Network, PeerEvent, PeerInfo, SendError, Status,
};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::{Root, Scope, Strategy, SupervisorSpec};

/// Who is there, and who is connected with whom.
#[derive(Default)]
struct Wires {
    handles: BTreeMap<NodeId, MembershipHandle>,
    infos: BTreeMap<NodeId, PeerInfo>,
    connected: BTreeSet<(NodeId, NodeId)>,
}

#[derive(Clone)]
struct Wire {
    own: NodeId,
    wires: Arc<Mutex<Wires>>,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap()
    }

    fn connect(&self, to: NodeId) -> Result<PeerInfo, DialError> {
        let refused = |why: String| DialError { why, evicted_by: None };
        let mut wires = self.lock();
        let theirs = wires.infos.get(&to).cloned().ok_or_else(|| refused("nobody".into()))?;
        let ours = wires.infos[&self.own].clone();
        wires.handles[&to].admit(&ours).map_err(|e| refused(e.to_string()))?;
        if wires.connected.insert((self.own, to)) {
            wires.connected.insert((to, self.own));
            wires.handles[&to].peer(&PeerEvent::Up(Arc::new(ours)));
            wires.handles[&self.own].peer(&PeerEvent::Up(Arc::new(theirs.clone())));
        }
        Ok(theirs)
    }
}

impl Network for Wire {
    fn send(&self, to: NodeId, channel: Channel, _: u64, frame: &Frame) -> Result<(), SendError> {
        let wires = self.lock();
        if !wires.connected.contains(&(self.own, to)) {
            return Err(SendError::NotConnected);
        }
        wires.handles[&to].frame(self.own, channel, frame.clone());
        Ok(())
    }

    fn has_room(&self, _to: NodeId, _channel: Channel) -> bool {
        true
    }
}

impl Connector for Wire {
    fn want(&self, peers: BTreeMap<NodeId, Vec<String>>) {
        for node in peers.into_keys() {
            let _dialled_again_later = self.connect(node);
        }
    }

    fn dial_seed(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<PeerInfo, DialError>> {
        let wire = self.clone();
        Box::pin(async move {
            let found =
                wire.lock().infos.values().find(|i| i.addresses == addresses).map(|i| i.node);
            match found {
                Some(node) => wire.connect(node),
                None => Err(DialError { why: "nobody there".into(), evicted_by: None }),
            }
        })
    }
}

impl Renew for Wire {
    fn renew(&self, above: u32) -> BoxFuture<'static, Result<u32, String>> {
        self.lock().infos.get_mut(&self.own).unwrap().incarnation = above + 1;
        Box::pin(async move { Ok(above + 1) })
    }
}

struct Node {
    handle: MembershipHandle,
    scope: Scope,
    root: Root,
}

async fn start(wires: &Arc<Mutex<Wires>>, number: u8, dir: &std::path::Path) -> Node {
    let own = Own {
        node: NodeId([number; 16]),
        name: format!("node-{number}"),
        incarnation: 1,
        addresses: vec![format!("10.0.0.{number}:1")],
        capabilities: vec![],
    };
    let info = PeerInfo {
        node: own.node,
        name: own.name.clone(),
        incarnation: 1,
        addresses: own.addresses.clone(),
        capabilities: vec![],
    };
    let wire = Arc::new(Wire { own: own.node, wires: Arc::clone(wires) });
    let handle = MembershipHandle::new(own);
    {
        let mut wires = wires.lock().unwrap();
        wires.handles.insert(info.node, handle.clone());
        wires.infos.insert(info.node, info);
    }
    let setup = Setup {
        config: Config::default(),
        file: Some(dir.join(format!("members-{number}"))),
        network: Arc::<Wire>::clone(&wire),
        connector: Arc::<Wire>::clone(&wire),
        renew: wire,
    };
    let scope = Scope::new(&format!("node-{number}"), None);
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(child_spec(&handle, setup));
    let root = Root::start(&scope, "node", spec).await.unwrap();
    Node { handle, scope, root }
}

async fn until(handle: &MembershipHandle, holds: impl Fn(&Cluster) -> bool) {
    let mut watch = handle.watch();
    let waiting = async {
        while !holds(&watch.borrow_and_update().clone()) {
            watch.changed().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(in_time.is_ok(), "{:?}", handle.cluster());
}

fn all_up(count: usize) -> impl Fn(&Cluster) -> bool {
    move |cluster| cluster.peers_up().count() == count - 1 && cluster.neighbours.len() == count - 1
}

#[tokio::test]
async fn nodes_join_survive_a_crash_of_the_actor_and_leave() {
    const SOON: Duration = Duration::from_secs(5);
    let dir = tempfile::tempdir().unwrap();
    let wires = Arc::new(Mutex::new(Wires::default()));
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let node = start(&wires, number, dir.path()).await;
        if number > 1 {
            node.handle.join(vec!["10.0.0.1:1".into()], SOON).await.unwrap();
        }
        nodes.push(node);
    }
    for node in &nodes {
        until(&node.handle, all_up(3)).await;
    }
    // The connections go on without the actor; its successor knows them.
    nodes[1].scope.kill("node/membership").unwrap();
    until(&nodes[1].handle, |cluster| !all_up(3)(cluster)).await;
    until(&nodes[1].handle, all_up(3)).await;

    let is_up = nodes[0].handle.forget("node-2".into(), Force::No, SOON).await;
    assert!(matches!(is_up, Err(RequestError::Refused(OpError::IsUp { .. }))));
    let unknown = nodes[0].handle.forget("nobody".into(), Force::No, SOON).await.unwrap_err();
    assert!(unknown.to_string().contains("members are: node-1, node-2, node-3"), "{unknown}");

    let garbage = Frame { kind: weald_membership::messages::KIND, corr: 0, body: vec![255; 40] };
    nodes[0].handle.frame(NodeId([2; 16]), Channel::Control, garbage);

    nodes[2].handle.leave(SOON).await.unwrap();
    let three = NodeId([3; 16]);
    for node in &nodes {
        until(&node.handle, |cluster| cluster.members[&three].status == Status::Left).await;
    }
    until(&nodes[0].handle, all_up(2)).await;
    assert_eq!(nodes[0].handle.stats().malformed, 1);

    // A node that stops does not leave, and remembers.
    let node = nodes.remove(0);
    assert!(node.root.shutdown(SOON).await.in_order);
    let again = start(&wires, 1, dir.path()).await;
    until(&again.handle, |cluster| cluster.members.len() == 3).await;
    let two = NodeId([2; 16]);
    assert_eq!(again.handle.cluster().members[&two].status, Status::Joined);
    assert_ne!(again.handle.cluster().members[&two].liveness, Liveness::Down);
    assert_eq!(nodes[0].handle.cluster().members[&NodeId([1; 16])].status, Status::Joined);
}
