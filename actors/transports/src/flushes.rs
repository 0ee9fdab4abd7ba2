//! The outboxes one task has put something into and has to flush.
//!
//! What it guarantees: each is flushed once, however many messages went into it, and at the latest when this is dropped,
//! be it by a panic.
//!
//! What it refuses: to grow without end (`OUTBOXES_MAX`).

use crate::outbox::{Class, Outbox, Pushed};
use bytes::Bytes;

/// Outboxes after which it flushes by itself, lest a set grows without end. // measured: at 256 a
/// publication to 1,000 flushes four times, and each message is a write of its own
const OUTBOXES_MAX: usize = 8192;

/// A set of outboxes to flush.
#[derive(Debug, Default)]
pub struct Flushes {
    outboxes: Vec<Outbox>,
}

impl Flushes {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { outboxes: Vec::new() }
    }

    /// Pushes a framed message, and remembers to flush where that is the caller's duty.
    pub fn push(&mut self, outbox: &Outbox, framed: Bytes, class: Class) -> Pushed {
        let pushed = outbox.push(framed, class);
        if pushed == Pushed::First {
            self.add(outbox.clone());
        }
        pushed
    }

    /// Remembers an outbox whose push was [`Pushed::First`].
    pub fn add(&mut self, outbox: Outbox) {
        self.outboxes.push(outbox);
        if self.outboxes.len() >= OUTBOXES_MAX {
            self.flush();
        }
    }

    /// Takes over what another set has to flush.
    pub fn append(&mut self, others: &mut Self) {
        for outbox in others.outboxes.drain(..) {
            self.add(outbox);
        }
    }

    /// Flushes all.
    pub fn flush(&mut self) {
        for outbox in self.outboxes.drain(..) {
            outbox.flush();
        }
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        self.flush();
    }
}
