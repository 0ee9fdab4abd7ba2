//! Random histories of replicas, and next to each replica the truth about it.
//!
//! The truth is kept without clocks: which writes a replica has seen, and for each write which
//! writes its author had seen. A write is live while no seen write had seen it. Several keys share
//! the counter of an actor, so the dots of one key have holes. Replicas read, write (with fresh,
//! stale or no context), merge current and old states, forget everything, and are restored from
//! old states; after the last two they go on under a new incarnation.

use std::collections::BTreeMap;

use weald_storage::{Actor, Dot, Dvvset, Hlc, NodeId, Object, Value, VersionVector};

pub(crate) const KEYS: usize = 3;
const REPLICAS: usize = 4;

/// Set of writes, a bit each.
pub(crate) type Seen = u128;
pub(crate) const WRITES_MAX: usize = Seen::BITS as usize;

/// What a replica holds of one key, and what it has seen of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) set: Dvvset<u64>,
    pub(crate) seen: Seen,
}

struct Replica {
    actor: Actor,
    counter: u64,
    keys: [State; KEYS],
}

pub(crate) struct World {
    replicas: Vec<Replica>,
    reads: [Vec<(VersionVector, Seen)>; KEYS],
    /// Every state that was ever reached, per key; the first is the empty one.
    pub(crate) states: [Vec<State>; KEYS],
    /// Dot of each write, and what its author had seen.
    writes: Vec<(Dot, Seen)>,
    /// How often each kind of step was taken.
    pub(crate) steps: BTreeMap<&'static str, u64>,
}

/// Draws from one random word.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let drawn = self.0 % n;
        self.0 /= n;
        usize::try_from(drawn).unwrap()
    }
}

impl World {
    /// Plays a history: one step per word.
    pub(crate) fn play(words: &[u64]) -> Self {
        let replica = |i| Replica {
            actor: Actor { node: NodeId([i; 16]), incarnation: 1 },
            counter: 0,
            keys: Default::default(),
        };
        let mut world = Self {
            replicas: (0..u8::try_from(REPLICAS).unwrap()).map(replica).collect(),
            reads: Default::default(),
            states: std::array::from_fn(|_| vec![State::default()]),
            writes: Vec::new(),
            steps: BTreeMap::new(),
        };
        for word in words {
            world.step(&mut Draw(*word));
        }
        world
    }

    fn step(&mut self, draw: &mut Draw) {
        let kind = draw.below(32);
        let r = draw.below(REPLICAS);
        let key = draw.below(KEYS);
        let name = match kind {
            0..8 => {
                let state = &self.replicas[r].keys[key];
                let context = (state.set.join(), state.seen);
                self.write(r, key, context);
                "put"
            }
            8..12 => {
                self.write(r, key, (VersionVector::new(), 0));
                "blind put"
            }
            12..18 if !self.reads[key].is_empty() => {
                let read = draw.below(self.reads[key].len());
                self.write(r, key, self.reads[key][read].clone());
                "stale put"
            }
            12..22 => {
                let state = &self.replicas[r].keys[key];
                self.reads[key].push((state.set.join(), state.seen));
                "read"
            }
            22..27 => {
                let peer = self.replicas[draw.below(REPLICAS)].keys[key].clone();
                self.merge(r, key, peer);
                "merge"
            }
            27..31 => {
                let old = draw.below(self.states[key].len());
                self.merge(r, key, self.states[key][old].clone());
                "merge old"
            }
            _ => {
                let replica = &mut self.replicas[r];
                replica.actor.incarnation += 1;
                replica.counter = 0;
                let restored = draw.below(2) == 1;
                for (state, old) in replica.keys.iter_mut().zip(&self.states) {
                    let at = if restored { draw.below(old.len()) } else { 0 };
                    *state = old[at].clone();
                }
                if restored { "restore" } else { "wipe" }
            }
        };
        *self.steps.entry(name).or_default() += 1;
        let state = self.replicas[r].keys[key].clone();
        self.check(&state);
        self.states[key].push(state);
    }

    fn write(&mut self, r: usize, key: usize, (context, seen): (VersionVector, Seen)) {
        let id = self.writes.len();
        if id == WRITES_MAX {
            return;
        }
        let replica = &mut self.replicas[r];
        replica.counter += 1;
        let dot = Dot { actor: replica.actor, counter: replica.counter };
        let state = &mut replica.keys[key];
        state.set.write(&context, dot, id as u64);
        state.seen |= seen | (1 << id);
        self.writes.push((dot, seen));
    }

    fn merge(&mut self, r: usize, key: usize, other: State) {
        let state = &mut self.replicas[r].keys[key];
        let before = state.clone();
        let changed = state.set.merge_in(other.set);
        state.seen |= other.seen;
        assert_eq!(changed, state.seen != before.seen, "merge reports a change when there is one");
        assert_eq!(changed, state.set != before.set);
    }

    /// L6: the live values are exactly the writes that no seen write had seen; and the clock says
    /// exactly what was seen.
    fn check(&self, state: &State) {
        let seen: Vec<usize> =
            (0..self.writes.len()).filter(|i| state.seen >> i & 1 == 1).collect();
        let replaced = seen.iter().fold(0, |all, i| all | self.writes[*i].1);
        let mut live: Vec<(Dot, u64)> = seen
            .iter()
            .filter(|i| replaced >> **i & 1 == 0)
            .map(|i| (self.writes[*i].0, *i as u64))
            .collect();
        live.sort_by_key(|(dot, _)| (dot.actor, std::cmp::Reverse(dot.counter)));
        let found: Vec<_> = state.set.live().map(|(dot, id)| (dot, *id)).collect();
        assert_eq!(found, live, "live values of {state:?}");
        let join: VersionVector =
            seen.iter().map(|i| (self.writes[*i].0.actor, self.writes[*i].0.counter)).collect();
        assert_eq!(state.set.join(), join, "clock of {state:?}");
        for (_, entry) in state.set.entries() {
            assert!(entry.floor() <= entry.n());
            assert!(entry.values().iter().all(|(counter, _)| *counter > entry.floor()));
        }
    }

    /// Number of actors that have written anywhere.
    pub(crate) fn actors_len(&self) -> usize {
        let mut actors: Vec<_> = self.writes.iter().map(|(dot, _)| dot.actor).collect();
        actors.sort_unstable();
        actors.dedup();
        actors.len()
    }
}

/// A set of write numbers as an object: stamps are unordered on purpose, every kind of value
/// occurs.
pub(crate) fn object_of(set: Dvvset<u64>) -> Object {
    set.map(|id| Value {
        stamp: Hlc::new(1_000 + id * 7 % 5, u16::try_from(id * 3 % 2).unwrap()),
        expires_ms: (id % 3 == 0).then_some(2_000 + id),
        payload: (id % 4 != 1)
            .then(|| vec![id.to_le_bytes()[0]; usize::try_from(id * 5 % 40).unwrap()]),
    })
}

/// splitmix64: the histories of the differential test, by seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.word().to_le_bytes()[3]).collect()
    }
}
