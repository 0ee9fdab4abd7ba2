//! One connection with a peer: where its frames go, and where they come from.

use super::Shared;
use super::stats::{ChannelCounters, Counters};
use super::table::Lane;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use weald_link::filter::Side;
use weald_link::{Close, Connection, Halves, Handle, Limits, Outbound, Receive, Setup};
use weald_peers::kind;
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::{Address, ChildSpec, Restart, StartError};

/// The transport's own service.
const SERVICE: u8 = 0x10;
/// Asks for a [`PONG`] with the same correlation id.
pub(super) const PING: u16 = kind::of(SERVICE, 1);
/// Answers a [`PING`].
const PONG: u16 = kind::of(SERVICE, 2);
/// Says that the sender has no use for its connections, and sends no frames of clients until it is answered.
pub(super) const RELEASE: u16 = kind::of(SERVICE, 3);
/// Answers a [`RELEASE`]: the sender has a use for them.
pub(super) const KEEP: u16 = kind::of(SERVICE, 4);
/// Time to start the actor of a connection.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, from the moment it has a place in the table.
pub(super) struct Link {
    /// Never used twice in a process.
    pub(super) id: u64,
    pub(super) peer: NodeId,
    pub(super) lane: Lane,
    /// Whether the node with the smaller id has dialled.
    pub(super) by_smaller: bool,
    pub(super) counters: Arc<Counters>,
    outbound: OnceLock<Arc<Outbound>>,
    handle: OnceLock<Handle>,
    is_closed: AtomicBool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(
        id: u64,
        peer: NodeId,
        lane: Lane,
        by_smaller: bool,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            lane,
            by_smaller,
            counters,
            outbound: OnceLock::new(),
            handle: OnceLock::new(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// The queue to the peer; none before the connection's actor is being started.
    pub(super) fn outbound(&self) -> Option<&Outbound> {
        self.outbound.get().map(|outbound| &**outbound)
    }

    pub(super) fn channel_counters(&self) -> &ChannelCounters {
        self.counters.channel(self.lane.0)
    }

    /// Bytes that wait for the peer.
    pub(super) fn waiting(&self) -> usize {
        self.outbound().map_or(0, Outbound::bytes)
    }

    /// Ends the connection, also one whose actor is not there yet.
    pub(super) fn close(&self, why: &str) {
        self.is_closed.store(true, Ordering::SeqCst);
        if let Some(handle) = self.handle.get() {
            handle.close(Close::Local(why.to_owned()));
        }
    }

    /// Queues a frame of the transport itself.
    fn answer(&self, frame: &Frame) {
        if let Some(outbound) = self.outbound() {
            // One that is not sent is missed by nobody.
            outbound.send(frame).ok();
        }
    }
}

/// A place in the table, given back when it is dropped before the connection's actor runs.
pub(super) struct Reserved {
    link: Option<Arc<Link>>,
    shared: Arc<Shared>,
}

impl Reserved {
    pub(super) fn new(link: Arc<Link>, shared: Arc<Shared>) -> Self {
        Self { link: Some(link), shared }
    }

    /// Which lane it is.
    pub(super) fn lane(&self) -> Lane {
        self.link.as_ref().map_or((weald_peers::Channel::Control, 0), |link| link.lane)
    }

    /// Starts the connection's actor, which from then on answers for the place.
    pub(super) async fn start(
        mut self,
        halves: Halves,
        side: Side,
        cookie: String,
        peer_name: &str,
    ) -> Result<(), StartError> {
        let Some(link) = self.link.clone() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let limits = Limits {
            outbound_bytes_max: shared.config.peer_outbound_bytes_max,
            idle_timeout: shared.config.peer_idle_timeout,
            ..Limits::default()
        };
        let outbound = Arc::new(Outbound::new(&limits));
        let (channel, lane) = link.lane;
        let label = format!("{peer_name} {channel}/{lane}");
        link.counters.named(peer_name);
        let receive: Arc<dyn Receive> =
            Arc::new(Receiver { link: Arc::clone(&link), shared: Arc::clone(&shared) });
        let setup = Setup::new(halves, side, cookie, label, Arc::clone(&outbound), receive, limits);
        // Set here only, once.
        link.outbound.set(outbound).ok();
        link.handle.set(setup.handle()).ok();
        if link.is_closed.load(Ordering::SeqCst) {
            link.close("given up before it was connected");
        }
        let id = format!("link-{peer_name}-{channel}-{lane}-{}", link.id);
        let setup = Mutex::new(Some(setup));
        let child = ChildSpec::worker(&id, &Address::new(&id), move || {
            (Connection, setup.lock().unwrap_or_else(PoisonError::into_inner).take())
        })
        .restart(Restart::Temporary)
        .start_timeout(START_TIMEOUT);
        shared.children.start_child(child).await?;
        self.link = None;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.close("not connected");
            self.shared.change(|table, effects| {
                table.link_closed(link, "the connection was not started", effects);
            });
        }
    }
}

/// Takes what comes from the peer.
struct Receiver {
    link: Arc<Link>,
    shared: Arc<Shared>,
}

impl Receive for Receiver {
    fn up(&self) {
        let now = std::time::Instant::now();
        self.shared.change(|table, effects| table.link_up(&self.link, now, effects));
    }

    fn frame(&self, frame: Frame) {
        let link = &self.link;
        if link.is_closed.load(Ordering::Acquire) {
            return;
        }
        link.channel_counters().received(frame.encoded_len());
        match frame.kind {
            PING => link.answer(&Frame { kind: PONG, corr: frame.corr, body: Vec::new() }),
            PONG => {
                if let Some(us) = self.shared.now_us().checked_sub(frame.corr) {
                    link.counters.round_trip(us);
                }
            }
            RELEASE => self.shared.on_release(link.peer),
            KEEP => self.shared.on_keep(link.peer),
            other => match self.shared.inboxes.load().get(&kind::service(other)) {
                Some(inbox) => inbox.frame(link.peer, link.lane.0, frame),
                None => self.shared.unknown(link.peer, other),
            },
        }
    }

    fn batch_end(&self) {
        // Also when the link was closed meanwhile: what its frames have caused waits for this.
        for inbox in self.shared.inboxes.load().values() {
            inbox.batch_end(self.link.peer, self.link.lane.0);
        }
    }

    fn closed(&self, why: &Close) {
        self.link.is_closed.store(true, Ordering::SeqCst);
        let why = why.to_string();
        self.shared.change(|table, effects| table.link_closed(&self.link, &why, effects));
    }
}
