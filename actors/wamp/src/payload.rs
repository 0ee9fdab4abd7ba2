//! Arguments of messages, kept as they came.

use bytes::Bytes;

use crate::serializer::Serializer;

/// Which of the two elements a payload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Parts {
    /// Neither.
    #[default]
    None,
    /// `Arguments|list`.
    Args,
    /// `Arguments|list, ArgumentsKw|dict`.
    ArgsKwargs,
}

/// The elements `Arguments|list` and `ArgumentsKw|dict` of a message, encoded, back to back (in JSON with a comma between).
///
/// A payload is a slice of the frame it came in: cloning it copies nothing, but keeps the frame alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    serializer: Serializer,
    parts: Parts,
    raw: Bytes,
}

impl Default for Payload {
    fn default() -> Self {
        Self::empty()
    }
}

impl Payload {
    /// No arguments at all; fits every serializer.
    #[must_use]
    pub const fn empty() -> Self {
        Self { serializer: Serializer::MsgPack, parts: Parts::None, raw: Bytes::new() }
    }

    /// Whether there is neither element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts == Parts::None
    }

    /// What the elements are encoded with; says nothing when there are none.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// The encoded elements.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Which elements there are.
    #[must_use]
    pub fn parts(&self) -> Parts {
        self.parts
    }
}
