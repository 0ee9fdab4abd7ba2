//! Acknowledged delivery: sent again until the receiver has it, delivered once.
//!
//! Messages are numbered in an epoch of the sender. The receiver answers each packet with what it has; the sender repeats
//! the rest with growing pauses, and all of it after a reconnect. With each packet the sender tells below which number it
//! has nothing left to send, so the receiver remembers a bounded window only. Order is not kept: a lost message does not
//! hold up the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Messages that may be unacknowledged, and numbers that the receiver remembers. // guess
pub const WINDOW: u64 = 4096;
/// Pause before the first repetition. // guess: far above a round trip
pub const RETRY_MS: u64 = 200;
/// Longest pause between repetitions. // guess
pub const RETRY_MS_MAX: u64 = 5000;
/// Runs of numbers in one acknowledgement, beside the cumulative one. // guess
const RUNS_MAX: usize = 32;

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The sender's epoch: a later one of the same sender is greater.
    pub epoch: u64,
    /// Nothing below this will be sent (again).
    pub first: u64,
    /// Its number, from 1 on.
    pub seq: u64,
    /// What it says.
    pub body: Vec<u8>,
}

/// What a receiver has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Of which epoch.
    pub epoch: u64,
    /// Everything up to this.
    pub up_to: u64,
    /// Inclusive runs above it, perhaps not all.
    pub runs: Vec<(u64, u64)>,
}

/// Too much is unacknowledged. The message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{messages} messages of {bytes} bytes are not acknowledged yet")]
pub struct Full {
    /// Messages waiting.
    pub messages: u64,
    /// Their bytes.
    pub bytes: usize,
}

/// What time has brought to a sender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// To be sent again.
    pub packets: Vec<Packet>,
    /// Numbers of messages that were given up at their deadline. They may have arrived.
    pub expired: Vec<u64>,
}

/// The sending side of one (peer, channel, lane).
#[derive(Debug, Clone)]
pub struct Sender {
    epoch: u64,
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Clone)]
struct Waiting {
    body: Vec<u8>,
    retry_ms: u64,
    pause_ms: u64,
    deadline_ms: u64,
}

impl Sender {
    /// A sender that holds at most `bytes_max` unacknowledged bytes (but one message in any case). `epoch` must be greater
    /// than that of any earlier sender to this receiver, also across restarts.
    #[must_use]
    pub const fn new(epoch: u64, bytes_max: usize) -> Self {
        Self { epoch, last: 0, waiting: BTreeMap::new(), bytes: 0, bytes_max }
    }

    /// Takes a message; the packet is to be sent now.
    ///
    /// # Errors
    /// [`Full`]; nothing changes.
    pub fn send(&mut self, now_ms: u64, body: Vec<u8>, deadline_ms: u64) -> Result<Packet, Full> {
        let bytes = self.bytes + body.len();
        let span = self.last + 1 - self.first();
        if span >= WINDOW || (bytes > self.bytes_max && !self.waiting.is_empty()) {
            return Err(Full { messages: self.waiting.len() as u64, bytes: self.bytes });
        }
        self.last += 1;
        self.bytes = bytes;
        let retry_ms = now_ms.saturating_add(RETRY_MS);
        let waiting = Waiting { body, retry_ms, pause_ms: RETRY_MS, deadline_ms };
        let seq = self.last;
        let packet = self.packet(seq, &waiting);
        self.waiting.insert(seq, waiting);
        Ok(packet)
    }

    /// Takes an acknowledgement; the numbers that are done with it.
    pub fn acknowledged(&mut self, ack: &Ack) -> Vec<u64> {
        if ack.epoch != self.epoch {
            return Vec::new();
        }
        let has =
            |seq: u64| seq <= ack.up_to || ack.runs.iter().any(|r| (r.0..=r.1).contains(&seq));
        let done: Vec<u64> = self.waiting.keys().copied().filter(|seq| has(*seq)).collect();
        done.iter().for_each(|seq| self.forget(*seq));
        done
    }

    /// What is to be repeated or given up.
    pub fn tick(&mut self, now_ms: u64) -> Due {
        let over = |(seq, w): (&u64, &Waiting)| (w.deadline_ms <= now_ms).then_some(*seq);
        let expired: Vec<u64> = self.waiting.iter().filter_map(over).collect();
        expired.iter().for_each(|seq| self.forget(*seq));
        let mut due = Vec::new();
        for (seq, waiting) in self.waiting.iter_mut().filter(|(_, w)| w.retry_ms <= now_ms) {
            waiting.pause_ms = (waiting.pause_ms * 2).min(RETRY_MS_MAX);
            waiting.retry_ms = now_ms.saturating_add(waiting.pause_ms);
            due.push(*seq);
        }
        let packets = due.iter().map(|seq| self.packet(*seq, &self.waiting[seq])).collect();
        Due { packets, expired }
    }

    /// The link is new: all that is unacknowledged is due.
    pub fn reconnected(&mut self, now_ms: u64) -> Due {
        for waiting in self.waiting.values_mut() {
            (waiting.retry_ms, waiting.pause_ms) = (now_ms, RETRY_MS);
        }
        self.tick(now_ms)
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.waiting.values().map(|w| w.retry_ms.min(w.deadline_ms)).min()
    }

    /// Bytes not acknowledged yet.
    #[must_use]
    pub const fn unacknowledged_bytes(&self) -> usize {
        self.bytes
    }

    fn first(&self) -> u64 {
        self.waiting.keys().next().copied().unwrap_or(self.last + 1)
    }

    fn packet(&self, seq: u64, waiting: &Waiting) -> Packet {
        let first = self.first().min(seq);
        Packet { epoch: self.epoch, first, seq, body: waiting.body.clone() }
    }

    fn forget(&mut self, seq: u64) {
        if let Some(waiting) = self.waiting.remove(&seq) {
            self.bytes -= waiting.body.len();
        }
    }
}

/// The receiving side.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    epoch: u64,
    /// Everything up to this was delivered, or will not be sent again.
    up_to: u64,
    above: BTreeSet<u64>,
}

impl Receiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet: the body if it is new, and what is to be answered. `None` for the answer when the packet is of an
    /// earlier epoch or beyond the window.
    pub fn receive(&mut self, packet: Packet) -> (Option<Vec<u8>>, Option<Ack>) {
        let Packet { epoch, first, seq, body } = packet;
        if epoch < self.epoch {
            return (None, None);
        }
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        if first > self.up_to.saturating_add(1) {
            self.up_to = first - 1;
            self.above = self.above.split_off(&first);
        }
        if seq > self.up_to.saturating_add(WINDOW) || first > seq {
            return (None, None);
        }
        let is_new = seq > self.up_to && self.above.insert(seq);
        while self.above.remove(&self.up_to.saturating_add(1)) {
            self.up_to += 1;
        }
        (is_new.then_some(body), Some(self.ack()))
    }

    fn ack(&self) -> Ack {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &seq in &self.above {
            if let Some(run) = runs.last_mut().filter(|run| run.1 + 1 == seq) {
                run.1 = seq;
            } else if runs.len() < RUNS_MAX {
                runs.push((seq, seq));
            } else {
                break;
            }
        }
        Ack { epoch: self.epoch, up_to: self.up_to, runs }
    }
}
