//! Dialling other nodes.
//!
//! A dialer is a task for one wanted peer, or for one that frames wait for; these are dialled at once. The node with the
//! smaller id dials at once, the other when nothing has come for [`PATIENCE`]: so there is mostly one who dials, and still a
//! connection when only one of the two can reach the other.

use super::Shared;
use super::link::Reserved;
use super::table::{Lane, Todo, info_of};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weald_link::Halves;
use weald_link::filter::Side;
use weald_link::hello::{DialError, random, read_message_within};
use weald_peers::{Channel, PeerInfo};
use weald_proto::hello::node::{NodeAnswer, agree};
use weald_proto::hello::{Hello, MAGIC, Refused, Role, VERSION, decode, encode, encode_within};
use weald_proto::limits::{HELLO_TIMEOUT_MS, NODE_HELLO_BYTES_MAX};
use weald_storage::NodeId;
use weald_supervision::{BoxError, TaskContext};

/// Time for connecting, TLS and the handshake together.
const TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS);
/// How long the node with the greater id waits for the other.
const PATIENCE: Duration = Duration::from_millis(1_500); // guess
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10)); // guess
/// A peer that was up for so long is dialled without delay when it is lost.
const STEADY: Duration = Duration::from_secs(5); // guess
/// Pause while the other end's own connection is on its way.
const CROSSING_PAUSE: Duration = Duration::from_millis(50);
/// A failure that repeats is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Time for all channels of a seed to connect.
const SEED_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a node could not be connected.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialFailure {
    /// No address was given.
    #[error("no address to dial")]
    NoAddress,
    /// This node has no certificate of a cluster.
    #[error("this node has no certificate of a cluster: `weald cluster init` makes them")]
    NoCertificate,
    /// Nobody listens there, or the connection or TLS failed.
    #[error("{address}: {error}")]
    Unreachable {
        /// The address.
        address: String,
        /// What failed.
        #[source]
        error: io::Error,
    },
    /// Not in time.
    #[error("{address}: not connected within {} ms", after.as_millis())]
    Timeout {
        /// The address.
        address: String,
        /// How long it was tried.
        after: Duration,
    },
    /// It broke off, or does not speak the protocol.
    #[error("{address}: {error}")]
    Protocol {
        /// The address.
        address: String,
        /// What failed.
        #[source]
        error: DialError,
    },
    /// One of the two nodes refuses the other.
    #[error("{address}: {refused}")]
    Refused {
        /// The address.
        address: String,
        /// Why.
        refused: Refused,
        /// Name of the node there, by its certificate.
        name: Option<String>,
        /// Which of the two.
        by: RefusedBy,
    },
    /// Another node than expected answers there.
    #[error("{address}: expected node {expected}, found {name:?} with id {found}")]
    OtherNode {
        /// The address.
        address: String,
        /// Who was wanted.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
        /// Its name.
        name: String,
    },
    /// The connection could not be started.
    #[error("{address}: connection not started: {error}")]
    NotStarted {
        /// The address.
        address: String,
        /// Why not.
        error: String,
    },
}

/// Who refuses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// This node refuses the one that it has dialled.
    Us,
    /// The other node has said so.
    Peer,
}

/// A dialer's handshake, noted in the table while it lasts.
struct Dialling<'a> {
    shared: &'a Shared,
    name: String,
    lane: Lane,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.shared.table().dialled(&self.name, self.lane);
    }
}

/// One attempt to connect a lane at one address.
struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    address: &'a str,
    lane: Lane,
    expected: Option<NodeId>,
}

impl Attempt<'_> {
    /// Connects. On success the connection has its place and its actor; it is up a moment later.
    async fn run(&self) -> Result<Arc<PeerInfo>, DialFailure> {
        let address = || self.address.to_owned();
        let connecting = async {
            let error = |error| DialFailure::Unreachable { address: address(), error };
            let stream = TcpStream::connect(self.address).await.map_err(error)?;
            stream.set_nodelay(true).map_err(error)?;
            let loaded = self.shared.tls.loaded().ok_or(DialFailure::NoCertificate)?;
            let connected = loaded.connect(stream).await.map_err(error)?;
            let (mut halves, proved) = connected.ok_or(DialFailure::NoCertificate)?;
            let Some(proved) = proved else {
                let why = "the certificate names no node of a cluster".to_owned();
                return Err(self.refused(Refused::Certificate(why), None));
            };
            let name = proved.node.clone();
            // Who is connected already cannot be expected to say more than that.
            if !self.shared.table().dialling(&name, self.lane) {
                return Err(self.refused(Refused::Duplicate, Some(name)));
            }
            let dialling = Dialling { shared: self.shared, name: name.clone(), lane: self.lane };
            let (reserved, info, cookie) = self.shake_hands(&mut halves, &proved).await?;
            Ok((halves, reserved, info, cookie, name, dialling))
        };
        let connected = tokio::time::timeout(TIMEOUT, connecting).await;
        let timeout = || DialFailure::Timeout { address: address(), after: TIMEOUT };
        let (halves, reserved, info, cookie, name, dialling) =
            connected.map_err(|_elapsed| timeout())??;
        drop(dialling);
        let started = reserved.start(halves, Side::Client, cookie, &name).await;
        started
            .map_err(|e| DialFailure::NotStarted { address: address(), error: e.to_string() })?;
        Ok(info)
    }

    async fn shake_hands(
        &self,
        halves: &mut Halves,
        proved: &weald_link::pki::Identity,
    ) -> Result<(Reserved, Arc<PeerInfo>, String), DialFailure> {
        let protocol = |error| DialFailure::Protocol { address: self.address.to_owned(), error };
        let ours = self.shared.hello(self.lane).map_err(|e| protocol(DialError::Random(e)))?;
        let opening = Hello {
            version: VERSION,
            role: Role::Node,
            cluster: None,
            name: String::new(),
            nonce: random().map_err(|e| protocol(DialError::Random(e)))?,
        };
        let exchange = async {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&encode(&opening)?);
            bytes.extend_from_slice(&encode_within(&ours, NODE_HELLO_BYTES_MAX)?);
            halves.write.write_all(&bytes).await?;
            halves.write.flush().await?;
            let body = read_message_within(&mut halves.read, NODE_HELLO_BYTES_MAX).await?;
            Ok(decode::<NodeAnswer>(&body)?)
        };
        let refused = |refused| self.refused(refused, Some(proved.node.clone()));
        let (hello, cookie) = match exchange.await.map_err(protocol)? {
            NodeAnswer::Welcome { hello, cookie } => (hello, cookie),
            NodeAnswer::Refused(why) => {
                return Err(DialFailure::Refused {
                    address: self.address.to_owned(),
                    refused: why,
                    name: Some(proved.node.clone()),
                    by: RefusedBy::Peer,
                });
            }
        };
        agree(hello.versions, ours.versions).map_err(refused)?;
        self.shared.judge(&hello, proved, true).map_err(refused)?;
        if let Some(expected) = self.expected.filter(|expected| expected.0 != hello.uuid) {
            return Err(DialFailure::OtherNode {
                address: self.address.to_owned(),
                expected,
                found: NodeId(hello.uuid),
                name: hello.name,
            });
        }
        if (hello.channel, hello.lane) != (ours.channel, ours.lane) {
            return Err(refused(Refused::Malformed("the answer is for another lane".to_owned())));
        }
        let reserved = self.shared.reserve(&hello, true).map_err(refused)?;
        Ok((reserved, Arc::new(info_of(&hello)), cookie))
    }

    fn refused(&self, refused: Refused, name: Option<String>) -> DialFailure {
        let address = self.address.to_owned();
        DialFailure::Refused { address, refused, name, by: RefusedBy::Us }
    }
}

/// Tries one address after the other.
async fn any(
    shared: &Arc<Shared>,
    addresses: &[String],
    lane: Lane,
    expected: Option<NodeId>,
) -> Result<Arc<PeerInfo>, DialFailure> {
    let mut failure = DialFailure::NoAddress;
    for address in addresses {
        match (Attempt { shared, address, lane, expected }).run().await {
            Ok(info) => return Ok(info),
            // The peer was reached: what it says counts more than what fails at its other addresses.
            Err(e @ DialFailure::Refused { refused: Refused::Duplicate, .. }) => return Err(e),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}

fn is_crossing(failure: &DialFailure) -> bool {
    matches!(failure, DialFailure::Refused { refused: Refused::Duplicate, .. })
}

/// Connects all lanes to whoever is at one of these addresses.
pub(super) async fn seed(
    shared: &Arc<Shared>,
    addresses: Vec<String>,
) -> Result<PeerInfo, DialFailure> {
    let mut failure = DialFailure::NoAddress;
    for address in addresses {
        let trying = seed_at(shared, &address);
        match tokio::time::timeout(SEED_TIMEOUT, trying).await {
            Ok(Ok(info)) => return Ok(info),
            Ok(Err(e)) => failure = e,
            Err(_elapsed) => failure = DialFailure::Timeout { address, after: SEED_TIMEOUT },
        }
    }
    Err(failure)
}

async fn seed_at(shared: &Arc<Shared>, address: &str) -> Result<PeerInfo, DialFailure> {
    let mut changes = shared.changes.subscribe();
    let mut node = None;
    loop {
        changes.borrow_and_update();
        let lane = match node {
            None => Some((Channel::Control, 0)),
            Some(node) => {
                let mut table = shared.table();
                table.keep(node, Instant::now());
                if let Some(peer) = table.peer(node).filter(|peer| peer.up_since.is_some()) {
                    return Ok(PeerInfo::clone(&peer.info));
                }
                table.missing(node)
            }
        };
        let Some(lane) = lane else {
            // The sender lives in `shared`.
            changes.changed().await.ok();
            continue;
        };
        match (Attempt { shared, address, lane, expected: node }).run().await {
            Ok(info) => node = Some(info.node),
            Err(DialFailure::Refused { refused: Refused::Duplicate, name, .. }) => {
                let named = name.and_then(|name| shared.table().named(&name).map(|p| p.info.node));
                node = node.or(named);
                tokio::time::sleep(CROSSING_PAUSE).await;
            }
            Err(e) => return Err(e),
        }
    }
}

/// The pauses of a dialer: exponential, capped, half of each by chance.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = PAUSE.0.saturating_mul(1 << self.failures.min(16)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        // Without randomness, pauses are as long as they may be.
        let [byte] = random::<1>().unwrap_or([u8::MAX]);
        full / 2 + full / 2 * u32::from(byte) / u32::from(u8::MAX)
    }
}

/// Logs a failure when it is new, and rarely when it repeats.
#[derive(Debug, Default)]
struct Failures {
    last: Option<(String, Instant)>,
}

impl Failures {
    fn log(&mut self, shared: &Shared, node: NodeId, failure: &dyn fmt::Display) {
        let text = failure.to_string();
        shared.table().failed(node, &text);
        let is_due = |(last, at): &(String, Instant)| *last != text || at.elapsed() >= LOG_EVERY;
        if !self.last.as_ref().is_none_or(is_due) {
            return;
        }
        if let Some(suppressed) = shared.logs.admit() {
            tracing::warn!(event = "peer_dial_failed", peer = %node, reason = %text, suppressed, "peer not connected");
        }
        self.last = Some((text, Instant::now()));
    }
}

/// The dialer of one peer; ends when the peer is not wanted any more.
pub(super) async fn run(
    shared: Arc<Shared>,
    node: NodeId,
    cx: TaskContext,
) -> Result<(), BoxError> {
    let dialing = keep_dialled(&shared, node);
    tokio::select! {
        biased; // an end that is asked for goes first
        () = cx.cancelled() => {}
        () = dialing => {}
    }
    Ok(())
}

async fn keep_dialled(shared: &Arc<Shared>, node: NodeId) {
    let mut changes = shared.changes.subscribe();
    let mut backoff = Backoff::default();
    let mut failures = Failures::default();
    let mut was_up = None;
    let mut has_dialled = false;
    loop {
        changes.borrow_and_update();
        let (todo, up_since, is_wanted, is_demanded) = {
            let table = shared.table();
            let is_wanted = table.wanted.contains_key(&node);
            let up_since = table.peer(node).and_then(|peer| peer.up_since);
            (table.todo(node), up_since, is_wanted, table.is_demanded(node))
        };
        match (was_up, up_since) {
            (Some(since), None) => {
                // Lost. One that is lost again and again is not worth a dial each time.
                if Instant::now().duration_since(since) >= STEADY {
                    backoff = Backoff::default();
                }
                was_up = None;
                has_dialled = false;
                if !is_demanded {
                    tokio::time::sleep(backoff.next()).await;
                }
                continue;
            }
            (_, Some(_)) => was_up = up_since,
            (None, None) => {}
        }
        let (lane, addresses) = match todo {
            Todo::Unwanted => return,
            Todo::Nothing => {
                // The sender lives in `shared`.
                changes.changed().await.ok();
                continue;
            }
            Todo::Dial(lane, addresses) => (lane, addresses),
        };
        if node < shared.own && !has_dialled && !is_demanded {
            // Any sign of the other end's dialling starts the wait anew.
            if tokio::time::timeout(PATIENCE, changed_for(shared, node)).await.is_ok() {
                continue;
            }
            has_dialled = true;
        }
        match any(shared, &addresses, lane, Some(node)).await {
            Ok(_) => {}
            Err(e) if is_crossing(&e) => tokio::time::sleep(CROSSING_PAUSE).await,
            Err(e) => {
                if let DialFailure::Refused { refused, by: RefusedBy::Peer, .. } = &e
                    && let Some(admission) = &*shared.admission.load()
                {
                    admission.refused_by(node, refused);
                }
                failures.log(shared, node, &e);
                if is_demanded {
                    shared.give_up(node, &e.to_string());
                }
                if is_wanted {
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

/// Returns when something about this peer has changed: what is missing, or whether it is wanted.
async fn changed_for(shared: &Shared, node: NodeId) {
    let mut changes = shared.changes.subscribe();
    let state = || {
        let table = shared.table();
        (table.todo(node), table.is_demanded(node))
    };
    let before = state();
    while changes.changed().await.is_ok() {
        if state() != before {
            return;
        }
    }
}
