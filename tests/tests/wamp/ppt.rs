//! Payloads that are none of the router's business (`payload_passthru_mode`).

use crate::net::{A, B, Net, none, without};
use crate::run::{Over, Run};
use serde_json::{Value, json};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, call_and_result_keep_their_attributes);
    run.case(Over::Everything, error_keeps_its_attributes);
    run.case(Over::Everything, event_keeps_its_attributes);
    run.case(Over::OneNode, sender_without_the_feature_violates_the_protocol);
    run.case(Over::Everything, callee_without_the_feature_fails_the_call);
    run.case(Over::Everything, caller_without_the_feature_fails_the_call);
    run.case(Over::Everything, subscriber_without_the_feature_gets_the_event);
}

const PAYLOAD: &str = "\u{0}3q2+7w==";

fn attributes() -> Value {
    json!({
        "ppt_scheme": "x_custom",
        "ppt_serializer": "cbor",
        "ppt_cipher": "aes256gcm",
        "ppt_keyid": "key-1",
    })
}

fn has_attributes(details: &Value) {
    assert!(weald_tests::wamp::matches(&attributes(), details), "{details}");
}

fn call_and_result_keep_their_attributes(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &attributes(), &json!([PAYLOAD]));
    let call = callee.invoked(registration);
    has_attributes(&call.details);
    assert_eq!(call.args, json!([PAYLOAD]));
    callee.yields(call.request, &attributes(), &json!([PAYLOAD]));
    has_attributes(&caller.result(request, &json!([PAYLOAD])));
}

fn error_keeps_its_attributes(net: &mut Net) {
    let (mut caller, mut callee, procedure, registration) = net.callee();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    callee.send(&json!([8, 68, call.request, attributes(), "com.example.wrong", [PAYLOAD]]));
    caller.expect(&json!([8, 48, request, attributes(), "com.example.wrong", [PAYLOAD]]));
}

fn event_keeps_its_attributes(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &attributes(), &json!([PAYLOAD]));
    has_attributes(&subscriber.event(subscription, &json!([PAYLOAD])));
    let few = json!({ "ppt_scheme": "mqtt" });
    publisher.publish(&topic, &few, &json!([PAYLOAD]));
    let details = subscriber.event(subscription, &json!([PAYLOAD]));
    assert_eq!((&details["ppt_scheme"], &details["ppt_cipher"]), (&json!("mqtt"), &Value::Null));
}

fn sender_without_the_feature_violates_the_protocol(net: &mut Net) {
    let uri = net.uri("anything");
    let mut publisher = net.join("a", A, &without("publisher", "payload_passthru_mode"));
    publisher.publish(&uri, &attributes(), &json!([PAYLOAD]));
    publisher.expect_violation();
    let mut caller = net.join("a", A, &without("caller", "payload_passthru_mode"));
    caller.call(&uri, &attributes(), &json!([PAYLOAD]));
    caller.expect_violation();
}

fn callee_without_the_feature_fails_the_call(net: &mut Net) {
    let mut caller = net.peer("a", A);
    let mut callee = net.join("b", B, &without("callee", "payload_passthru_mode"));
    let procedure = net.uri("procedure");
    callee.register(&procedure, &none());
    net.settle();
    let error = caller.call_fails(&procedure, &attributes(), &json!([PAYLOAD]));
    assert_eq!(error, "wamp.error.feature_not_supported");
    callee.expect_nothing();
}

fn caller_without_the_feature_fails_the_call(net: &mut Net) {
    let mut caller = net.join("a", A, &without("caller", "payload_passthru_mode"));
    let mut callee = net.peer("b", B);
    let procedure = net.uri("procedure");
    let registration = callee.register(&procedure, &none());
    net.settle();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    callee.yields(call.request, &attributes(), &json!([PAYLOAD]));
    assert_eq!(caller.refusal(48, request), "wamp.error.feature_not_supported");
}

fn subscriber_without_the_feature_gets_the_event(net: &mut Net) {
    let mut publisher = net.peer("a", A);
    let mut subscriber = net.join("b", B, &without("subscriber", "payload_passthru_mode"));
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &attributes(), &json!([PAYLOAD]));
    has_attributes(&subscriber.event(subscription, &json!([PAYLOAD])));
}
