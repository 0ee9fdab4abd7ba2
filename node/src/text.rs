//! Keys and values, which are bytes, as JSON text.
//!
//! # Rule
//! A value that is valid JSON on one line stands as it is, byte for byte. Any other value stands as `{"$bytes": "<base64>"}`. So
//! does a JSON value that itself looks like that. A key that is UTF-8 stands as a string, any other as `{"$bytes": ...}`.
//! Where values are only shown, text that is not JSON stands as `{"$text": "..."}`; exports do without, so that no more shapes of
//! foreign JSON than one have a second meaning.
//!
//! Guarantees: decoding what was encoded gives the same bytes, for all bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    #[serde(rename = "$bytes")]
    bytes: String,
}

/// A value as JSON text.
pub(crate) fn encode_value(value: &[u8]) -> Box<RawValue> {
    as_json_line(value).map_or_else(|| encode_bytes(value), ToOwned::to_owned)
}

/// A value to be looked at.
pub(crate) fn display_json(value: &[u8]) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Text<'a> {
        #[serde(rename = "$text")]
        text: &'a str,
    }
    if let Some(raw) = as_json_line(value) {
        return raw.to_owned();
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| serde_json::to_string(&Text { text }).ok())
        .and_then(|json| RawValue::from_string(json).ok())
        .unwrap_or_else(|| encode_bytes(value))
}

/// The value if it can stand as it is.
fn as_json_line(value: &[u8]) -> Option<&RawValue> {
    let text = std::str::from_utf8(value).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    // The parser drops white space around a value, which would not come back; a line break would end the line.
    let same = raw.get().len() == text.len() && !text.contains(['\n', '\r']);
    (same && !is_escape(raw)).then_some(raw)
}

fn is_escape(raw: &RawValue) -> bool {
    raw.get().starts_with('{') && serde_json::from_str::<Bytes>(raw.get()).is_ok()
}

fn encode_bytes(bytes: &[u8]) -> Box<RawValue> {
    let text = format!("{{\"$bytes\": \"{}\"}}", STANDARD.encode(bytes));
    // Base64 has no character that JSON escapes, so this is JSON.
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The bytes of a value.
pub(crate) fn decode_value(raw: &RawValue) -> Result<Vec<u8>, String> {
    let text = raw.get();
    if text.starts_with('{')
        && let Ok(bytes) = serde_json::from_str::<Bytes>(text)
    {
        return decode_bytes(&bytes.bytes);
    }
    Ok(text.as_bytes().to_vec())
}

/// A key as JSON text.
pub(crate) fn encode_key(key: &[u8]) -> String {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| serde_json::to_string(text).ok())
        .unwrap_or_else(|| encode_bytes(key).get().to_owned())
}

/// A key as a JSON value.
pub(crate) fn key_json(key: &[u8]) -> Box<RawValue> {
    RawValue::from_string(encode_key(key)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The bytes of a key.
pub(crate) fn decode_key(raw: &RawValue) -> Result<Vec<u8>, String> {
    let text = raw.get();
    if text.starts_with('"') {
        let key: String = serde_json::from_str(text).map_err(|e| e.to_string())?;
        return Ok(key.into_bytes());
    }
    match serde_json::from_str::<Bytes>(text) {
        Ok(bytes) => decode_bytes(&bytes.bytes),
        Err(_) => Err("key is neither a string nor {\"$bytes\": \"<base64>\"}".to_owned()),
    }
}

fn decode_bytes(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|e| format!("$bytes is not base64: {e}"))
}

/// A key for people: text if it is printable, otherwise with escapes.
pub(crate) fn show_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => key.escape_ascii().to_string(),
    }
}

/// A value for people, on one line.
pub(crate) fn show_value(value: &[u8]) -> String {
    show_key(value)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(format!("{text:?} is not hexadecimal"));
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
            u8::from_str_radix(pair, 16).map_err(|e| e.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stands_as_it_is_byte_for_byte() {
        for text in [
            "1.50",
            "{\"b\" : 1,\"a\":[ ]}",
            "\"\\u00e9\"",
            "1e400",
            "null",
            "-0",
            "{\"$bytes\":1}",
        ] {
            assert_eq!(encode_value(text.as_bytes()).get(), text);
        }
    }

    #[test]
    fn every_value_comes_back() {
        let values: [&[u8]; 12] = [
            b"",
            b"plain",
            b"\xff\x00",
            b" 1",
            b"1 ",
            b"{\n}",
            b"[1,\r2]",
            b"{\"$bytes\": \"aGk=\"}",
            b"{\"$bytes\": \"no base64\"}",
            b"{\"$bytes\": \"aGk=\", \"x\": 1}",
            b"{\"a\":1}",
            b"1 2",
        ];
        for value in values {
            let encoded = encode_value(value);
            assert!(!encoded.get().contains('\n'));
            let parsed: &RawValue = serde_json::from_str(encoded.get()).unwrap();
            assert_eq!(decode_value(parsed).as_deref(), Ok(value), "{}", encoded.get());
        }
    }

    #[test]
    fn text_is_shown_readable() {
        assert_eq!(display_json(b"hello").get(), "{\"$text\":\"hello\"}");
        assert_eq!(display_json(b"[1]").get(), "[1]");
        assert_eq!(display_json(b"\xff").get(), "{\"$bytes\": \"/w==\"}");
    }

    #[test]
    fn every_key_comes_back() {
        for key in [&b"bash"[..], b"\xfe", b"q\"uote\n", "é".as_bytes()] {
            let encoded = key_json(key);
            assert_eq!(decode_key(&encoded).as_deref(), Ok(key), "{}", encoded.get());
        }
        for text in ["1", "{}", "{\"$bytes\": \"*\"}", "null"] {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert!(decode_key(raw).is_err(), "{text}");
        }
    }

    #[test]
    fn hex_comes_back() {
        assert_eq!(unhex(&hex(&[0, 255, 16])).as_deref(), Ok(&[0, 255, 16][..]));
        assert!(unhex("0").is_err());
        assert!(unhex("é0").is_err());
    }
}
