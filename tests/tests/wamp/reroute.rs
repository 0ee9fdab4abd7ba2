//! Callees that send a call elsewhere (`call_reroute`).

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{Got, PATIENCE, Peer};

const UNAVAILABLE: &str = "wamp.error.unavailable";
const NOBODY: &str = "wamp.error.no_available_callee";

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, single_callee_that_is_unavailable_ends_the_call);
    run.case(Over::Everything, call_goes_on_to_the_other_callee);
    run.case(Over::Everything, call_fails_when_nobody_is_available);
    run.case(Over::OneNode, first_goes_on_to_the_next_and_last_to_the_one_before);
}

fn single_callee_that_is_unavailable_ends_the_call(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    callee.fails(call.request, UNAVAILABLE);
    caller.expect(&json!([8, 48, request, {}, NOBODY]));
}

/// Each invocation is refused, until so many were; who was asked, in order.
fn refuse(callees: &mut [&mut Peer], times: usize) -> Vec<usize> {
    let (mut asked, end) = (Vec::new(), std::time::Instant::now() + PATIENCE);
    while asked.len() < times {
        for (number, callee) in callees.iter_mut().enumerate() {
            match callee.poll(std::time::Duration::from_millis(1)) {
                Got::Nothing => {}
                Got::Message(call) if call[0] == 68 => {
                    asked.push(number);
                    callee.fails(call[1].as_u64().unwrap(), UNAVAILABLE);
                    break;
                }
                other => panic!("callee {number}: {other:?}"),
            }
        }
        assert!(std::time::Instant::now() < end, "asked {asked:?} only");
    }
    asked
}

fn shared(policy: &str) -> Value {
    json!({ "invoke": policy })
}

fn call_goes_on_to_the_other_callee(net: &mut Net) {
    for policy in ["first", "last", "roundrobin", "random"] {
        let (mut caller, mut far) = net.pair();
        let mut near = net.peer("near", A);
        let procedure = net.uri(policy);
        let id = near.register(&procedure, &shared(policy));
        net.settle();
        assert_eq!(far.register(&procedure, &shared(policy)), id, "one id for all");
        net.settle();
        let request = caller.call(&procedure, &none(), &json!(["payload"]));
        let asked = refuse(&mut [&mut near, &mut far], 1)[0];
        let other = if asked == 0 { &mut far } else { &mut near };
        let call = other.invoked(id);
        assert_eq!(call.args, json!(["payload"]), "{policy}");
        other.yields(call.request, &none(), &json!([policy]));
        caller.result(request, &json!([policy]));
    }
}

fn call_fails_when_nobody_is_available(net: &mut Net) {
    for policy in ["first", "last", "roundrobin", "random"] {
        let (mut caller, mut far) = net.pair();
        let mut near = net.peer("near", A);
        let mut third = net.peer("third", B);
        let procedure = net.uri(policy);
        for callee in [&mut near, &mut far, &mut third] {
            callee.register(&procedure, &shared(policy));
            net.settle();
        }
        let request = caller.call(&procedure, &none(), &json!([]));
        let mut asked = refuse(&mut [&mut near, &mut far, &mut third], 3);
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 2], "{policy}: each is asked once");
        caller.expect(&json!([8, 48, request, {}, NOBODY]));
        caller.expect_nothing();
    }
}

fn first_goes_on_to_the_next_and_last_to_the_one_before(net: &mut Net) {
    for (policy, order) in [("first", [0, 1, 2]), ("last", [2, 1, 0])] {
        let mut caller = net.peer("a", A);
        let mut callees = [A, B, A].map(|side| net.peer("callee", side));
        let procedure = net.uri(policy);
        for callee in &mut callees {
            callee.register(&procedure, &shared(policy));
        }
        let request = caller.call(&procedure, &none(), &json!([]));
        let [one, two, three] = &mut callees;
        assert_eq!(refuse(&mut [one, two, three], 3), order, "{policy}");
        caller.expect(&json!([8, 48, request, {}, NOBODY]));
    }
}
