//! REGISTER, CALL, and the end of callers and callees.

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::ID;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, call_reaches_callee_and_result_caller);
    run.case(Over::Everything, error_of_callee_reaches_caller);
    run.case(Over::Everything, call_of_unknown_procedure_fails);
    run.case(Over::Everything, register_of_taken_procedure_fails);
    run.case(Over::OneNode, register_again_in_the_same_session_fails);
    run.case(Over::Everything, unregister_ends_calls);
    run.case(Over::OneNode, unregister_unknown_or_foreign_fails);
    run.case(Over::Everything, unregister_leaves_calls_in_flight_alone);
    run.case(Over::OneNode, session_may_call_itself);
    run.case(Over::Everything, calls_of_one_caller_arrive_in_order);
    run.case(Over::Everything, answers_may_come_in_any_order);
    run.case(Over::Everything, invocations_are_numbered_for_each_callee);
    run.case(Over::OneNode, invalid_procedures_are_refused);
    run.case(Over::OneNode, register_of_reserved_procedure_is_refused);
    run.case(Over::Everything, callee_that_says_goodbye_fails_its_calls);
    run.case(Over::Everything, callee_that_is_lost_fails_its_calls);
    run.case(Over::Everything, callee_that_aborts_fails_its_calls);
    run.case(Over::Everything, caller_that_leaves_interrupts_its_calls);
    run.case(Over::Everything, caller_that_leaves_does_not_interrupt_without_canceling);
    run.case(Over::Everything, procedure_of_lost_callee_can_be_registered_again);
}

fn call_reaches_callee_and_result_caller(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    for (args, kwargs) in [
        (json!([1, "two"]), json!({ "three": 3 })),
        (json!([]), json!({ "only": "named" })),
        (json!([1]), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let request = caller.call_with(&procedure, &none(), &args, &kwargs);
        let call = callee.invoked(registration);
        let some = |value: &Value| value.is_null() || value == &json!([]) || value == &json!({});
        assert!(call.args == args || some(&args) && some(&call.args), "{call:?}");
        assert!(call.kwargs == kwargs || some(&kwargs) && some(&call.kwargs), "{call:?}");
        callee.send(&json!([70, call.request, {}, ["r"], { "named": [kwargs] }]));
        caller.expect(&json!([50, request, {}, ["r"], { "named": [kwargs] }]));
    }
}

fn error_of_callee_reaches_caller(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    let error = net.uri("error");
    callee.send(&json!([8, 68, call.request, {}, error, ["a"], { "b": "c" }]));
    caller.expect(&json!([8, 48, request, {}, error, ["a"], { "b": "c" }]));
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    callee.fails(call.request, &error);
    caller.expect(&json!([8, 48, request, {}, error]));
}

fn call_of_unknown_procedure_fails(net: &mut Net) {
    let (mut caller, _) = net.pair();
    let error = caller.call_fails(&net.uri("nothing"), &none(), &json!([1]));
    assert_eq!(error, "wamp.error.no_such_procedure");
}

fn register_of_taken_procedure_fails(net: &mut Net) {
    let (mut second, mut first) = net.pair();
    let procedure = net.uri("procedure");
    first.register(&procedure, &none());
    net.settle();
    for options in [none(), json!({ "invoke": "single" })] {
        let error = second.register_fails(&procedure, &options);
        assert_eq!(error, "wamp.error.procedure_already_exists", "{options}");
    }
    let conflicts = [
        "wamp.error.procedure_already_exists",
        "wamp.error.procedure_exists_with_different_invocation_policy",
    ];
    let error = second.register_fails(&procedure, &json!({ "invoke": "roundrobin" }));
    assert!(conflicts.contains(&error.as_str()), "{error}");
}

fn register_again_in_the_same_session_fails(net: &mut Net) {
    let mut callee = net.peer("a", A);
    let procedure = net.uri("procedure");
    callee.register(&procedure, &none());
    let error = callee.register_fails(&procedure, &none());
    assert_eq!(error, "wamp.error.procedure_already_exists");
}

fn unregister_ends_calls(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    callee.unregister(registration);
    net.settle();
    let error = caller.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
    let registration = caller.register(&procedure, &none());
    net.settle();
    let request = callee.call(&procedure, &none(), &json!([]));
    let call = caller.invoked(registration);
    caller.yields(call.request, &none(), &json!([1]));
    callee.result(request, &json!([1]));
}

fn unregister_unknown_or_foreign_fails(net: &mut Net) {
    let (mut caller, mut owner) = net.pair();
    let procedure = net.uri("procedure");
    let registration = owner.register(&procedure, &none());
    net.settle();
    for id in [registration, 123_456_789] {
        let request = caller.next_request();
        caller.send(&json!([66, request, id]));
        assert_eq!(caller.refusal(66, request), "wamp.error.no_such_registration");
    }
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = owner.invoked(registration);
    owner.yields(call.request, &none(), &json!([]));
    caller.result(request, &json!([]));
}

fn unregister_leaves_calls_in_flight_alone(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    callee.unregister(registration);
    callee.yields(call.request, &none(), &json!(["late"]));
    caller.result(request, &json!(["late"]));
}

fn session_may_call_itself(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let procedure = net.uri("procedure");
    let registration = peer.register(&procedure, &none());
    let request = peer.call(&procedure, &none(), &json!(["self"]));
    let call = peer.invoked(registration);
    peer.yields(call.request, &none(), &call.args);
    peer.result(request, &json!(["self"]));
}

fn calls_of_one_caller_arrive_in_order(net: &mut Net) {
    const CALLS: u64 = 100;
    let (mut caller, mut callee) = net.pair();
    let procedures = [net.uri("one"), net.uri("two")];
    for procedure in &procedures {
        callee.register(procedure, &none());
    }
    net.settle();
    let messages: Vec<_> = (0..CALLS)
        .map(|k| {
            let procedure = &procedures[usize::from(k % 3 == 0)];
            json!([48, caller.next_request(), {}, procedure, [k]])
        })
        .collect();
    caller.send_together(&messages);
    for k in 0..CALLS {
        let call = callee.expect(&json!([68, ID, ID, {}, [k]]));
        callee.send(&json!([70, call[1], {}, [k]]));
    }
    for message in &messages {
        caller.expect(&json!([50, message[1], {}, message[4]]));
    }
}

fn answers_may_come_in_any_order(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let requests: Vec<_> = (0..8).map(|k| caller.call(&procedure, &none(), &json!([k]))).collect();
    let calls: Vec<_> = requests.iter().map(|_| callee.invoked(registration)).collect();
    for call in calls.iter().rev() {
        callee.yields(call.request, &none(), &call.args);
    }
    for (k, request) in requests.iter().enumerate().rev() {
        caller.result(*request, &json!([k]));
    }
}

fn invocations_are_numbered_for_each_callee(net: &mut Net) {
    let (mut caller, mut first) = net.pair();
    let mut second = net.peer("second", B);
    let procedures = [net.uri("one"), net.uri("two")];
    let ids = [first.register(&procedures[0], &none()), second.register(&procedures[1], &none())];
    net.settle();
    for number in 1..=3 {
        for (callee, (procedure, id)) in
            [&mut first, &mut second].into_iter().zip(procedures.iter().zip(ids))
        {
            let request = caller.call(procedure, &none(), &json!([]));
            let call = callee.invoked(id);
            assert_eq!(call.request, number, "numbers of requests are sequential in a session");
            callee.yields(call.request, &none(), &json!([]));
            caller.result(request, &json!([]));
        }
    }
}

fn invalid_procedures_are_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for uri in ["", ".", "com..bad", "com.bad.", ".com.bad", "com.b ad", "com.b#ad"] {
        assert_eq!(peer.register_fails(uri, &none()), "wamp.error.invalid_uri", "{uri:?}");
        let error = peer.call_fails(uri, &none(), &json!([]));
        assert_eq!(error, "wamp.error.invalid_uri", "{uri:?}");
    }
}

fn register_of_reserved_procedure_is_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let refused = ["wamp.error.invalid_uri", "wamp.error.not_authorized"];
    for (uri, kind) in [
        ("wamp.session.count", "exact"),
        ("wamp.x", "exact"),
        ("wamp", "prefix"),
        ("wamp.x.", "wildcard"),
    ] {
        let error = peer.register_fails(uri, &json!({ "match": kind }));
        assert!(refused.contains(&error.as_str()), "{kind} {uri}: {error}");
    }
    // Nor does a wide pattern catch what is the router's.
    peer.register(&net.uri("w"), &json!({ "match": "prefix" }));
    peer.ask("wamp.session.count", &json!([]), &none());
}

fn callee_that_says_goodbye_fails_its_calls(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let requests = [0, 1].map(|k| {
        let request = caller.call(&procedure, &none(), &json!([k]));
        callee.invoked(registration);
        request
    });
    callee.goodbye();
    let failed = requests.map(|request| json!([8, 48, request, {}, "wamp.error.canceled"]));
    caller.expect_all(&failed);
}

fn callee_that_is_lost_fails_its_calls(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    callee.invoked(registration);
    drop(callee);
    caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
}

fn callee_that_aborts_fails_its_calls(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    callee.invoked(registration);
    callee.send(&json!([3, {}, "com.example.enough"]));
    caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
}

fn caller_that_leaves_interrupts_its_calls(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    drop(caller);
    let options = callee.interrupted(call.request);
    assert_eq!(options["mode"], "killnowait");
    // Too late, and no violation.
    callee.yields(call.request, &none(), &json!(["late"]));
    callee.expect_nothing();
}

fn caller_that_leaves_does_not_interrupt_without_canceling(net: &mut Net) {
    let mut caller = net.peer("a", A);
    let mut callee = net.join("b", B, &without("callee", "call_canceling"));
    let mut other = net.peer("other", A);
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &none());
    net.settle();
    caller.call(&procedure, &none(), &json!([1]));
    let first = callee.invoked(registration);
    caller.goodbye();
    let request = other.call(&procedure, &none(), &json!([2]));
    let second = callee.invoked(registration);
    callee.yields(first.request, &none(), &json!(["late"]));
    callee.yields(second.request, &none(), &json!([2]));
    other.result(request, &json!([2]));
}

fn procedure_of_lost_callee_can_be_registered_again(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    callee.invoked(registration);
    drop(callee);
    caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
    // The error came because the session is gone; its routes are gone as soon as the news is here.
    net.settle();
    let registration = caller.register(&procedure, &none());
    let request = caller.call(&procedure, &none(), &json!(["again"]));
    let call = caller.invoked(registration);
    caller.yields(call.request, &none(), &call.args);
    caller.result(request, &json!(["again"]));
}
