//! Clients: sessions that read and write on any node, and note what came of it.

use std::collections::{BTreeMap, BTreeSet};

use weald_exchange::SessionToken;
use weald_exchange::core::Shard;
use weald_storage::{Context, Object, Replicated, WriteOp};

use super::history::{KeyAt, Outcome, Place, Read, Wrote, seen};
use super::replicas::{PARTITIONS, key, table};
use super::world::{Event, Role, World};
use crate::seed::Seeded;

/// How long a request waits for its node to catch up with its token.
const WAIT_MS: u64 = 2_000;
/// Between two looks whether it has.
const RETRY_MS: u64 = 100;

/// How a session goes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Any node, with the token of the session.
    Token,
    /// Any node, without a token: nothing is promised.
    Loose,
    /// One node only.
    Pinned(usize),
}

/// A session.
#[derive(Debug)]
pub(super) struct Client {
    /// Changes when its guarantees end: its node has lost data.
    session: u32,
    manner: Manner,
    token: SessionToken,
    /// Contexts read and not used yet, and where: each is used once.
    contexts: BTreeMap<KeyAt, (usize, Context, Object)>,
    pending: Option<Pending>,
    rng: Seeded,
}

/// A request that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    node: usize,
    request: Request,
    until_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Read(KeyAt),
    Put { key: KeyAt, blind: bool },
    Delete { key: KeyAt, blind: bool },
}

impl Request {
    const fn key(self) -> KeyAt {
        match self {
            Self::Read(key) | Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

impl Client {
    pub(super) fn new(number: u32, seed: u64, nodes: usize) -> Self {
        let mut rng = Seeded::new(seed);
        let manner = match number % 3 {
            0 => Manner::Token,
            1 => Manner::Loose,
            _ => Manner::Pinned(rng.below(nodes)),
        };
        Self {
            session: number,
            manner,
            token: SessionToken::new(),
            contexts: BTreeMap::new(),
            pending: None,
            rng,
        }
    }

    /// Another session, of which nothing is known yet.
    fn begin_anew(&mut self, sessions: u32) {
        self.session += sessions;
        self.token = SessionToken::new();
        self.contexts.clear();
    }

    fn draw(&mut self, keys: u16) -> Request {
        let place = Place(u16::try_from(self.rng.below(usize::from(PARTITIONS) * 2)).unwrap_or(0));
        let number = u16::try_from(self.rng.below(usize::from(keys))).unwrap_or(0);
        let key = KeyAt { place, number };
        let blind = self.rng.chance(50);
        match self.rng.below(10) {
            0..=4 => Request::Read(key),
            5..=7 => Request::Put { key, blind },
            _ => Request::Delete { key, blind },
        }
    }
}

impl World {
    /// A client does the next thing, or goes on waiting.
    pub(super) fn client(&mut self, number: usize) {
        let now_ms = self.queue.now_ms();
        if now_ms >= self.plan.safety_ms {
            return;
        }
        let think_ms = self.plan.think_ms / 2 + self.rng.any() % self.plan.think_ms;
        let pending = match self.clients[number].pending.take() {
            Some(pending) => Some(pending),
            None => self.next_request(number),
        };
        let Some(pending) = pending else {
            self.queue.after(think_ms, Event::Client(number));
            return;
        };
        let again = self.attempt(number, pending);
        self.clients[number].pending = again;
        let in_ms = if again.is_some() { RETRY_MS } else { think_ms };
        self.queue.after(in_ms, Event::Client(number));
    }

    fn next_request(&mut self, number: usize) -> Option<Pending> {
        let (keys, now_ms) = (self.plan.keys, self.queue.now_ms());
        let open: Vec<usize> = (0..self.slots.len()).filter(|slot| self.is_open(*slot)).collect();
        let client = &mut self.clients[number];
        let request = client.draw(keys);
        let node = match client.manner {
            Manner::Pinned(node) => open.contains(&node).then_some(node)?,
            Manner::Token | Manner::Loose if open.is_empty() => return None,
            Manner::Token | Manner::Loose => *client.rng.pick(&open),
        };
        // Without a token, a context goes back to where it was read.
        let at = match (client.manner, request) {
            (
                Manner::Loose,
                Request::Put { key, blind: false } | Request::Delete { key, blind: false },
            ) => {
                let read_at = client.contexts.get(&key).map(|(node, ..)| *node);
                read_at.filter(|node| open.contains(node)).unwrap_or(node)
            }
            _ => node,
        };
        Some(Pending { node: at, request, until_ms: now_ms + WAIT_MS })
    }

    fn is_open(&self, slot: usize) -> bool {
        let at = &self.slots[slot];
        let is_fit = |process: &super::process::Process| {
            at.amnesiac.is_empty()
                || super::replicas::places()
                    .all(|place| !at.amnesiac.contains(&process.replicas.of(place).actor()))
        };
        at.role == Role::Member && at.paused == 0 && at.process.as_ref().is_some_and(is_fit)
    }

    /// Tries a request; what is to be tried again.
    fn attempt(&mut self, number: usize, pending: Pending) -> Option<Pending> {
        let Pending { node, request, until_ms } = pending;
        if !self.is_open(node) {
            return None;
        }
        let client = &self.clients[number];
        if client.manner == Manner::Token {
            let token = client.token.clone();
            let covered = self.slots[node].process.as_ref().is_some_and(|process| {
                let clocks: Vec<_> =
                    super::replicas::places().map(|p| process.replicas.clock(p)).collect();
                token.covered_by(&clocks)
            });
            if !covered {
                if self.queue.now_ms() >= until_ms {
                    self.sometimes.hit("not_caught_up");
                    let sessions = self.plan.sessions;
                    let client = &mut self.clients[number];
                    // What it has seen may be lost for good.
                    if client.rng.chance(30) {
                        client.begin_anew(sessions);
                    }
                    return None;
                }
                self.with(node, super::process::Process::pull);
                return Some(pending);
            }
        }
        match request {
            Request::Read(key) => self.read(number, node, key),
            Request::Put { key, blind } => self.write(number, node, key, blind, false),
            Request::Delete { key, blind } => self.write(number, node, key, blind, true),
        }
        debug_assert!(request.key().place.partition() < PARTITIONS);
        None
    }

    fn read(&mut self, number: usize, node: usize, at: KeyAt) {
        let Some(process) = &self.slots[node].process else { return };
        let object = process.replicas.object(at);
        let clock = process.replicas.clock(at.place);
        let is_damaged = process.replicas.damaged.contains(&at);
        let context = Context::of(&table(), &key(at), &object);
        let client = &mut self.clients[number];
        let shard = Shard::of_number(at.place.0);
        client.token.raise_all(shard.partition, shard.space, context.vector());
        let step = self.history.next_step();
        self.history.reads.push(Read {
            session: client.session,
            at_ms: self.queue.now_ms(),
            node,
            key: at,
            guaranteed: client.manner != Manner::Loose && !is_damaged,
            live: seen(&object),
            clock,
            step,
        });
        let repairs = object.live_len() > 1 && client.rng.chance(30);
        let read = context.clone();
        client.contexts.insert(at, (node, context, object.clone()));
        self.trace.number(object.live_len() as u64);
        if repairs {
            self.sometimes.hit("read_repair");
            let op = WriteOp::Repair { table: table(), key: key(at), read: read.clone() };
            self.apply(None, node, at, op, Some((read, object)));
        }
    }

    fn write(&mut self, number: usize, node: usize, at: KeyAt, blind: bool, delete: bool) {
        let client = &mut self.clients[number];
        let known = if blind { None } else { client.contexts.remove(&at) };
        // A context of another node without a token could leave any number of siblings, see P10.
        let known =
            known.filter(|(read_at, ..)| client.manner == Manner::Token || *read_at == node);
        let context = known.as_ref().map(|(_, context, _)| context.clone());
        let (table, key) = (table(), key(at));
        let id = self.history.writes.len() as u64 + 1;
        let op = if delete {
            WriteOp::Delete { table, key, context }
        } else {
            let value = id.to_be_bytes().to_vec();
            WriteOp::Put { table, key, value, context, ttl: None }
        };
        self.apply(Some(number), node, at, op, known.map(|(_, context, object)| (context, object)));
    }

    /// Does a write and notes it. `known`: what its writer had read.
    fn apply(
        &mut self,
        number: Option<usize>,
        node: usize,
        at: KeyAt,
        op: WriteOp,
        known: Option<(Context, Object)>,
    ) {
        let (now_ms, wall_ms) = (self.queue.now_ms(), self.wall_ms(node));
        let Some(process) = &mut self.slots[node].process else { return };
        let before = process.replicas.object(at);
        let clock = process.replicas.clock(at.place);
        let outcome = if process.is_full {
            None
        } else {
            process.replicas.of_mut(at.place).apply(&[op], wall_ms).remove(0).ok()
        };
        let after = process.replicas.object(at);
        let dot = outcome.as_ref().and_then(|written| written.dot);
        let (context, observed) = match known {
            Some((context, object)) => (Some(context.into_vector()), object),
            None => (None, before.clone()),
        };
        let value = dot.and_then(|dot| {
            seen(&after).into_iter().find(|seen| seen.dot == dot).and_then(|seen| seen.value)
        });
        let over = match context {
            None => self.history.deletes(at, &clock).collect(),
            Some(_) => BTreeSet::new(),
        };
        let id = self.history.writes.len() as u64 + 1;
        let answered = match (&outcome, number) {
            (None, _) => Outcome::Fail,
            (Some(_), Some(number)) if self.clients[number].rng.chance(3) => Outcome::Info,
            (Some(_), _) => Outcome::Ok,
        };
        let session = number.map(|number| self.clients[number].session);
        let guaranteed = number.is_some_and(|n| self.clients[n].manner != Manner::Loose);
        self.history.wrote(Wrote {
            id,
            value,
            session,
            guaranteed,
            at_ms: now_ms,
            node,
            key: at,
            outcome: answered,
            dot,
            context,
            observed: observed.live_dots().collect(),
            over,
            before: before.live_dots().collect(),
            after: after.live_dots().collect(),
        });
        if let (Some(number), Some(dot)) = (number, dot) {
            let shard = Shard::of_number(at.place.0);
            self.clients[number].token.raise(shard.partition, shard.space, dot);
        }
        self.trace.number(dot.map_or(0, |dot| dot.counter));
        self.with(node, |process, notes| process.committed(at.place, notes));
    }

    /// A node has lost data: what sessions that stay there were promised holds no longer.
    pub(super) fn end_promises(&mut self, node: usize) {
        let sessions = u32::try_from(self.clients.len()).unwrap_or(1);
        for client in &mut self.clients {
            client.contexts.retain(|_, (read_at, ..)| *read_at != node);
            if client.manner == Manner::Pinned(node) {
                client.begin_anew(sessions);
            }
        }
    }
}
