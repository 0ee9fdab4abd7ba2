//! What holds for every message, every payload, and any octets.
//!
//! Method: random messages and values through every serializer; random and damaged octets through the laws that the fuzz
//! targets check, too.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/src/laws.rs"]
mod laws;
mod strategy;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use weald_wamp::{Limits, Message, Payload, Serializer, decode};

fn encode(serializer: Serializer, message: &Message) -> Vec<u8> {
    let mut encoded = Vec::new();
    message.encode(serializer, &mut encoded).unwrap();
    encoded
}

#[test]
fn every_message_type_is_among_the_random_ones() {
    let mut runner = TestRunner::deterministic();
    let seen: BTreeSet<_> = (0..400)
        .map(|_| strategy::message().new_tree(&mut runner).unwrap().current().1.message_type())
        .collect();
    assert_eq!(seen.len(), 24, "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn messages_decode_to_what_was_encoded((serializer, message) in strategy::message()) {
        let encoded = encode(serializer, &message);
        let decoded = decode(serializer, &encoded.clone().into(), &Limits::default());
        prop_assert_eq!(decoded.as_ref(), Ok(&message));
        // There is one way to say it.
        prop_assert_eq!(encode(serializer, &decoded.unwrap()), encoded);
    }

    #[test]
    fn prefixes_of_messages_are_refused((serializer, message) in strategy::message()) {
        let encoded = encode(serializer, &message);
        for end in (0..encoded.len()).step_by(1 + encoded.len() / 64) {
            let prefix = encoded[..end].to_vec().into();
            prop_assert!(decode(serializer, &prefix, &Limits::default()).is_err());
        }
    }

    #[test]
    fn octets_after_messages_are_refused((serializer, message) in strategy::message(), more: u8) {
        let mut encoded = encode(serializer, &message);
        encoded.push(more);
        let blank = serializer == Serializer::Json && b" \t\r\n".contains(&more);
        let decoded = decode(serializer, &encoded.into(), &Limits::default());
        prop_assert_eq!(decoded.is_ok(), blank);
    }

    #[test]
    fn transcoding_is_as_if_encoded_there(
        (args, kwargs) in strategy::arguments(),
        from in strategy::serializer(),
        to in strategy::serializer(),
    ) {
        let limits = Limits::default();
        let here = Payload::from_values(from, &args, &kwargs).unwrap();
        let there = here.to(to, &limits).unwrap();
        let direct = Payload::from_values(to, &args, &kwargs).unwrap();
        prop_assert_eq!(there.raw(), direct.raw());
        prop_assert_eq!(there.parts(), direct.parts());
        let (there_args, there_kwargs) = there.decode(&limits).unwrap();
        prop_assert_eq!(&there_args, &args);
        prop_assert_eq!(&there_kwargs, &kwargs);
        let back = there.to(from, &limits).unwrap();
        prop_assert_eq!(back.raw(), here.raw());
        let checked = Payload::from_raw_checked(to, there.parts(), there.raw().clone(), &limits);
        prop_assert_eq!(checked, Ok(there));
    }

    #[test]
    fn damaged_messages_keep_the_laws(
        (serializer, message) in strategy::message(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut encoded = encode(serializer, &message);
        for (at, octet) in damages {
            let at = at.index(encoded.len());
            encoded[at] = octet;
        }
        laws::message(serializer, &encoded);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_octets_keep_the_laws(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        for serializer in Serializer::ALL {
            laws::message(serializer, &octets);
        }
        laws::transcode(&octets);
    }

    /// Octets that get past the head of a message, so that the rest meets the decoders, too.
    #[test]
    fn any_payloads_keep_the_laws(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        let with = |head: &[u8]| [head, &octets].concat();
        laws::message(Serializer::MsgPack, &with(b"\x95\x10\x01\x80\xa1a"));
        laws::message(Serializer::Cbor, &with(b"\x85\x10\x01\xa0\x61a"));
        laws::message(Serializer::Cbor, &with(b"\x9f\x10\x01\xbf"));
    }

    #[test]
    fn any_tokens_of_json_keep_the_laws(
        text in r#"([\[\]{},:" ]|"a"|-?[0-9.]{1,3}|1e[0-9]{1,3}|true|null|"\\u[0d][08][0-9a-f]{2}(\\udc00)?[A-Za-z]{0,4}=?"){0,16}"#,
    ) {
        laws::message(Serializer::Json, format!("[16,1,{{}},\"a\",[{text}]]").as_bytes());
        laws::message(Serializer::Json, format!("[8,48,1,{{{text}}},\"a\"]").as_bytes());
        laws::transcode(&[&b"\0["[..], text.as_bytes(), b"]"].concat());
    }
}
