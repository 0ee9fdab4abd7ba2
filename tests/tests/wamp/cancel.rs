//! CANCEL (`call_canceling`).

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::json;
use weald_tests::wamp::{Invocation, Peer};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, skip_leaves_the_callee_alone);
    run.case(Over::Everything, killnowait_answers_at_once);
    run.case(Over::Everything, kill_waits_for_the_callee);
    run.case(Over::Everything, kill_lets_a_result_through);
    run.case(Over::Everything, no_mode_is_killnowait);
    run.case(Over::Everything, callee_without_canceling_is_skipped);
    run.case(Over::OneNode, unknown_mode_is_refused);
    run.case(Over::OneNode, cancel_of_unknown_or_finished_call_is_ignored);
    run.case(Over::OneNode, cancel_of_foreign_call_is_ignored);
    run.case(Over::Everything, second_cancel_is_ignored);
}

struct Open {
    caller: Peer,
    callee: Peer,
    request: u64,
    call: Invocation,
    procedure: String,
    registration: u64,
}

impl Open {
    /// A call that waits for its callee.
    fn new(net: &mut Net, hello: &serde_json::Value) -> Self {
        let (mut caller, mut callee) = (net.peer("a", A), net.join("b", B, hello));
        let procedure = net.uri("procedure");
        let registration = callee.register(&procedure, &none());
        net.settle();
        let request = caller.call(&procedure, &none(), &json!([1]));
        let call = callee.invoked(registration);
        Self { caller, callee, request, call, procedure, registration }
    }

    fn with_canceling(net: &mut Net) -> Self {
        Self::new(net, &weald_tests::wamp::details())
    }

    fn expect_canceled(&mut self) {
        let canceled = json!([8, 48, self.request, {}, "wamp.error.canceled"]);
        self.caller.expect(&canceled);
    }

    /// Another call goes through, and nothing is left of this one.
    fn goes_on(&mut self) {
        let request = self.caller.call(&self.procedure, &none(), &json!([2]));
        let call = self.callee.invoked(self.registration);
        self.callee.yields(call.request, &none(), &json!([2]));
        self.caller.result(request, &json!([2]));
        self.caller.expect_nothing();
        self.callee.expect_nothing();
    }
}

fn skip_leaves_the_callee_alone(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "skip");
    open.expect_canceled();
    open.goes_on();
    open.callee.yields(open.call.request, &none(), &json!(["late"]));
    open.goes_on();
}

fn killnowait_answers_at_once(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "killnowait");
    open.expect_canceled();
    let options = open.callee.interrupted(open.call.request);
    assert_eq!(options["mode"], "killnowait");
    open.callee.fails(open.call.request, "wamp.error.canceled");
    open.goes_on();
}

fn kill_waits_for_the_callee(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "kill");
    let options = open.callee.interrupted(open.call.request);
    assert_eq!(options["mode"], "kill");
    open.caller.expect_nothing();
    // What the callee says is what the caller gets.
    open.callee.send(&json!([8, 68, open.call.request, {}, "com.example.stopped", ["half"]]));
    open.caller.expect(&json!([8, 48, open.request, {}, "com.example.stopped", ["half"]]));
    open.goes_on();
}

fn kill_lets_a_result_through(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "kill");
    open.callee.interrupted(open.call.request);
    open.callee.yields(open.call.request, &none(), &json!(["done already"]));
    open.caller.result(open.request, &json!(["done already"]));
    open.goes_on();
}

fn no_mode_is_killnowait(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.send(&json!([49, open.request, {}]));
    open.expect_canceled();
    let options = open.callee.interrupted(open.call.request);
    assert_eq!(options["mode"], "killnowait");
    open.goes_on();
}

fn callee_without_canceling_is_skipped(net: &mut Net) {
    for mode in ["kill", "killnowait", "skip"] {
        let mut open = Open::new(net, &without("callee", "call_canceling"));
        open.caller.cancel(open.request, mode);
        open.expect_canceled();
        open.callee.yields(open.call.request, &none(), &json!(["late"]));
        open.goes_on();
        open.callee.goodbye();
        net.settle();
    }
}

fn unknown_mode_is_refused(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "gently");
    let answer = open.caller.receive();
    let refused = (answer[0] == 8 && answer[4] == "wamp.error.invalid_argument")
        || (answer[0] == 3 && answer[2] == "wamp.error.protocol_violation");
    assert!(refused, "{answer}");
}

fn cancel_of_unknown_or_finished_call_is_ignored(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.callee.yields(open.call.request, &none(), &json!([]));
    open.caller.result(open.request, &json!([]));
    for request in [open.request, 77] {
        open.caller.cancel(request, "killnowait");
    }
    open.goes_on();
}

fn cancel_of_foreign_call_is_ignored(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    let mut stranger = net.peer("stranger", A);
    stranger.cancel(open.request, "killnowait");
    stranger.cancel(open.call.request, "kill");
    stranger.expect_nothing();
    open.callee.yields(open.call.request, &none(), &json!(["well"]));
    open.caller.result(open.request, &json!(["well"]));
}

fn second_cancel_is_ignored(net: &mut Net) {
    let mut open = Open::with_canceling(net);
    open.caller.cancel(open.request, "kill");
    open.caller.cancel(open.request, "kill");
    open.callee.interrupted(open.call.request);
    open.callee.fails(open.call.request, "wamp.error.canceled");
    open.expect_canceled();
    open.caller.cancel(open.request, "kill");
    open.goes_on();
}
