//! What holds for any octets, however they came about. The fuzz targets and the crate's own tests both check this.
#![allow(dead_code, reason = "a target needs one of the two")]
#![allow(clippy::unwrap_used, reason = "a broken law is told by a panic")]

use bytes::Bytes;
use weald_wamp::{
    EncodeError, Limits, Message, Parts, Payload, Serializer, TranscodeError, decode,
};

/// Far below the defaults, so that they are met.
const LIMITS: Limits = Limits { message_bytes: 1 << 16, depth: 16, elements: 1 << 12 };

/// Octets that decode as a message encode again, and decode to the same message.
pub(crate) fn message(serializer: Serializer, data: &[u8]) {
    let Ok(message) = decode(serializer, &Bytes::copy_from_slice(data), &LIMITS) else { return };
    let mut encoded = Vec::new();
    message.encode(serializer, &mut encoded).unwrap();
    // A NaN is no equal of itself, but looks the same. Lengths may grow by a rewriting of details: no limits here.
    let again = decode(serializer, &encoded.into(), &Limits::default()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
    match message {
        Message::Publish(m) => payload(&m.payload),
        Message::Call(m) => payload(&m.payload),
        Message::Error(m) => payload(&m.payload),
        _ => {}
    }
}

/// Octets that pass as a payload are the same payload in every serializer that can hold it.
pub(crate) fn transcode(data: &[u8]) {
    let Some((first, raw)) = data.split_first() else { return };
    let serializer = Serializer::ALL[usize::from(first % 3)];
    let parts = if first / 3 % 2 == 0 { Parts::Args } else { Parts::ArgsKwargs };
    let raw = Bytes::copy_from_slice(raw);
    if let Ok(checked) = Payload::from_raw_checked(serializer, parts, raw, &LIMITS) {
        payload(&checked);
    }
}

/// A payload that was checked: values of it are the same whatever serializer they went through.
fn payload(payload: &Payload) {
    let limits = Limits::default();
    let values = payload.decode(&limits);
    for serializer in Serializer::ALL {
        if serializer == payload.serializer() || payload.is_empty() {
            continue;
        }
        match payload.to(serializer, &limits) {
            Ok(there) => {
                let (args, kwargs) = values.as_ref().unwrap();
                let read = there.decode(&limits).unwrap();
                assert_eq!(format!("{read:?}"), format!("{:?}", (args, kwargs)));
                let direct = Payload::from_values(serializer, args, kwargs).unwrap();
                if direct.parts() == there.parts() {
                    assert_eq!(direct.raw(), there.raw());
                }
            }
            Err(TranscodeError::Encode(EncodeError::NotFinite | EncodeError::LeadingNul)) => {
                assert_eq!(serializer, Serializer::Json);
            }
            Err(TranscodeError::Decode(_) | TranscodeError::KeyNotText { .. }) => {
                // Values that memory has no place for either.
                assert!(values.is_err());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
