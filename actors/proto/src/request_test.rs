//! Frames of requests and replies, byte for byte.

use super::*;
use crate::error::ErrorCode;

#[test]
fn requests_and_replies_round_trip() {
    let put = Put {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        context: None,
        ttl_ms: Some(5),
    };
    let frame = request_frame(7, &put);
    assert_eq!(frame.kind, 2);
    assert_eq!(frame.body, [1, b't', 1, b'k', 1, b'v', 0, 1, 5]);
    assert_eq!(Request::decode(frame.kind, &frame.body), Ok(Request::Put(put)));

    let ok: Reply<Written> = Ok(Written { context: vec![9] });
    assert_eq!(decode_reply::<Put>(&reply_frame::<Put>(7, &ok)), Ok(ok));
    let err: Reply<Written> = Err(WireError::new(ErrorCode::StorageFull, "no space"));
    assert_eq!(decode_reply::<Put>(&reply_frame::<Put>(7, &err)), Ok(err));
}

#[test]
fn malformed_bodies_are_refused() {
    assert!(matches!(Request::decode(2, &[0xFF]), Err(DecodeError::Body { .. })));
    assert!(matches!(Request::decode(9, &[1]), Err(DecodeError::Body { .. })));
    assert_eq!(Request::decode(999, &[]), Err(DecodeError::UnknownKind { kind: 999 }));
}

#[test]
fn requests_of_sessions_and_of_the_cluster_keep_their_bytes() {
    let put = Put {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        context: None,
        ttl_ms: None,
    };
    let write = WriteWith { op: Op::Put(put), token: Some(vec![7, 8]), wait_ms: 300, concern: 2 };
    let frame = request_frame(1, &write);
    assert_eq!(frame.kind, 11);
    let bytes = [0, 1, b't', 1, b'k', 1, b'v', 0, 0, 1, 2, 7, 8, 0xAC, 2, 2];
    assert_eq!(frame.body, bytes);
    assert_eq!(Request::decode(11, &bytes), Ok(Request::WriteWith(write)));

    let kinds: [(Request, u16); 12] = [
        (GetWith { table: String::new(), key: vec![], token: None, wait_ms: 0 }.into(), 10),
        (CatchUp { token: vec![], wait_ms: 0 }.into(), 12),
        (Members {}.into(), 64),
        (Join { addresses: vec![], wait_ms: 0 }.into(), 65),
        (Leave { wait_ms: 0 }.into(), 66),
        (Forget { member: String::new(), force: false }.into(), 67),
        (ClusterStatus {}.into(), 68),
        (ClusterEvents { position: None, limit: 1, wait_ms: 0 }.into(), 69),
        (AaeStatus {}.into(), 80),
        (AaeRun { peer: String::new(), wait_ms: 0 }.into(), 81),
        (AaeDiff { peer: String::new(), wait_ms: 0 }.into(), 82),
        (Clients {}.into(), 50),
    ];
    for (request, kind) in kinds {
        assert_eq!(request.kind(), kind, "{}", request.name());
    }
}

#[test]
fn messages_to_actors_keep_their_bytes() {
    let send = |delivery| SendWith { name: "n".into(), payload: vec![9], timeout_ms: 1, delivery };
    let cases: [(Delivery, &[u8]); 4] = [
        (Delivery::BestEffort, &[0]),
        (Delivery::Acknowledged, &[1]),
        (Delivery::Monotonic { key: vec![5] }, &[2, 1, 5]),
        (Delivery::Causal { token: vec![6, 7] }, &[3, 2, 6, 7]),
    ];
    for (delivery, tail) in cases {
        let send = send(delivery);
        let frame = request_frame(1, &send);
        assert_eq!(
            (frame.kind, frame.body.as_slice()),
            (22, [&[1, b'n', 1, 9, 1], tail].concat().as_slice())
        );
        assert_eq!(Request::decode(22, &frame.body), Ok(Request::SendWith(send)));
    }
    let lost = Lost { name: "n".into(), node: "b".into(), owner: "o".into(), since_ms: 2 };
    let frame = request_frame(1, &lost);
    assert_eq!((frame.kind, frame.body.as_slice()), (23, &[1, b'n', 1, b'b', 1, b'o', 2][..]));
    let unknown = WireError::new(ErrorCode::Unknown, "");
    assert_eq!(error_frame(1, &unknown).body, [14, 0, 0]);
}
