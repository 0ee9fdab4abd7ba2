//! Monotonic delivery: of each key the newest message counts.
//!
//! A message waits at the sender until the link has room; a newer one of its key takes its place there. The receiver drops
//! what is older than what it has delivered of the key.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The sender's epoch: a later one of the same sender is greater.
    pub epoch: u64,
    /// Its number among all messages of the sender.
    pub version: u64,
    /// What it is about.
    pub key: Vec<u8>,
    /// What it says.
    pub body: Vec<u8>,
}

/// The sending side of one (peer, channel, lane).
#[derive(Debug, Clone)]
pub struct Sender {
    epoch: u64,
    version: u64,
    /// Keys in the order in which they began to wait: one that changes often does not starve the others.
    order: VecDeque<Vec<u8>>,
    waiting: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    bytes: usize,
    keys_max: usize,
    bytes_max: usize,
    replaced: u64,
    dropped: u64,
}

impl Sender {
    /// A sender with at most `keys_max` messages of `bytes_max` bytes waiting (but one in any case); beyond it the one that
    /// waits longest is dropped and counted. `epoch` must be greater than that of any earlier sender to this receiver, also
    /// across restarts.
    #[must_use]
    pub fn new(epoch: u64, keys_max: usize, bytes_max: usize) -> Self {
        Self {
            epoch,
            version: 0,
            order: VecDeque::new(),
            waiting: BTreeMap::new(),
            bytes: 0,
            keys_max,
            bytes_max,
            replaced: 0,
            dropped: 0,
        }
    }

    /// Takes a message; it replaces one of its key that waits.
    pub fn send(&mut self, key: Vec<u8>, body: Vec<u8>) {
        self.version += 1;
        let bytes = key.len() + body.len();
        self.bytes += bytes;
        match self.waiting.insert(key.clone(), (self.version, body)) {
            Some((_, old)) => {
                self.replaced += 1;
                self.bytes -= key.len() + old.len();
            }
            None => self.order.push_back(key),
        }
        self.fit();
    }

    /// The next message to put on the link, if any waits.
    pub fn take(&mut self) -> Option<Packet> {
        let key = self.order.pop_front()?;
        let (version, body) = self.waiting.remove(&key)?;
        self.bytes -= key.len() + body.len();
        Some(Packet { epoch: self.epoch, version, key, body })
    }

    /// The link did not take a message after all: it is the next again, unless a newer one of its key waits.
    pub fn put_back(&mut self, packet: Packet) {
        let Packet { epoch, version, key, body } = packet;
        if epoch != self.epoch {
            self.dropped += 1;
        } else if self.waiting.contains_key(&key) {
            self.replaced += 1;
        } else {
            self.bytes += key.len() + body.len();
            self.order.push_front(key.clone());
            self.waiting.insert(key, (version, body));
            self.fit();
        }
    }

    /// Whether a message waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.order.is_empty()
    }

    /// Messages that were replaced before they were sent, and those dropped for the bound.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.replaced, self.dropped)
    }

    fn fit(&mut self) {
        let is_over = |this: &Self| this.order.len() > this.keys_max || this.bytes > this.bytes_max;
        while self.order.len() > 1 && is_over(self) {
            self.dropped += 1;
            drop(self.take());
        }
    }
}

/// The receiving side.
#[derive(Debug, Clone)]
pub struct Receiver {
    epoch: u64,
    delivered: BTreeMap<Vec<u8>, u64>,
    /// Keys by the version delivered of them, to forget the oldest.
    by_version: BTreeMap<u64, Vec<u8>>,
    /// Of keys that are not remembered only later versions are taken.
    floor: u64,
    keys_max: usize,
}

impl Receiver {
    /// A receiver that remembers `keys_max` keys. With more keys than that, a message that is late and the first of its key
    /// may be dropped, as nobody knows any more whether it is the newest.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        let (delivered, by_version) = (BTreeMap::new(), BTreeMap::new());
        Self { epoch: 0, delivered, by_version, floor: 0, keys_max }
    }

    /// Takes a packet; the body if it is newer than what was delivered of its key.
    pub fn receive(&mut self, packet: Packet) -> Option<Vec<u8>> {
        let Packet { epoch, version, key, body } = packet;
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::new(self.keys_max) };
        }
        let known = self.delivered.get(&key).copied();
        if epoch < self.epoch || version <= known.unwrap_or(self.floor) {
            return None;
        }
        if let Some(known) = known {
            self.by_version.remove(&known);
        }
        self.by_version.insert(version, key.clone());
        self.delivered.insert(key, version);
        if self.delivered.len() > self.keys_max.max(1)
            && let Some((oldest, key)) = self.by_version.pop_first()
        {
            self.delivered.remove(&key);
            self.floor = self.floor.max(oldest);
        }
        Some(body)
    }
}
