//! The ractor shell around the membership's core.
//!
//! Purpose: turns frames, connections, requests and time into inputs, and carries out the outputs. Under the `cluster`
//! supervisor, permanent. State: the core, requests that wait for an answer. After a crash it starts from the members file
//! and from what the transport says is connected.
//!
//! Messages out: frames on the control channel, the [`ClusterWatch`](weald_peers::ClusterWatch), calls of the [`Connector`](crate::Connector).
//! Refuses: leaving the cluster when it is stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weald_peers::{Channel, Network, Permit};
use weald_proto::Frame;
use weald_storage::NodeId;
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use weald_supervision::{ChildSpec, Shutdown};

use crate::config::Config;
use crate::connector::{ConnectorHandle, RenewHandle};
use crate::core::{Force, Input, Membership, OpError, Output, RequestId};
use crate::file::{self, Found};
use crate::handle::{MembershipHandle, Peers, Shared};
use crate::messages;

/// Time between ticks. // guess: a tenth of the shortest period that matters
const TICK: Duration = Duration::from_millis(100);
/// Time to stop, the last save included.
const STOP_TIME: Duration = Duration::from_secs(5);

type Reply = RpcReplyPort<Result<(), OpError>>;

/// Messages of the membership actor.
#[derive(Debug)]
#[expect(missing_docs, reason = "they mirror the methods of the handle and the inputs of the core")]
pub enum Msg {
    /// Time has passed.
    Tick,
    /// The transport's peers have changed.
    Peers,
    /// A frame of a peer.
    Frame { from: NodeId, frame: Frame, permit: Permit },
    /// An input that came about here.
    Input(Input),
    /// See [`MembershipHandle::join`].
    Join { addresses: Vec<String>, within: Duration, reply: Reply },
    /// See [`MembershipHandle::leave`].
    Leave { within: Duration, reply: Reply },
    /// See [`MembershipHandle::forget`].
    Forget { who: String, force: Force, reply: Reply },
    /// See [`MembershipHandle::discovered`].
    Discovered(Vec<String>),
    /// See [`MembershipHandle::rejoin_done`].
    RejoinDone,
    /// See [`MembershipHandle::renewed`].
    Incarnation(u32),
    /// See [`MembershipHandle::evicted_by`].
    EvictedBy(NodeId),
}

impl Message for Msg {}

/// What the actor is started with.
#[derive(Clone)]
pub struct Setup {
    /// Settings.
    pub config: Config,
    /// The members file; nothing is remembered without.
    pub file: Option<PathBuf>,
    /// Sends frames.
    pub network: Arc<dyn Network>,
    /// Makes connections.
    pub connector: ConnectorHandle,
    /// Gives new incarnations.
    pub renew: RenewHandle,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("config", &self.config)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The `membership` child.
#[must_use]
pub fn child_spec(handle: &MembershipHandle, setup: Setup) -> ChildSpec {
    let shared = Arc::clone(&handle.shared);
    ChildSpec::worker("membership", &handle.address, move || {
        (MembershipActor, (Arc::clone(&shared), setup.clone()))
    })
    .shutdown(Shutdown::Timeout(STOP_TIME))
}

/// The actor.
#[derive(Debug)]
pub struct MembershipActor;

/// The actor's state.
#[derive(Debug)]
pub struct State {
    core: Membership,
    shared: Arc<Shared>,
    setup: Setup,
    /// The peers that the core was told of.
    peers: Arc<Peers>,
    replies: BTreeMap<RequestId, Reply>,
    next_request: RequestId,
    /// The newest bytes for the members file; written by a task.
    save: watch::Sender<Option<Vec<u8>>>,
    tasks: Vec<AbortOnDrop>,
}

/// A task that ends with the actor.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for MembershipActor {
    type Msg = Msg;
    type State = State;
    type Arguments = (Arc<Shared>, Setup);

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        (shared, setup): (Arc<Shared>, Setup),
    ) -> Result<State, ActorProcessingErr> {
        let saved = match setup.file.clone() {
            None => None,
            Some(path) => match tokio::task::spawn_blocking(move || file::read(&path)).await?? {
                Found::Nothing => None,
                Found::Saved(saved) => Some(saved),
                Found::SetAside(path, error) => {
                    let path = path.display();
                    tracing::error!(event = "members_broken", %error, %path, "set a broken members file aside");
                    None
                }
            },
        };
        let random = NodeId::random()?.0;
        let seed = random.iter().fold(0_u64, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
        let now_ms = now_ms(&shared);
        let (core, outputs) =
            Membership::new(setup.config.clone(), &shared.own, saved, seed, now_ms, wall_ms());
        let (save, saves) = watch::channel(None);
        let mut tasks = vec![AbortOnDrop(tokio::spawn(tick(myself.clone())))];
        if let Some(path) = setup.file.clone() {
            tasks.push(AbortOnDrop(tokio::spawn(write_all(path, saves))));
        }
        let mut state = State {
            core,
            shared,
            setup,
            peers: Arc::default(),
            replies: BTreeMap::new(),
            next_request: 1,
            save,
            tasks,
        };
        state.carry_out(&myself, outputs);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.follow_peers(&myself);
        state.on_message(&myself, message);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // Stopping is not leaving: what is known is kept for the next start.
        state.tasks.clear();
        if let Some(path) = state.setup.file.clone() {
            let bytes = state.core.saved().encode();
            tokio::task::spawn_blocking(move || file::write(&path, &bytes)).await??;
        }
        Ok(())
    }
}

impl State {
    fn on_message(&mut self, myself: &ActorRef<Msg>, message: Msg) {
        let input = match message {
            Msg::Tick => Input::Tick,
            Msg::Peers => return,
            Msg::Frame { from, frame, permit: _permit } => {
                if frame.kind != messages::KIND {
                    return self.malformed(from, &"unknown kind");
                }
                match messages::Message::decode(&frame.body) {
                    Ok(message) => Input::Message { from, message },
                    Err(error) => return self.malformed(from, &error),
                }
            }
            Msg::Input(input) => input,
            Msg::Join { addresses, within, reply } => {
                let (request, deadline_ms) = self.request(within, reply);
                Input::Join { request, addresses, deadline_ms }
            }
            Msg::Leave { within, reply } => {
                let (request, deadline_ms) = self.request(within, reply);
                Input::Leave { request, deadline_ms }
            }
            Msg::Forget { who, force, reply } => {
                let (request, _) = self.request(Duration::ZERO, reply);
                Input::Forget { request, who, force }
            }
            Msg::Discovered(addresses) => Input::Discovered { addresses },
            Msg::RejoinDone => Input::RejoinDone,
            Msg::Incarnation(incarnation) => Input::Incarnation(incarnation),
            Msg::EvictedBy(by) => Input::EvictedSays { by },
        };
        self.feed(myself, input);
    }

    fn malformed(&self, from: NodeId, error: &dyn std::fmt::Display) {
        self.shared.malformed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(event = "membership_malformed", peer = %from, %error, "malformed frame");
    }

    fn request(&mut self, within: Duration, reply: Reply) -> (RequestId, u64) {
        let request = self.next_request;
        self.next_request += 1;
        self.replies.insert(request, reply);
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        (request, now_ms(&self.shared).saturating_add(within_ms))
    }

    /// Tells the core which connections came and went since it was last told.
    fn follow_peers(&mut self, myself: &ActorRef<Msg>) {
        let new = self.shared.peers.load_full();
        if Arc::ptr_eq(&new, &self.peers) {
            return;
        }
        let old = std::mem::replace(&mut self.peers, Arc::clone(&new));
        let is_same = |peers: &Peers, node: &NodeId, info: &Arc<weald_peers::PeerInfo>| {
            peers.get(node).is_some_and(|other| Arc::ptr_eq(other, info))
        };
        for (node, _) in old.iter().filter(|(node, info)| !is_same(&new, node, info)) {
            self.feed(myself, Input::PeerDown(*node));
        }
        for (_, info) in new.iter().filter(|(node, info)| !is_same(&old, node, info)) {
            self.feed(myself, Input::PeerUp(Arc::clone(info)));
        }
    }

    fn feed(&mut self, myself: &ActorRef<Msg>, input: Input) {
        let outputs = self.core.handle(now_ms(&self.shared), wall_ms(), input);
        self.carry_out(myself, outputs);
    }

    fn carry_out(&mut self, myself: &ActorRef<Msg>, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    let frame = Frame { kind: messages::KIND, corr: 0, body: message.encode() };
                    // A lost message is a case that the core knows: probes fail, news are compared later.
                    if self.setup.network.send(to, Channel::Control, 0, &frame).is_err() {
                        self.shared.unsent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Output::Connect(peers) => self.setup.connector.want(peers),
                Output::DialSeed { ticket, addresses } => self.dial(myself, ticket, addresses),
                Output::Changed => {
                    let cluster = self.core.cluster();
                    self.shared.snapshot.store(Arc::clone(&cluster));
                    self.shared.watch.send_replace(cluster);
                    self.shared.health.store(self.core.health(), Ordering::Relaxed);
                }
                Output::Persist(bytes) => drop(self.save.send_replace(Some(bytes))),
                Output::Event(event) => crate::trace::log(&event),
                Output::Reply { request, result } => {
                    if let Some(reply) = self.replies.remove(&request) {
                        // Whoever asked may have stopped waiting.
                        drop(reply.send(result));
                    }
                }
                Output::RenewIncarnation { above } => self.renew(myself, above),
            }
        }
    }

    fn dial(&self, myself: &ActorRef<Msg>, ticket: u64, addresses: Vec<String>) {
        let (dialling, myself) = (self.setup.connector.dial_seed(addresses), myself.clone());
        tokio::spawn(async move {
            let result = dialling.await;
            let evicted_by = result.as_ref().err().and_then(|error| error.evicted_by);
            let result = result.map(Arc::new).map_err(|error| error.why);
            // The actor may be gone meanwhile; its successor dials anew.
            drop(myself.cast(Msg::Input(Input::Dialled { ticket, result })));
            if let Some(by) = evicted_by {
                drop(myself.cast(Msg::EvictedBy(by)));
            }
        });
    }

    fn renew(&self, myself: &ActorRef<Msg>, above: u32) {
        let (renewing, myself) = (self.setup.renew.renew(above), myself.clone());
        tokio::spawn(async move {
            match renewing.await {
                Ok(incarnation) => drop(myself.cast(Msg::Incarnation(incarnation))),
                Err(error) => {
                    tracing::error!(event = "incarnation_not_renewed", %error, "no new incarnation");
                }
            }
        });
    }
}

async fn tick(actor: ActorRef<Msg>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if actor.cast(Msg::Tick).is_err() {
            return;
        }
    }
}

/// Writes the newest bytes; those that were replaced meanwhile are never written.
async fn write_all(path: PathBuf, mut saves: watch::Receiver<Option<Vec<u8>>>) {
    while saves.changed().await.is_ok() {
        let Some(bytes) = saves.borrow_and_update().clone() else { continue };
        let to = path.clone();
        let written = tokio::task::spawn_blocking(move || file::write(&to, &bytes)).await;
        if let Ok(Err(error)) = written {
            let path = path.display();
            tracing::error!(event = "members_not_saved", %error, %path, "members file not written");
        }
    }
}

fn now_ms(shared: &Shared) -> u64 {
    u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
