//! What the router of WAMP clients is made of in a node.

use crate::config::Config;
use bytestring::ByteString;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use weald_cluster::node;
use weald_cluster::store::StoreHandle;
use weald_cluster::transport::Transport;
use weald_peers::{ClusterWatch, Network, kind};
use weald_router::auth::{Anonymous, Open};
use weald_router::broker::retained::Shelf;
use weald_router::clock::Clock;
use weald_router::interest::{self, InterestHandle};
use weald_router::listen::{Bound, Port};
use weald_router::relay::Relay;
use weald_router::{Realm, Router, realm, router};
use weald_storage::{
    DeclareError, Key, Replicated, Scan, Space, TableKind, TableName, TableSpec, WriteOp,
};
use weald_supervision::{ChildSpec, TasksHandle, TasksSpec};
use weald_transports::{
    Bind, Egress, EgressConfig, Endpoint, NoSite, OriginError, Origins, Protocols, Web,
};

/// The table of events that are kept for later subscribers; in memory on each node, and on all.
const RETAINED: &str = "weald.retained";
/// The realm of a node without any configuration.
const REALM: &str = "realm1";
/// Time that keeping an event may take.
const KEEP_TIME: Duration = Duration::from_secs(5);

/// Events kept in the store.
struct Stored {
    store: StoreHandle,
    table: TableName,
}

impl Shelf for Stored {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> BoxFuture<'static, ()> {
        // A topic longer than a key can be: its events are not kept.
        let Ok(key) = Key::new(&key) else { return futures::future::ready(()).boxed() };
        let op = WriteOp::Put { table: self.table.clone(), key, value, context: None, ttl: None };
        let writing = self.store.write(op, tokio::time::Instant::now() + KEEP_TIME);
        async move {
            if let Err(error) = writing.await {
                tracing::warn!(event = "event_not_retained", %error, "an event could not be kept");
            }
        }
        .boxed()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let got = self.store.get(&self.table, &Key::new(key).ok()?).ok()?;
        got.values.into_iter().next()
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut scan = Scan { prefix: prefix.to_vec(), ..Scan::new(self.table.clone()) };
        loop {
            let page = match self.store.store().scan(&scan, self.store.wall_ms()) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(event = "retained_unreadable", %error, "kept events could not be read");
                    return;
                }
            };
            for item in &page.items {
                if let Some(value) = item.values.first() {
                    visit(item.key.as_bytes(), value);
                }
            }
            let Some(next) = page.next else { return };
            scan.after = Some(next);
        }
    }
}

/// Tasks of clients at most; a port takes fewer connections than that.
const SESSIONS_MAX: usize = 1 << 20;
/// Silence of a client after which it is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30); // guess
/// Time it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20); // guess

/// Why a node has no router.
#[derive(Debug, Error)]
pub(super) enum NoRouter {
    /// The table of kept events could not be declared.
    #[error(transparent)]
    Table(#[from] DeclareError),
    /// The configuration names a web page that is none.
    #[error("listeners.origins: {0}")]
    Origin(#[from] OriginError),
}

/// The router of a node.
#[derive(Debug, Clone)]
pub(super) struct Wamp {
    pub(super) router: Arc<Router>,
    pub(super) rawsocket: Bound,
    pub(super) http: Bound,
    config: Config,
    sessions: TasksHandle,
    interest: InterestHandle,
    egress: Arc<Egress>,
    origins: Origins,
}

impl Wamp {
    /// A router with the realms of the configuration. Writes the declaration of a table if it is new, so call it where
    /// blocking is fine.
    pub(super) fn new(
        config: &Config,
        store: &StoreHandle,
        transport: &Transport,
        cluster: ClusterWatch,
    ) -> Result<Self, NoRouter> {
        let origins = Origins::new(&config.listeners.origins)?;
        let table = TableName::parse(RETAINED).expect("it is a name of a table");
        let spec = TableSpec { kind: TableKind::Memory, ..TableSpec::UNDECLARED };
        store.store().declare_system_table(&table, spec)?;
        let inner = store.store();
        let network: Arc<dyn Network> = Arc::new(transport.clone());
        let relay = Relay::new(inner.node_id(), Some(Arc::clone(&network)));
        let clock = Clock::new(tokio::time::Instant::now(), node::wall_ms);
        let settings = router::Settings::default();
        let realm = Realm::new(realm::Parts {
            name: ByteString::from_static(REALM),
            settings: realm::Settings::default(),
            limits: settings.limits,
            authenticator: Arc::new(Anonymous::default()),
            authorizer: Arc::new(Open),
            relay: Arc::clone(&relay),
            shelf: Arc::new(Stored { store: store.clone(), table }),
            clock,
        });
        let router = Router::new(settings, [realm], Arc::clone(&relay), clock);
        let interest = InterestHandle::new(interest::Parts {
            own: inner.node_id(),
            // What clients want is gone with the process, so it has a life as memory tables have.
            incarnation: inner.partition(0).space(Space::Memory).actor().incarnation.into(),
            seed: node::wall_ms() ^ u64::from(std::process::id()) << 32,
            config: interest::Config::default(),
            network,
            cluster,
            routes: Arc::<Relay>::clone(&relay),
        });
        relay.complete(&router, interest.clone());
        transport.set_inbox(kind::ROUTING, relay);
        Ok(Self {
            router,
            interest,
            rawsocket: Bound::default(),
            http: Bound::default(),
            config: config.clone(),
            sessions: TasksHandle::new("sessions"),
            egress: Egress::new(EgressConfig::default()),
            origins,
        })
    }

    /// What routes, in the order of starting: what other nodes want, then the supervisor of sessions.
    pub(super) fn children(&self) -> Vec<ChildSpec> {
        let sessions = TasksSpec { tasks_max: SESSIONS_MAX, ..TasksSpec::default() };
        vec![self.interest.child_spec(), ChildSpec::tasks("sessions", &self.sessions, sessions)]
    }

    /// The ports.
    pub(super) fn listeners(&self) -> Vec<ChildSpec> {
        let web =
            Web { path: "/ws".to_owned(), origins: self.origins.clone(), site: Arc::new(NoSite) };
        let listeners = &self.config.listeners;
        [
            ("http", listeners.http, Protocols::Web(web), &self.http),
            ("rawsocket", listeners.rawsocket, Protocols::RawSocket, &self.rawsocket),
        ]
        .map(|(name, address, protocols, bound)| {
            Port {
                name,
                endpoint: Endpoint::new(Bind::Ip(address), protocols),
                settings: weald_transports::Settings {
                    message_bytes_max: self.router.limits().message_bytes,
                    ping_interval: Some(PING_INTERVAL),
                    ping_timeout: PING_TIMEOUT,
                    egress: Arc::clone(&self.egress),
                },
                bound: bound.clone(),
                router: Arc::clone(&self.router),
                sessions: self.sessions.clone(),
                interest: self.interest.clone(),
            }
            .child_spec()
        })
        .into()
    }

    /// Ends all sessions in order, and takes no more.
    pub(super) fn drain(&self) {
        self.router.drain();
    }
}
