//! Registrations and subscriptions that the router takes away.

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::json;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, registration_taken_by_another_is_revoked);
    run.case(Over::Everything, callee_without_the_feature_is_not_told);
    run.case(Over::Everything, every_callee_of_a_shared_registration_is_revoked);
    run.case(Over::Nodes, calls_in_flight_survive_revocation);
}

fn registration_taken_by_another_is_revoked(net: &mut Net) {
    let (mut taker, mut owner) = net.pair();
    let procedure = net.uri("procedure");
    let old = owner.register(&procedure, &none());
    net.settle();
    let new = taker.register(&procedure, &json!({ "force_reregister": true }));
    owner.expect(&json!([67, 0, { "registration": old }]));
    net.settle();
    let request = owner.next_request();
    owner.send(&json!([66, request, old]));
    assert_eq!(owner.refusal(66, request), "wamp.error.no_such_registration");
    let request = owner.call(&procedure, &none(), &json!(["whose?"]));
    let call = taker.invoked(new);
    taker.yields(call.request, &none(), &json!(["mine"]));
    owner.result(request, &json!(["mine"]));
}

fn callee_without_the_feature_is_not_told(net: &mut Net) {
    let mut taker = net.peer("a", A);
    let mut owner = net.join("b", B, &without("callee", "registration_revocation"));
    let procedure = net.uri("procedure");
    owner.register(&procedure, &none());
    net.settle();
    let new = taker.register(&procedure, &json!({ "force_reregister": true }));
    net.settle();
    let request = owner.call(&procedure, &none(), &json!([]));
    let call = taker.invoked(new);
    taker.yields(call.request, &none(), &json!(["mine"]));
    owner.result(request, &json!(["mine"]));
}

fn every_callee_of_a_shared_registration_is_revoked(net: &mut Net) {
    let (mut taker, mut one) = net.pair();
    let mut two = net.peer("two", A);
    let procedure = net.uri("procedure");
    let shared = json!({ "invoke": "roundrobin" });
    let old = [one.register(&procedure, &shared), two.register(&procedure, &shared)];
    net.settle();
    taker.register(&procedure, &json!({ "force_reregister": true }));
    one.expect(&json!([67, 0, { "registration": old[0] }]));
    two.expect(&json!([67, 0, { "registration": old[1] }]));
}

fn calls_in_flight_survive_revocation(net: &mut Net) {
    let (mut taker, mut owner) = net.pair();
    let procedure = net.uri("procedure");
    let old = owner.register(&procedure, &none());
    net.settle();
    let request = taker.call(&procedure, &none(), &json!([]));
    let call = owner.invoked(old);
    taker.register(&procedure, &json!({ "force_reregister": true }));
    owner.expect(&json!([67, 0, { "registration": old }]));
    owner.yields(call.request, &none(), &json!(["still"]));
    taker.result(request, &json!(["still"]));
}
