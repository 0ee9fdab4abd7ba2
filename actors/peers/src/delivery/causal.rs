//! Causal delivery: a message is delivered after everything that its sender had delivered or sent before it.
//!
//! For messages that go to every member of a group. Each carries the number of its sender and how far the sender had come
//! with the messages of all others: not only what has changed since its last message, which may be lost. A message that
//! comes too early waits, for some time: after that the gap is told and skipped, for an exchange to heal. An origin is an
//! [`Actor`], so a sender that was restarted begins anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weald_storage::Actor;

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Who has sent it.
    pub origin: Actor,
    /// Its number among the sender's messages, from 1 on.
    pub seq: u64,
    /// How far the sender had come with others.
    pub seen: Vec<(Actor, u64)>,
    /// What it says.
    pub body: Vec<u8>,
}

/// What a receiver hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// A message.
    Message {
        /// Who has sent it.
        origin: Actor,
        /// What it says.
        body: Vec<u8>,
    },
    /// Messages of `origin` will not be delivered any more: what follows may refer to them.
    Gap {
        /// Whose.
        origin: Actor,
        /// The first number that is missing.
        from: u64,
        /// The last one.
        to: u64,
    },
}

/// A member of the group: sends and receives.
#[derive(Debug, Clone)]
pub struct Member {
    own: Actor,
    /// Number of the last message of each origin that was delivered or skipped; the own ones are sent.
    seen: BTreeMap<Actor, u64>,
    early: BTreeMap<(Actor, u64), Early>,
    wait_ms: u64,
    early_max: usize,
}

#[derive(Debug, Clone)]
struct Early {
    seen: Vec<(Actor, u64)>,
    body: Vec<u8>,
    until_ms: u64,
}

impl Member {
    /// A member that lets at most `early_max` messages wait, each for `wait_ms`.
    #[must_use]
    pub fn new(own: Actor, wait_ms: u64, early_max: usize) -> Self {
        Self { own, seen: BTreeMap::new(), early: BTreeMap::new(), wait_ms, early_max }
    }

    /// The packet of a message, for all other members.
    pub fn send(&mut self, body: Vec<u8>) -> Packet {
        let others = self.seen.iter().filter(|(origin, _)| **origin != self.own);
        let seen = others.map(|(origin, seq)| (*origin, *seq)).collect();
        let seq = self.seen_of(&self.own) + 1;
        self.come_to(self.own, seq);
        Packet { origin: self.own, seq, seen, body }
    }

    /// Takes a packet; what can be delivered with it, in order. When too many wait, the one that waits longest is let
    /// through, with its gaps.
    pub fn receive(&mut self, now_ms: u64, packet: Packet) -> Vec<Delivered> {
        let Packet { origin, seq, seen, body } = packet;
        let mut out = Vec::new();
        if seq <= self.seen_of(&origin) || origin == self.own {
            return out;
        }
        let until_ms = now_ms.saturating_add(self.wait_ms);
        self.early.entry((origin, seq)).or_insert(Early { seen, body, until_ms });
        self.settle(&mut out);
        while self.early.len() > self.early_max {
            self.skip(&mut out);
        }
        out
    }

    /// Lets through what has waited long enough.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Delivered> {
        let mut out = Vec::new();
        while self.next_deadline().is_some_and(|until_ms| until_ms <= now_ms) {
            self.skip(&mut out);
        }
        out
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.early.values().map(|early| early.until_ms).min()
    }

    /// Forgets origins that send no more.
    pub fn retain(&mut self, keep: impl Fn(&Actor) -> bool) {
        let own = self.own;
        self.seen.retain(|origin, _| *origin == own || keep(origin));
        self.early.retain(|(origin, _), _| keep(origin));
    }

    fn seen_of(&self, origin: &Actor) -> u64 {
        self.seen.get(origin).copied().unwrap_or(0)
    }

    fn is_ready(&self, (origin, seq): &(Actor, u64), early: &Early) -> bool {
        let has = |(other, n): &(Actor, u64)| *other == self.own || self.seen_of(other) >= *n;
        self.seen_of(origin).saturating_add(1) == *seq && early.seen.iter().all(has)
    }

    /// Delivers what is ready until nothing is.
    fn settle(&mut self, out: &mut Vec<Delivered>) {
        while let Some(key) = self.early.iter().find(|(k, e)| self.is_ready(k, e)).map(|(k, _)| *k)
        {
            if let Some(early) = self.early.remove(&key) {
                self.hand_on(key, early.body, out);
            }
        }
    }

    fn hand_on(&mut self, key: (Actor, u64), body: Vec<u8>, out: &mut Vec<Delivered>) {
        self.come_to(key.0, key.1);
        out.push(Delivered::Message { origin: key.0, body });
    }

    /// Lets the message through that waits longest.
    fn skip(&mut self, out: &mut Vec<Delivered>) {
        let oldest = self.early.iter().min_by_key(|(key, early)| (early.until_ms, **key));
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.force(key, out);
            self.settle(out);
        }
    }

    /// Delivers a message; what it needs and is not here is given up. Each step takes a message out of those that wait, so
    /// messages that need each other end it, too.
    fn force(&mut self, key: (Actor, u64), out: &mut Vec<Delivered>) {
        let Some(early) = self.early.remove(&key) else { return };
        for (other, n) in early.seen.iter().copied().chain([(key.0, key.1 - 1)]) {
            if other != self.own {
                self.give_up(other, n, out);
            }
        }
        self.hand_on(key, early.body, out);
    }

    fn give_up(&mut self, origin: Actor, up_to: u64, out: &mut Vec<Delivered>) {
        while self.seen_of(&origin) < up_to {
            let from = self.seen_of(&origin) + 1;
            let next = self.early.range((origin, from)..=(origin, up_to)).next();
            let next = next.map(|(key, _)| *key);
            let to = next.map_or(up_to, |key| key.1 - 1);
            if from <= to {
                self.come_to(origin, to);
                out.push(Delivered::Gap { origin, from, to });
            }
            if let Some(key) = next {
                self.force(key, out);
            }
        }
    }

    fn come_to(&mut self, origin: Actor, seq: u64) {
        let seen = self.seen.entry(origin).or_default();
        *seen = seq.max(*seen);
    }
}
