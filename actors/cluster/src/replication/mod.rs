//! What makes a node a member: transport, membership, broadcast and exchange, put together over the store.
//!
//! ```text
//! commit ─► broadcast ─► peers' stores          every commit of this node, along trees, within milliseconds
//!        └► exchange: clocks, stability          what peers have; what may be swept
//! peer up, behind, time ─► exchange ─► both stores   whatever the broadcast did not bring
//! ```
//! What it guarantees: a node alone runs the same parts as a member; all of them outlive a restart of any actor.
//! What it refuses: protocol. Each of them is a crate of its own.

mod consistency;
mod follow;
mod ops;
mod seams;
pub mod sink;
mod standing;

pub use sink::StoreSink;

use crate::gate::clients::Clients;
use crate::gate::events::Feed;
use crate::store::StoreHandle;
use crate::transport::Transport;
use seams::{BroadcastSink, Door, Life, Links, Makeup, Renewal};
use standing::Standing;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use weald_broadcast::{BroadcastHandle, Parts, Source, StoreSource, stream_of};
use weald_exchange::{Deps, ExchangeHandle, Partitions};
use weald_membership::{MembershipHandle, Own, Setup};
use weald_peers::{Network, kind};
use weald_storage::{ReadError, Space};
use weald_supervision::ChildSpec;

/// Settings of the parts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// The membership.
    pub membership: weald_membership::config::Config,
    /// The broadcast.
    pub broadcast: weald_broadcast::Config,
    /// Exchanges.
    pub exchange: weald_exchange::Config,
    /// Where other members may be found, beside those that are remembered.
    pub discovery: weald_membership::discovery::Config,
    /// Where members are remembered.
    pub members_file: PathBuf,
    /// Where others reach this node.
    pub addresses: Vec<String>,
    /// Its name.
    pub name: String,
}

/// The parts of a member. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replication {
    cluster_name: String,
    strategy: String,
    store: StoreHandle,
    transport: Transport,
    membership: MembershipHandle,
    broadcast: BroadcastHandle,
    exchange: ExchangeHandle,
    feed: Feed,
    standing: Arc<Standing>,
    setup: Arc<Setup>,
    discovery: weald_membership::discovery::Config,
}

impl Replication {
    /// The parts, wired; they run once their [`Self::children`] do.
    ///
    /// # Errors
    /// The store's clocks cannot be read.
    pub fn new(
        config: Config,
        transport: Transport,
        store: &StoreHandle,
        clients: &Clients,
    ) -> Result<Self, ReadError> {
        let inner = store.store();
        let own = Own {
            node: inner.node_id(),
            name: config.name.clone(),
            incarnation: inner.incarnation(),
            addresses: config.addresses.clone(),
            capabilities: Vec::new(),
        };
        let membership = MembershipHandle::new(own);
        let network: Arc<dyn Network> = Arc::new(transport.clone());
        let life = Arc::new(Life {
            store: store.clone(),
            transport: transport.clone(),
            membership: membership.clone(),
        });
        let sink = StoreSink::new(store.clone(), clients.clone());
        let partitions: Vec<_> =
            (0..inner.partitions()).map(|index| Arc::clone(inner.partition(index))).collect();
        let stores = Arc::new(Partitions::new(&partitions));
        let exchange = ExchangeHandle::new(
            config.exchange,
            Deps {
                own: inner.node_id(),
                stores: Arc::<Partitions>::clone(&stores),
                upkeep: stores,
                sink: Arc::new(sink.clone()),
                lives: Arc::<Life>::clone(&life),
                network: Arc::clone(&network),
                cluster: membership.watch(),
                wall_ms: crate::node::wall_ms,
                seed: crate::node::wall_ms() ^ u64::from(std::process::id()) << 40,
            },
        );
        let broadcast_sink: Arc<dyn weald_broadcast::Sink> =
            Arc::new(BroadcastSink { sink, life: Arc::clone(&life) });
        let mut sources: BTreeMap<u16, Arc<dyn Source>> = BTreeMap::new();
        for (index, partition) in (0..inner.partitions()).zip(&partitions) {
            for space in [Space::Durable, Space::Memory] {
                let source = StoreSource {
                    replicated: Arc::new(partition.space(space)),
                    sink: Arc::clone(&broadcast_sink),
                    partition: index,
                    space,
                };
                sources.insert(stream_of(index, space), Arc::new(source));
            }
        }
        let broadcast = BroadcastHandle::new(Parts {
            config: config.broadcast,
            network: Arc::clone(&network),
            cluster: membership.watch(),
            behind: Arc::new(Makeup(exchange.clone())),
            sources,
        })?;
        let strategy = match config.membership.strategy {
            weald_membership::config::Strategy::FullMesh => "full-mesh",
            weald_membership::config::Strategy::P2p => "p2p",
        };
        let standing = Arc::new(Standing::new(config.name));
        let setup = Setup {
            config: config.membership,
            file: Some(config.members_file),
            network,
            connector: Arc::new(Links {
                transport: transport.clone(),
                membership: membership.clone(),
                standing: Arc::clone(&standing),
            }),
            renew: Arc::new(Renewal(life)),
        };
        let this = Self {
            cluster_name: config.cluster,
            strategy: strategy.to_owned(),
            store: store.clone(),
            transport,
            membership,
            broadcast,
            exchange,
            feed: Feed::new(),
            standing,
            setup: Arc::new(setup),
            discovery: config.discovery,
        };
        this.connect();
        Ok(this)
    }

    /// Says who hears of what.
    fn connect(&self) {
        let (broadcast, exchange) = (self.broadcast.clone(), self.exchange.clone());
        self.store.follow(Box::new(move |partition, space| {
            broadcast.committed(partition, space);
            exchange.committed(partition, space);
        }));
        self.transport.set_inbox(kind::MEMBERSHIP, Arc::new(self.membership.clone()));
        self.transport.set_inbox(kind::BROADCAST, Arc::new(self.broadcast.clone()));
        self.transport.set_inbox(kind::EXCHANGE, Arc::new(self.exchange.clone()));
        self.transport.set_admission(Arc::new(Door {
            membership: self.membership.clone(),
            standing: Arc::clone(&self.standing),
        }));
    }

    /// The children of the `cluster` supervisor, in their order, after the transport.
    #[must_use]
    pub fn children(&self) -> Vec<ChildSpec> {
        vec![
            weald_membership::child_spec(&self.membership, Setup::clone(&self.setup)),
            self.broadcast.child_spec(),
            self.exchange.child_spec(),
            weald_membership::discovery::child_spec(&self.membership, self.discovery.clone()),
            follow::child_spec(self),
        ]
    }

    /// The membership.
    #[must_use]
    pub fn membership(&self) -> &MembershipHandle {
        &self.membership
    }
}
