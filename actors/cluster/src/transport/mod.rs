//! The cluster port: how programs and nodes on other machines reach a node through `ractor_cluster`.
//!
//! What it is: a supervisor `transport` over `peers` (dynamic: connections with other nodes, and their dialers), `keeper`
//! (see [`Transport`]), `clients` (dynamic: one connection actor for each client, see [`weald_link::connection`]),
//! `credentials` (ends the sessions of clients that were taken away) and `listener`.
//!
//! ```text
//! accept ─► TLS ─► hello, in a task of its own ─► place in the table ─► connection actor under `clients` or `peers`
//!            └────────── 5 s for all of it ──────────┘
//! ```
//! What it guarantees: the port is bound before the listener counts as started; an unauthenticated peer costs one task and
//! one small buffer for at most 5 s, their number is bounded and the oldest gives way, so that silent peers block nobody;
//! `ractor_cluster` sees no byte of a peer before its handshake is done; nothing a peer does ends the listener or touches
//! another session; log lines that strangers can cause are rate-limited.
//!
//! What it refuses: other nodes without mutual TLS, and plain text of clients beyond loopback unless told.

mod handshake;
mod listener;
mod peers;
mod tls;

pub use peers::{
    Admission, AdmitAll, ChannelStats, DialFailure, Far, PeerStats, RefusedBy, Transport,
};
pub use tls::TlsFiles;

use crate::service::{Credentials, Service};
use crate::session::Sessions;
use listener::{Context, Listener};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use weald_link::Limits;
use weald_proto::hello::node::VERSIONS;
use weald_supervision::{
    Address, ChildSpec, DynamicHandle, DynamicSpec, Intensity, Shutdown, Strategy, SupervisorSpec,
};

/// What the transport is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Name of the node.
    pub node_name: String,
    /// Its UUID.
    pub node_uuid: [u8; 16],
    /// Its incarnation.
    pub incarnation: u32,
    /// The cluster it belongs to; a client that asks for another is refused.
    pub cluster: Option<String>,
    /// Most clients at a time.
    pub clients_max: usize,
    /// Most connections in the handshake at a time; one more, and the oldest is dropped.
    pub handshakes_max: usize,
    /// Most bytes that wait for one client.
    pub outbound_bytes_max: usize,
    /// A client that is silent, or does not read, for so long is cut; at least 6 s, as it pings every 1 to 5 s.
    pub idle_timeout: Duration,
    /// Certificate, key and authority; none: plain text, and no other nodes.
    pub tls: Option<TlsFiles>,
    /// Whether plain text is served beyond loopback.
    pub allow_plaintext: bool,
    /// Partitions of the node's keys: those of its peers must be as many.
    pub partitions: u16,
    /// Connections with each peer for control, data and relay; the smaller number of both sides counts.
    pub lanes: [u8; 3],
    /// Where other nodes reach this one, `host:port`; none: where it listens.
    pub advertise: Vec<String>,
    /// What this node can do beyond its version, by name.
    pub capabilities: Vec<String>,
    /// Least and greatest version of the protocol between nodes that it speaks.
    pub versions: (u16, u16),
    /// Most bytes that wait on one connection with a peer.
    pub peer_outbound_bytes_max: usize,
    /// A peer that is silent, or does not read, for so long is cut; at least 6 s, as it pings every 1 to 5 s.
    pub peer_idle_timeout: Duration,
    /// How members are reached that are not connected all the time; none: all are.
    pub far: Option<Far>,
}

impl Default for Config {
    fn default() -> Self {
        let Limits { outbound_bytes_max, idle_timeout, .. } = Limits::default();
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 18086))],
            node_name: String::new(),
            node_uuid: [0; 16],
            incarnation: 0,
            cluster: None,
            clients_max: 1024,
            handshakes_max: 256,
            outbound_bytes_max,
            idle_timeout,
            tls: None,
            allow_plaintext: false,
            partitions: 8,
            lanes: [1, 2, 2],
            advertise: Vec::new(),
            capabilities: Vec::new(),
            versions: VERSIONS,
            peer_outbound_bytes_max: 16 << 20,          // guess
            peer_idle_timeout: Duration::from_secs(10), // two pings at the slowest pace
            far: None,
        }
    }
}

/// The addresses bound, once they are: with port 0 in the configuration the system has chosen.
#[derive(Debug, Clone)]
pub struct Bound(watch::Receiver<Vec<SocketAddr>>);

impl Bound {
    /// The addresses now; none before the listener has started.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.borrow().clone()
    }

    /// Tells of changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.clone()
    }
}

impl Transport {
    /// Where it listens, once it does.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound(self.shared.bound.subscribe())
    }

    /// The supervisor `transport`.
    #[must_use]
    pub fn child_spec(
        &self,
        service: Arc<dyn Service>,
        credentials: Arc<dyn Credentials>,
        sessions: Arc<Sessions>,
    ) -> ChildSpec {
        let shared = Arc::clone(&self.shared);
        let clients = DynamicHandle::new("clients");
        let peers_spec =
            ChildSpec::dynamic("peers", &shared.children, connections(PEERS_CHILDREN_MAX));
        // A session that has ended may still have its actor for a moment.
        let clients_max = shared.config.clients_max.saturating_mul(2);
        let clients_spec = ChildSpec::dynamic("clients", &clients, connections(clients_max));
        let keeper_shared = Arc::clone(&shared);
        let keeper_spec =
            ChildSpec::task("keeper", move |cx| peers::keep(Arc::clone(&keeper_shared), cx));
        let credentials_spec = recheck_spec(Arc::clone(&sessions), Arc::clone(&credentials));

        let sockets = Mutex::default();
        let ctx = Arc::new(Context { shared, service, credentials, sessions, clients, sockets });
        let address = Address::new("listener");
        let listener_spec =
            ChildSpec::worker("listener", &address, move || (Listener, Arc::clone(&ctx)))
                .shutdown(Shutdown::Timeout(Duration::from_secs(2)));

        let transport = SupervisorSpec::new(Strategy::RestForOne)
            .child(peers_spec)
            .child(clients_spec)
            .child(credentials_spec)
            .child(listener_spec)
            // After the listener, which reads the certificates first and says what is wrong with them.
            .child(keeper_spec);
        ChildSpec::supervisor("transport", transport)
    }
}

/// Connections and dialers under `peers`: those of 1,024 peers, and as many that are about to end.
const PEERS_CHILDREN_MAX: usize = 20_000;

fn connections(max_children: usize) -> DynamicSpec {
    DynamicSpec {
        shutdown: Some(Shutdown::Timeout(Duration::from_secs(1))),
        // They are temporary: none is ever restarted.
        intensity: Intensity { max_restarts: 0, window: Duration::from_secs(1) },
        max_children,
        quiet: true,
        ..DynamicSpec::default()
    }
}

/// Ends the sessions of clients whose credentials are taken away.
fn recheck_spec(sessions: Arc<Sessions>, credentials: Arc<dyn Credentials>) -> ChildSpec {
    ChildSpec::task("credentials", move |cx| {
        let (table, credentials) = (Arc::clone(&sessions), Arc::clone(&credentials));
        async move {
            let mut changed = credentials.changed();
            loop {
                // Also at the start: something may have changed while this task was down.
                table.recheck(&*credentials);
                tokio::select! {
                    result = changed.changed() => result?,
                    () = cx.cancelled() => return Ok(()),
                }
            }
        }
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String does not fail.
        write!(out, "{byte:02x}").ok();
        out
    })
}
