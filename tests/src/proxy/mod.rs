//! A network between nodes that does what a test wants.
//!
//! What it is: for each node a listener in front of its port; the nodes dial the listeners. Each directed link has
//! [`Faults`] of its own, which may change at any time, and [`Counts`].
//!
//! - Bytes: delay, throttle, stall (as lost packets look above TCP: nothing arrives, and all of it does after the healing),
//!   swallow (half-open: everything is taken and nothing passed on, no FIN), reset, flipped bits.
//! - Messages: drop, duplicate, reorder within a window, delay of each. For these the proxy ends TLS with the certificates
//!   of the nodes themselves and looks into what passes ([`frames`]); the handshake and what `ractor_cluster` says for itself
//!   pass untouched.
//!
//! Guarantees: faults are per direction, also on a connection that carries both; a stalled or delayed connection is not
//! reordered by byte-level faults; memory per connection is bounded; all connections end when the fabric is dropped.
//!
//! # Limits
//! Who dials is told from the port it dials from; see [`source`]. Diallers that nobody knows belong to [`STRANGER`].

pub mod faults;
pub mod frames;
mod pipe;
pub mod source;
mod tls;

pub use faults::{Counts, Delay, Faults, Flow, MessageFaults};
pub use tls::{Bundle, connect_tls};

use faults::Link;
use pipe::Streams;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Dialler that is none of the nodes.
pub const STRANGER: usize = usize::MAX;
/// Time to connect to a node behind the proxy.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Tells who dials from a port.
pub type Who = Arc<dyn Fn(SocketAddr) -> Option<usize> + Send + Sync>;

#[derive(Default)]
struct Shared {
    links: Mutex<BTreeMap<(usize, usize), Arc<Link>>>,
    upstreams: Mutex<BTreeMap<usize, SocketAddr>>,
    bundles: Mutex<BTreeMap<usize, Bundle>>,
    seed: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked may still look at what there is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn link(&self, from: usize, to: usize) -> Arc<Link> {
        Arc::clone(lock(&self.links).entry((from, to)).or_default())
    }
}

/// All links between some nodes.
pub struct Fabric {
    shared: Arc<Shared>,
    who: Who,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fabric")
            .field("links", &lock(&self.shared.links).len())
            .finish_non_exhaustive()
    }
}

impl Fabric {
    /// An empty one. Random choices depend on `seed`.
    ///
    /// # Panics
    /// When no runtime can be started.
    #[must_use]
    pub fn new(seed: u64, who: Who) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("start a runtime: {e}"));
        let shared = Arc::new(Shared { seed, ..Shared::default() });
        Self { shared, who, runtime: Some(runtime) }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap_or_else(|| panic!("the fabric is gone"))
    }

    /// Opens a port in front of node `to`; where it is. The node itself is told by [`Fabric::set_upstream`].
    ///
    /// # Panics
    /// When no port is free.
    pub fn open(&self, to: usize) -> SocketAddr {
        let listener = self
            .runtime()
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .unwrap_or_else(|e| panic!("open a port: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("own address: {e}"));
        let (shared, who) = (Arc::clone(&self.shared), Arc::clone(&self.who));
        self.runtime().spawn(async move {
            loop {
                // Descriptors may run out for a moment.
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let (shared, who) = (Arc::clone(&shared), Arc::clone(&who));
                tokio::spawn(async move {
                    let found = tokio::task::spawn_blocking(move || who(peer)).await;
                    let from = found.ok().flatten().unwrap_or(STRANGER);
                    serve(shared, stream, from, to).await;
                });
            }
        });
        address
    }

    /// Says where node `to` really listens.
    pub fn set_upstream(&self, to: usize, address: SocketAddr) {
        lock(&self.shared.upstreams).insert(to, address);
    }

    /// From now on, new connections from and to this node end their TLS here, if the other end has a bundle, too. Message
    /// faults need it.
    pub fn open_tls(&self, node: usize, bundle: Bundle) {
        lock(&self.shared.bundles).insert(node, bundle);
    }

    /// Connections made from now on pass as they are.
    pub fn close_tls(&self) {
        lock(&self.shared.bundles).clear();
    }

    /// Sets what happens to traffic in one direction.
    pub fn set(&self, from: usize, to: usize, faults: &Faults) {
        self.shared.link(from, to).set(faults.clone());
    }

    /// Sets both directions.
    pub fn set_both(&self, a: usize, b: usize, faults: &Faults) {
        self.set(a, b, faults);
        self.set(b, a, faults);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        lock(&self.shared.links).values().for_each(|link| link.set(Faults::default()));
    }

    /// Resets all connections between two nodes once.
    pub fn reset(&self, a: usize, b: usize) {
        self.shared.link(a, b).reset();
        self.shared.link(b, a).reset();
    }

    /// What has passed from one node to another.
    #[must_use]
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.shared.link(from, to).counts()
    }

    /// What has passed on all links together.
    #[must_use]
    pub fn counts_all(&self) -> Counts {
        let links = lock(&self.shared.links);
        links.values().map(|link| link.counts()).fold(Counts::default(), |sum, one| sum + one)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Carries one connection to its end.
async fn serve(shared: Arc<Shared>, dialled: TcpStream, from: usize, to: usize) {
    let links = [shared.link(from, to), shared.link(to, from)];
    let number = links[0].opened();
    let result = connect(&shared, dialled, from, to, &links).await;
    if let Ok((near, far, messages)) = result {
        let seed = shared.seed ^ number.rotate_left(40) ^ ((from as u64) << 8) ^ to as u64;
        pipe::run(near, far, &links, messages, seed).await;
    }
}

async fn connect(
    shared: &Shared,
    dialled: TcpStream,
    from: usize,
    to: usize,
    links: &[Arc<Link>; 2],
) -> io::Result<(Streams, Streams, bool)> {
    let (near, near_control) = pipe::with_control(dialled)?;
    if links.iter().any(|link| link.faults().flow == Flow::Reset) {
        near_control.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let upstream = lock(&shared.upstreams).get(&to).copied();
    let upstream = upstream.ok_or(io::ErrorKind::NotConnected)?;
    let far = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(upstream)).await??;
    let (far, far_control) = pipe::with_control(far)?;
    let bundles = {
        let bundles = lock(&shared.bundles);
        bundles.get(&from).cloned().zip(bundles.get(&to).cloned())
    };
    let Some((dialler, listener)) = bundles else {
        return Ok((Streams::new(near, near_control), Streams::new(far, far_control), false));
    };
    // A handshake must not pass where nothing may: the other side would take it for a sign of life.
    for link in links {
        link.passing().await;
    }
    let near = listener.accept(near).await?;
    let far = dialler.connect(far, &listener).await?;
    Ok((Streams::new(near, near_control), Streams::new(far, far_control), true))
}

#[cfg(test)]
mod tests;
