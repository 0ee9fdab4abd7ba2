//! A session: one exchange between two nodes over all shards, from either side.
//!
//! What it is: a pure state machine. The side that begins sends a digest of every shard in one message; when all are equal
//! the answer to it is the end. Those that differ are gone through, [`SHARDS_AT_ONCE`] at a time.
//! What it guarantees: a session that makes no progress for its timeout ends, and so does one that takes too long; whatever
//! it has merged until then is merged, and the next session goes on from the clocks. Everything a peer sends is checked.
//! What it refuses: to retry, and to remember. A crash of either side ends the session and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use weald_storage::{Actor, Clock, Delta, Evidence, Replicated, VersionVector, Watch};

use super::exchange::{Exchange, Part, read_state};
use super::link::{Action, Cx};
use super::outcome::{
    Compared, Counters, DIFF_KEYS_MAX, DiffReport, Failed, MergeFailure, Outcome,
};
use super::repairs::Resort;
use super::wire::{Message, Reader, Shard, Summary, Writer};

/// Shards that are exchanged at the same time. // guess: keeps several partitions' writers busy
pub const SHARDS_AT_ONCE: usize = 4;
/// Most shards of a node. // guess: 512 partitions
pub const SHARDS_MAX: usize = 1024;

/// Where the replicas are.
pub trait Stores: Send + Sync {
    /// Number of partitions.
    fn partitions(&self) -> u16;
    /// One space of one partition, below [`Stores::partitions`].
    fn replica(&self, shard: Shard) -> &dyn Replicated;
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Make both sides equal.
    Exchange,
    /// Find out what is different, and change nothing.
    Look,
}

/// Limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time without progress, `aae.data_exchange_timeout`.
    pub idle_ms: u64,
    /// Longest time in all.
    pub total_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // Bondy page for the first; guess for the second: enough for tens of gigabytes, and a stuck one ends.
        Self { idle_ms: 60_000, total_ms: 3_600_000 }
    }
}

/// What happens to a session.
#[derive(Debug, Clone)]
pub enum Input {
    /// A frame of the peer.
    Frame(Vec<u8>),
    /// [`Output::Merge`] is done: whether each object brought something new.
    Merged {
        /// Which one.
        id: u64,
        /// One for each object.
        results: Vec<Result<bool, MergeFailure>>,
    },
    /// [`Output::Adopt`] is done.
    Adopted {
        /// Which one.
        id: u64,
        /// Whether it went well.
        ok: bool,
    },
    /// The peer is gone.
    Disconnected,
    /// The peer has no such session, or not any more.
    Refused {
        /// Whether it has as many as it takes.
        busy: bool,
    },
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send a frame to the peer; frames of a session in order.
    Send(Vec<u8>),
    /// Merge objects, and say so with [`Input::Merged`].
    Merge {
        /// To be given back.
        id: u64,
        /// Where.
        shard: Shard,
        /// What, and by what right.
        items: Vec<(Delta, Evidence)>,
    },
    /// Take over a clock, and say so with [`Input::Adopted`].
    Adopt {
        /// To be given back.
        id: u64,
        /// Where.
        shard: Shard,
        /// The clock.
        clock: Arc<Clock>,
        /// Up to which events the keys are not known here, although they are in the clock.
        swept: VersionVector,
        /// What was watched since the trees were compared: not if it is disturbed.
        watch: Arc<Watch>,
    },
    /// Begin a new life of this node, above this incarnation; the session ends.
    Renew {
        /// Highest incarnation known of this node.
        highest: u32,
    },
    /// The session is over. Nothing comes after it.
    Finished(Box<Outcome>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// R: waits for the first message.
    AwaitSummary,
    /// I: waits for the answer to it.
    AwaitDiffer,
    Running,
    /// R: all is said; the last clocks are being taken over.
    Finishing,
    Finished,
}

/// One side of a session.
#[derive(Debug)]
pub struct Session {
    part: Part,
    limits: Limits,
    phase: Phase,
    first: u16,
    begun_ms: u64,
    progress_ms: u64,
    writer: Writer,
    reader: Reader,
    ids: u64,
    counters: Counters,
    todo: VecDeque<u16>,
    running: BTreeMap<u16, Exchange>,
    converged: bool,
    diff: DiffReport,
    clocks: Vec<(Shard, Actor, Arc<Clock>)>,
    actors: BTreeMap<u16, Actor>,
    resort: Arc<Resort>,
    compared: Vec<Compared>,
}

impl Session {
    fn new(part: Part, phase: Phase, limits: Limits, resort: Arc<Resort>, now_ms: u64) -> Self {
        Self {
            part,
            limits,
            phase,
            first: 0,
            begun_ms: now_ms,
            progress_ms: now_ms,
            writer: Writer::default(),
            reader: Reader::default(),
            ids: 0,
            counters: Counters::default(),
            todo: VecDeque::new(),
            running: BTreeMap::new(),
            converged: true,
            diff: DiffReport::default(),
            clocks: Vec::new(),
            actors: BTreeMap::new(),
            resort,
            compared: Vec::new(),
        }
    }

    /// Begins a session. `first` says with which shard to begin, so that one that fails does not keep others waiting for
    /// ever: pass another number each time. `resort` is what [`super::Repairs`] knows for this peer.
    pub fn initiate(
        mode: Mode,
        first: u16,
        limits: Limits,
        resort: Arc<Resort>,
        stores: &dyn Stores,
        now_ms: u64,
    ) -> (Self, Vec<Output>) {
        let part = Part { initiator: true, look: mode == Mode::Look };
        let mut session = Self::new(part, Phase::AwaitDiffer, limits, resort, now_ms);
        session.first = first;
        let mut out = Vec::new();
        match session.summaries(stores) {
            Ok(shards) => session.say(&Message::Summary { look: part.look, shards }, &mut out),
            Err(e) => session.end(Err(e), &mut out),
        }
        (session, out)
    }

    /// The other side of a session, before its first frame.
    #[must_use]
    pub fn respond(limits: Limits, resort: Arc<Resort>, now_ms: u64) -> Self {
        let part = Part { initiator: false, look: false };
        Self::new(part, Phase::AwaitSummary, limits, resort, now_ms)
    }

    /// What it has moved so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// When it ends by itself unless something happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let idle = self.progress_ms.saturating_add(self.limits.idle_ms);
        let total = self.begun_ms.saturating_add(self.limits.total_ms);
        (!self.is_finished()).then_some(idle.min(total))
    }

    /// Takes what happened; says what is to be done.
    pub fn handle(&mut self, stores: &dyn Stores, now_ms: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.is_finished() {
            return out;
        }
        let handled = match input {
            Input::Frame(frame) => {
                self.progress_ms = now_ms;
                self.frame(stores, &frame, &mut out)
            }
            Input::Merged { id, results } => {
                self.progress_ms = now_ms;
                self.merged(stores, id, &results, &mut out)
            }
            Input::Adopted { id, ok } => {
                self.progress_ms = now_ms;
                self.adopted(stores, id, ok, &mut out)
            }
            Input::Disconnected => Err(Failed::Disconnected),
            Input::Refused { busy: true } => Err(Failed::Busy),
            Input::Refused { busy: false } => {
                Err(Failed::Aborted("it has no such session".to_owned()))
            }
            Input::Tick => self.tick(now_ms),
        };
        match handled {
            Ok(()) => self.go_on(stores, &mut out),
            Err(failed) => self.fail(failed, &mut out),
        }
        out
    }

    fn tick(&self, now_ms: u64) -> Result<(), Failed> {
        if now_ms.saturating_sub(self.begun_ms) >= self.limits.total_ms {
            Err(Failed::TooLong)
        } else if now_ms.saturating_sub(self.progress_ms) >= self.limits.idle_ms {
            Err(Failed::Timeout)
        } else {
            Ok(())
        }
    }

    fn frame(
        &mut self,
        stores: &dyn Stores,
        frame: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        self.counters.frames_in += 1;
        self.counters.bytes_in += frame.len() as u64;
        for message in self.reader.take(frame)? {
            if self.is_finished() {
                break;
            }
            self.message(stores, message, out)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        stores: &dyn Stores,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        match (self.phase, message) {
            (_, Message::Abort { why }) => Err(Failed::Aborted(why.chars().take(200).collect())),
            (Phase::AwaitSummary, Message::Summary { look, shards }) => {
                self.part.look = look;
                self.answer(stores, &shards, out)
            }
            (Phase::AwaitDiffer, Message::Differ { shards }) => self.begin(stores, shards),
            (Phase::Running, Message::Finish) if !self.part.initiator => {
                self.phase = Phase::Finishing;
                Ok(())
            }
            (Phase::Running, Message::Open { shard: number, state })
                if !self.part.initiator && !self.running.contains_key(&number) =>
            {
                if self.running.len() >= 2 * SHARDS_AT_ONCE || number >= stores.partitions() * 2 {
                    return Err(Failed::Protocol("too many shards"));
                }
                self.actors.insert(number, state.actor);
                let (part, resort) = (self.part, Arc::clone(&self.resort));
                let open = |cx: &mut Cx<'_>| {
                    Exchange::opened(part, Shard::of_number(number), state, resort, cx).map(Some)
                };
                if let Some(exchange) = self.with(stores, number, out, open)? {
                    self.running.insert(number, exchange);
                }
                Ok(())
            }
            (Phase::Running, message) => self.shard_message(stores, message, out),
            _ => Err(Failed::Protocol("a message of another phase")),
        }
    }

    fn shard_message(
        &mut self,
        stores: &dyn Stores,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        let number = message.shard().ok_or(Failed::Protocol("a message of another phase"))?;
        let mut exchange =
            self.running.remove(&number).ok_or(Failed::Protocol("no such shard is open"))?;
        if let Message::Opened { state, .. } = &message {
            self.actors.insert(number, state.actor);
        }
        let handled = self.with(stores, number, out, |cx| exchange.message(message, cx));
        self.running.insert(number, exchange);
        handled
    }

    /// What this side has. I: of shards in which the peer is to be asked about marked buckets no root, so that they are opened.
    fn summaries(&self, stores: &dyn Stores) -> Result<Vec<Summary>, Failed> {
        let asks = self.part.initiator && !self.part.look;
        let summary = |shard: Shard| {
            let damaged = if asks { stores.replica(shard).damaged()? } else { Vec::new() };
            let is_asked = damaged.iter().any(|bucket| !self.resort.is_done(shard, *bucket));
            let state = read_state(stores.replica(shard))?;
            let root = state.root.filter(|_| !is_asked);
            Ok(Summary { shard: shard.number(), clock: state.clock.digest(), root })
        };
        Shard::all(stores.partitions()).map(summary).collect()
    }

    /// R: says which shards differ.
    fn answer(
        &mut self,
        stores: &dyn Stores,
        theirs: &[Summary],
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        let mine = self.summaries(stores)?;
        if theirs.len() > SHARDS_MAX || theirs.len() != mine.len() {
            return Err(Failed::Protocol("another number of partitions"));
        }
        let differ = |mine: &Summary, theirs: &Summary| {
            let roots = mine.root.zip(theirs.root).is_none_or(|(mine, theirs)| mine != theirs);
            mine.clock != theirs.clock || roots
        };
        let pairs = mine.iter().zip(theirs).filter(|(mine, theirs)| differ(mine, theirs));
        let shards: Vec<u16> = pairs.map(|(mine, _)| mine.shard).collect();
        self.counters.shards_differing = shards.len() as u64;
        let equal = shards.is_empty();
        self.say(&Message::Differ { shards }, out);
        self.phase = if equal { Phase::Finishing } else { Phase::Running };
        Ok(())
    }

    /// I: goes through the shards that differ.
    fn begin(&mut self, stores: &dyn Stores, mut shards: Vec<u16>) -> Result<(), Failed> {
        shards.sort_unstable();
        shards.dedup();
        if shards.last().is_some_and(|last| *last >= stores.partitions() * 2) {
            return Err(Failed::Protocol("a shard that is not there"));
        }
        self.counters.shards_differing = shards.len() as u64;
        if !shards.is_empty() {
            let by = usize::from(self.first) % shards.len();
            shards.rotate_left(by);
        }
        self.todo = shards.into();
        self.phase = Phase::Running;
        Ok(())
    }

    fn merged(
        &mut self,
        stores: &dyn Stores,
        id: u64,
        results: &[Result<bool, MergeFailure>],
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            let Some(mut exchange) = self.running.remove(&number) else { continue };
            let known = self.with(stores, number, out, |cx| exchange.merged(id, results, cx));
            self.running.insert(number, exchange);
            if known? {
                break;
            }
        }
        Ok(())
    }

    fn adopted(
        &mut self,
        stores: &dyn Stores,
        id: u64,
        ok: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), Failed> {
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            let Some(mut exchange) = self.running.remove(&number) else { continue };
            let known = self.with(stores, number, out, |cx| Ok(exchange.adopted(id, ok, cx)));
            self.running.insert(number, exchange);
            if known? {
                break;
            }
        }
        Ok(())
    }

    /// Puts away shards that are done, opens new ones, ends when there are none.
    fn go_on(&mut self, stores: &dyn Stores, out: &mut Vec<Output>) {
        if self.is_finished() {
            return;
        }
        for number in self.running.keys().copied().collect::<Vec<_>>() {
            let converged = self.running.get(&number).and_then(Exchange::converged);
            if let Some(converged) = converged
                && let Some(exchange) = self.running.remove(&number)
            {
                self.put_away(number, &exchange, converged);
            }
        }
        if self.part.initiator && self.phase == Phase::Running {
            while self.running.len() < SHARDS_AT_ONCE
                && let Some(number) = self.todo.pop_front()
            {
                let (part, resort) = (self.part, Arc::clone(&self.resort));
                let shard = Shard::of_number(number);
                let open = |cx: &mut Cx<'_>| Exchange::open(part, shard, resort, cx);
                match self.with(stores, number, out, open) {
                    Ok(exchange) => self.running.insert(number, exchange),
                    Err(failed) => return self.fail(failed, out),
                };
            }
            if self.running.is_empty() {
                if self.counters.shards_differing > 0 {
                    self.say(&Message::Finish, out);
                }
                self.end(Ok(self.converged), out);
            }
        } else if self.phase == Phase::Finishing && self.running.is_empty() {
            self.end(Ok(self.converged), out);
        }
    }

    fn put_away(&mut self, number: u16, exchange: &Exchange, converged: bool) {
        self.converged &= converged;
        if let Some(actor) = self.actors.remove(&number) {
            self.clocks.push((Shard::of_number(number), actor, exchange.their_clock()));
        }
        self.compared.extend(exchange.compared());
        if let Some(report) = exchange.diff() {
            self.diff.shards += report.shards;
            self.diff.events_lacking_here += report.events_lacking_here;
            self.diff.events_lacking_there += report.events_lacking_there;
            self.diff.keys_lacking_here += report.keys_lacking_here;
            self.diff.keys_lacking_there += report.keys_lacking_there;
            self.diff.keys_differing += report.keys_differing;
            self.diff.first.extend(report.first.iter().cloned());
            self.diff.first.truncate(DIFF_KEYS_MAX);
        }
    }

    /// Runs a step of a shard and turns what it wants into outputs, also when it fails.
    fn with<T>(
        &mut self,
        stores: &dyn Stores,
        number: u16,
        out: &mut Vec<Output>,
        step: impl FnOnce(&mut Cx<'_>) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let shard = Shard::of_number(number);
        let mut cx = Cx {
            replica: stores.replica(shard),
            ids: &mut self.ids,
            counters: &mut self.counters,
            actions: Vec::new(),
        };
        let result = step(&mut cx);
        for action in cx.actions {
            match action {
                Action::Say(message) => self.say(&message, out),
                Action::Merge { id, items } => out.push(Output::Merge { id, shard, items }),
                Action::Adopt { id, clock, swept, watch } => {
                    out.push(Output::Adopt { id, shard, clock, swept, watch });
                }
                Action::Renew { highest } => out.push(Output::Renew { highest }),
            }
        }
        result
    }

    fn say(&mut self, message: &Message, out: &mut Vec<Output>) {
        for frame in self.writer.frames(message) {
            self.counters.frames_out += 1;
            self.counters.bytes_out += frame.len() as u64;
            out.push(Output::Send(frame));
        }
    }

    /// Ends with an error, and tells the peer unless it knows.
    fn fail(&mut self, failed: Failed, out: &mut Vec<Output>) {
        if !matches!(failed, Failed::Aborted(_) | Failed::Busy | Failed::Disconnected) {
            self.say(&Message::Abort { why: failed.to_string() }, out);
        }
        self.end(Err(failed), out);
    }

    fn end(&mut self, result: Result<bool, Failed>, out: &mut Vec<Output>) {
        self.phase = Phase::Finished;
        self.running.clear();
        let diff = (self.part.look && result.is_ok()).then(|| std::mem::take(&mut self.diff));
        let clocks = std::mem::take(&mut self.clocks);
        let compared = std::mem::take(&mut self.compared);
        let outcome = Outcome { result, counters: self.counters, diff, compared, clocks };
        out.push(Output::Finished(Box::new(outcome)));
    }
}
