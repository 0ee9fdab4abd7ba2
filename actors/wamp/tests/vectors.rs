//! The message vectors of the WAMP project (`vectors/README.md`).
//!
//! Method: every variant of every sample is decoded, compared with the attributes it should have, and encoded again, which
//! must give one of the variants. What only Autobahn knows is named here, with what becomes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use weald_wamp::{DecodeError, Limits, Message, Parts, Payload, Serializer, decode};

/// Attributes of messages in the order of the list, per type.
const ATTRIBUTES: [(u64, &[&str]); 24] = [
    (1, &["realm", "details"]),
    (2, &["session_id", "details"]),
    (3, &["details", "reason", "args", "kwargs"]),
    (4, &["method", "extra"]),
    (5, &["signature", "extra"]),
    (6, &["details", "reason"]),
    (8, &["request_type", "request_id", "details", "error", "args", "kwargs"]),
    (16, &["request_id", "options", "topic", "args", "kwargs"]),
    (17, &["request_id", "publication_id"]),
    (32, &["request_id", "options", "topic"]),
    (33, &["request_id", "subscription_id"]),
    (34, &["request_id", "subscription_id"]),
    (35, &["request_id"]),
    (36, &["subscription", "publication", "details", "args", "kwargs"]),
    (48, &["request_id", "options", "procedure", "args", "kwargs"]),
    (49, &["request_id", "options"]),
    (50, &["request_id", "details", "args", "kwargs"]),
    (64, &["request_id", "options", "procedure"]),
    (65, &["request_id", "registration_id"]),
    (66, &["request_id", "registration_id"]),
    (67, &["request_id"]),
    (68, &["request_id", "registration_id", "details", "args", "kwargs"]),
    (69, &["request_id", "options"]),
    (70, &["request_id", "options", "args", "kwargs"]),
];

/// Options that only Autobahn has: unknown keys here, skipped whatever their value.
const FOREIGN: [&str; 6] = [
    "forward_for",
    "transaction_hash",
    "enc_algo",
    "enc_key",
    "enc_serializer",
    "x_acknowledged_delivery",
];

fn samples() -> Vec<(String, Json)> {
    let mut out = Vec::new();
    for folder in ["basic", "advanced"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let mut text: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            for sample in text["samples"].as_array_mut().unwrap() {
                out.push((format!("{name}: {}", sample["description"]), sample.take()));
            }
        }
    }
    out
}

fn from_hex(hex: &str) -> Bytes {
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(octet).collect()
}

fn variants(sample: &Json, serializer: Serializer) -> Vec<Bytes> {
    let variants = sample["serializers"][serializer.name()].as_array().unwrap();
    variants.iter().map(|variant| from_hex(variant["bytes_hex"].as_str().unwrap())).collect()
}

/// The message as attributes by name.
fn attributes(message: &Message, serializer: Serializer) -> Json {
    let mut encoded = Vec::new();
    message.encode(serializer, &mut encoded).unwrap();
    let list = Payload::from_raw_trusted(serializer, Parts::Args, encoded.into());
    let list = list.to(Serializer::Json, &Limits::default()).unwrap();
    let list: Vec<Json> = serde_json::from_slice(list.raw()).unwrap();
    let code = list[0].as_u64().unwrap();
    let (_, names) = ATTRIBUTES.iter().find(|(known, _)| *known == code).unwrap();
    let mut out = json!({ "message_type": code });
    for (at, name) in names.iter().enumerate() {
        out[*name] = list.get(at + 1).cloned().unwrap_or_default();
    }
    if let Some(roles) = out["details"].get("roles").cloned() {
        out["roles"] = roles;
    }
    out
}

fn without_foreign(mut expected: Json) -> Json {
    for options in ["options", "details"] {
        if let Some(options) = expected.get_mut(options).and_then(Json::as_object_mut) {
            options.retain(|key, _| !FOREIGN.contains(&key.as_str()));
        }
    }
    expected
}

#[test]
fn vectors_decode_to_their_attributes_and_encode_to_a_variant() {
    let mut checked = 0;
    for (name, sample) in samples() {
        if sample.get("serializers").is_none() {
            continue;
        }
        let expected = &sample["expected_attributes"];
        for serializer in Serializer::ALL {
            let variants = variants(&sample, serializer);
            assert!(!variants.is_empty(), "{name} {serializer}");
            for frame in &variants {
                let decoded = decode(serializer, frame, &Limits::default());
                if expected["message_type"] == 337 {
                    let unknown = DecodeError::UnknownType { code: 337 };
                    assert_eq!(decoded, Err(unknown), "{name} {serializer}");
                } else if expected["payload"].is_string() {
                    // Arguments that are octets instead of a list: an older form of payload passthru mode.
                    let list = DecodeError::Field {
                        message: decoded.as_ref().map_or_else(field_message, |_| ""),
                        field: "Arguments",
                        expected: "a list",
                    };
                    assert_eq!(decoded, Err(list), "{name} {serializer}");
                } else {
                    check(&name, serializer, &decoded.unwrap(), expected, &variants);
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 35 * 3, "{checked}");
}

fn field_message(error: &DecodeError) -> &'static str {
    if let DecodeError::Field { message, .. } = error { message } else { "" }
}

fn check(
    name: &str,
    serializer: Serializer,
    message: &Message,
    expected: &Json,
    variants: &[Bytes],
) {
    let found = attributes(message, serializer);
    let wanted = without_foreign(expected.clone());
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(found.get(key).unwrap_or(&Json::Null), value, "{name} {serializer} {key}");
    }
    if wanted == *expected {
        let mut encoded = Vec::new();
        message.encode(serializer, &mut encoded).unwrap();
        assert!(variants.iter().any(|variant| *variant == encoded), "{name} {serializer}");
    }
}

#[test]
fn vectors_of_validation_are_accepted_or_refused() {
    let (mut accepted, mut refused) = (0, 0);
    for (name, sample) in samples() {
        let Some(list) = sample.get("wmsg") else { continue };
        let text = Bytes::from(list.to_string());
        let text = Payload::from_raw_trusted(Serializer::Json, Parts::Args, text);
        let keys = list.as_array().unwrap().iter().find_map(Json::as_object);
        let foreign = keys.is_some_and(|keys| keys.keys().any(|k| FOREIGN.contains(&k.as_str())));
        for serializer in Serializer::ALL {
            let frame = text.to(serializer, &Limits::default()).unwrap().raw().clone();
            let decoded = decode(serializer, &frame, &Limits::default());
            if list.as_array().unwrap().iter().skip(3).any(is_hex_payload) {
                // Octets instead of arguments, as above.
                assert!(matches!(decoded, Err(DecodeError::Field { .. })), "{name}: {decoded:?}");
            } else if foreign || sample.get("expected_error").is_none() {
                assert!(decoded.is_ok(), "{name}: {decoded:?}");
                accepted += 1;
            } else {
                let part = sample["expected_error"]["contains"].as_str().unwrap();
                let error = match decoded {
                    Err(error) => error.to_string(),
                    // A name that is unknown: kept for the router, which refuses it.
                    Ok(Message::Subscribe(m)) => {
                        format!("match: {}", m.options.match_policy.get().unwrap_err())
                    }
                    Ok(other) => panic!("{name}: {other:?}"),
                };
                assert!(error.contains(part), "{name}: {error}");
                refused += 1;
            }
        }
    }
    assert_eq!((accepted, refused), (41 * 3, 20 * 3));
}

/// The fifth element of a sample of Autobahn's payload transparency.
fn is_hex_payload(element: &Json) -> bool {
    element.as_str().is_some_and(|text| text.starts_with("a1"))
}
