//! A node that has nothing but a transport.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weald_cluster::service::{BoxFuture, Caller, Credentials, Service};
use weald_cluster::session::Sessions;
use weald_cluster::transport::{Admission, AdmitAll, Config, TlsFiles, Transport};
use weald_link::pki::{self, Authority};
use weald_peers::{Channel, Inbox, Network, PeerEvent, PeerInfo, kind};
use weald_proto::Frame;
use weald_proto::hello::Refused;
use weald_proto::request::ClientRole;
use weald_storage::NodeId;
use weald_supervision::{LogConfig, Root, Scope, Strategy, SupervisionLog, SupervisorSpec};

/// The service that the tests use.
pub(crate) const SERVICE: u8 = kind::ROUTING;
/// A frame of it.
pub(crate) fn frame(number: u64, len: usize) -> Frame {
    Frame { kind: kind::of(SERVICE, 1), corr: number, body: vec![7; len] }
}

/// What an inbox saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) frames: Vec<(NodeId, Channel, u64, Instant)>,
    pub(crate) events: Vec<PeerEvent>,
    /// From whom, on which channel, and how many frames had come when a batch was over.
    pub(crate) batch_ends: Vec<(NodeId, Channel, usize)>,
    /// Frames that came back.
    pub(crate) unsent: Vec<(NodeId, u64)>,
}

/// What an inbox saw, and whether it needs everybody.
#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Seen>, pub(crate) AtomicBool);

impl Inbox for Recorder {
    fn frame(&self, from: NodeId, channel: Channel, frame: Frame) {
        self.0.lock().unwrap().frames.push((from, channel, frame.corr, Instant::now()));
    }

    fn batch_end(&self, from: NodeId, channel: Channel) {
        let mut seen = self.0.lock().unwrap();
        let count = seen.frames.len();
        seen.batch_ends.push((from, channel, count));
    }

    fn peer(&self, event: &PeerEvent) {
        self.0.lock().unwrap().events.push(event.clone());
    }

    fn needs(&self, _peer: NodeId) -> bool {
        self.1.load(Ordering::SeqCst)
    }

    fn unsent(&self, to: NodeId, frame: Frame) {
        self.0.lock().unwrap().unsent.push((to, frame.corr));
    }
}

impl Recorder {
    pub(crate) fn numbers(&self, of: Channel) -> Vec<u64> {
        let seen = self.0.lock().unwrap();
        seen.frames.iter().filter(|(_, c, ..)| *c == of).map(|(_, _, n, _)| *n).collect()
    }

    /// How often peers came up and went down; panics when the two do not alternate for each peer.
    pub(crate) fn ups_downs(&self) -> (usize, usize) {
        let seen = self.0.lock().unwrap();
        let mut up = BTreeSet::new();
        let mut counts = (0, 0);
        for event in &seen.events {
            match event {
                PeerEvent::Up(info) => {
                    assert!(up.insert(info.node), "up twice: {:?}", seen.events);
                    counts.0 += 1;
                }
                PeerEvent::Down { node, .. } => {
                    assert!(up.remove(node), "down twice: {:?}", seen.events);
                    counts.1 += 1;
                }
            }
        }
        counts
    }
}

/// Refuses the nodes named.
#[derive(Debug)]
pub(crate) struct Without(pub(crate) &'static str);

impl Admission for Without {
    fn admit(&self, peer: &PeerInfo) -> Result<(), Refused> {
        if peer.name == self.0 { Err(Refused::Evicted(peer.name.clone())) } else { Ok(()) }
    }
}

/// Lets everybody in, and knows where members are that need not be connected.
#[derive(Debug, Default)]
pub(crate) struct Map(pub(crate) Mutex<BTreeMap<NodeId, Vec<String>>>);

impl Admission for Map {
    fn admit(&self, _peer: &PeerInfo) -> Result<(), Refused> {
        Ok(())
    }

    fn way_to(&self, node: NodeId) -> Option<Vec<String>> {
        self.0.lock().unwrap().get(&node).cloned()
    }
}

struct NoClients(tokio::sync::watch::Sender<u64>);

impl Credentials for NoClients {
    fn lookup(&self, _name: &str) -> Option<([u8; 32], ClientRole)> {
        None
    }

    fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.subscribe()
    }
}

struct NoService;

impl Service for NoService {
    fn call(&self, _caller: Arc<Caller>, frame: Frame) -> BoxFuture<'static, Frame> {
        Box::pin(std::future::ready(frame))
    }

    fn closed(&self, _session: u64) {}
}

/// Authorities and certificates of one test.
pub(crate) struct Pki {
    pub(crate) authority: Authority,
    pub(crate) cluster: &'static str,
    pub(crate) dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new(cluster: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { authority: pki::make_authority(cluster).unwrap(), cluster, dir }
    }

    /// Writes a bundle of a node, and says where.
    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        let bundle = pki::issue(&self.authority, self.cluster, name, &[]).unwrap();
        let file = |what: &str, text: &str| -> PathBuf {
            let path = self.dir.path().join(format!("{name}.{what}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            cert: file("pem", &bundle.cert_pem),
            key: file("key", &bundle.key_pem),
            ca: Some(file("ca", &self.authority.cert_pem)),
        }
    }

    /// The configuration of node `number`, whose id is that number.
    pub(crate) fn config(&self, number: u8) -> Config {
        let name = format!("n{number}");
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            tls: Some(self.files(&name)),
            node_name: name,
            node_uuid: [number; 16],
            incarnation: 1,
            cluster: Some(self.cluster.to_owned()),
            ..Config::default()
        }
    }

    pub(crate) async fn node(&self, number: u8) -> Node {
        Node::start(self.config(number)).await
    }
}

pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) inbox: Arc<Recorder>,
    pub(crate) id: NodeId,
    pub(crate) scope: Scope,
    pub(crate) address: String,
    root: Root,
    _log: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start(config: Config) -> Self {
        Self::try_start(config).await.unwrap()
    }

    pub(crate) async fn try_start(config: Config) -> Result<Self, String> {
        logs();
        let id = NodeId(config.node_uuid);
        let transport = Transport::new(config.clone());
        let inbox = Arc::new(Recorder::default());
        transport.set_inbox(SERVICE, Arc::<Recorder>::clone(&inbox));
        transport.set_admission(Arc::new(AdmitAll));
        let log = tempfile::tempdir().unwrap();
        let records = SupervisionLog::open(log.path(), LogConfig::default()).unwrap();
        let scope = Scope::new(&config.node_name, Some(records));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(transport.child_spec(
            Arc::new(NoService),
            Arc::new(NoClients(tokio::sync::watch::Sender::new(0))),
            Sessions::new(),
        ));
        let root = Root::start(&scope, "node", spec).await.map_err(|e| e.to_string())?;
        let address = transport.bound().addresses()[0].to_string();
        Ok(Self { transport, inbox, id, scope, address, root, _log: log })
    }

    /// Wants exactly these peers.
    pub(crate) fn want(&self, peers: &[&Self]) {
        let wanted = peers.iter().map(|peer| (peer.id, vec![peer.address.clone()]));
        self.transport.want(wanted.collect());
    }

    pub(crate) fn want_at(&self, peer: NodeId, address: &str) {
        self.transport.want(BTreeMap::from([(peer, vec![address.to_owned()])]));
    }

    pub(crate) fn is_up(&self, peer: &Self) -> bool {
        self.transport.peers().iter().any(|info| info.node == peer.id)
    }

    pub(crate) fn send(&self, to: &Self, channel: Channel, lane: u64, number: u64) {
        self.transport.send(to.id, channel, lane, &frame(number, 10)).unwrap();
    }

    /// Paths of connection actors, of those whose path contains a text.
    pub(crate) fn links(&self, with: &str) -> Vec<String> {
        let children = self.scope.which_children("node/transport/peers").unwrap();
        let paths = children.into_iter().map(|child| child.path);
        paths.filter(|path| path.contains("link-") && path.contains(with)).collect()
    }

    pub(crate) fn failure(&self, peer: NodeId) -> String {
        let stats = self.transport.stats().into_iter().find(|stats| stats.node == peer);
        stats.and_then(|stats| stats.last_failure).unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        self.root.shutdown(Duration::from_secs(5)).await;
    }
}

/// Waits until both are up for each other.
pub(crate) async fn both_up(a: &Node, b: &Node) {
    wait_until("both are up", || a.is_up(b) && b.is_up(a)).await;
}

/// Polls until `cond` holds.
pub(crate) async fn wait_until(what: &str, cond: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cond() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Log lines to where tests write, with `RUST_LOG` as the filter.
pub(crate) fn logs() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
}
