//! Who calls, and how far they are trusted.

use crate::net::{Net, none};
use crate::nodes::TRUST_LEVEL;
use crate::run::{Over, Run};
use serde_json::json;
use weald_tests::wamp::{ABSENT, matches};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, caller_is_disclosed_when_it_asks);
    run.case(Over::Everything, caller_is_disclosed_when_the_callee_asks);
    run.case(Over::Everything, trustlevels_are_what_the_realm_says);
}

fn caller_is_disclosed_when_it_asks(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let hidden = json!({
        "caller": ABSENT, "caller_authid": ABSENT, "caller_authrole": ABSENT,
    });
    let shown = json!({
        "caller": caller.session,
        "caller_authid": caller.welcome["authid"],
        "caller_authrole": "anonymous",
    });
    for (options, expected) in [
        (none(), &hidden),
        (json!({ "disclose_me": false }), &hidden),
        (json!({ "disclose_me": true }), &shown),
    ] {
        let request = caller.call(&procedure, &options, &json!([]));
        let call = callee.invoked(registration);
        assert!(matches(expected, &call.details), "{options}: {}", call.details);
        callee.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
    }
}

fn caller_is_disclosed_when_the_callee_asks(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &json!({ "disclose_caller": true }));
    net.settle();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    assert_eq!(call.details["caller"], caller.session);
    callee.yields(call.request, &none(), &json!([]));
    caller.result(request, &json!([]));
}

fn trustlevels_are_what_the_realm_says(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let (procedure, topic) = (net.uri("procedure"), net.uri("topic"));
    let registration = callee.register(&procedure, &none());
    let subscription = callee.subscribe(&topic, &none());
    net.settle();
    // Set by the router: whoever calls or publishes has no say in it.
    caller.publish(&topic, &json!({ "trustlevel": 9 }), &json!([]));
    let event = callee.event(subscription, &json!([]));
    let request = caller.call(&procedure, &json!({ "trustlevel": 9 }), &json!([]));
    let call = callee.invoked(registration);
    for details in [&event, &call.details] {
        assert_eq!(details["trustlevel"], TRUST_LEVEL, "{details}");
    }
    callee.yields(call.request, &none(), &json!([]));
    caller.result(request, &json!([]));
}
