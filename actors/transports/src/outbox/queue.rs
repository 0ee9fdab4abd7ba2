//! Who writes to a socket, and what waits for it: a state machine without socket, lock or clock.
//!
//! What it guarantees: one writer at a time; what is pushed is written in order; whoever is told [`Pushed::First`] flushes,
//! and what others push before that is written by the same flush; what is pushed while somebody writes is written by that
//! one before it stops, or is left to the connection's own task, which is told so. No wake-up is lost.
//!
//! What it refuses: to let a flusher write for others without end (`TURN_BYTES`).

use super::{Class, Kick, Policy, Pushed};
use bytes::Bytes;
use std::collections::VecDeque;

/// What a chunk costs beside its bytes, so that many small ones are bounded, too. // guess: an entry of the queue and what an allocator adds
pub(super) const ENTRY_BYTES: usize = 64;

/// Bytes that one flush writes before it leaves the rest to the connection's own task, so that a session that sends to a
/// busy connection is not kept by it. // guess
pub(super) const TURN_BYTES: usize = 1 << 20;

/// Capacity of a queue that is kept while it is empty, in chunks. More is given back, so that a burst costs no memory later.
const IDLE_CHUNKS: usize = 32;

/// Chunks that one writer has taken, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) chunks: VecDeque<Bytes>,
    /// Bytes of the first chunk that are written already.
    pub(super) offset: usize,
}

impl Batch {
    /// Takes off what has been written; what it costs.
    pub(super) fn written(&mut self, mut bytes: usize) -> usize {
        let mut cost = bytes;
        while let Some(first) = self.chunks.front() {
            let rest = first.len() - self.offset;
            if bytes < rest {
                self.offset += bytes;
                return cost;
            }
            bytes -= rest;
            self.offset = 0;
            self.chunks.pop_front();
            cost += ENTRY_BYTES;
        }
        cost
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A writer: the socket's half `S` and the chunks taken for it.
#[derive(Debug, Clone)]
pub(super) struct Writer<S> {
    pub(super) socket: S,
    pub(super) batch: Batch,
    /// Bytes written in this turn.
    pub(super) turn_bytes: usize,
}

/// Whose turn it is.
#[derive(Debug, Clone)]
enum Turn<S> {
    /// Nobody's.
    Idle(Writer<S>),
    /// Somebody has the writer.
    Writing,
    /// The connection's own task's, when it likes or when the socket takes bytes again.
    Owner(Writer<S>),
    /// Nobody's ever again.
    Closed,
}

/// What a queue does for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The connection's own task.
    Owner,
    /// Anybody.
    Flusher,
}

/// How writing a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// All of it.
    All,
    /// The socket takes no more now.
    Blocked,
    /// All that one turn may be.
    Turn,
    /// The socket is broken.
    Broken,
}

/// What follows.
#[derive(Debug)]
pub(super) enum Next<S> {
    /// More has come: write it.
    Write(Writer<S>),
    /// Nothing is left.
    Done,
    /// The connection's own task must go on.
    Owner,
}

/// Bounds of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) queue_bytes_max: usize,
    pub(super) policy: Policy,
}

/// The queue of one connection.
#[derive(Debug, Clone)]
pub(super) struct Queue<S> {
    waiting: VecDeque<Bytes>,
    /// Cost of all that is not written: waiting, and in a writer's batch.
    bytes: usize,
    turn: Turn<S>,
    /// Somebody was told to flush and has not done so.
    owed: bool,
    /// The socket has taken nothing for too long, though the connection goes on.
    stale: bool,
    /// Nothing more may be pushed; what is there is still written.
    sealed: bool,
    kick: Option<Kick>,
}

impl<S> Queue<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            turn: Turn::Idle(Writer { socket, batch: Batch::default(), turn_bytes: 0 }),
            owed: false,
            stale: false,
            sealed: false,
            kick: None,
        }
    }

    /// Cost of all that is not written yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn kicked(&self) -> Option<Kick> {
        self.kick
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.turn, Turn::Closed)
    }

    /// Whether the connection's own task is to write.
    pub(super) fn is_owners(&self) -> bool {
        matches!(self.turn, Turn::Owner(_))
    }

    /// Whether nothing waits and nobody writes.
    pub(super) fn is_empty(&self) -> bool {
        match &self.turn {
            Turn::Idle(_) => self.waiting.is_empty(),
            Turn::Writing | Turn::Owner(_) => false,
            Turn::Closed => true,
        }
    }

    /// Appends a chunk, if it has room. `share` bounds the queue further while memory is short for all.
    pub(super) fn push(
        &mut self,
        chunk: Bytes,
        class: Class,
        bounds: Bounds,
        share: Option<usize>,
    ) -> Pushed {
        if self.is_closed() || self.sealed || self.kick.is_some_and(Kick::is_at_once) {
            return Pushed::Refused;
        }
        let cost = chunk.len() + ENTRY_BYTES;
        let queue_bytes_max = bounds.queue_bytes_max.min(share.unwrap_or(usize::MAX));
        // One chunk has room in an empty queue, however long it is: the peer has said that it takes it.
        let full = self.bytes > 0 && self.bytes.saturating_add(cost) > queue_bytes_max;
        if full || self.stale {
            if bounds.policy == Policy::DropEvents && class == Class::Event {
                return Pushed::Dropped;
            }
            let over = self.bytes.saturating_add(cost) > bounds.queue_bytes_max;
            self.end(if over || self.stale { Kick::QueueFull } else { Kick::Budget });
            return Pushed::Refused;
        }
        self.waiting.push_back(chunk);
        self.bytes += cost;
        if self.owed || !matches!(self.turn, Turn::Idle(_)) {
            return Pushed::Queued;
        }
        self.owed = true;
        Pushed::First
    }

    /// Takes the writer with all that waits; none if somebody else has it or nothing is to be written.
    pub(super) fn take(&mut self, by: By) -> Option<Writer<S>> {
        self.owed = false;
        let idle_is_enough = match self.turn {
            Turn::Idle(_) => !self.waiting.is_empty(),
            Turn::Owner(_) => by == By::Owner,
            Turn::Writing | Turn::Closed => false,
        };
        if !idle_is_enough {
            return None;
        }
        match std::mem::replace(&mut self.turn, Turn::Writing) {
            Turn::Idle(mut writer) | Turn::Owner(mut writer) => {
                writer.turn_bytes = 0;
                self.fill(&mut writer.batch);
                Some(writer)
            }
            other => {
                self.turn = other;
                None
            }
        }
    }

    /// Gives the writer back, or goes on with it. `freed` is the cost of what has been written.
    pub(super) fn wrote(&mut self, mut writer: Writer<S>, freed: usize, how: Wrote) -> Next<S> {
        self.bytes = self.bytes.saturating_sub(freed);
        if freed > 0 {
            self.stale = false;
        }
        if self.is_closed() {
            return Next::Done;
        }
        if self.kick.is_some_and(Kick::is_at_once) {
            // Ended meanwhile: nobody will read the rest, the memory goes back now.
            writer.batch.forget();
            self.bytes = 0;
            self.turn = Turn::Idle(writer);
            return Next::Done;
        }
        match how {
            Wrote::All if self.waiting.is_empty() => {
                writer.batch.chunks.shrink_to(IDLE_CHUNKS);
                self.waiting.shrink_to(IDLE_CHUNKS);
                self.turn = Turn::Idle(writer);
                Next::Done
            }
            Wrote::All if writer.turn_bytes < TURN_BYTES => {
                self.fill(&mut writer.batch);
                Next::Write(writer)
            }
            Wrote::All | Wrote::Turn | Wrote::Blocked => {
                self.turn = Turn::Owner(writer);
                Next::Owner
            }
            Wrote::Broken => {
                writer.batch.forget();
                self.turn = Turn::Idle(writer);
                self.end(Kick::Broken);
                Next::Done
            }
        }
    }

    /// Leaves all that waits to the connection's own task; whether it has to be told.
    pub(super) fn hand_over(&mut self) -> bool {
        self.owed = false;
        if self.waiting.is_empty() || !matches!(self.turn, Turn::Idle(_)) {
            return false;
        }
        match std::mem::replace(&mut self.turn, Turn::Writing) {
            Turn::Idle(writer) => {
                self.turn = Turn::Owner(writer);
                true
            }
            other => {
                self.turn = other;
                false
            }
        }
    }

    /// Ends the connection soon; the first reason stays. After some reasons nothing more is written.
    pub(super) fn end(&mut self, why: Kick) {
        let worse = self.kick.is_none_or(|before| !before.is_at_once() && why.is_at_once());
        if worse {
            self.kick = Some(why);
        }
        if why.is_at_once() {
            self.waiting = VecDeque::new();
            match &mut self.turn {
                Turn::Idle(writer) | Turn::Owner(writer) => {
                    writer.batch.forget();
                    self.bytes = 0;
                }
                // Whoever writes sees it when done.
                Turn::Writing | Turn::Closed => {}
            }
        }
    }

    /// Marks that the socket has taken nothing for too long: nothing more is queued until it does.
    pub(super) fn set_stale(&mut self) {
        self.stale = true;
    }

    /// Whether it is marked so.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Takes nothing more.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    /// Ends all writing. The socket comes back unless somebody is writing to it, who then drops it.
    pub(super) fn close(&mut self) -> Option<S> {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        match std::mem::replace(&mut self.turn, Turn::Closed) {
            Turn::Idle(writer) | Turn::Owner(writer) => Some(writer.socket),
            Turn::Writing | Turn::Closed => None,
        }
    }

    fn fill(&mut self, batch: &mut Batch) {
        if batch.chunks.is_empty() {
            std::mem::swap(&mut batch.chunks, &mut self.waiting);
        } else {
            batch.chunks.append(&mut self.waiting);
        }
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
