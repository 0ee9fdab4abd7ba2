//! What everybody but the registry actor holds.

use super::actor::{Holder, Msg};
use super::core::{Entry, NameError, Names};
use super::directory::Directory;
use super::row;
use crate::service::Caller;
use crate::store::StoreHandle;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thiserror::Error;
use weald_peers::ClusterWatch;
use weald_proto::request::Named;
use weald_storage::{DeclareError, NodeId, Resolver, TableKind, TableName, TableSpec};
use weald_supervision::{Address, CallError, LogLimit};

/// Who is connected. The registry asks when news of ended sessions may have been missed.
pub trait OpenSessions: std::fmt::Debug + Send + Sync {
    /// Whether a session is open.
    fn is_open(&self, session: u64) -> bool;
    /// Open sessions of a client.
    fn connections(&self, client: &str) -> usize;
}

impl OpenSessions for crate::session::Sessions {
    fn is_open(&self, session: u64) -> bool {
        Self::is_open(self, session)
    }

    fn connections(&self, client: &str) -> usize {
        Self::connections(self, client)
    }
}

/// What the registry is made of.
#[derive(Debug)]
pub struct Parts {
    /// Name of the node.
    pub node: String,
    /// Who is connected.
    pub sessions: Arc<dyn OpenSessions>,
    /// Where names are told to other nodes, and theirs come from.
    pub store: StoreHandle,
    /// The members.
    pub cluster: ClusterWatch,
}

/// What outlives the registry actor.
#[derive(Debug)]
pub struct Shared {
    node: String,
    /// The names of this node as last published.
    pub(super) names: ArcSwap<Names<Holder>>,
    /// Those of other nodes.
    pub(super) directory: ArcSwap<Directory>,
    /// Who is connected.
    pub(super) sessions: Arc<dyn OpenSessions>,
    pub(super) store: StoreHandle,
    pub(super) cluster: ClusterWatch,
    pub(super) table: TableName,
    /// Whether the actor was told to look and has not begun to.
    pub(super) is_looking: AtomicBool,
    pub(super) logs: LogLimit,
}

/// Why a registry call failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry said no.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The registry is down or did not answer in time.
    #[error("the registry did not answer: {0}")]
    Unavailable(CallError),
}

/// Where a name is.
#[derive(Debug, Clone)]
pub enum Found {
    /// At a client of this node.
    Here(Entry<Holder>),
    /// At a client of another node, which answers.
    There {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// At a client of a node that does not answer: it is not to be used.
    Away {
        /// Name of the node.
        name: String,
    },
}

/// The registry as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryHandle {
    address: Address<Msg>,
    shared: Arc<Shared>,
}

impl RegistryHandle {
    /// An empty table of names for these sessions. Writes the declaration of the table of rows if it is new, so call it where
    /// blocking is fine.
    ///
    /// # Errors
    /// The declaration cannot be written.
    ///
    /// # Panics
    /// Never: the name of the table is one.
    pub fn new(parts: Parts) -> Result<Self, DeclareError> {
        let Parts { node, sessions, store, cluster } = parts;
        let table = TableName::parse(row::TABLE).expect("a constant that is a table name");
        let spec =
            TableSpec { kind: TableKind::Memory, resolver: Resolver::Lww, ttl_default: None };
        store.store().declare_system_table(&table, spec)?;
        let shared = Shared {
            node,
            names: ArcSwap::from_pointee(Names::default()),
            directory: ArcSwap::from_pointee(Directory::new(store.store().node_id())),
            sessions,
            store,
            cluster,
            table,
            is_looking: AtomicBool::new(false),
            logs: LogLimit::new(),
        };
        Ok(Self { address: Address::new("registry"), shared: Arc::new(shared) })
    }

    /// The address the actor is to be started under.
    #[must_use]
    pub fn address(&self) -> &Address<Msg> {
        &self.address
    }

    /// What the actor is to be started with.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Who is connected.
    #[must_use]
    pub fn sessions(&self) -> &dyn OpenSessions {
        &*self.shared.sessions
    }

    /// Registers a name for the caller, and waits until other nodes are being told.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing changes unless the registry did not answer.
    pub async fn register(
        &self,
        name: String,
        caller: &Caller,
        now_ms: u64,
        timeout: Duration,
    ) -> Result<Named, RegistryError> {
        let entry = Entry {
            session: caller.session,
            owner: caller.name.clone(),
            since_ms: now_ms,
            holder: Holder(Arc::clone(&caller.push)),
        };
        let asked = name.clone();
        let call = self.address.call(|reply| Msg::Register { name: asked, entry, reply }, timeout);
        let entry = call.await.map_err(RegistryError::Unavailable)??;
        Ok(self.named(name, &entry))
    }

    /// Gives a name of the caller back.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn unregister(
        &self,
        name: String,
        session: u64,
        timeout: Duration,
    ) -> Result<(), RegistryError> {
        let call = self.address.call(|reply| Msg::Unregister { name, session, reply }, timeout);
        Ok(call.await.map_err(RegistryError::Unavailable)??)
    }

    /// A session has ended: its names are free.
    pub fn closed(&self, session: u64) {
        // When the actor is down, its successor finds the session closed.
        drop(self.address.cast(Msg::Closed { session }));
    }

    /// Who holds a name at this node, on a snapshot. A holder whose session has ended is not found, even before its names are
    /// freed.
    #[must_use]
    pub fn here(&self, name: &str) -> Option<Entry<Holder>> {
        let entry = self.shared.names.load().whereis(name).cloned()?;
        self.shared.sessions.is_open(entry.session).then_some(entry)
    }

    /// Where a name is, on a snapshot.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Found> {
        if let Some(entry) = self.here(name) {
            return Some(Found::Here(entry));
        }
        let directory = self.shared.directory.load();
        let held = directory.holder(name)?;
        let node_name = held.node_name.to_owned();
        Some(if held.is_up {
            Found::There { node: held.node, name: node_name }
        } else {
            Found::Away { name: node_name }
        })
    }

    /// Who holds a name, also at a node that does not answer.
    #[must_use]
    pub fn whereis(&self, name: &str) -> Option<Named> {
        if let Some(entry) = self.here(name) {
            return Some(self.named(name.to_owned(), &entry));
        }
        let directory = self.shared.directory.load();
        directory.holder(name).map(|held| named_there(name, held))
    }

    /// Names that start with `prefix`, at most `max`, in order.
    #[must_use]
    pub fn names(&self, prefix: &str, max: usize) -> Vec<Named> {
        let directory = self.shared.directory.load();
        let there = directory.held(prefix).take(max);
        let mut all: BTreeMap<String, Named> =
            there.map(|(name, held)| (name.to_owned(), named_there(name, held))).collect();
        let names = self.shared.names.load();
        for (name, entry) in names.names(prefix).take(max) {
            all.insert(name.clone(), self.named(name.clone(), entry));
        }
        all.into_values().take(max).collect()
    }

    fn named(&self, name: String, entry: &Entry<Holder>) -> Named {
        let (node, owner) = (self.shared.node.clone(), entry.owner.clone());
        Named { name, node, owner, since_ms: entry.since_ms }
    }
}

fn named_there(name: &str, held: super::directory::Held<'_>) -> Named {
    Named {
        name: name.to_owned(),
        node: held.node_name.to_owned(),
        owner: held.claim.owner.clone(),
        since_ms: held.claim.since_ms,
    }
}
