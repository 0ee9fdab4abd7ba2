//! Objects and dots as they travel between nodes.
//!
//! # Shape
//! A [`WireDelta`] is postcard; the object inside is in the store's canonical encoding
//! ([`weald_storage::encode_object`]), so equal objects have equal bytes on every node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weald_storage::{Actor, Delta, Dot, Key, TableName, decode_object, encode_object};

/// What a peer sent is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// Which part.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// Says that `what` is malformed.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

/// Dots as inclusive runs of counters per actor, ascending: a thousand dots of one writer are a few bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dots(pub Vec<(Actor, Vec<(u64, u64)>)>);

impl Dots {
    /// Every dot, ascending. May be very many: bound what you take.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().flat_map(|(actor, runs)| {
            runs.iter()
                .flat_map(|&(from, to)| from..=to)
                .map(|counter| Dot { actor: *actor, counter })
        })
    }

    /// How many dots there are, saturating.
    #[must_use]
    pub fn count(&self) -> u64 {
        let runs = self.0.iter().flat_map(|(_, runs)| runs);
        runs.fold(0, |sum, (from, to)| {
            sum.saturating_add(to.saturating_sub(*from).saturating_add(1))
        })
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for Dots {
    /// Any order, repeats allowed.
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut by_actor: BTreeMap<Actor, Vec<u64>> = BTreeMap::new();
        for dot in dots {
            by_actor.entry(dot.actor).or_default().push(dot.counter);
        }
        let runs_of = |mut counters: Vec<u64>| {
            counters.sort_unstable();
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for counter in counters {
                match runs.last_mut() {
                    Some(run) if counter <= run.1.saturating_add(1) => run.1 = run.1.max(counter),
                    _ => runs.push((counter, counter)),
                }
            }
            runs
        };
        Self(by_actor.into_iter().map(|(actor, counters)| (actor, runs_of(counters))).collect())
    }
}

/// A [`Delta`] on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDelta {
    /// Name of the table.
    pub table: String,
    /// The key.
    #[serde(with = "bytes")]
    pub key: Vec<u8>,
    /// The object, encoded.
    #[serde(with = "bytes")]
    pub object: Vec<u8>,
    /// The events that the object reflects.
    pub dots: Dots,
}

impl From<&Delta> for WireDelta {
    fn from(delta: &Delta) -> Self {
        let mut object = Vec::new();
        encode_object(&delta.object, &mut object);
        Self {
            table: delta.table.to_string(),
            key: delta.key.as_bytes().to_vec(),
            object,
            dots: delta.dots.iter().copied().collect(),
        }
    }
}

/// Most dots that one delta may stand for: a key that was overwritten more often travels in several.
pub const DOTS_MAX: u64 = 4096;

impl WireDelta {
    /// Checks and decodes it.
    ///
    /// # Errors
    /// [`Malformed`]; a bad part spoils the whole.
    pub fn decode(&self) -> Result<Delta, Malformed> {
        let table =
            TableName::parse(&self.table).map_err(|e| Malformed::new("table", e.to_string()))?;
        let key = Key::new(&self.key).map_err(|e| Malformed::new("key", e.to_string()))?;
        let object =
            decode_object(&self.object).map_err(|e| Malformed::new("object", e.to_string()))?;
        if self.dots.count() > DOTS_MAX {
            return Err(Malformed::new("dots", format!("{} at once", self.dots.count())));
        }
        Ok(Delta { table, key, object, dots: self.dots.iter().collect() })
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn len_hint(&self) -> usize {
        self.table.len() + self.key.len() + self.object.len() + 24 * self.dots.0.len() + 16
    }
}

/// Byte strings as such: postcard would take a `Vec<u8>` one byte at a time.
mod bytes {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Visit;
        impl de::Visitor<'_> for Visit {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Visit)
    }
}
