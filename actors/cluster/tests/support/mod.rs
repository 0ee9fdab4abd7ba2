//! A node without its ways in: storage, registry and gate under a root supervisor, in a temporary directory.

mod alone;

use alone::alone;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use weald_cluster::gate::clients::Clients;
use weald_cluster::gate::consistency::Consistency;
use weald_cluster::gate::{Deps, Gate};
use weald_cluster::mail::{self, MailHandle};
use weald_cluster::node::{self, HashtreeConfig, Storage};
use weald_cluster::registry::{OpenSessions, Parts, RegistryHandle};
use weald_cluster::service::{BoxFuture, Caller, Push, PushError, Service};
use weald_cluster::store::StoreHandle;
use weald_peers::{Channel, Cluster, ClusterWatch, Liveness, Member, Network, SendError, Status};
use weald_proto::request::{Call, ClientRole, decode_reply, request_frame};
use weald_proto::{Frame, Reply};
use weald_storage::{CheckVerdict, NodeId, Resolvers, Store, StoreConfig};
use weald_supervision::{
    Intensity, LogConfig, Root, Scope, Strategy, SupervisionLog, SupervisorSpec,
};

/// A running tree, and the gate to it.
pub(crate) struct Node {
    pub(crate) gate: Gate,
    pub(crate) storage: Storage,
    pub(crate) registry: RegistryHandle,
    pub(crate) mail: MailHandle,
    pub(crate) scope: Scope,
    /// Why it takes no writes, if it takes none.
    pub(crate) refusal: Arc<Mutex<Option<String>>>,
    /// The members.
    pub(crate) cluster: watch::Sender<Arc<Cluster>>,
    sessions: Arc<OpenSet>,
    root: Root,
    pub(crate) dir: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start(config: HashtreeConfig) -> Self {
        Self::start_with(config, None, |_| nowhere()).await
    }

    /// A node with sessions other than those of a node alone, or with a network.
    pub(crate) async fn start_with(
        config: HashtreeConfig,
        sessions_of: Option<Arc<dyn Consistency>>,
        network_of: impl FnOnce(NodeId) -> Arc<dyn Network>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log =
            SupervisionLog::open(&dir.path().join("supervision"), LogConfig::default()).unwrap();
        let scope = Scope::new("test", Some(log));
        let store = open(dir.path());
        let store = StoreHandle::new(store, node::wall_ms);
        let storage = Storage::new(store.clone(), config, scope.clone());
        let sessions = Arc::new(OpenSet::default());
        let (cluster_changes, members) = members_of(&store);
        let registry = RegistryHandle::new(Parts {
            node: "test".into(),
            sessions: sessions.clone(),
            store: store.clone(),
            cluster: members.clone(),
        })
        .unwrap();
        let refusal = Arc::default();
        let (cluster, consistency) = alone(&store, Arc::clone(&refusal));
        let consistency = sessions_of.unwrap_or(consistency);
        let mail = MailHandle::new(mail::Parts {
            network: network_of(store.store().node_id()),
            registry: registry.clone(),
            consistency: Arc::clone(&consistency),
            cluster: members,
            begun_ms: node::wall_ms(),
        });
        let gate = Gate::new(Deps {
            node: "test".into(),
            store: store.clone(),
            registry: registry.clone(),
            mail: mail.clone(),
            clients: Clients::open(store).unwrap(),
            scope: scope.clone(),
            status: Arc::new(|| "{}".into()),
            log_level: Arc::new(|_| Ok(())),
            cluster,
            consistency,
        });
        // Drills of these tests kill far more often than a node's own intensity allows.
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(Intensity { max_restarts: 10_000, window: Duration::from_secs(5) })
            .child(storage.child_spec())
            .child(node::registry(&registry))
            .child(node::mail(&mail));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        Self {
            gate,
            storage,
            registry,
            mail,
            scope,
            refusal,
            cluster: cluster_changes,
            sessions,
            root,
            dir,
        }
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.root.shutdown(Duration::from_secs(10)).await;
        self.storage.store.store().close().unwrap();
        self.dir
    }

    /// Ends a session, as a way in does.
    pub(crate) fn close(&self, session: u64) {
        self.sessions.0.lock().unwrap().remove(&session);
        self.gate.closed(session);
    }

    /// A client with a role, whose pushes are answered by `answer`.
    pub(crate) fn client(&self, session: u64, role: ClientRole) -> TestClient {
        self.client_with(session, role, Arc::new(Deaf))
    }

    pub(crate) fn client_with(
        &self,
        session: u64,
        role: ClientRole,
        push: Arc<dyn Push>,
    ) -> TestClient {
        self.sessions.0.lock().unwrap().insert(session);
        let name = format!("client-{session}");
        let caller = Caller { session, name, role, peer: "test".into(), push };
        TestClient { gate: self.gate.clone(), caller: Arc::new(caller) }
    }
}

/// A member that answers.
pub(crate) fn member(node: NodeId, name: &str, incarnation: u32) -> Member {
    Member {
        node,
        name: name.to_owned(),
        incarnation,
        version: 1,
        addresses: Vec::new(),
        status: Status::Joined,
        liveness: Liveness::Up,
        seen_ms: 0,
    }
}

fn members_of(store: &StoreHandle) -> (watch::Sender<Arc<Cluster>>, ClusterWatch) {
    let own = member(store.store().node_id(), "test", store.store().incarnation());
    watch::channel(Arc::new(Cluster::alone(own)))
}

/// Opens the store of a directory without a child process for checks; these tests make no damage.
pub(crate) fn open(dir: &std::path::Path) -> Store {
    let check = |_: &std::path::Path| Ok(CheckVerdict::Sound { rows: 0, ms: 0 });
    Store::open(dir, StoreConfig::default(), Resolvers::default(), &check, &mut Vec::new()).unwrap()
}

/// The sessions of the test clients.
#[derive(Debug, Default)]
struct OpenSet(Mutex<BTreeSet<u64>>);

impl OpenSessions for OpenSet {
    fn is_open(&self, session: u64) -> bool {
        self.0.lock().unwrap().contains(&session)
    }

    fn connections(&self, _client: &str) -> usize {
        0
    }
}

/// A network that leads nowhere.
pub(crate) fn nowhere() -> Arc<dyn Network> {
    Arc::new(Nowhere)
}

struct Nowhere;

impl Network for Nowhere {
    fn send(&self, _: NodeId, _: Channel, _: u64, _: &Frame) -> Result<(), SendError> {
        Err(SendError::NotConnected)
    }

    fn has_room(&self, _: NodeId, _: Channel) -> bool {
        false
    }
}

/// A push that is never answered.
struct Deaf;

impl Push for Deaf {
    fn request(&self, _: Frame, _: Duration) -> BoxFuture<'static, Result<Frame, PushError>> {
        Box::pin(std::future::ready(Err(PushError::Timeout)))
    }
}

#[derive(Clone)]
pub(crate) struct TestClient {
    pub(crate) gate: Gate,
    pub(crate) caller: Arc<Caller>,
}

impl TestClient {
    /// Makes a call; the request is handed in before this returns.
    pub(crate) fn call<C: Call>(&self, call: &C) -> impl Future<Output = Reply<C::Reply>> + use<C> {
        let work = self.gate.call(Arc::clone(&self.caller), request_frame(7, call));
        async move {
            let frame = work.await;
            assert_eq!(frame.corr, 7);
            decode_reply::<C>(&frame).unwrap()
        }
    }
}

/// Polls until `cond` holds.
pub(crate) async fn wait_until(what: &str, cond: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !cond() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Periods long enough that no scrub runs by itself.
pub(crate) const QUIET: HashtreeConfig =
    HashtreeConfig { timer: Duration::from_secs(3600), ttl: Duration::from_secs(604_800) };
