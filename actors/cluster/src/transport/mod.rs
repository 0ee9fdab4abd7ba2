//! The cluster port: how programs on other machines reach a node through `ractor_cluster`.
//!
//! What it is: a supervisor `transport` over `clients` (dynamic: one connection actor for each client, see
//! [`weald_link::connection`]), `credentials` (ends the sessions of clients that were taken away) and `listener`.
//!
//! ```text
//! accept ─► TLS ─► hello, in a task of its own ─► place in the table ─► connection actor under `clients`
//!            └────────── 5 s for all of it ──────────┘
//! ```
//! What it guarantees: the port is bound before the listener counts as started; an unauthenticated peer costs one task and
//! one small buffer for at most 5 s, their number is bounded and the oldest gives way, so that silent peers block nobody;
//! `ractor_cluster` sees no byte of a peer before its handshake is done; nothing a peer does ends the listener or touches
//! another session; log lines that strangers can cause are rate-limited.
//!
//! What it refuses: members of the cluster (role `node`) in this release, and plain text beyond loopback unless told.

mod handshake;
mod limit;
mod listener;
mod tls;

pub use tls::TlsFiles;

use crate::service::{Credentials, Service};
use crate::session::Sessions;
use listener::{Context, Listener};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use weald_link::Limits;
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
    /// Certificate and key; none: plain text.
    pub tls: Option<TlsFiles>,
    /// Whether plain text is served beyond loopback.
    pub allow_plaintext: bool,
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

/// The supervisor `transport`, and where it listens once it is up.
#[must_use]
pub fn child_spec(
    config: Config,
    service: Arc<dyn Service>,
    credentials: Arc<dyn Credentials>,
    sessions: Arc<Sessions>,
) -> (ChildSpec, Bound) {
    let clients = DynamicHandle::new("clients");
    let (bound, bound_now) = watch::channel(Vec::new());
    let spec = DynamicSpec {
        shutdown: Some(Shutdown::Timeout(Duration::from_secs(1))),
        // Sessions are temporary: none is ever restarted.
        intensity: Intensity { max_restarts: 0, window: Duration::from_secs(1) },
        // A session that has ended may still have its actor for a moment.
        max_children: config.clients_max.saturating_mul(2),
        quiet: true,
        ..DynamicSpec::default()
    };
    let clients_spec = ChildSpec::dynamic("clients", &clients, spec);

    let (table, looked_up) = (Arc::clone(&sessions), Arc::clone(&credentials));
    let credentials_spec = ChildSpec::task("credentials", move |cx| {
        let (table, credentials) = (Arc::clone(&table), Arc::clone(&looked_up));
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
    });

    let sockets = Mutex::default();
    let ctx = Arc::new(Context { config, service, credentials, sessions, clients, bound, sockets });
    let address = Address::new("listener");
    let listener_spec =
        ChildSpec::worker("listener", &address, move || (Listener, Arc::clone(&ctx)))
            .shutdown(Shutdown::Timeout(Duration::from_secs(2)));

    let transport = SupervisorSpec::new(Strategy::RestForOne)
        .child(clients_spec)
        .child(credentials_spec)
        .child(listener_spec);
    (ChildSpec::supervisor("transport", transport), Bound(bound_now))
}
