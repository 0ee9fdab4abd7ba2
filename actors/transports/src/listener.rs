//! A port for clients: accepts sockets, brings them through their handshakes, and hands connections over.
//!
//! What it guarantees: handshakes are bounded in number and in time, and connections in number; strangers cannot fill the
//! log; when descriptors run out it waits and goes on; once stopped its port is free, and nothing more is handed over.
//!
//! What it refuses: to queue beyond its bounds. Of too many handshakes the oldest is dropped, so that a new client gets its
//! turn; of too many connections the newest is told so.

use crate::bind::{BindError, Socket, bind};
use crate::connection::{Connection, Settings};
use crate::handshake::{Accepted, Origin, Rejected, accept_raw_after};
use crate::http::{Web, accept_web_after};
use crate::info::Address;
use crate::limit::{LogLimit, Places};
use crate::proxy;
use crate::raw::MAGIC;
use crate::socket::Stream;
use crate::tls::Tls;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// First and longest pause after `accept` has failed, as it does when descriptors run out.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often TCP asks before it gives a connection up, as Linux has it.
const KEEPALIVE_PROBES: u32 = 9;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// TCP, IPv4 or IPv6.
    Ip(std::net::SocketAddr),
    /// A Unix socket at this path. Who may connect is the permissions of its folder to say.
    Unix(PathBuf),
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Protocols {
    /// RawSocket.
    RawSocket,
    /// HTTP with WebSocket.
    Web(Web),
    /// Both: the first octet tells which.
    Both(Web),
}

/// What a listener is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where.
    pub bind: Bind,
    /// What.
    pub protocols: Protocols,
    /// TLS; not for Unix sockets.
    pub tls: Option<Arc<Tls>>,
    /// Addresses that speak the PROXY protocol, and must.
    pub proxies: Vec<IpNet>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Places that several listeners share, if they do.
    pub shared: Option<Places>,
    /// Handshakes at a time.
    pub handshakes_max: usize,
    /// Time for a handshake, and for the head of each request.
    pub handshake_timeout: Duration,
}

impl Endpoint {
    /// A listener with the defaults.
    #[must_use]
    pub fn new(bind: Bind, protocols: Protocols) -> Self {
        Self {
            bind,
            protocols,
            tls: None,
            proxies: Vec::new(),
            connections_max: 100_000, // guess
            shared: None,
            handshakes_max: 1_024,                      // guess
            handshake_timeout: Duration::from_secs(10), // guess
        }
    }
}

/// Takes connections over.
pub trait Serve: Send + Sync + 'static {
    /// Takes one over; starts a task for it.
    fn serve(&self, connection: Connection);
}

impl<F: Fn(Connection) + Send + Sync + 'static> Serve for F {
    fn serve(&self, connection: Connection) {
        self(connection);
    }
}

/// A listening port. Dropped, it is closed with all its handshakes.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    connections: Places,
    stop: watch::Sender<bool>,
    /// Gives back, when stopped, the tasks of sockets that were not handed over.
    accepting: Option<JoinHandle<JoinSet<()>>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Listener {
    /// Opens the port, and hands connections to `serve` from now on.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub fn start(
        endpoint: Endpoint,
        settings: Settings,
        serve: Arc<dyn Serve>,
    ) -> Result<Self, BindError> {
        let (socket, address) = bind(&endpoint.bind)?;
        let connections = Places::new(endpoint.connections_max);
        let (stop, stopped) = watch::channel(false);
        let port = Port {
            endpoint,
            settings,
            serve,
            connections: connections.clone(),
            stopped,
            handshakes: Arc::default(),
            logs: LogLimit::default(),
            start: Instant::now(),
        };
        let accepting = Some(tokio::spawn(accept(Arc::new(port), socket)));
        Ok(Self { address, connections, stop, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connections now, those in their handshakes included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Stops: when it returns the port is free, handshakes of clients are dropped, and no connection is handed over any
    /// more.
    pub async fn stop(mut self) -> Stopped {
        self.stop.send_replace(true);
        let requests = match self.accepting.take() {
            // The loop ends by itself: an error is a panic, which has been logged.
            Some(accepting) => accepting.await.unwrap_or_default(),
            None => JoinSet::new(),
        };
        Stopped { requests }
    }
}

/// What is left of a stopped listener: HTTP requests that are being answered. Dropped, it ends them.
#[derive(Debug)]
pub struct Stopped {
    requests: JoinSet<()>,
}

impl Stopped {
    /// Waits until all are answered and their connections closed, for so long at most.
    pub async fn wait(mut self, grace: Duration) {
        let all = async { while self.requests.join_next().await.is_some() {} };
        // Those that are late end here.
        timeout(grace, all).await.ok();
    }
}

/// What accepted sockets need.
struct Port {
    endpoint: Endpoint,
    settings: Settings,
    serve: Arc<dyn Serve>,
    connections: Places,
    stopped: watch::Receiver<bool>,
    handshakes: Arc<Handshakes>,
    logs: LogLimit,
    start: Instant,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Accepts until told to stop; what is being done then.
async fn accept(port: Arc<Port>, socket: Socket) -> JoinSet<()> {
    let mut stopped = port.stopped.clone();
    let mut tasks = JoinSet::new();
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        // First of all stopping, then making room, or a flood of clients would keep it from either.
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_ended) = tasks.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, origin)) => {
                pause = ACCEPT_PAUSE.0;
                let (waiting, crowded) =
                    Handshakes::enter(&port.handshakes, port.endpoint.handshakes_max);
                if crowded {
                    port.log(&origin.peer, &"too many handshakes, the oldest is dropped");
                }
                let id = waiting.id;
                let handle = tasks.spawn(Arc::clone(&port).run(stream, origin, waiting));
                port.handshakes.started(id, handle);
            }
            // Only this client is gone.
            Err(e) if is_broken_off(&e) => {}
            Err(e) => {
                port.log(&Address::Unix(None), &format_args!("accept failed: {e}"));
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
    drop(socket);
    port.handshakes.end_all();
    tasks
}

impl Port {
    /// Brings one socket through its handshakes.
    async fn run(self: Arc<Self>, stream: Stream, origin: Origin, waiting: Waiting) {
        let peer = origin.peer.clone();
        match self.handshake(stream, origin, waiting).await {
            Ok(Some(connection)) if !*self.stopped.borrow() => self.serve.serve(connection),
            Ok(_) => {}
            // What port scanners and health checks do.
            Err(Rejected::Io(e)) if is_broken_off(&e) => {
                tracing::debug!(event = "connection_broken_off", peer = %peer, "closed by the peer before it said anything");
            }
            Err(why) => self.log(&peer, &why),
        }
    }

    async fn handshake(
        &self,
        stream: Stream,
        origin: Origin,
        waiting: Waiting,
    ) -> Result<Option<Connection>, Rejected> {
        let patience = self.endpoint.handshake_timeout;
        let place = self.connections.take(self.endpoint.shared.as_ref());
        let is_full = place.is_none();
        let opening = timeout(patience, self.open(stream, origin));
        let (stream, origin) = opening.await.map_err(|_late| Rejected::Timeout)??;
        let mut accepted = Accepted { stream, origin, place, is_full };
        let web = match &self.endpoint.protocols {
            Protocols::RawSocket => None,
            Protocols::Web(web) => Some((web, None)),
            Protocols::Both(web) => {
                let first = timeout(patience, accepted.stream.read_u8()).await;
                match first.map_err(|_late| Rejected::Timeout)?? {
                    MAGIC => {
                        let raw = accept_raw_after(accepted, &self.settings, &[MAGIC]);
                        let raw = timeout(patience, raw).await;
                        return raw.map_err(|_late| Rejected::Timeout)?.map(Some);
                    }
                    octet => Some((web, Some(octet))),
                }
            }
        };
        match web {
            Some((web, first)) => {
                accept_web_after(accepted, web, &self.settings, waiting, patience, first).await
            }
            None => {
                let raw = timeout(patience, accept_raw_after(accepted, &self.settings, &[])).await;
                raw.map_err(|_late| Rejected::Timeout)?.map(Some)
            }
        }
    }

    /// What comes before the protocol itself: the word of a proxy, and TLS.
    async fn open(&self, stream: Stream, mut origin: Origin) -> Result<(Stream, Origin), Rejected> {
        let mut stream = match stream {
            Stream::Tcp(stream) => stream,
            other => return Ok((other, origin)),
        };
        stream.set_nodelay(true)?;
        self.keep_alive(&stream)?;
        if let Address::Ip(peer) = origin.peer
            && proxy::is_proxy(&self.endpoint.proxies, peer)
        {
            origin.proxy = Some(peer);
            if let Some((client, destination)) = proxy::read(&mut stream).await? {
                origin.peer = Address::Ip(client);
                origin.local = Address::Ip(destination);
            }
        }
        match &self.endpoint.tls {
            None => Ok((Stream::Tcp(stream), origin)),
            Some(tls) => {
                let (stream, info) = tls.accept(stream).await?;
                origin.tls = Some(info);
                Ok((Stream::Tls(stream), origin))
            }
        }
    }

    /// Lets TCP find out when the client's machine is gone, whatever its program knows of pings.
    fn keep_alive(&self, stream: &TcpStream) -> std::io::Result<()> {
        let Some(idle) = self.settings.ping_interval else { return Ok(()) };
        // The system counts in seconds; it asks nine times.
        let second = Duration::from_secs(1);
        let again = (self.settings.ping_timeout / KEEPALIVE_PROBES).max(second);
        let keepalive = TcpKeepalive::new().with_time(idle.max(second)).with_interval(again);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }

    /// Logs a socket that came to nothing, at a bounded rate.
    fn log(&self, peer: &Address, why: &dyn Display) {
        if let Some(suppressed) = self.logs.admit(self.start.elapsed()) {
            tracing::warn!(event = "client_rejected", peer = %peer, reason = %why, suppressed, "client rejected");
        }
    }
}

/// Whether the peer has closed the connection, rather than done something wrong on it.
fn is_broken_off(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionAborted | ConnectionReset | BrokenPipe)
}

/// Handshakes under way, oldest first.
#[derive(Debug, Default)]
struct Handshakes(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// The tasks, none before they are started.
    rows: BTreeMap<u64, Option<AbortHandle>>,
}

/// The place of a handshake among those under way; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    id: u64,
    handshakes: Arc<Handshakes>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.handshakes.table().rows.remove(&self.id);
    }
}

impl Handshakes {
    /// A place, for which the oldest may have to go; whether one had to.
    fn enter(this: &Arc<Self>, max: usize) -> (Waiting, bool) {
        let mut table = this.table();
        let mut crowded = false;
        while table.rows.len() >= max.max(1) {
            let Some((_, oldest)) = table.rows.pop_first() else { break };
            if let Some(oldest) = oldest {
                oldest.abort();
            }
            crowded = true;
        }
        let id = table.next;
        table.next += 1;
        table.rows.insert(id, None);
        (Waiting { id, handshakes: Arc::clone(this) }, crowded)
    }

    /// Remembers the task of a handshake, if it is not over already.
    fn started(&self, id: u64, handle: AbortHandle) {
        if let Some(row) = self.table().rows.get_mut(&id) {
            *row = Some(handle);
        }
    }

    fn end_all(&self) {
        let rows = std::mem::take(&mut self.table().rows);
        for handle in rows.into_values().flatten() {
            handle.abort();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
