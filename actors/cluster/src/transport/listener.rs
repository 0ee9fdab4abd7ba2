//! The actor that owns the listening sockets.

use super::handshake::{self, Admitted, Greeted, Rejected, greet};
use super::peers::{Accepted, Shared};
use crate::service::{Credentials, Service};
use crate::session::{Session, Sessions};
use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};
use weald_link::filter::Side;
use weald_link::hello::DialError;
use weald_link::{Close, Connection, Halves, IDLE_TIMEOUT_MIN, Limits, Outbound, Receive, Setup};
use weald_proto::hello::Refused;
use weald_supervision::{Address, ChildSpec, DynamicHandle, LogLimit, Restart};

/// First and longest pause after `accept` has failed, as it does when descriptors run out.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What every connection needs.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) service: Arc<dyn Service>,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) clients: DynamicHandle,
    /// The sockets outlive a killed listener, so that its successor goes on with them: no port is lost to another program,
    /// and peers that wait to be accepted are not refused.
    pub(super) sockets: Mutex<Vec<Arc<TcpListener>>>,
}

pub(super) struct Listener;

/// What an accept loop tells the actor.
pub(super) enum Msg {
    /// It has ended, which it never should.
    Ended(SocketAddr),
}

impl Message for Msg {}

/// The accept loops; ended with the actor.
pub(super) struct State {
    loops: Vec<JoinHandle<()>>,
    ctx: Arc<Context>,
}

impl Drop for State {
    fn drop(&mut self) {
        for accept in &self.loops {
            accept.abort();
        }
    }
}

impl Actor for Listener {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Context>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        ctx: Arc<Context>,
    ) -> Result<State, ActorProcessingErr> {
        let Shared { config, tls, bound: bound_now, .. } = &*ctx.shared;
        let idle_timeout = config.idle_timeout.min(config.peer_idle_timeout);
        if idle_timeout < IDLE_TIMEOUT_MIN {
            return Err(format!(
                "an idle timeout of {idle_timeout:?} would cut peers that are well: the least is {IDLE_TIMEOUT_MIN:?}",
            )
            .into());
        }
        if tls.loaded().is_none() {
            tls.load()?;
        }
        let mut sockets = std::mem::take(&mut *ctx.sockets());
        if sockets.is_empty() {
            // After an orderly restart the port stays the one that was chosen first.
            let before = bound_now.borrow().clone();
            let wanted = if before.is_empty() { config.listen.clone() } else { before };
            for address in wanted {
                let plain = !tls.is_on() && !config.allow_plaintext;
                if plain && !address.ip().is_loopback() {
                    return Err(format!(
                        "address {address} is reachable from other machines: configure a certificate, or allow plain text"
                    )
                    .into());
                }
                sockets.push(Arc::new(bind(address).await?));
            }
        }
        ctx.sockets().clone_from(&sockets);
        let bound =
            sockets.iter().map(|socket| socket.local_addr()).collect::<io::Result<Vec<_>>>()?;
        for address in &bound {
            tracing::info!(event = "cluster_listening", address = %address, tls = tls.is_on(), "cluster port open");
        }
        bound_now.send_replace(bound.clone());
        let logs = Arc::new(LogLimit::new());
        let loops = sockets.into_iter().zip(bound).map(|(listener, address)| {
            let accept = Accept { ctx: Arc::clone(&ctx), logs: Arc::clone(&logs) };
            let myself = myself.clone();
            tokio::spawn(async move {
                accept.run(listener).await;
                myself.cast(Msg::Ended(address)).ok();
            })
        });
        Ok(State { loops: loops.collect(), ctx: Arc::clone(&ctx) })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        Msg::Ended(address): Msg,
        _state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Err(format!("the accept loop of {address} has ended").into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.ctx.sockets().clear();
        for accept in state.loops.drain(..) {
            accept.abort();
            // Cancelled, as it should be: with it the last holder of the socket is gone.
            accept.await.ok();
        }
        Ok(())
    }
}

impl Context {
    fn sockets(&self) -> MutexGuard<'_, Vec<Arc<TcpListener>>> {
        // Nothing panics while it is held.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let describe = |e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => format!(
            "address {address} is in use: another program listens there, choose another with `cluster.listen`"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("address {address} is not one of this machine's")
        }
        io::ErrorKind::PermissionDenied => format!("address {address} may not be bound: {e}"),
        _ => format!("address {address}: {e}"),
    };
    TcpListener::bind(address).await.map_err(describe)
}

struct Accept {
    ctx: Arc<Context>,
    logs: Arc<LogLimit>,
}

impl Accept {
    async fn run(self, listener: Arc<TcpListener>) {
        let mut handshakes = Handshakes::default();
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = handshakes.tasks.join_next_with_id() => {
                    handshakes.ended(&ended);
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    if handshakes.make_room(self.ctx.shared.config.handshakes_max) {
                        self.log(
                            peer,
                            "too many unauthenticated connections, the oldest is dropped",
                        );
                    }
                    let handshake = Handshake {
                        ctx: Arc::clone(&self.ctx),
                        logs: Arc::clone(&self.logs),
                        peer,
                    };
                    handshakes.start(handshake.run(stream));
                }
                Err(e) => {
                    self.log(SocketAddr::from(([0, 0, 0, 0], 0)), &format!("accept failed: {e}"));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
    }

    fn log(&self, peer: SocketAddr, why: &str) {
        rejected(&self.logs, peer, &why);
    }
}

/// Whether the peer has closed the connection, rather than done something wrong on it.
fn is_broken_off(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Logs a connection that came to nothing, at a bounded rate.
fn rejected(logs: &LogLimit, peer: SocketAddr, why: &dyn std::fmt::Display) {
    if let Some(suppressed) = logs.admit() {
        tracing::warn!(event = "connection_rejected", peer = %peer, reason = %why, suppressed, "connection rejected");
    }
}

/// Connections that are not authenticated yet, oldest first.
#[derive(Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    by_age: BTreeMap<u64, AbortHandle>,
    ages: BTreeMap<Id, u64>,
    next: u64,
}

impl Handshakes {
    fn start(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.ages.insert(handle.id(), self.next);
        self.by_age.insert(self.next, handle);
        self.next += 1;
    }

    fn ended(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(e) => e.id(),
        };
        if let Some(age) = self.ages.remove(&id) {
            self.by_age.remove(&age);
        }
    }

    /// Drops the oldest if there are too many; whether it had to.
    fn make_room(&mut self, max: usize) -> bool {
        let mut dropped = false;
        while self.by_age.len() >= max.max(1) {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            oldest.abort();
            dropped = true;
        }
        dropped
    }
}

struct Handshake {
    ctx: Arc<Context>,
    logs: Arc<LogLimit>,
    peer: SocketAddr,
}

impl Handshake {
    async fn run(self, stream: TcpStream) {
        let greeted = tokio::time::timeout(handshake::TIMEOUT, async {
            stream.set_nodelay(true)?;
            // Those of this moment: files may be exchanged at any time.
            let (mut halves, proved) = match self.ctx.shared.tls.loaded() {
                Some(tls) => tls.accept(stream).await?,
                None => (Halves::tcp(stream), None),
            };
            let greeted = greet(&mut halves, proved, self.peer, &self.ctx).await?;
            Ok::<_, Rejected>((halves, greeted))
        });
        match greeted.await {
            Ok(Ok((halves, Greeted::Client(admitted)))) => self.connect(halves, admitted).await,
            Ok(Ok((halves, Greeted::Node(accepted)))) => self.connect_node(halves, accepted).await,
            // Two nodes have dialled each other at the same time: nothing is wrong.
            Ok(Err(Rejected::Refused { refused: Refused::Duplicate, name, .. })) => {
                tracing::debug!(event = "connection_duplicate", peer = %name, "connected already");
            }
            // Likewise, given up by the one that dialled in vain; and what port scanners and health checks do.
            Ok(Err(Rejected::Peer(DialError::Io(e)))) if is_broken_off(&e) => {
                tracing::debug!(event = "connection_broken_off", peer = %self.peer, "closed by the peer before it said who it is");
            }
            Ok(Err(why)) => rejected(&self.logs, self.peer, &why),
            Err(_elapsed) => rejected(&self.logs, self.peer, &Rejected::Timeout),
        }
    }

    /// Starts the connection actor of a node.
    async fn connect_node(self, halves: Halves, accepted: Accepted) {
        if let Err(e) = accepted.start(halves).await {
            rejected(&self.logs, self.peer, &e);
        }
    }

    /// Starts the connection actor of an authenticated client.
    async fn connect(self, halves: Halves, admitted: Admitted) {
        let Self { ctx, peer, logs, .. } = self;
        let Admitted { place, identity, cookie } = admitted;
        let limits = Limits {
            outbound_bytes_max: ctx.shared.config.outbound_bytes_max,
            idle_timeout: ctx.shared.config.idle_timeout,
            ..Limits::default()
        };
        let number = place.id();
        let id = format!("client-{number}");
        let outbound = Arc::new(Outbound::new(&limits));
        let label = format!("{} at {peer}", identity.name);
        let service = Arc::clone(&ctx.service);
        let session = Session::open(place, identity, service, Arc::clone(&outbound));
        let receive: Arc<dyn Receive> = Arc::<Session>::clone(&session);
        let setup = Setup::new(halves, Side::Server, cookie, label, outbound, receive, limits);
        let handle = setup.handle();
        session.ends_by(move |why| handle.close(why));
        // A credential taken away between the proof and now is not in the table's last check.
        ctx.sessions.recheck_one(number, &*ctx.credentials);
        let setup = Mutex::new(Some(setup));
        let child = ChildSpec::worker(&id, &Address::new(&id), move || {
            (Connection, setup.lock().unwrap_or_else(PoisonError::into_inner).take())
        })
        .restart(Restart::Temporary)
        .start_timeout(handshake::TIMEOUT);
        let mut starting = Starting(Some(session));
        match ctx.clients.start_child(child).await {
            // From here on the connection actor ends the session.
            Ok(_path) => starting.0 = None,
            Err(e) => rejected(&logs, peer, &e),
        }
    }
}

/// A session whose connection actor is being started; ended if that does not come to its end, as when the listener is
/// killed meanwhile, so that its place is free again.
struct Starting(Option<Arc<Session>>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.end(Close::Local("the connection was not started".to_owned()));
            session.finish();
        }
    }
}
