//! What a client must not do: ABORT `wamp.error.protocol_violation`, and the end of the connection; and nobody else is hurt.

use crate::net::{A, B, Net, REALM, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{ID, Peer, Serializer, details};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::OneNode, second_hello_is_a_violation);
    run.case(Over::OneNode, anything_before_hello_is_a_violation);
    run.case(Over::OneNode, hello_that_is_not_one_is_a_violation);
    run.case(Over::OneNode, malformed_messages_are_violations);
    run.case(Over::OneNode, messages_of_routers_are_violations);
    run.case(Over::OneNode, undecodable_octets_are_a_violation);
    run.case(Over::OneNode, wrong_types_of_options_are_violations);
    run.case(Over::OneNode, request_numbers_that_jump_are_violations);
    run.case(Over::OneNode, answers_to_what_was_never_asked_are_violations);
    run.case(Over::OneNode, error_for_anything_but_an_invocation_is_a_violation);
    run.case(Over::OneNode, violation_ends_what_the_session_had);
    run.case(Over::OneNode, answers_before_a_violation_arrive);
    run.case(Over::Once, deep_nesting_is_refused);
    run.case(Over::OneNode, messages_after_goodbye_are_ignored);
}

fn violates(peer: &mut Peer, message: &Value) {
    peer.send(message);
    peer.expect_violation();
}

fn second_hello_is_a_violation(net: &mut Net) {
    let mut peer = net.peer("a", A);
    violates(&mut peer, &json!([1, REALM, details()]));
}

fn anything_before_hello_is_a_violation(net: &mut Net) {
    for message in [
        json!([48, 1, {}, "com.example.p"]),
        json!([32, 1, {}, "com.example.t"]),
        json!([16, 1, {}, "com.example.t"]),
        json!([5, "signature", {}]),
        json!([6, {}, "wamp.close.close_realm"]),
        json!([8, 68, 1, {}, "com.example.e"]),
        json!([70, 1, {}]),
    ] {
        let mut peer = net.connect("a", A);
        violates(&mut peer, &message);
    }
    // One that gives up gets no answer.
    let mut peer = net.connect("a", A);
    peer.send(&json!([3, {}, "com.example.reason"]));
    peer.expect_closed();
}

fn hello_that_is_not_one_is_a_violation(net: &mut Net) {
    for message in [
        json!([1]),
        json!([1, REALM]),
        json!([1, 7, details()]),
        json!([1, REALM, []]),
        json!([1, REALM, {}]),
        json!([1, REALM, { "roles": {} }]),
        json!([1, REALM, { "roles": [] }]),
        json!([1, REALM, { "roles": { "caller": 1 } }]),
        json!([1, REALM, { "roles": { "caller": {} }, "authmethods": "anonymous" }]),
        json!([1, REALM, { "roles": { "caller": {} }, "authid": 7 }]),
    ] {
        let mut peer = net.connect("a", A);
        violates(&mut peer, &message);
    }
}

fn malformed_messages_are_violations(net: &mut Net) {
    for message in [
        json!([]),
        json!({}),
        json!("text"),
        json!(7),
        json!(null),
        json!(["32", 1, {}, "com.example.t"]),
        json!([true, 1, {}, "com.example.t"]),
        json!([null]),
        json!([-32, 1, {}, "com.example.t"]),
        json!([999, 1]),
        json!([337, 1]),
        json!([32]),
        json!([32, 1, {}]),
        json!([32, 1, {}, "com.example.t", []]),
        json!([32, 1, [], "com.example.t"]),
        json!([32, 1, {}, 7]),
        json!([32, "1", {}, "com.example.t"]),
        json!([32, true, {}, "com.example.t"]),
        json!([32, -1, {}, "com.example.t"]),
        json!([32, 0, {}, "com.example.t"]),
        json!([32, (1_u64 << 53) + 1, {}, "com.example.t"]),
        json!([32, 1.5, {}, "com.example.t"]),
        json!([34, 1]),
        json!([16, 1, {}]),
        json!([16, 1, {}, "com.example.t", {}]),
        json!([16, 1, {}, "com.example.t", [], []]),
        json!([16, 1, {}, "com.example.t", [], {}, 7]),
        json!([48, 1, {}]),
        json!([48, 1, {}, "com.example.p", "args"]),
        json!([49, 1]),
        json!([64, 1, {}]),
        json!([66, 1]),
        json!([6, {}]),
        json!([6, "com.example.reason", {}]),
        json!([70, 1]),
        json!([8, 68, 1, {}]),
    ] {
        let mut peer = net.peer("a", A);
        violates(&mut peer, &message);
    }
}

fn messages_of_routers_are_violations(net: &mut Net) {
    for message in [
        json!([2, 1, {}]),
        json!([4, "ticket", {}]),
        json!([17, 1, 1]),
        json!([33, 1, 1]),
        json!([35, 1]),
        json!([36, 1, 1, {}]),
        json!([50, 1, {}]),
        json!([65, 1, 1]),
        json!([67, 1]),
        json!([68, 1, 1, {}]),
        json!([69, 1, {}]),
        json!([5, "signature", {}]),
    ] {
        let mut peer = net.peer("a", A);
        violates(&mut peer, &message);
    }
}

fn undecodable_octets_are_a_violation(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let garbage: &[&[u8]] = match peer.serializer() {
        Serializer::Json => &[b"[32,1,{},", b"", b"nonsense", b"[1]x", b"[16,1,{},\"a\",[1,]]"],
        Serializer::MsgPack => &[&[0xc1], &[], &[0x94, 0x20], &[0x91, 0x01, 0x01]],
        Serializer::Cbor => &[&[0xff], &[], &[0x84, 0x18], &[0x81, 0x01, 0x01], &[0x1c]],
    };
    for octets in garbage {
        peer.send_payload(octets);
        peer.expect_violation();
        peer = net.peer("a", A);
    }
    peer.subscribe(&net.uri("well"), &none());
}

fn wrong_types_of_options_are_violations(net: &mut Net) {
    for (kind, options) in [
        (16, json!({ "acknowledge": "yes" })),
        (16, json!({ "acknowledge": 1 })),
        (16, json!({ "exclude_me": 0 })),
        (16, json!({ "disclose_me": "true" })),
        (16, json!({ "exclude": 7 })),
        (16, json!({ "exclude": ["text"] })),
        (16, json!({ "eligible": [1.5] })),
        (16, json!({ "eligible_authid": [7] })),
        (16, json!({ "exclude_authrole": "role" })),
        (16, json!({ "retain": 1 })),
        (16, json!({ "ppt_scheme": 1 })),
        (32, json!({ "match": 7 })),
        (32, json!({ "get_retained": "yes" })),
        (64, json!({ "match": true })),
        (64, json!({ "invoke": 1 })),
        (64, json!({ "disclose_caller": "yes" })),
        (48, json!({ "timeout": "100" })),
        (48, json!({ "timeout": -1 })),
        (48, json!({ "receive_progress": 1 })),
        (48, json!({ "progress": "yes" })),
        (48, json!({ "disclose_me": [] })),
    ] {
        let mut peer = net.peer("a", A);
        violates(&mut peer, &json!([kind, 1, options, net.uri("x")]));
    }
}

fn request_numbers_that_jump_are_violations(net: &mut Net) {
    for (first, second) in [(2, None), (1_u64 << 53, None), (1, Some(3)), (1, Some(1))] {
        let mut peer = net.peer("a", A);
        peer.send(&json!([32, first, {}, net.uri("one")]));
        if let Some(second) = second {
            peer.expect(&json!([33, first, ID]));
            peer.send(&json!([32, second, {}, net.uri("two")]));
        }
        peer.expect_violation();
    }
}

fn answers_to_what_was_never_asked_are_violations(net: &mut Net) {
    for message in [json!([70, 1, {}]), json!([8, 68, 1, {}, "com.example.e"])] {
        let mut peer = net.peer("a", A);
        violates(&mut peer, &message);
    }
    // One that was asked once, and is answered twice, is no violation.
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    for _ in 0..3 {
        callee.yields(call.request, &none(), &json!([]));
        callee.fails(call.request, "com.example.e");
    }
    caller.result(request, &json!([]));
    caller.expect_nothing();
    callee.expect_nothing();
}

fn error_for_anything_but_an_invocation_is_a_violation(net: &mut Net) {
    for kind in [16, 32, 34, 48, 64, 66, 69, 7] {
        let mut peer = net.peer("a", A);
        violates(&mut peer, &json!([8, kind, 1, {}, "com.example.e"]));
    }
}

fn violation_ends_what_the_session_had(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &none());
    let request = caller.call(&procedure, &none(), &json!([]));
    callee.invoked(registration);
    violates(&mut callee, &json!([999]));
    caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
    let error = caller.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
}

fn answers_before_a_violation_arrive(net: &mut Net) {
    let mut peer = net.peer("a", A);
    peer.send_together(&[json!([32, 1, {}, net.uri("topic")]), json!([999]), json!([34, 2, 1])]);
    peer.expect(&json!([33, 1, ID]));
    peer.expect_violation();
}

fn deep_nesting_is_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    // A list in a list, a hundred thousand times, as MessagePack.
    let mut octets = vec![0x95, 16, 1, 0x80, 0xa5, b'c', b'o', b'm', b'.', b'x'];
    octets.extend([0x91].repeat(100_000));
    octets.push(0xc0);
    peer.send_payload(&octets);
    peer.expect_violation();
    // A list that claims to have 2^32 items.
    let mut peer = net.peer("a", B);
    peer.send_payload(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1]);
    peer.expect_violation();
}

fn messages_after_goodbye_are_ignored(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let topic = net.uri("topic");
    let mut other = net.peer("b", B);
    let id = other.subscribe(&topic, &none());
    peer.send_together(&[
        json!([16, 1, {}, topic, ["before"]]),
        json!([6, {}, "wamp.close.close_realm"]),
        json!([16, 2, {}, topic, ["after"]]),
    ]);
    peer.expect(&json!([6, {}, "wamp.close.goodbye_and_out"]));
    other.event(id, &json!(["before"]));
    let mut third = net.peer("c", A);
    third.publish(&topic, &none(), &json!(["third"]));
    other.event(id, &json!(["third"]));
}
