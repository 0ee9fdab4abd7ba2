//! What everybody but the actors holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use weald_peers::{Channel, Inbox, Meter, PeerEvent, PeerInfo};
use weald_proto::Frame;
use weald_storage::{Dot, NodeId, Space, Stable};
use weald_supervision::{Address, ChildSpec, DynamicHandle, DynamicSpec, Strategy, SupervisorSpec};

use crate::actor::{ExchangeActor, Msg};
use crate::config::{Config, ms};
use crate::core::{Counters, DiffReport, Ended, Failed, Mode, Outcome, Shard};
use crate::seams::Deps;
use crate::sweeper;
use crate::token::SessionToken;

/// What the actors and the handle share, and what outlives a restart.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) address: Address<Msg>,
    pub(crate) exchanges: DynamicHandle,
    meter: Arc<Meter>,
    started: Instant,
    /// Shards with commits that the actor has not looked at.
    dirty: Vec<AtomicBool>,
    /// Whether the actor wants to hear of each commit. Otherwise it looks by itself, every `clocks_timer`.
    attentive: AtomicBool,
    /// Whether a message about that is on its way.
    stirred: AtomicBool,
    /// Who is connected. Written by connection actors, read by an actor that starts.
    connected: Mutex<BTreeMap<NodeId, Arc<PeerInfo>>>,
    /// What is stable, for the sweeper.
    pub(crate) stable: watch::Sender<Arc<BTreeMap<Shard, Stable>>>,
    pub(crate) totals: SweepTotals,
    /// Number of the next session.
    pub(crate) sessions: AtomicU64,
}

/// What sweeps have done since the process started.
#[derive(Debug, Default)]
pub(crate) struct SweepTotals {
    pub(crate) swept: AtomicU64,
    pub(crate) stripped: AtomicU64,
    pub(crate) reaped: AtomicU64,
}

impl Shared {
    /// Milliseconds since the process started.
    pub(crate) fn now_ms(&self) -> u64 {
        ms(self.started.elapsed())
    }

    fn at_ms(&self, deadline: Instant) -> u64 {
        ms(deadline.saturating_duration_since(self.started))
    }

    /// Who is connected.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.keys().copied().collect()
    }

    /// Whether commits are to be told from now on. What was committed before is found by [`Self::take_dirty`]: whoever waits
    /// for commits looks after having said so.
    pub(crate) fn set_attentive(&self, attentive: bool) {
        self.attentive.store(attentive, Ordering::SeqCst);
    }

    /// Shards with commits since the last call.
    pub(crate) fn take_dirty(&self) -> Vec<Shard> {
        self.stirred.store(false, Ordering::SeqCst);
        (0..)
            .zip(&self.dirty)
            .filter(|(_, dirty)| dirty.swap(false, Ordering::SeqCst))
            .map(|(number, _)| Shard::of_number(number))
            .collect()
    }

    /// Whether this node's clocks cover a token. Reads the store.
    pub(crate) fn covers(&self, token: &SessionToken) -> bool {
        token.iter().all(|(shard, vector)| {
            shard.partition < self.deps.stores.partitions()
                && self.deps.stores.replica(shard).clock().is_ok_and(|clock| clock.covers(vector))
        })
    }
}

/// How a session that was asked for went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether both sides are equal now, but for what was written meanwhile. Otherwise something could not be merged or was
    /// damaged.
    pub converged: bool,
    /// What it has moved.
    pub counters: Counters,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The session ended before its time. What it had merged until then stays.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The deadline came first; the session may still run.
    #[error("no answer by the deadline")]
    Late,
}

/// This node has not all that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this node has not caught up with what the session has seen")]
pub struct NotCaughtUp;

/// How exchanges stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether this node begins exchanges by itself.
    pub enabled: bool,
    /// Sessions that run.
    pub running: usize,
    /// Requests that wait for a clock.
    pub waiting: usize,
    /// Frames of peers that were dropped because too many waited.
    pub overflow: u64,
    /// Members whose clocks are unknown: nothing is swept until they have told them.
    pub unknown: Vec<NodeId>,
    /// Events whose keys were forgotten since the process started.
    pub swept: u64,
    /// Objects whose contexts were stripped.
    pub stripped: u64,
    /// Deleted objects that were removed.
    pub reaped: u64,
    /// By peer.
    pub peers: BTreeMap<NodeId, PeerReport>,
}

/// How exchanges with a peer stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Whether it is connected.
    pub up: bool,
    /// Sessions with it that run, begun by either.
    pub running: u32,
    /// How long ago a session last went through.
    pub success_age_ms: Option<u64>,
    /// How long ago both were last known to be equal, but for what was written meanwhile.
    pub convergence_age_ms: Option<u64>,
    /// Sessions that went through.
    pub sessions: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last session failed, if it did.
    pub last_error: Option<String>,
    /// What all sessions have moved.
    pub counters: Counters,
}

/// Exchanges as their users hold them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExchangeHandle {
    shared: Arc<Shared>,
}

impl ExchangeHandle {
    /// A handle for actors that [`Self::child_spec`] starts.
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Self {
        let shards = usize::from(deps.stores.partitions()) * 2;
        let shared = Shared {
            meter: Meter::new(config.waiting_bytes_max),
            address: Address::new("exchange/scheduler"),
            exchanges: DynamicHandle::new("exchange/exchanges"),
            started: Instant::now(),
            dirty: (0..shards).map(|_| AtomicBool::new(true)).collect(),
            attentive: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            connected: Mutex::default(),
            stable: watch::Sender::new(Arc::default()),
            totals: SweepTotals::default(),
            sessions: AtomicU64::new(deps.seed | 1),
            config,
            deps,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The supervisor `exchange` with its children: the scheduler, the supervisor of running sessions, the sweeper. If the
    /// scheduler crashes the sessions end with it, since nobody would bring them their frames.
    #[must_use]
    pub fn child_spec(&self) -> ChildSpec {
        let shared = Arc::clone(&self.shared);
        let scheduler = ChildSpec::worker("scheduler", &self.shared.address, move || {
            (ExchangeActor, Arc::clone(&shared))
        });
        let running = DynamicSpec {
            max_children: self.shared.config.concurrency + self.shared.config.incoming_max + 64,
            quiet: true,
            ..DynamicSpec::default()
        };
        let exchanges = ChildSpec::dynamic("exchanges", &self.shared.exchanges, running);
        let sweeper = sweeper::child_spec(Arc::clone(&self.shared));
        let children = [scheduler, exchanges, sweeper];
        let spec = SupervisorSpec::new(Strategy::RestForOne).children(children);
        ChildSpec::supervisor("exchange", spec)
    }

    /// Something was committed. For the commit hook: never blocks.
    pub fn committed(&self, partition: u16, space: Space) {
        let number = usize::from(Shard::new(partition, space).number());
        if let Some(dirty) = self.shared.dirty.get(number) {
            dirty.store(true, Ordering::SeqCst);
        }
        // Most of the time nobody waits for it, and a message for each commit would cost more than all else here.
        if self.shared.attentive.load(Ordering::SeqCst)
            && !self.shared.stirred.swap(true, Ordering::SeqCst)
            && self.shared.address.cast(Msg::Committed).is_err()
        {
            self.shared.stirred.store(false, Ordering::SeqCst);
        }
    }

    /// Something of a peer was missed: an exchange with it soon. Never blocks.
    pub fn behind(&self, peer: NodeId) {
        drop(self.shared.address.cast(Msg::Behind(peer)));
    }

    /// Exchanges with a peer now.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(&self, peer: NodeId, deadline: Instant) -> Result<Report, RunError> {
        let outcome = self.ask(peer, Mode::Exchange, deadline).await?;
        Ok(Report { converged: outcome.result?, counters: outcome.counters })
    }

    /// Finds out what is different between this node and a peer; changes nothing.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn diff(&self, peer: NodeId, deadline: Instant) -> Result<DiffReport, RunError> {
        let outcome = self.ask(peer, Mode::Look, deadline).await?;
        outcome.result?;
        Ok(outcome.diff.unwrap_or_default())
    }

    async fn ask(&self, peer: NodeId, mode: Mode, deadline: Instant) -> Result<Outcome, RunError> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let call = self.shared.address.call(|reply| Msg::Run { peer, mode, reply }, timeout);
        match call.await {
            Ok(outcome) => Ok(*outcome),
            Err(_unanswered) => Err(RunError::Late),
        }
    }

    /// How exchanges stand; `None` when the scheduler does not answer.
    pub async fn status(&self) -> Option<Status> {
        let call = self.shared.address.call(Msg::Status, Duration::from_secs(5));
        let mut status = call.await.ok()?;
        status.overflow = self.shared.meter.refused();
        Some(status)
    }

    /// Waits until this node has processed all that a token names, and fetches it if it does not come by itself.
    ///
    /// # Errors
    /// [`NotCaughtUp`] by the deadline.
    pub async fn caught_up(
        &self,
        token: SessionToken,
        deadline: Instant,
    ) -> Result<(), NotCaughtUp> {
        if self.shared.covers(&token) {
            return Ok(());
        }
        let deadline_ms = self.shared.at_ms(deadline);
        let make = |reply| Msg::CaughtUp { token, deadline_ms, reply };
        match self.shared.address.call(make, left(deadline)).await {
            Ok(Ended::CaughtUp) => Ok(()),
            _ => Err(NotCaughtUp),
        }
    }

    /// Waits until `needed` peers have processed these events; gives back how many have. A peer that tells a clock has
    /// committed it.
    ///
    /// # Errors
    /// How many had by the deadline.
    pub async fn wait_acked(
        &self,
        partition: u16,
        space: Space,
        dots: Vec<Dot>,
        needed: usize,
        deadline: Instant,
    ) -> Result<usize, usize> {
        if needed == 0 {
            return Ok(0);
        }
        let shard = Shard::new(partition, space);
        let deadline_ms = self.shared.at_ms(deadline);
        let make = |reply| Msg::WaitAcked { shard, dots, needed, deadline_ms, reply };
        match self.shared.address.call(make, left(deadline)).await {
            Ok(Ended::Acked(count)) => Ok(count),
            Ok(Ended::NotAcked(count)) => Err(count),
            _ => Err(0),
        }
    }
}

/// A little longer than the deadline: it is the actor that keeps it.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(100)
}

impl Inbox for ExchangeHandle {
    fn frame(&self, from: NodeId, _channel: Channel, frame: Frame) {
        // What is refused here is a gap in a session, which ends by its deadline; clocks are told again.
        if let Some(permit) = self.shared.meter.take(frame.encoded_len()) {
            drop(self.shared.address.cast(Msg::Frame { from, frame, permit }));
        }
    }

    fn peer(&self, event: &PeerEvent) {
        {
            let mut connected =
                self.shared.connected.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                PeerEvent::Up(info) => {
                    connected.insert(info.node, Arc::clone(info));
                }
                PeerEvent::Down { node, .. } => {
                    connected.remove(node);
                }
            }
        }
        drop(self.shared.address.cast(Msg::Peer(event.clone())));
    }
}
