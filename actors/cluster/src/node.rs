//! The supervision tree of a node, and the handles to what runs in it.
//!
//! What it is: one place that says which process stands under which supervisor with which strategy. The tree is the one of
//! the design; parts that come with later services are added here.
//!
//! ```text
//! node                            one_for_one; when it gives up the process exits non-zero
//! ├─ storage                      one_for_one
//! │  └─ partition-<i>             rest_for_one
//! │     ├─ store                  the only writer of this LMDB environment
//! │     └─ hashtree               digests on snapshots; scrubs
//! ├─ registry                     names of actors, on all nodes
//! ├─ mail                         messages to and from named actors at other nodes
//! ├─ cluster                      rest_for_one
//! │  ├─ transport                 the cluster port, its clients, connections with peers
//! │  ├─ membership                who belongs to the cluster, who is alive
//! │  ├─ broadcast                 pushes what was committed here, merges what peers push
//! │  ├─ exchange                  scheduler, running exchanges, sweeper
//! │  ├─ discovery                 addresses where members may be
//! │  └─ follow                    events of the membership, the way back of a fenced node
//! ├─ router                       one_for_one
//! │  ├─ interest                  what the sessions of each node want
//! │  └─ sessions                  one light task for each WAMP client
//! └─ listeners                    started last, stopped first
//!    ├─ control                   the Unix socket of the command line
//!    ├─ http                      WebSocket
//!    └─ rawsocket                 RawSocket
//! ```

use crate::hashtree::{self, HashtreeActor, ScrubTotals};
use crate::mail::{MailActor, MailHandle};
use crate::registry::{RegistryActor, RegistryHandle};
use crate::store::{self, StoreActor, StoreHandle};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use weald_supervision::{Address, ChildSpec, Intensity, Scope, Shutdown, Strategy, SupervisorSpec};

/// Restarts that the supervisors of a node allow. Higher than OTP's default of 1 in 5 s: a drill that kills one actor after
/// another must not stop a node, a child that cannot start still does within a second.
const INTENSITY: Intensity = Intensity { max_restarts: 20, window: Duration::from_secs(5) };
/// Time an actor has to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Periods of the hash trees.
#[derive(Debug, Clone, Copy)]
pub struct HashtreeConfig {
    /// `aae.hashtree_timer`: how often due buckets are looked for.
    pub timer: Duration,
    /// `aae.hashtree_ttl`: within this every bucket is verified once.
    pub ttl: Duration,
}

/// The storage part of a node.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The store.
    pub store: StoreHandle,
    /// Addresses of the hashtree actors, by partition.
    pub hashtrees: Vec<Address<hashtree::Msg>>,
    /// What scrubs have seen, by partition.
    pub scrubs: Vec<Arc<ScrubTotals>>,
    config: HashtreeConfig,
    scope: Scope,
}

impl Storage {
    /// The processes of this store.
    #[must_use]
    pub fn new(store: StoreHandle, config: HashtreeConfig, scope: Scope) -> Self {
        let partitions = store.store().partitions();
        Self {
            store,
            hashtrees: (0..partitions).map(hashtree::actor::address).collect(),
            scrubs: (0..partitions).map(|_| Arc::default()).collect(),
            config,
            scope,
        }
    }

    /// The `storage` subtree.
    #[must_use]
    pub fn child_spec(&self) -> ChildSpec {
        let mut spec = SupervisorSpec::new(Strategy::OneForOne).intensity(INTENSITY);
        for index in 0..self.store.store().partitions() {
            spec = spec.child(self.partition(index));
        }
        ChildSpec::supervisor("storage", spec)
    }

    fn partition(&self, index: u16) -> ChildSpec {
        let batches = Arc::new(AtomicU64::new(1));
        let address = self.store.address(index).clone();
        let store = store::actor::Arguments {
            partition: Arc::clone(self.store.store().partition(index)),
            address: address.clone(),
            batches,
            scope: self.scope.clone(),
            wall_ms,
        };
        let tree = hashtree::actor::Arguments {
            partition: Arc::clone(self.store.store().partition(index)),
            index,
            timer: self.config.timer,
            ttl: self.config.ttl,
            totals: Arc::clone(&self.scrubs[usize::from(index)]),
            scope: self.scope.clone(),
            wall_ms,
        };
        let spec = SupervisorSpec::new(Strategy::RestForOne)
            .intensity(INTENSITY)
            .child(
                ChildSpec::worker("store", &address, move || (StoreActor, store.clone()))
                    .shutdown(Shutdown::Timeout(STOP_TIME)),
            )
            .child(
                ChildSpec::worker("hashtree", &self.hashtrees[usize::from(index)], move || {
                    (HashtreeActor, tree.clone())
                })
                .shutdown(Shutdown::Timeout(STOP_TIME)),
            );
        ChildSpec::supervisor(&format!("partition-{index}"), spec)
    }
}

/// The `registry` child.
#[must_use]
pub fn registry(handle: &RegistryHandle) -> ChildSpec {
    let shared = handle.shared();
    ChildSpec::worker("registry", handle.address(), move || (RegistryActor, Arc::clone(&shared)))
        .shutdown(Shutdown::Timeout(STOP_TIME))
}

/// The `mail` child.
#[must_use]
pub fn mail(handle: &MailHandle) -> ChildSpec {
    let shared = handle.shared();
    ChildSpec::worker("mail", handle.address(), move || (MailActor, Arc::clone(&shared)))
        .shutdown(Shutdown::Timeout(STOP_TIME))
}

/// The whole tree: storage, names of actors, then what lets clients in.
#[must_use]
pub fn tree(
    storage: &Storage,
    names: Vec<ChildSpec>,
    transport: ChildSpec,
    replication: Vec<ChildSpec>,
    control: ChildSpec,
    router: Vec<ChildSpec>,
    listeners: Vec<ChildSpec>,
) -> SupervisorSpec {
    let cluster = SupervisorSpec::new(Strategy::RestForOne)
        .intensity(INTENSITY)
        .child(transport)
        .children(replication);
    let listeners = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(INTENSITY)
        .child(control)
        .children(listeners);
    let router = SupervisorSpec::new(Strategy::OneForOne).intensity(INTENSITY).children(router);
    SupervisorSpec::new(Strategy::OneForOne)
        .intensity(INTENSITY)
        .child(storage.child_spec())
        .children(names)
        .child(ChildSpec::supervisor("cluster", cluster))
        .child(ChildSpec::supervisor("router", router))
        .child(ChildSpec::supervisor("listeners", listeners))
}

/// Unix milliseconds by this machine's clock.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
