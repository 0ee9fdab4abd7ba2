//! Calls with a time limit (`call_timeout`).

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use weald_tests::harness::wait::pause;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, timeout_fails_the_call_and_interrupts_the_callee);
    run.case(Over::Nodes, timeout_without_canceling_does_not_interrupt);
    run.case(Over::Everything, answer_in_time_is_no_timeout);
    run.case(Over::Nodes, timeout_zero_is_none);
    run.case(Over::Nodes, callee_that_asks_for_it_times_calls_itself);
    run.case(Over::Nodes, progressive_results_start_the_clock_anew);
}

fn timeout_fails_the_call_and_interrupts_the_callee(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let start = Instant::now();
    let request = caller.call(&procedure, &json!({ "timeout": 300 }), &json!([]));
    let call = callee.invoked(registration);
    assert!(call.details["timeout"].is_null(), "the router keeps the time: {}", call.details);
    caller.expect(&json!([8, 48, request, {}, "wamp.error.timeout"]));
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    let options = callee.interrupted(call.request);
    assert_eq!(options["mode"], "killnowait");
    callee.yields(call.request, &none(), &json!(["late"]));
    caller.expect_nothing();
    callee.expect_nothing();
}

fn timeout_without_canceling_does_not_interrupt(net: &mut Net) {
    let mut caller = net.peer("a", A);
    let mut callee = net.join("b", B, &without("callee", "call_canceling"));
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &none());
    net.settle();
    let request = caller.call(&procedure, &json!({ "timeout": 100 }), &json!([]));
    let call = callee.invoked(registration);
    caller.expect(&json!([8, 48, request, {}, "wamp.error.timeout"]));
    let request = caller.call(&procedure, &none(), &json!([]));
    let next = callee.invoked(registration);
    callee.yields(call.request, &none(), &json!(["late"]));
    callee.yields(next.request, &none(), &json!([]));
    caller.result(request, &json!([]));
}

fn answer_in_time_is_no_timeout(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &json!({ "timeout": 60_000 }), &json!([]));
    let call = callee.invoked(registration);
    callee.yields(call.request, &none(), &json!([1]));
    caller.result(request, &json!([1]));
    caller.expect_nothing();
    callee.expect_nothing();
}

fn timeout_zero_is_none(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &json!({ "timeout": 0 }), &json!([]));
    let call = callee.invoked(registration);
    pause(Duration::from_millis(300));
    callee.yields(call.request, &none(), &json!(["slowly"]));
    caller.result(request, &json!(["slowly"]));
}

fn callee_that_asks_for_it_times_calls_itself(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &json!({ "forward_timeout": true }));
    net.settle();
    let request = caller.call(&procedure, &json!({ "timeout": 100 }), &json!([]));
    let call = callee.invoked(registration);
    assert_eq!(call.details["timeout"], 100);
    pause(Duration::from_millis(400));
    callee.expect_nothing();
    callee.fails(call.request, "wamp.error.timeout");
    caller.expect(&json!([8, 48, request, {}, "wamp.error.timeout"]));
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    assert_eq!(call.details["timeout"], Value::Null);
    callee.yields(call.request, &none(), &json!([]));
    caller.result(request, &json!([]));
}

fn progressive_results_start_the_clock_anew(net: &mut Net) {
    // Far more than the machine needs between two steps, and in all more than the limit.
    const LIMIT_MS: u64 = 3000;
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let options = json!({ "timeout": LIMIT_MS, "receive_progress": true });
    let request = caller.call(&procedure, &options, &json!([]));
    let call = callee.invoked(registration);
    for k in 0..6 {
        pause(Duration::from_millis(LIMIT_MS / 5));
        callee.yields(call.request, &json!({ "progress": true }), &json!([k]));
        caller.result(request, &json!([k]));
    }
    caller.expect(&json!([8, 48, request, {}, "wamp.error.timeout"]));
    callee.interrupted(call.request);
}
