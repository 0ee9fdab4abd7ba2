//! The encodings of messages.

use std::fmt;

/// How messages are turned into octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Serializer {
    /// JSON text in UTF-8; octet strings are strings of U+0000 and base64.
    Json,
    /// MessagePack, version 5 or later (text and octets are distinct).
    MsgPack,
    /// CBOR (RFC 8949).
    Cbor,
}

impl Serializer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Cbor];

    /// The name as in subprotocols: `json`, `msgpack`, `cbor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MsgPack => "msgpack",
            Self::Cbor => "cbor",
        }
    }

    /// Whether messages are octets rather than text.
    #[must_use]
    pub fn is_binary(self) -> bool {
        match self {
            Self::Json => false,
            Self::MsgPack | Self::Cbor => true,
        }
    }
}

impl fmt::Display for Serializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
