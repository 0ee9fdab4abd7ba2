//! Results and calls in many parts.

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::Peer;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, progressive_results_arrive_one_by_one);
    run.case(Over::Everything, progressive_results_may_be_followed_by_an_error);
    run.case(Over::Everything, progressive_results_nobody_asked_for_are_dropped);
    run.case(Over::OneNode, receive_progress_is_for_callees_that_announce_it);
    run.case(Over::Everything, canceled_progressive_call_ends);
    run.case(Over::Everything, progressive_call_arrives_one_by_one);
    run.case(Over::Everything, progressive_call_and_results_are_a_stream);
    run.case(Over::Nodes, progressive_call_stays_with_its_callee);
    run.case(Over::Everything, progressive_call_needs_a_callee_that_announces_it);
    run.case(Over::OneNode, progressive_call_needs_a_caller_that_announces_it);
    run.case(Over::OneNode, parts_after_the_end_are_dropped);
    run.case(Over::OneNode, part_of_a_call_that_is_not_progressive_is_a_violation);
}

fn progress() -> Value {
    json!({ "progress": true })
}

fn open(net: &mut Net, hello: &Value) -> (Peer, Peer, String, u64) {
    let (caller, mut callee) = (net.peer("a", A), net.join("b", B, hello));
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &none());
    net.settle();
    (caller, callee, procedure, registration)
}

fn all() -> Value {
    weald_tests::wamp::details()
}

fn progressive_results_arrive_one_by_one(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &json!({ "receive_progress": true }), &json!([]));
    let call = callee.invoked(registration);
    assert_eq!(call.details["receive_progress"], true);
    for k in 0..20 {
        callee.yields(call.request, &progress(), &json!([k]));
    }
    callee.yields(call.request, &progress(), &Value::Null);
    callee.yields(call.request, &none(), &json!(["done"]));
    for k in 0..20 {
        assert_eq!(caller.result(request, &json!([k]))["progress"], true);
    }
    assert_eq!(caller.result(request, &Value::Null)["progress"], true);
    assert_ne!(caller.result(request, &json!(["done"]))["progress"], true);
    caller.expect_nothing();
}

fn progressive_results_may_be_followed_by_an_error(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &json!({ "receive_progress": true }), &json!([]));
    let call = callee.invoked(registration);
    callee.yields(call.request, &progress(), &json!([1]));
    callee.fails(call.request, "com.example.broken");
    caller.result(request, &json!([1]));
    caller.expect(&json!([8, 48, request, {}, "com.example.broken"]));
}

fn progressive_results_nobody_asked_for_are_dropped(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    assert_ne!(call.details["receive_progress"], true);
    callee.yields(call.request, &progress(), &json!(["unasked"]));
    callee.yields(call.request, &none(), &json!(["done"]));
    assert_ne!(caller.result(request, &json!(["done"]))["progress"], true);
}

fn receive_progress_is_for_callees_that_announce_it(net: &mut Net) {
    for feature in ["progressive_call_results", "call_canceling"] {
        let (mut caller, mut callee, procedure, registration) =
            open(net, &without("callee", feature));
        let request = caller.call(&procedure, &json!({ "receive_progress": true }), &json!([]));
        let call = callee.invoked(registration);
        assert_ne!(call.details["receive_progress"], true, "without {feature}");
        callee.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
        callee.goodbye();
    }
}

fn canceled_progressive_call_ends(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &json!({ "receive_progress": true }), &json!([]));
    let call = callee.invoked(registration);
    callee.yields(call.request, &progress(), &json!([1]));
    caller.result(request, &json!([1]));
    caller.cancel(request, "killnowait");
    caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
    callee.interrupted(call.request);
    callee.yields(call.request, &progress(), &json!([2]));
    callee.yields(call.request, &none(), &json!([3]));
    callee.expect_nothing();
    caller.expect_nothing();
}

/// Another part of a call.
fn part(caller: &mut Peer, request: u64, options: &Value, procedure: &str, args: &Value) {
    caller.send(&json!([48, request, options, procedure, args]));
}

fn progressive_call_arrives_one_by_one(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &progress(), &json!([0]));
    for k in 1..10 {
        part(&mut caller, request, &progress(), &procedure, &json!([k]));
    }
    part(&mut caller, request, &none(), &procedure, &json!(["last"]));
    let first = callee.invoked(registration);
    assert_eq!((&first.details["progress"], &first.args), (&json!(true), &json!([0])));
    for k in 1..10 {
        let next = callee.invoked(registration);
        assert_eq!((next.request, &next.args), (first.request, &json!([k])));
        assert_eq!(next.details["progress"], true);
    }
    let last = callee.invoked(registration);
    assert_eq!((last.request, &last.args), (first.request, &json!(["last"])));
    assert_ne!(last.details["progress"], true);
    callee.yields(first.request, &none(), &json!(["sum"]));
    caller.result(request, &json!(["sum"]));
    caller.expect_nothing();
}

fn progressive_call_and_results_are_a_stream(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let options = json!({ "progress": true, "receive_progress": true });
    let request = caller.call(&procedure, &options, &json!([0]));
    let first = callee.invoked(registration);
    callee.yields(first.request, &progress(), &json!([0]));
    caller.result(request, &json!([0]));
    for k in 1..5 {
        part(&mut caller, request, &options, &procedure, &json!([k]));
        assert_eq!(callee.invoked(registration).request, first.request);
        callee.yields(first.request, &progress(), &json!([k]));
        assert_eq!(caller.result(request, &json!([k]))["progress"], true);
    }
    part(&mut caller, request, &json!({ "progress": false }), &procedure, &json!(["end"]));
    callee.invoked(registration);
    callee.yields(first.request, &none(), &json!(["end"]));
    caller.result(request, &json!(["end"]));
}

fn progressive_call_stays_with_its_callee(net: &mut Net) {
    let (mut caller, mut far) = net.pair();
    let mut near = net.peer("near", A);
    let procedure = net.uri("procedure");
    let shared = json!({ "invoke": "roundrobin" });
    near.register(&procedure, &shared);
    far.register(&procedure, &shared);
    net.settle();
    // Two streams at once, one for each callee.
    let requests = [0, 1].map(|k| caller.call(&procedure, &progress(), &json!([k, "first"])));
    for (k, request) in requests.iter().enumerate() {
        for n in 0..5 {
            part(&mut caller, *request, &progress(), &procedure, &json!([k, n]));
        }
        part(&mut caller, *request, &none(), &procedure, &json!([k, "last"]));
    }
    for callee in [&mut near, &mut far] {
        let first = callee.receive();
        assert_eq!((&first[0], &first[4][1]), (&json!(68), &json!("first")));
        for n in [json!(0), json!(1), json!(2), json!(3), json!(4), json!("last")] {
            callee.expect(&json!([68, first[1], first[2], {}, [first[4][0], n]]));
        }
        callee.send(&json!([70, first[1], {}, [first[4][0]]]));
    }
    let results = [0, 1].map(|k| json!([50, requests[k], {}, [k]]));
    caller.expect_all(&results);
}

fn progressive_call_needs_a_callee_that_announces_it(net: &mut Net) {
    for feature in ["progressive_call_invocations", "call_canceling"] {
        let (mut caller, mut callee, procedure, _) = open(net, &without("callee", feature));
        let error = caller.call_fails(&procedure, &progress(), &json!([]));
        assert_eq!(error, "wamp.error.feature_not_supported", "without {feature}");
        callee.goodbye();
        net.settle();
    }
}

fn progressive_call_needs_a_caller_that_announces_it(net: &mut Net) {
    let mut callee = net.peer("b", B);
    let procedure = net.uri("procedure");
    callee.register(&procedure, &none());
    let mut caller = net.join("a", A, &without("caller", "progressive_call_invocations"));
    caller.call(&procedure, &progress(), &json!([]));
    caller.expect_violation();
    callee.expect_nothing();
}

fn parts_after_the_end_are_dropped(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &progress(), &json!([0]));
    let call = callee.invoked(registration);
    // The callee has heard enough.
    callee.fails(call.request, "com.example.enough");
    caller.expect(&json!([8, 48, request, {}, "com.example.enough"]));
    part(&mut caller, request, &progress(), &procedure, &json!([1]));
    part(&mut caller, request, &none(), &procedure, &json!([2]));
    caller.expect_nothing();
    callee.expect_nothing();
}

fn part_of_a_call_that_is_not_progressive_is_a_violation(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = open(net, &all());
    let request = caller.call(&procedure, &none(), &json!([0]));
    callee.invoked(registration);
    part(&mut caller, request, &none(), &procedure, &json!([1]));
    caller.expect_violation();
}
