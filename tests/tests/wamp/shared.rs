//! Many callees of one procedure (`shared_registration`).

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{Got, PATIENCE, Peer};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, roundrobin_takes_turns);
    run.case(Over::Everything, random_takes_all);
    run.case(Over::Everything, first_and_last_take_the_oldest_and_the_newest);
    run.case(Over::Everything, policies_must_agree);
    run.case(Over::OneNode, unknown_policy_is_refused);
    run.case(Over::Everything, registration_lasts_as_long_as_its_last_callee);
    run.case(Over::OneNode, roundrobin_of_three_goes_in_order);
    run.case(Over::Everything, shared_prefixes_are_shared);
    run.case(Over::OneNode, concurrency_limits_open_calls_of_a_callee);
    run.case(Over::Everything, force_reregister_takes_over);
}

fn invoke(policy: &str) -> Value {
    json!({ "invoke": policy })
}

/// Calls once; who of the callees answered.
fn answered_by(caller: &mut Peer, callees: &mut [&mut Peer], procedure: &str) -> usize {
    let request = caller.call(procedure, &none(), &json!([]));
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        for (number, callee) in callees.iter_mut().enumerate() {
            match callee.poll(std::time::Duration::from_millis(1)) {
                Got::Nothing => {}
                Got::Message(call) if call[0] == 68 => {
                    callee.yields(call[1].as_u64().unwrap(), &none(), &json!([]));
                    caller.result(request, &json!([]));
                    return number;
                }
                other => panic!("callee {number}: {other:?}"),
            }
        }
        assert!(std::time::Instant::now() < end, "nobody was called");
    }
}

/// A caller, a callee beside it and one on the other side.
fn trio(net: &mut Net) -> (Peer, Peer, Peer, String) {
    let (caller, far) = net.pair();
    (caller, net.peer("near", A), far, net.uri("procedure"))
}

fn roundrobin_takes_turns(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    near.register(&procedure, &invoke("roundrobin"));
    net.settle();
    far.register(&procedure, &invoke("roundrobin"));
    net.settle();
    let mut counts = [0; 2];
    for _ in 0..20 {
        counts[answered_by(&mut caller, &mut [&mut near, &mut far], &procedure)] += 1;
    }
    assert_eq!(counts, [10, 10]);
}

fn roundrobin_of_three_goes_in_order(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    let mut third = net.peer("third", B);
    let ids = [&mut near, &mut far, &mut third]
        .map(|callee| callee.register(&procedure, &invoke("roundrobin")));
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "one registration for all: {ids:?}");
    let callees = &mut [&mut near, &mut far, &mut third];
    let first = answered_by(&mut caller, callees, &procedure);
    for k in 1..9 {
        assert_eq!(answered_by(&mut caller, callees, &procedure), (first + k) % 3);
    }
}

fn random_takes_all(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    near.register(&procedure, &invoke("random"));
    net.settle();
    far.register(&procedure, &invoke("random"));
    net.settle();
    let mut counts = [0; 2];
    for _ in 0..100 {
        counts[answered_by(&mut caller, &mut [&mut near, &mut far], &procedure)] += 1;
    }
    // Less than 20 of 100 happens once in 10^9 times.
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
}

fn first_and_last_take_the_oldest_and_the_newest(net: &mut Net) {
    let (mut caller, mut near, mut far, _) = trio(net);
    for (policy, expected) in [("first", [0, 0, 1]), ("last", [0, 1, 1])] {
        let procedure = net.uri(policy);
        let registration = near.register(&procedure, &invoke(policy));
        net.settle();
        let callees = &mut [&mut near, &mut far];
        assert_eq!(answered_by(&mut caller, callees, &procedure), expected[0]);
        // Ages are told apart by milliseconds between nodes.
        weald_tests::harness::wait::pause(std::time::Duration::from_millis(20));
        far.register(&procedure, &invoke(policy));
        net.settle();
        let callees = &mut [&mut near, &mut far];
        for _ in 0..3 {
            assert_eq!(answered_by(&mut caller, callees, &procedure), expected[1], "{policy}");
        }
        near.unregister(registration);
        net.settle();
        let callees = &mut [&mut near, &mut far];
        assert_eq!(answered_by(&mut caller, callees, &procedure), expected[2]);
    }
}

fn policies_must_agree(net: &mut Net) {
    let (_, mut near, mut far, procedure) = trio(net);
    near.register(&procedure, &invoke("roundrobin"));
    net.settle();
    let conflicts = [
        "wamp.error.procedure_already_exists",
        "wamp.error.procedure_exists_with_different_invocation_policy",
    ];
    for policy in ["single", "first", "last", "random"] {
        let error = far.register_fails(&procedure, &invoke(policy));
        assert!(conflicts.contains(&error.as_str()), "{policy}: {error}");
    }
    far.register(&procedure, &invoke("roundrobin"));
}

fn unknown_policy_is_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let request = peer.next_request();
    peer.send(&json!([64, request, { "invoke": "loudest" }, net.uri("procedure")]));
    let answer = peer.receive();
    let refused = (answer[0] == 8 && answer[4] == "wamp.error.invalid_argument")
        || (answer[0] == 3 && answer[2] == "wamp.error.protocol_violation");
    assert!(refused, "{answer}");
}

fn registration_lasts_as_long_as_its_last_callee(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    let registration = near.register(&procedure, &invoke("roundrobin"));
    far.register(&procedure, &invoke("roundrobin"));
    net.settle();
    near.unregister(registration);
    net.settle();
    for _ in 0..3 {
        let number = answered_by(&mut caller, &mut [&mut near, &mut far], &procedure);
        assert_eq!(number, 1);
    }
    far.goodbye();
    net.settle();
    let error = caller.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
    near.register(&procedure, &none());
}

fn shared_prefixes_are_shared(net: &mut Net) {
    let (mut caller, mut near, mut far, prefix) = trio(net);
    let options = json!({ "match": "prefix", "invoke": "roundrobin" });
    near.register(&prefix, &options);
    net.settle();
    far.register(&prefix, &options);
    net.settle();
    let procedure = format!("{prefix}.below");
    let mut counts = [0; 2];
    for _ in 0..6 {
        counts[answered_by(&mut caller, &mut [&mut near, &mut far], &procedure)] += 1;
    }
    assert_eq!(counts, [3, 3]);
}

fn concurrency_limits_open_calls_of_a_callee(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    let options = json!({ "invoke": "roundrobin", "concurrency": 1 });
    let registration = near.register(&procedure, &options);
    far.register(&procedure, &options);
    let first = caller.call(&procedure, &none(), &json!([1]));
    let one = near.invoked(registration);
    let second = caller.call(&procedure, &none(), &json!([2]));
    let two = far.invoked(registration);
    // Both are busy; one is free again.
    near.yields(one.request, &none(), &json!([]));
    caller.result(first, &json!([]));
    let third = caller.call(&procedure, &none(), &json!([3]));
    let three = near.invoked(registration);
    let fourth = caller.call(&procedure, &none(), &json!([4]));
    let answer = caller.receive();
    assert_eq!((&answer[0], &answer[2]), (&json!(8), &json!(fourth)), "both are busy: {answer}");
    near.yields(three.request, &none(), &json!([]));
    caller.result(third, &json!([]));
    far.yields(two.request, &none(), &json!([]));
    caller.result(second, &json!([]));
}

fn force_reregister_takes_over(net: &mut Net) {
    let (mut caller, mut near, mut far, procedure) = trio(net);
    let old = near.register(&procedure, &none());
    net.settle();
    far.register(&procedure, &json!({ "force_reregister": true }));
    near.expect(&json!([67, 0, { "registration": old }]));
    net.settle();
    for _ in 0..2 {
        let number = answered_by(&mut caller, &mut [&mut near, &mut far], &procedure);
        assert_eq!(number, 1);
    }
}
