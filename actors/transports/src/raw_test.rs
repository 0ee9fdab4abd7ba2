//! Laws of the RawSocket codec.

use super::*;
use proptest::prelude::*;

const MAX: usize = 1 << 20;

/// Feeds the stream in pieces; messages, answers, and how it ended.
fn decode(stream: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Vec<u8>, Option<FrameError>) {
    let decoder = Decoder::new(MAX);
    let (mut messages, mut reply) = (Vec::new(), Vec::new());
    let mut input = BytesMut::new();
    let mut at = 0;
    for cut in cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]) {
        if cut < at {
            continue;
        }
        input.extend_from_slice(&stream[at..cut]);
        at = cut;
        match decoder.decode(&mut input, &mut messages, &mut reply) {
            Ok(need) => assert!(need > input.len(), "{need} bytes are there"),
            Err(why) => return (messages, reply, Some(why)),
        }
    }
    (messages, reply, None)
}

proptest! {
    #[test]
    fn messages_come_out_however_the_stream_is_cut(
        frames in proptest::collection::vec((0_u8..3, proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
        mut cuts in proptest::collection::vec(any::<usize>(), 0..30),
    ) {
        let mut stream = Vec::new();
        for (kind, payload) in &frames {
            stream.extend(header(*kind, payload.len()));
            stream.extend(payload);
        }
        cuts.iter_mut().for_each(|cut| *cut %= stream.len() + 1);
        cuts.sort_unstable();
        let (messages, reply, end) = decode(&stream, &cuts);
        let of = |wanted| frames.iter().filter(move |(kind, _)| *kind == wanted);
        prop_assert!(messages.iter().eq(of(MESSAGE).map(|(_, payload)| payload)));
        let pongs: Vec<u8> = of(PING)
            .flat_map(|(_, payload)| [&header(PONG, payload.len())[..], payload].concat())
            .collect();
        prop_assert_eq!(reply, pongs);
        prop_assert_eq!(end, None);
    }

    #[test]
    fn any_bytes_end_the_same_way_however_they_are_cut(
        stream in proptest::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..200),
        mut cuts in proptest::collection::vec(any::<usize>(), 0..30),
    ) {
        cuts.iter_mut().for_each(|cut| *cut %= stream.len() + 1);
        cuts.sort_unstable();
        prop_assert_eq!(decode(&stream, &cuts), decode(&stream, &[]));
    }

    #[test]
    fn any_handshake_is_accepted_or_answered(octets in any::<[u8; 4]>()) {
        match request(octets) {
            Ok(asked) => {
                prop_assert!((512..=1 << 24).contains(&asked.message_bytes_max));
                let answer = accept(asked.serializer, MAX);
                prop_assert_eq!(answer[1] & 0x0f, octets[1] & 0x0f);
            }
            Err(HandshakeError::NotRawSocket(first)) => prop_assert_ne!(first, MAGIC),
            Err(why) => {
                let reply = why.reply().unwrap();
                prop_assert_eq!((reply[0], reply[1] & 0x0f), (MAGIC, 0));
                prop_assert!((1..=4).contains(&(reply[1] >> 4)));
            }
        }
    }
}

#[test]
fn announced_length_is_at_or_below_the_limit_within_bounds() {
    for (limit, announced) in
        [(0, 512), (512, 512), (1_023, 512), (1_024, 1_024), (1 << 24, 1 << 24), (1 << 30, 1 << 24)]
    {
        assert_eq!(announced_bytes(limit), announced);
    }
}
