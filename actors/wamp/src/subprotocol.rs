//! Names of subprotocols, as a WebSocket handshake offers them.

use std::fmt;

use crate::serializer::Serializer;

/// A way to put messages into WebSocket messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subprotocol {
    /// How a message is encoded.
    pub serializer: Serializer,
    /// Whether one WebSocket message holds many (see [`batch`](crate::batch)).
    pub batched: bool,
}

impl Subprotocol {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self { serializer: Serializer::Json, batched: false },
        Self { serializer: Serializer::MsgPack, batched: false },
        Self { serializer: Serializer::Cbor, batched: false },
        Self { serializer: Serializer::Json, batched: true },
        Self { serializer: Serializer::MsgPack, batched: true },
        Self { serializer: Serializer::Cbor, batched: true },
    ];

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.serializer, self.batched) {
            (Serializer::Json, false) => "wamp.2.json",
            (Serializer::MsgPack, false) => "wamp.2.msgpack",
            (Serializer::Cbor, false) => "wamp.2.cbor",
            (Serializer::Json, true) => "wamp.2.json.batched",
            (Serializer::MsgPack, true) => "wamp.2.msgpack.batched",
            (Serializer::Cbor, true) => "wamp.2.cbor.batched",
        }
    }

    /// The subprotocol of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The first known one of those a client offers, in the client's order of preference.
    pub fn select<'n>(offered: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        offered.into_iter().find_map(Self::from_name)
    }
}

impl fmt::Display for Subprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for known in Subprotocol::ALL {
            assert_eq!(Subprotocol::from_name(known.name()), Some(known));
        }
    }

    #[test]
    fn select_unknown_before_known_takes_the_known() {
        let batched_cbor = Subprotocol { serializer: Serializer::Cbor, batched: true };
        let offered = ["wamp.2.flatbuffers", "wamp.2.cbor.batched", "wamp.2.json"];
        assert_eq!(Subprotocol::select(offered), Some(batched_cbor));
        assert_eq!(Subprotocol::select(["WAMP.2.JSON", "wamp.2", ""]), None);
    }
}
