//! RawSocket and WebSocket themselves.

use crate::net::{A, B, Net, REALM, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use weald_tests::wamp::{
    Got, ID, Opcode, PATIENCE, Peer, Serializer, Stream, Transport, Wire, details, upgrade,
    websocket_frame,
};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::RawSocket, handshake_in_pieces_works);
    run.case(Over::RawSocket, handshake_and_hello_in_one_write_work);
    run.case(Over::Once, handshakes_that_cannot_be_are_answered_with_an_error);
    run.case(Over::Once, first_octet_of_another_protocol_ends_the_connection);
    run.case(Over::RawSocket, pings_are_answered_with_their_payload);
    run.case(Over::RawSocket, ping_before_hello_is_answered);
    run.case(Over::RawSocket, unasked_pong_is_ignored);
    run.case(Over::Once, reserved_frames_end_the_connection);
    run.case(Over::RawSocket, frames_in_pieces_work);
    run.case(Over::Once, events_over_the_limit_of_a_client_are_dropped);
    run.case(Over::Once, calls_over_the_limit_of_a_client_fail);
    run.case(Over::Once, first_offered_subprotocol_is_chosen);
    run.case(Over::Once, upgrade_without_a_common_subprotocol_is_refused);
    run.case(Over::WebSocket, batched_subprotocols_carry_sessions);
    run.case(Over::WebSocket, batches_carry_many_messages);
    run.case(Over::WebSocket, fragmented_messages_are_put_together);
    run.case(Over::WebSocket, wrong_kind_of_message_ends_the_session);
    run.case(Over::WebSocket, websocket_pings_are_answered);
    run.case(Over::WebSocket, websocket_close_is_answered);
    run.case(Over::OneNode, many_messages_in_one_write_work);
    run.case(Over::OneNode, connections_that_say_nothing_hurt_nobody);
}

fn end() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection to the RawSocket port without a handshake.
fn bare(net: &Net, transport: Transport) -> Stream {
    Stream::connect(net.doors(A).of(transport)).unwrap()
}

/// So many octets, or as many as come before the end.
fn read(stream: &mut Stream, wanted: usize) -> Vec<u8> {
    let (mut all, end) = (Vec::new(), end());
    while all.len() < wanted {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer, end).unwrap() {
            Some(0) => break,
            Some(len) => all.extend(&buffer[..len]),
            None => assert!(Instant::now() < end, "{wanted} octets were expected, got {all:x?}"),
        }
    }
    all
}

fn peer_over(net: &Net, stream: Stream, serializer: Serializer) -> Peer {
    let wire = Wire::over(stream, Transport::RawSocket, false, Vec::new());
    Peer::over("bare", wire, serializer, &net.log)
}

fn handshake_in_pieces_works(net: &mut Net) {
    let serializer = net.variant.sides[A].1;
    let mut stream = bare(net, Transport::RawSocket);
    for octet in [0x7f, 0xf0 | serializer.number(), 0, 0] {
        stream.write_all(&[octet]).unwrap();
        weald_tests::harness::wait::pause(Duration::from_millis(5));
    }
    let answer = read(&mut stream, 4);
    assert_eq!((answer[0], answer[1] & 15), (0x7f, serializer.number()), "{answer:x?}");
    peer_over(net, stream, serializer).join(REALM, &details());
}

fn handshake_and_hello_in_one_write_work(net: &mut Net) {
    let serializer = net.variant.sides[A].1;
    let stream = bare(net, Transport::RawSocket);
    let mut wire = Wire::over(stream, Transport::RawSocket, false, Vec::new());
    let hello = wire.framed(&serializer.encode(&json!([1, REALM, details()])));
    let both = [&[0x7f, 0xf0 | serializer.number(), 0, 0][..], &hello].concat();
    wire.send_octets(&both).unwrap();
    let answer = read(wire.stream(), 4);
    // WELCOME may be behind it already.
    let rest = answer[4..].to_vec();
    let mut stream = bare(net, Transport::RawSocket);
    std::mem::swap(&mut stream, wire.stream());
    let wire = Wire::over(stream, Transport::RawSocket, false, rest);
    let mut peer = Peer::over("glued", wire, serializer, &net.log);
    peer.expect(&json!([2, ID, { "roles": {} }]));
}

fn handshakes_that_cannot_be_are_answered_with_an_error(net: &mut Net) {
    for (handshake, error) in [
        ([0x7f, 0xf0, 0, 0], 1),
        ([0x7f, 0xf4, 0, 0], 1),
        ([0x7f, 0xff, 0, 0], 1),
        ([0x7f, 0xf2, 1, 0], 3),
        ([0x7f, 0xf2, 0, 1], 3),
    ] {
        let mut stream = bare(net, Transport::RawSocket);
        stream.write_all(&handshake).unwrap();
        let answer = read(&mut stream, 5);
        assert_eq!(answer, [0x7f, error << 4, 0, 0], "to {handshake:x?}");
    }
}

fn first_octet_of_another_protocol_ends_the_connection(net: &mut Net) {
    for octets in [&b"\x16\x03\x01\x02\x00"[..], b"\0\0\0\0", b"SSH-2.0-x\r\n"] {
        let mut stream = bare(net, Transport::RawSocket);
        stream.write_all(octets).unwrap();
        let answer = read(&mut stream, usize::MAX);
        // Whatever is said, it is no RawSocket.
        assert_ne!(answer.first(), Some(&0x7f), "{answer:x?}");
    }
}

fn pong(peer: &mut Peer, payload: &[u8]) {
    peer.wire().ping(payload).unwrap();
    assert_eq!(peer.poll(PATIENCE), Got::Pong(payload.to_vec()));
}

fn pings_are_answered_with_their_payload(net: &mut Net) {
    let mut peer = net.peer("a", A);
    pong(&mut peer, b"");
    pong(&mut peer, b"ping");
    pong(&mut peer, &vec![7; 60_000]);
    peer.expect_nothing();
}

fn ping_before_hello_is_answered(net: &mut Net) {
    let mut peer = net.connect("a", A);
    pong(&mut peer, b"early");
    peer.join(REALM, &details());
}

fn unasked_pong_is_ignored(net: &mut Net) {
    let mut peer = net.peer("a", A);
    peer.send_octets(&[2, 0, 0, 3, 1, 2, 3]);
    peer.expect_nothing();
}

fn reserved_frames_end_the_connection(net: &mut Net) {
    for head in [
        [3, 0, 0, 1],
        [7, 0, 0, 1],
        [0x10, 0, 0, 1],
        [0x80, 0, 0, 1],
        // The 25th bit of the length goes with 24 bits of zero.
        [8, 0, 0, 1],
    ] {
        let mut peer = net.peer("a", A);
        peer.send_octets(&head);
        peer.send_octets(&[0]);
        let closed = |got: &Got| matches!(got, Got::Closed(_));
        let mut got = peer.poll(PATIENCE);
        if let Got::Message(message) = &got {
            assert_eq!(
                (&message[0], &message[2]),
                (&json!(3), &json!("wamp.error.protocol_violation"))
            );
            got = peer.poll(PATIENCE);
        }
        assert!(closed(&got), "{head:x?}: {got:?}");
    }
}

fn frames_in_pieces_work(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let serializer = peer.serializer();
    let message = json!([32, peer.next_request(), {}, net.uri("topic")]);
    let octets = peer.wire().framed(&serializer.encode(&message));
    for piece in octets.chunks(3) {
        peer.send_octets(piece);
        weald_tests::harness::wait::pause(Duration::from_millis(1));
    }
    peer.expect(&json!([33, 1, ID]));
}

/// A session that takes messages of 4 KiB at most.
fn small(net: &Net, side: usize) -> Peer {
    let serializer = net.variant.sides[side].1;
    let mut stream = Stream::connect(net.doors(side).of(Transport::RawSocket)).unwrap();
    stream.write_all(&[0x7f, 3 << 4 | serializer.number(), 0, 0]).unwrap();
    assert_eq!(read(&mut stream, 4)[1] & 15, serializer.number());
    let mut peer = peer_over(net, stream, serializer);
    peer.join(REALM, &details());
    peer
}

fn events_over_the_limit_of_a_client_are_dropped(net: &mut Net) {
    let (mut publisher, mut small) = (net.peer("a", A), small(net, B));
    let mut large = net.peer("large", B);
    let topic = net.uri("topic");
    let id = small.subscribe(&topic, &none());
    large.subscribe(&topic, &none());
    let long = json!(["x".repeat(5000)]);
    publisher.publish(&topic, &none(), &long);
    publisher.publish(&topic, &none(), &json!(["short"]));
    large.event(id, &long);
    large.event(id, &json!(["short"]));
    small.event(id, &json!(["short"]));
}

fn calls_over_the_limit_of_a_client_fail(net: &mut Net) {
    let (mut caller, mut callee) = (net.peer("a", A), small(net, B));
    let procedure = net.uri("procedure");
    let id = callee.register(&procedure, &none());
    let long = json!(["x".repeat(5000)]);
    let error = caller.call_fails(&procedure, &none(), &long);
    assert_eq!(error, "wamp.error.payload_size_exceeded");
    let request = caller.call(&procedure, &none(), &json!([1]));
    let call = callee.invoked(id);
    callee.yields(call.request, &none(), &json!([1]));
    caller.result(request, &json!([1]));
    // The other way: a result that its caller cannot take.
    let other = net.uri("other");
    let id = caller.register(&other, &none());
    let request = callee.call(&other, &none(), &json!([]));
    let call = caller.invoked(id);
    caller.yields(call.request, &none(), &long);
    assert_eq!(callee.refusal(48, request), "wamp.error.payload_size_exceeded");
    let request = callee.call(&other, &none(), &json!([]));
    let call = caller.invoked(id);
    caller.send(&json!([8, 68, call.request, {}, "com.example.e", long]));
    assert_eq!(callee.refusal(48, request), "wamp.error.payload_size_exceeded");
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn offered(net: &Net, protocols: &str) -> (u16, Option<String>, Stream) {
    let mut stream = bare(net, Transport::WebSocket);
    let (status, head, _) = upgrade(&mut stream, "/ws", protocols, "", end()).unwrap();
    (status, header(&head, "sec-websocket-protocol"), stream)
}

fn first_offered_subprotocol_is_chosen(net: &mut Net) {
    for (offer, chosen) in [
        ("wamp.2.json", "wamp.2.json"),
        ("wamp.2.msgpack", "wamp.2.msgpack"),
        ("wamp.2.cbor", "wamp.2.cbor"),
        ("wamp.2.cbor, wamp.2.json", "wamp.2.cbor"),
        ("wamp.2.json,wamp.2.cbor", "wamp.2.json"),
        ("wamp.2.flatbuffers, chat, wamp.2.msgpack", "wamp.2.msgpack"),
        ("wamp.2.cbor.batched, wamp.2.cbor", "wamp.2.cbor.batched"),
        ("wamp.2.json.batched", "wamp.2.json.batched"),
        ("wamp.2.msgpack.batched", "wamp.2.msgpack.batched"),
    ] {
        let (status, got, _) = offered(net, offer);
        assert_eq!((status, got.as_deref()), (101, Some(chosen)), "{offer}");
    }
}

fn upgrade_without_a_common_subprotocol_is_refused(net: &mut Net) {
    for offer in ["", "chat", "wamp.2", "wamp.2.bert", "wamp.1.json"] {
        let (status, _, _) = offered(net, offer);
        assert!((400..500).contains(&status), "{offer:?}: {status}");
    }
    let mut stream = bare(net, Transport::WebSocket);
    let (status, _, _) = upgrade(&mut stream, "/nowhere", "wamp.2.json", "", end()).unwrap();
    assert_eq!(status, 404);
}

/// A client of a batched subprotocol.
struct Batched {
    serializer: Serializer,
    wire: Wire,
}

impl Batched {
    fn open(net: &Net) -> Self {
        let serializer = net.variant.sides[A].1;
        let name = format!("wamp.2.{}.batched", serializer.name());
        let mut stream = bare(net, Transport::WebSocket);
        let (status, _, rest) = upgrade(&mut stream, "/ws", &name, "", end()).unwrap();
        assert_eq!(status, 101);
        let text = serializer == Serializer::Json;
        Self { serializer, wire: Wire::over(stream, Transport::WebSocket, text, rest) }
    }

    fn send(&mut self, messages: &[Value], separator: u8) {
        let mut batch = Vec::new();
        for message in messages {
            let octets = self.serializer.encode(message);
            if self.serializer == Serializer::Json {
                batch.extend(octets);
                batch.push(separator);
            } else {
                batch.extend(u32::try_from(octets.len()).unwrap().to_be_bytes());
                batch.extend(octets);
            }
        }
        self.wire.send(&batch).unwrap();
    }

    /// So many messages, in one batch or more.
    fn receive(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < count {
            let frame = self.wire.receive(end()).unwrap();
            let Some(weald_tests::wamp::Frame::Message(batch)) = frame else { panic!("{frame:?}") };
            let mut rest = &batch[..];
            assert!(!rest.is_empty(), "an empty batch");
            while !rest.is_empty() {
                let message;
                if self.serializer == Serializer::Json {
                    let end = rest.iter().position(|octet| *octet == 0x1e).expect("a separator");
                    (message, rest) = (&rest[..end], &rest[end + 1..]);
                } else {
                    let (len, body) = rest.split_at(4);
                    let len = u32::from_be_bytes(len.try_into().unwrap());
                    (message, rest) = body.split_at(usize::try_from(len).unwrap());
                }
                all.push(self.serializer.decode(message).unwrap());
            }
        }
        assert_eq!(all.len(), count, "{all:?}");
        all
    }
}

fn batched_subprotocols_carry_sessions(net: &mut Net) {
    for separator in [0x1e, 0x18] {
        let mut client = Batched::open(net);
        client.send(&[json!([1, REALM, details()])], separator);
        let welcome = client.receive(1);
        assert_eq!(welcome[0][0], 2, "{welcome:?}");
        let topic = net.uri("topic");
        client.send(&[json!([32, 1, {}, topic])], separator);
        let subscribed = client.receive(1);
        assert_eq!((&subscribed[0][0], &subscribed[0][1]), (&json!(33), &json!(1)));
        // Those who are not batched get the same events.
        let mut other = net.peer("b", B);
        let id = other.subscribe(&topic, &none());
        let mut third = net.peer("c", A);
        third.publish(&topic, &none(), &json!(["both"]));
        other.event(id, &json!(["both"]));
        let event = client.receive(1);
        assert_eq!((&event[0][0], &event[0][4]), (&json!(36), &json!(["both"])));
    }
}

fn batches_carry_many_messages(net: &mut Net) {
    let mut client = Batched::open(net);
    client.send(&[json!([1, REALM, details()])], 0x1e);
    client.receive(1);
    let (topic, options) = (net.uri("topic"), json!({ "exclude_me": false }));
    let mut batch = vec![json!([32, 1, {}, topic])];
    batch.extend((2..22).map(|k| json!([16, k, options, topic, [k]])));
    client.send(&batch, 0x1e);
    let got = client.receive(21);
    assert_eq!(got[0][0], 33);
    assert!((2..22).zip(&got[1..]).all(|(k, event)| event[4] == json!([k])), "{got:?}");
    // Nothing at all is no batch.
    client.send(&[], 0x1e);
    loop {
        match client.wire.receive(end()).unwrap() {
            Some(weald_tests::wamp::Frame::Message(_)) => {}
            Some(weald_tests::wamp::Frame::Close(_) | weald_tests::wamp::Frame::End) => break,
            other => panic!("{other:?}"),
        }
    }
}

fn kind(serializer: Serializer) -> Opcode {
    if serializer == Serializer::Json { Opcode::Text } else { Opcode::Binary }
}

fn fragmented_messages_are_put_together(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let serializer = peer.serializer();
    let octets = serializer.encode(&json!([32, peer.next_request(), {}, net.uri("topic")]));
    let mut opcode = kind(serializer);
    for piece in octets.chunks(5) {
        peer.send_octets(&websocket_frame(opcode, false, piece));
        // Control frames may come between.
        peer.send_octets(&websocket_frame(Opcode::Ping, true, b"between"));
        opcode = Opcode::Continuation;
    }
    peer.send_octets(&websocket_frame(Opcode::Continuation, true, b""));
    for _ in octets.chunks(5) {
        assert_eq!(peer.poll(PATIENCE), Got::Pong(b"between".to_vec()));
    }
    peer.expect(&json!([33, 1, ID]));
}

fn wrong_kind_of_message_ends_the_session(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let serializer = peer.serializer();
    let wrong = if kind(serializer) == Opcode::Text { Opcode::Binary } else { Opcode::Text };
    peer.send_octets(&websocket_frame(wrong, true, b"[32,1,{},\"com.example.t\"]"));
    let abort_then_close = |peer: &mut Peer| match peer.poll(PATIENCE) {
        Got::Message(message) => {
            assert_eq!(message[2], "wamp.error.protocol_violation", "{message}");
            peer.expect_closed()
        }
        Got::Closed(code) => code,
        other => panic!("{other:?}"),
    };
    let code = abort_then_close(&mut peer);
    assert!(code.is_none_or(|code| [1002, 1003, 1007].contains(&code)), "{code:?}");
}

fn websocket_pings_are_answered(net: &mut Net) {
    let mut peer = net.connect("a", A);
    pong(&mut peer, b"early");
    peer.join(REALM, &details());
    pong(&mut peer, b"");
    pong(&mut peer, &[7; 125]);
    peer.send_octets(&websocket_frame(Opcode::Pong, true, b"unasked"));
    peer.expect_nothing();
}

fn websocket_close_is_answered(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let procedure = net.uri("procedure");
    peer.register(&procedure, &none());
    peer.send_octets(&websocket_frame(Opcode::Close, true, &[0x03, 0xe8]));
    assert_eq!(peer.expect_closed(), Some(1000));
    let mut other = net.peer("b", B);
    let end = end();
    while other.call_fails(&procedure, &none(), &json!([])) != "wamp.error.no_such_procedure" {
        assert!(Instant::now() < end, "the registration stays");
    }
}

fn many_messages_in_one_write_work(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let topics: Vec<_> = (1..=300).map(|k| json!([32, k, {}, net.uri(&format!("t{k}"))])).collect();
    peer.send_together(&topics);
    for k in 1..=300 {
        peer.expect(&json!([33, k, ID]));
    }
}

fn connections_that_say_nothing_hurt_nobody(net: &mut Net) {
    let mut silent: Vec<_> = (0..50)
        .flat_map(|_| [Transport::RawSocket, Transport::WebSocket])
        .map(|transport| bare(net, transport))
        .collect();
    for stream in silent.iter_mut().step_by(3) {
        stream.write_all(&[0x7f]).unwrap();
    }
    let mut peer = net.peer("a", A);
    peer.subscribe(&net.uri("topic"), &none());
}
