//! Causal contexts as clients hold them: what a reader knew, bound to the key it read.
//!
//! Guarantees: a context comes back exactly as it was given out, or is refused with the reason;
//! one that belongs to another key is noticed.
//! Refuses: secrecy and authenticity. The checksum finds accidents; a client that forges a context
//! can only hide siblings of a key it may write anyway, and stores check the claims about their
//! own actor.
//!
//! # Shape (version 1)
//! `1 ‖ tag (8) ‖ varint actors ‖ { actor (20) ‖ varint n } ‖ crc32c of all before (4)`, integers
//! big-endian; the tag is xxh3-64 of `table ‖ 0 ‖ key` under a seed of its own.

use crate::dvvset::Dvvset;
use crate::ids::Actor;
use crate::key::{Key, TableName, key_tag};
use crate::vector::VersionVector;
use crate::wire::{Reader, put_varint};

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
const HEAD_BYTES: usize = 9;
const ENTRY_BYTES_MIN: usize = Actor::LEN + 1;

/// What a client knew of a key when it read or wrote it; opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Context {
    tag: u64,
    vector: VersionVector,
}

/// Bytes that are no context of the key at hand. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Not the bytes of a context at all, or cut short.
    #[error("context is malformed")]
    Malformed,
    /// Made by another release.
    #[error("context has version {found}; this node reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Changed on its way.
    #[error("context is damaged: its checksum does not match")]
    Checksum,
    /// Read from another key or table.
    #[error("context belongs to another key")]
    OtherKey,
}

impl Context {
    /// Binds what is known to a key.
    #[must_use]
    pub fn new(table: &TableName, key: &Key, vector: VersionVector) -> Self {
        Self { tag: key_tag(table, key), vector }
    }

    /// The context that covers the whole of `set`.
    #[must_use]
    pub fn of<V>(table: &TableName, key: &Key, set: &Dvvset<V>) -> Self {
        Self::new(table, key, set.join())
    }

    /// What was known.
    #[must_use]
    pub const fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// What was known.
    #[must_use]
    pub fn into_vector(self) -> VersionVector {
        self.vector
    }

    /// True when the context was made for this key.
    #[must_use]
    pub fn belongs_to(&self, table: &TableName, key: &Key) -> bool {
        self.tag == key_tag(table, key)
    }

    /// The byte form given to clients.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entries_len = self.vector.len() * (Actor::LEN + 4);
        let mut out = Vec::with_capacity(HEAD_BYTES + 2 + entries_len + CRC_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.tag.to_be_bytes());
        put_varint(&mut out, self.vector.len() as u64);
        for (actor, n) in self.vector.iter() {
            out.extend_from_slice(&actor.to_bytes());
            put_varint(&mut out, n);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the byte form and checks that it belongs to the key.
    ///
    /// # Errors
    /// One per way to be wrong; see [`ContextError`].
    pub fn decode(bytes: &[u8], table: &TableName, key: &Key) -> Result<Self, ContextError> {
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(ContextError::Malformed)?;
        let (&version, rest) = body.split_first().ok_or(ContextError::Malformed)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(ContextError::Checksum);
        }
        // Every version ends in the checksum, so a version that fails here is no damage.
        if version != VERSION {
            return Err(ContextError::Version { found: version });
        }
        let context = Self::decode_body(rest).ok_or(ContextError::Malformed)?;
        if context.belongs_to(table, key) { Ok(context) } else { Err(ContextError::OtherKey) }
    }

    fn decode_body(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let tag = reader.u64_be()?;
        let len = reader.count(ENTRY_BYTES_MIN)?;
        let mut vector = VersionVector::with_capacity(len);
        let mut last = None;
        for _ in 0..len {
            let actor = Actor::from_bytes(reader.array()?);
            let n = reader.varint()?;
            if n == 0 || last.is_some_and(|last| last >= actor) {
                return None;
            }
            vector.push_last(actor, n);
            last = Some(actor);
        }
        (reader.remaining() == 0).then_some(Self { tag, vector })
    }
}
