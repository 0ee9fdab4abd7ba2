//! A node in a process: the real transport, control socket and supervision, over a store that is a map.
//!
//! What it is: what the tests, benches and documentation of `weald-client` talk to.
//!
//! What it guarantees: the same sessions, filters and bounds as a node.
//!
//! What it refuses: durability, replication, and any use outside of tests.

mod data;
mod service;

pub use service::FakeService;

use ed25519_dalek::SigningKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use weald_cluster::service::Credentials;
use weald_cluster::session::Sessions;
use weald_cluster::{control, transport};
use weald_proto::request::ClientRole;
use weald_supervision::{Root, Scope, Strategy, SupervisorSpec};

/// Clients by name.
#[derive(Debug)]
pub struct FakeCredentials {
    clients: Mutex<BTreeMap<String, ([u8; 32], ClientRole)>>,
    changed: watch::Sender<u64>,
}

impl FakeCredentials {
    /// Takes a credential away.
    pub fn remove(&self, name: &str) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.changed.send_modify(|count| *count += 1);
    }

    fn add(&self, name: &str, key: [u8; 32], role: ClientRole) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(name.to_owned(), (key, role));
        drop(clients);
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Credentials for FakeCredentials {
    fn lookup(&self, name: &str) -> Option<([u8; 32], ClientRole)> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The node.
#[derive(Debug)]
pub struct FakeNode {
    /// Who may connect.
    pub credentials: Arc<FakeCredentials>,
    /// What it stores.
    pub service: Arc<FakeService>,
    /// Its sessions.
    pub sessions: Arc<Sessions>,
    /// Its supervision tree.
    pub scope: Scope,
    bound: transport::Bound,
    socket: PathBuf,
    root: Root,
    dir: tempfile::TempDir,
}

impl FakeNode {
    /// A node on a free port of the loopback.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::with(transport::Config::default()).await
    }

    /// A node with bounds of its own; it listens on free ports of the loopback unless told.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(mut config: transport::Config) -> Self {
        if config.listen == transport::Config::default().listen {
            config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        }
        "test-node".clone_into(&mut config.node_name);
        Self::try_with(config).await.unwrap_or_else(|e| panic!("the node does not start: {e}"))
    }

    /// As [`FakeNode::with`], with nothing filled in.
    ///
    /// # Errors
    /// The text of the start error.
    pub async fn try_with(config: transport::Config) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let socket = dir.path().join("weald.sock");
        let credentials =
            Arc::new(FakeCredentials { clients: Mutex::default(), changed: watch::Sender::new(0) });
        let scope = Scope::new("test-node", None);
        let service = Arc::new(FakeService::new(scope.clone()));
        let sessions = Sessions::new();
        let transport = transport::Transport::new(config);
        let bound = transport.bound();
        let transport = transport.child_spec(
            Arc::<FakeService>::clone(&service),
            Arc::<FakeCredentials>::clone(&credentials),
            Arc::clone(&sessions),
        );
        let control = control::child_spec(
            control::Config::new(&socket),
            Arc::<FakeService>::clone(&service),
            Arc::clone(&sessions),
        );
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(transport).child(control);
        let root = Root::start(&scope, "node", spec).await.map_err(|e| e.to_string())?;
        Ok(Self { credentials, service, sessions, scope, bound, socket, root, dir })
    }

    /// Where its cluster port is.
    ///
    /// # Panics
    /// When it listens nowhere.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        *self.bound.addresses().first().unwrap_or_else(|| panic!("the node does not listen"))
    }

    /// Where its control socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A directory that goes with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new client: its secret.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[must_use]
    pub fn add_client(&self, name: &str, role: ClientRole) -> [u8; 32] {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).unwrap_or_else(|e| panic!("no random bytes: {e}"));
        let key = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
        self.credentials.add(name, key, role);
        secret
    }

    /// A new client: its key file, as a node writes it.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn key_file(&self, name: &str) -> PathBuf {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let secret = self.add_client(name, ClientRole::Operator);
        let path = self.dir.path().join(format!("{name}.key"));
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| writeln!(file, "weald-client:{name}:{hex}"))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.root.shutdown(Duration::from_secs(5)).await;
    }
}

impl FakeNode {
    /// Lets a client in that has its key already.
    pub fn credentials_from(&self, key: &[u8; 32], name: &str) {
        self.credentials.add(name, *key, ClientRole::Operator);
    }
}
