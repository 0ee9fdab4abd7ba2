//! The subprotocols of WAMP on WebSocket.

use crate::framing::Framing;
use weald_wamp::Serializer;

/// A subprotocol: how messages are encoded, and whether they come in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subprotocol {
    /// How messages are encoded.
    pub serializer: Serializer,
    /// Whether a WebSocket message holds a batch of them.
    pub batched: bool,
}

/// All of them with their names.
const NAMES: [(&str, Serializer, bool); 6] = [
    ("wamp.2.json", Serializer::Json, false),
    ("wamp.2.msgpack", Serializer::MsgPack, false),
    ("wamp.2.cbor", Serializer::Cbor, false),
    ("wamp.2.json.batched", Serializer::Json, true),
    ("wamp.2.msgpack.batched", Serializer::MsgPack, true),
    ("wamp.2.cbor.batched", Serializer::Cbor, true),
];

impl Subprotocol {
    /// The one of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (_, serializer, batched) = NAMES.into_iter().find(|(known, ..)| *known == name)?;
        Some(Self { serializer, batched })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let is_it = |(_, serializer, batched): &&(&str, Serializer, bool)| {
            (*serializer, *batched) == (self.serializer, self.batched)
        };
        NAMES.iter().find(is_it).map_or("", |(name, ..)| *name)
    }

    /// Whether its WebSocket messages are text.
    #[must_use]
    pub fn is_text(self) -> bool {
        self.serializer == Serializer::Json
    }

    pub(crate) fn framing(self) -> Framing {
        match (self.is_text(), self.batched) {
            (true, false) => Framing::Text,
            (false, false) => Framing::Binary,
            (true, true) => Framing::TextBatched,
            (false, true) => Framing::BinaryBatched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_both_ways() {
        for (name, ..) in NAMES {
            assert_eq!(Subprotocol::of(name).unwrap().name(), name);
        }
        assert_eq!(Subprotocol::of("wamp.2.ubjson"), None);
        assert_eq!(Subprotocol::of("WAMP.2.JSON"), None);
    }
}
