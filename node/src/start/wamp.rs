//! What the router of WAMP clients is made of in a node.

use super::settings;
use super::shelf::Stored;
use crate::config::Config;
use crate::config::realm::Anonymous as From;
use bytestring::ByteString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use weald_cluster::node;
use weald_cluster::store::StoreHandle;
use weald_cluster::transport::Transport;
use weald_peers::{ClusterWatch, Network, kind};
use weald_router::auth::{Anonymous, Open};
use weald_router::clock::Clock;
use weald_router::interest::{self, InterestHandle};
use weald_router::listen::{self, Bound, Port};
use weald_router::relay::Relay;
use weald_router::session::ids::Ids;
use weald_router::{Realm, Router, realm};
use weald_storage::{DeclareError, Replicated, Space};
use weald_supervision::{ChildSpec, TasksHandle, TasksSpec};
use weald_transports::{
    Address, Bind, Egress, Endpoint, NoSite, OriginError, Origins, Places, Protocols, Tls,
    TlsError, TlsFiles, Web,
};

/// The realm of a node without any configuration.
const REALM: &str = "realm1";
/// Tasks of clients at most; there are fewer places for connections than that.
const SESSIONS_MAX: usize = 1 << 20;
/// Time that sessions have to stop beyond what their clients have to answer GOODBYE.
const STOP_TIME: Duration = Duration::from_secs(3);

/// Why a node has no router.
#[derive(Debug, Error)]
pub(super) enum NoRouter {
    /// The table of kept events could not be declared.
    #[error(transparent)]
    Table(#[from] DeclareError),
    /// The configuration names a web page that is none.
    #[error("listeners.origins")]
    Origin(#[from] OriginError),
    /// Certificates of ports are of no use.
    #[error("listeners.tls_certificate, tls_key or tls_client_ca")]
    Tls(#[from] TlsError),
}

/// A port of the configuration.
#[derive(Debug, Clone)]
struct Door {
    name: &'static str,
    endpoint: Endpoint,
    bound: Bound,
}

/// The router of a node.
#[derive(Debug, Clone)]
pub(super) struct Wamp {
    pub(super) router: Arc<Router>,
    config: Config,
    sessions: TasksHandle,
    errands: TasksHandle,
    interest: InterestHandle,
    egress: Arc<Egress>,
    doors: Vec<Door>,
    tls: Option<Arc<Tls>>,
}

impl Wamp {
    /// A router with the realms of the configuration. Reads certificates, and writes the declaration of a table if it is
    /// new, so call it where blocking is fine.
    pub(super) fn new(
        config: &Config,
        data_dir: &Path,
        store: &StoreHandle,
        transport: &Transport,
        cluster: ClusterWatch,
    ) -> Result<Self, NoRouter> {
        let tls = tls(config)?.map(Arc::new);
        let doors = doors(config, data_dir, tls.as_ref())?;
        let shelf = Arc::new(Stored::new(store)?);
        let inner = store.store();
        let network: Arc<dyn Network> = Arc::new(transport.clone());
        let relay = Relay::new(inner.node_id(), Some(Arc::clone(&network)));
        let clock = Clock::new(tokio::time::Instant::now(), node::wall_ms);
        let settings = settings::router_settings(config);
        let errands = TasksHandle::new("errands");
        let realm = Realm::new(realm::Parts {
            name: ByteString::from_static(REALM),
            settings: settings::realm_settings(&config.realm),
            limits: settings.limits,
            authenticator: Arc::new(Anonymous { remote: config.realm.anonymous == From::Anywhere }),
            authorizer: Arc::new(Open {
                disclosure: config.realm.disclosure,
                trustlevel: config.realm.trust_level,
            }),
            relay: Arc::clone(&relay),
            shelf,
            clock,
            errands: errands.clone(),
        });
        let ids = Ids::new(cluster.clone());
        let router = Router::new(settings, [realm], Arc::clone(&relay), clock, ids);
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
            config: config.clone(),
            sessions: TasksHandle::new("sessions"),
            errands,
            interest,
            egress: Egress::new(settings::egress(&config.clients)),
            doors,
            tls,
        })
    }

    /// What routes, in the order of starting: what other nodes want, what sessions leave to others to do, then the supervisor
    /// of sessions.
    pub(super) fn children(&self) -> Vec<ChildSpec> {
        let shutdown = self.router.settings().goodbye_timeout + STOP_TIME;
        let sessions = TasksSpec { tasks_max: SESSIONS_MAX, shutdown };
        vec![
            self.interest.child_spec(),
            ChildSpec::tasks("errands", &self.errands, TasksSpec::default()),
            ChildSpec::tasks("sessions", &self.sessions, sessions),
        ]
    }

    /// The ports, and what keeps their certificates new.
    pub(super) fn listeners(&self) -> Vec<ChildSpec> {
        let port = |door: &Door| {
            Port {
                name: door.name,
                endpoint: door.endpoint.clone(),
                settings: settings::connections(&self.config.clients, &self.egress),
                bound: door.bound.clone(),
                router: Arc::clone(&self.router),
                sessions: self.sessions.clone(),
                interest: self.interest.clone(),
                has_seeds: self.config.cluster.has_seeds(),
            }
            .child_spec()
        };
        let certificates = self.tls.iter().map(|tls| listen::certificates(Arc::clone(tls)));
        certificates.chain(self.doors.iter().map(port)).collect()
    }

    /// Whether all ports are open. After a start they wait for the routes of other nodes.
    pub(super) fn is_open(&self) -> bool {
        self.doors.iter().all(|door| door.bound.address().is_some())
    }

    /// The ports that are open, by the names of their keys.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.doors.iter().filter_map(|door| {
            let shown = match door.bound.address()? {
                Address::Ip(address) => address.to_string(),
                Address::Unix(path) => path?.to_string_lossy().into_owned(),
            };
            Some((door.name, shown))
        })
    }

    /// Ends all sessions in order, and takes no more.
    pub(super) fn drain(&self) {
        self.router.drain();
    }
}

/// The certificates of client ports, if one has TLS.
fn tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    let listeners = &config.listeners;
    if listeners.https.is_none() && listeners.rawsocket_tls.is_none() {
        return Ok(None);
    }
    let pair = listeners.tls_certificate.clone().zip(listeners.tls_key.clone());
    let files = pair.map(|(cert, key)| {
        let client_ca = listeners.tls_client_ca.clone();
        TlsFiles { cert, key, client_ca }
    });
    files.map(|files| Tls::load(files, listeners.tls_version_min)).transpose()
}

fn doors(
    config: &Config,
    data_dir: &Path,
    tls: Option<&Arc<Tls>>,
) -> Result<Vec<Door>, OriginError> {
    let (listeners, clients) = (&config.listeners, &config.clients);
    let web = Web {
        path: listeners.websocket_path.clone(),
        origins: Origins::new(&listeners.origins)?,
        site: Arc::new(NoSite),
    };
    let shared = Places::new(clients.connections_max);
    let door = |name, bind, protocols, tls: Option<&Arc<Tls>>| {
        let endpoint = Endpoint {
            tls: tls.cloned(),
            proxies: listeners.proxies.clone(),
            connections_max: clients.port_connections_max,
            shared: Some(shared.clone()),
            handshakes_max: clients.handshakes_max,
            handshake_timeout: clients.handshake_timeout,
            ..Endpoint::new(bind, protocols)
        };
        Door { name, endpoint, bound: Bound::default() }
    };
    let web_or_raw = |name: &str| {
        let is_web = name.starts_with("http");
        if is_web { Protocols::Web(web.clone()) } else { Protocols::RawSocket }
    };
    let tcp = listeners.ports().into_iter().filter_map(|(name, address)| {
        // Without certificates, where the configuration asks for them, nothing may listen.
        let tls = if listeners.is_tls(name) { Some(tls?) } else { None };
        Some(door(name, Bind::Ip(address?), web_or_raw(name), tls))
    });
    let unix = listeners
        .unix_in(data_dir)
        .map(|path| door("unix", Bind::Unix(path), Protocols::Both(web.clone()), None));
    Ok(tcp.chain(unix).collect())
}
