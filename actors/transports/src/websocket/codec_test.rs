//! Laws of the WebSocket codec: cut the stream or the messages anywhere, and the same comes out.

use super::*;
use proptest::prelude::*;
use weald_wamp::Serializer;

const MAX: usize = 1 << 20;

/// A masked frame.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        opcode: OpCode::from(first & 0x0f),
        mask: Some(mask),
        ..FrameHeader::default()
    };
    let mut out = Vec::new();
    header.format(payload.len() as u64, &mut out).unwrap();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(octet, key)| octet ^ key));
    out
}

fn decode(is_text: bool, stream: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Vec<u8>, Option<End>) {
    let serializer = if is_text { Serializer::Json } else { Serializer::Cbor };
    let mut decoder = Decoder::new(Subprotocol { serializer, batched: false }, MAX);
    let (mut messages, mut reply) = (Vec::new(), Vec::new());
    let mut input = BytesMut::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        input.extend_from_slice(&stream[at..cut]);
        at = cut;
        match decoder.decode(&mut input, &mut messages, &mut reply) {
            Ok(need) => assert!(need > input.len(), "{need} bytes are there"),
            Err(end) => return (messages, reply, Some(end)),
        }
    }
    (messages, reply, None)
}

fn sorted(cuts: &[usize], length: usize) -> Vec<usize> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (length + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn text_comes_out_however_it_is_fragmented_and_cut(
        texts in proptest::collection::vec("\\PC{0,80}", 0..8),
        fragments in proptest::collection::vec(any::<usize>(), 0..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..30),
        mask in any::<[u8; 4]>(),
    ) {
        let mut stream = Vec::new();
        for text in &texts {
            let bytes = text.as_bytes();
            let mut ends = sorted(&fragments, bytes.len());
            ends.push(bytes.len());
            let mut at = 0;
            for (number, end) in ends.iter().enumerate() {
                let kind = u8::from(number == 0);
                let last = if number + 1 == ends.len() { 0x80 } else { 0 };
                stream.extend(frame(last | kind, &bytes[at..*end], mask));
                at = *end;
            }
            stream.extend(frame(0x89, b"ping", mask));
        }
        let (messages, reply, end) = decode(true, &stream, &sorted(&cuts, stream.len()));
        prop_assert!(messages.iter().eq(texts.iter().map(String::as_bytes)));
        prop_assert_eq!(reply, b"\x8a\x04ping".repeat(texts.len()));
        prop_assert_eq!(end, None);
    }

    #[test]
    fn octets_are_unmasked_at_any_length(
        payload in proptest::collection::vec(any::<u8>(), 0..70),
        mask in any::<[u8; 4]>(),
    ) {
        let (messages, _, end) = decode(false, &frame(0x82, &payload, mask), &[]);
        prop_assert_eq!((messages, end), (vec![Bytes::from(payload)], None));
    }

    #[test]
    fn any_bytes_end_the_same_way_however_they_are_cut(
        frames in proptest::collection::vec((any::<u8>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..30),
        text in any::<bool>(),
    ) {
        let mut stream = Vec::new();
        for (first, plain, payload) in &frames {
            // Mostly of those that are allowed, so that it goes on for a while.
            let first = if *plain { 0x82 - u8::from(text) } else { *first };
            let length = u8::try_from(payload.len()).unwrap();
            stream.extend([first, 0x80 | length, 0, 0, 0, 0]);
            stream.extend(payload);
        }
        stream.extend(&tail);
        let (messages, reply, end) = decode(text, &stream, &[]);
        let cut = decode(text, &stream, &sorted(&cuts, stream.len()));
        prop_assert_eq!((messages, reply), (cut.0, cut.1));
        prop_assert_eq!(end.is_some(), cut.2.is_some());
    }
}
