//! Session tokens: what a client has seen, as far as a node must know it to serve the client.
//!
//! What it guarantees: a token is a vector of events for each shard it has touched, "all events of an actor up to n"; tokens
//! merge by maximum, in any order. Its bytes are opaque to clients, small, and checked when they come back.
//! What it refuses: proof. A client may make a token up; that makes its own requests wait, and nothing else.
//!
//! # Shape
//! `version 1 | actors | { actor 20 } | shards | { number | entries | { index of the actor | counter } }`, numbers as varints,
//! everything ascending.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use weald_storage::{Actor, Clock, Dot, Space, VersionVector};

use crate::core::Shard;

/// First byte.
const VERSION: u8 = 1;
/// Longest token, in bytes. // guess: 1,000 actors in 16 shards are 70 KiB
pub const TOKEN_BYTES_MAX: usize = 256 * 1024;

/// Bytes that are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a session token of this cluster")]
pub struct TokenError;

/// What a client has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionToken {
    shards: BTreeMap<Shard, VersionVector>,
}

impl SessionToken {
    /// The token of a client that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True when nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The client has seen the event `dot`, and with it all before it of the same actor.
    pub fn raise(&mut self, partition: u16, space: Space, dot: Dot) {
        if dot.counter > 0 {
            let vector = self.shards.entry(Shard::new(partition, space)).or_default();
            vector.raise(dot.actor, dot.counter);
        }
    }

    /// The client has seen all of `vector`.
    pub fn raise_all(&mut self, partition: u16, space: Space, vector: &VersionVector) {
        if !vector.is_empty() {
            self.shards.entry(Shard::new(partition, space)).or_default().merge(vector);
        }
    }

    /// Takes what another token has seen.
    pub fn merge(&mut self, other: &Self) {
        for (shard, vector) in &other.shards {
            self.shards.entry(*shard).or_default().merge(vector);
        }
    }

    /// What was seen, by shard.
    pub fn iter(&self) -> impl Iterator<Item = (Shard, &VersionVector)> {
        self.shards.iter().map(|(shard, vector)| (*shard, vector))
    }

    /// Whether a node with these clocks, by number of the shard, has processed all that was seen.
    #[must_use]
    pub fn covered_by(&self, clocks: &[Clock]) -> bool {
        self.iter().all(|(shard, vector)| {
            let clock = clocks.get(usize::from(shard.number()));
            clock.is_some_and(|clock| clock.covers(vector))
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.shards.is_empty() {
            return Vec::new();
        }
        let actors: BTreeSet<Actor> =
            self.shards.values().flat_map(|v| v.iter().map(|(actor, _)| actor)).collect();
        let actors: Vec<Actor> = actors.into_iter().collect();
        let mut out = vec![VERSION];
        put(&mut out, actors.len() as u64);
        for actor in &actors {
            out.extend_from_slice(&actor.to_bytes());
        }
        put(&mut out, self.shards.len() as u64);
        for (shard, vector) in &self.shards {
            put(&mut out, u64::from(shard.number()));
            put(&mut out, vector.len() as u64);
            for (actor, counter) in vector.iter() {
                put(&mut out, actors.partition_point(|known| *known < actor) as u64);
                put(&mut out, counter);
            }
        }
        out
    }

    /// Reads the bytes of a token; none is the token that has seen nothing.
    ///
    /// # Errors
    /// [`TokenError`], also for bytes that [`SessionToken::encode`] would not have made, and for more than
    /// [`TOKEN_BYTES_MAX`] of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(TokenError);
        }
        let token = Self::parse(bytes).ok_or(TokenError)?;
        // Whatever is not in the one form that encoding makes has another author.
        if token.encode() == bytes { Ok(token) } else { Err(TokenError) }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut actors = Vec::new();
        for _ in 0..take(&mut rest)? {
            let (actor, after) = rest.split_first_chunk::<{ Actor::LEN }>()?;
            actors.push(Actor::from_bytes(*actor));
            rest = after;
        }
        let mut shards = BTreeMap::new();
        for _ in 0..take(&mut rest)? {
            let number = u16::try_from(take(&mut rest)?).ok()?;
            let mut entries = Vec::new();
            for _ in 0..take(&mut rest)? {
                let actor = *actors.get(usize::try_from(take(&mut rest)?).ok()?)?;
                entries.push((actor, take(&mut rest)?));
            }
            shards.insert(Shard::of_number(number), VersionVector::from_iter(entries));
        }
        rest.is_empty().then_some(Self { shards })
    }
}

/// LEB128.
fn put(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let low = u64::from(byte & 0x7f);
        if low << shift >> shift != low {
            return None;
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weald_storage::NodeId;

    use super::*;

    fn actor(n: u8) -> Actor {
        Actor { node: NodeId([n; 16]), incarnation: u32::from(n) }
    }

    prop_compose! {
        fn tokens()(raises in prop::collection::vec((0_u16..6, 0_u8..4, prop_oneof![1_u64..5, any::<u64>()]), 0..12)) -> SessionToken {
            let mut token = SessionToken::new();
            for (number, by, counter) in raises {
                let shard = Shard::of_number(number);
                token.raise(shard.partition, shard.space, Dot { actor: actor(by), counter });
            }
            token
        }
    }

    fn merged(a: &SessionToken, b: &SessionToken) -> SessionToken {
        let mut merged = a.clone();
        merged.merge(b);
        merged
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in tokens(), b in tokens(), c in tokens()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(&merged(&a, &a), &a);
            prop_assert_eq!(merged(&a, &SessionToken::new()), a);
        }

        #[test]
        fn bytes_round_trip(token in tokens()) {
            prop_assert_eq!(SessionToken::decode(&token.encode()), Ok(token));
        }

        #[test]
        fn decode_survives_any_bytes_and_takes_one_form_only(mut bytes in prop::collection::vec(any::<u8>(), 0..80), ours: bool) {
            if ours && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            if let Ok(token) = SessionToken::decode(&bytes) {
                prop_assert_eq!(token.encode(), bytes);
            }
        }

        #[test]
        fn cut_or_longer_bytes_are_refused(token in tokens(), extra: u8) {
            let bytes = token.encode();
            if !bytes.is_empty() {
                prop_assert!(SessionToken::decode(&[&bytes[..], &[extra]].concat()).is_err());
                prop_assert!((1..bytes.len()).all(|len| SessionToken::decode(&bytes[..len]).is_err()));
            }
        }
    }

    #[test]
    fn token_is_covered_by_bases_only() {
        let mut clocks = vec![Clock::default(); 2];
        let mut token = SessionToken::new();
        assert!(token.covered_by(&clocks));
        token.raise(0, Space::Memory, Dot { actor: actor(1), counter: 2 });
        clocks[1].insert(Dot { actor: actor(1), counter: 2 });
        assert!(!token.covered_by(&clocks), "the event before it is unknown");
        clocks[1].insert(Dot { actor: actor(1), counter: 1 });
        assert!(token.covered_by(&clocks) && !token.covered_by(&clocks[..1]));
    }
}
