//! Values as octets and back.
//!
//! Octet strings are JSON strings that start with U+0000 and go on in base64, as in WAMP's JSON, whatever the serializer: a
//! case says once what a payload is.

use super::{cbor, msgpack};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// How values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Serializer {
    /// JSON.
    Json,
    /// MessagePack.
    MsgPack,
    /// CBOR.
    Cbor,
}

impl Serializer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::MsgPack, Self::Cbor];

    /// Name in subprotocols.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MsgPack => "msgpack",
            Self::Cbor => "cbor",
        }
    }

    /// Number in the RawSocket handshake.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::MsgPack => 2,
            Self::Cbor => 3,
        }
    }

    /// Encodes a value.
    ///
    /// # Panics
    /// When it has an octet string with wrong base64.
    #[must_use]
    pub fn encode(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => value.to_string().into_bytes(),
            Self::MsgPack => msgpack::encode(value),
            Self::Cbor => cbor::encode(value),
        }
    }

    /// Decodes exactly one value.
    ///
    /// # Errors
    /// What is wrong with the octets.
    pub fn decode(self, octets: &[u8]) -> Result<Value, String> {
        match self {
            Self::Json => serde_json::from_slice(octets).map_err(|e| e.to_string()),
            Self::MsgPack => msgpack::decode(octets),
            Self::Cbor => cbor::decode(octets),
        }
    }
}

/// An octet string as a value.
pub(super) fn octets(bytes: &[u8]) -> Value {
    Value::String(format!("\0{}", STANDARD.encode(bytes)))
}

/// The octets, if the text is an octet string.
pub(super) fn as_octets(text: &str) -> Option<Vec<u8>> {
    let body = text.strip_prefix('\0')?;
    Some(STANDARD.decode(body).unwrap_or_else(|e| panic!("{body}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_survive_each_serializer() {
        let long = "x".repeat(70_000);
        let many: Vec<u64> = (0..70_000).collect();
        let value = json!([
            0, 1, 23, 24, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_296_u64, u64::MAX, -1, -24,
            -25, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_649_i64, i64::MIN, 1.5, -0.25,
            1e300, true, false, null, "", "grün", long, "\u{0}AQID", [], {}, many,
            { "a": [1, { "b": {} }], "": 2 }
        ]);
        for serializer in Serializer::ALL {
            let octets = serializer.encode(&value);
            assert_eq!(serializer.decode(&octets).as_ref(), Ok(&value), "{serializer:?}");
            for end in [0, 1, 9, octets.len() - 1] {
                assert!(serializer.decode(&octets[..end]).is_err(), "{serializer:?} {end}");
            }
        }
    }

    #[test]
    fn octets_of_specifications_are_understood() {
        // RFC 8949, appendix A; the MessagePack specification.
        let cases = [
            (Serializer::Cbor, &[0xf9, 0x3e, 0x00][..], json!(1.5)),
            (Serializer::Cbor, &[0x9f, 0x01, 0xff], json!([1])),
            (Serializer::Cbor, &[0xbf, 0x61, 0x61, 0x01, 0xff], json!({ "a": 1 })),
            (Serializer::Cbor, &[0x43, 1, 2, 3], json!("\u{0}AQID")),
            (Serializer::Cbor, &[0x7f, 0x61, 0x61, 0x61, 0x62, 0xff], json!("ab")),
            (Serializer::MsgPack, &[0xca, 0x3f, 0xc0, 0, 0], json!(1.5)),
            (Serializer::MsgPack, &[0xc4, 3, 1, 2, 3], json!("\u{0}AQID")),
            (Serializer::MsgPack, &[0x81, 0xa1, 0x61, 0xff], json!({ "a": -1 })),
        ];
        for (serializer, octets, value) in cases {
            assert_eq!(serializer.decode(octets), Ok(value), "{octets:x?}");
        }
    }
}
