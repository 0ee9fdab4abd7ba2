//! Payloads that cross serializers.

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, values_survive_every_way);
    run.case(Over::Everything, octets_survive_every_way);
    run.case(Over::Everything, large_payloads_pass);
    run.case(Over::Everything, errors_carry_their_payload);
    run.case(Over::Everything, events_reach_subscribers_of_all_serializers);
}

fn values() -> Value {
    let nested = (0..20).fold(json!("core"), |inner, k| json!([{ "level": k, "in": inner }]));
    json!([
        0, 1, -1, 127, 128, -128, -129, 65_536, 4_294_967_295_u64, 4_294_967_296_u64,
        9_007_199_254_740_992_u64, -9_007_199_254_740_992_i64, i64::MAX, i64::MIN, 1.5, -0.125,
        1e100, true, false, null, "", "grün 漢字 🌲", "line\nbreak \"quoted\" \\ \t \u{1}", [], {},
        [[], [{}]], { "": "empty key", "ключ": 1 }, nested
    ])
}

fn values_survive_every_way(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("echo");
    let registration = callee.register(&procedure, &none());
    net.settle();
    let (args, kwargs) = (values(), json!({ "all": values(), "e": {} }));
    let request = caller.call_with(&procedure, &none(), &args, &kwargs);
    let call = callee.invoked(registration);
    assert_eq!((&call.args, &call.kwargs), (&args, &kwargs));
    callee.send(&json!([70, call.request, {}, call.args, call.kwargs]));
    let result = caller.receive();
    assert_eq!(result, json!([50, request, {}, args, kwargs]));
}

fn octets_survive_every_way(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    // U+0000 and base64 stand for octets, here and in WAMP's JSON.
    let args = json!(["\u{0}", "\u{0}AA==", "\u{0}AP8Q/+8=", { "in": ["\u{0}AQIDBA=="] }]);
    publisher.publish(&topic, &none(), &args);
    subscriber.event(subscription, &args);
}

fn large_payloads_pass(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    for len in [125, 126, 65_535, 65_536, 400_000] {
        let args = json!(["x".repeat(len)]);
        publisher.publish(&topic, &none(), &args);
        subscriber.event(subscription, &args);
    }
}

fn errors_carry_their_payload(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("fails");
    let registration = callee.register(&procedure, &none());
    net.settle();
    let request = caller.call(&procedure, &none(), &json!([]));
    let call = callee.invoked(registration);
    let error = net.uri("error");
    callee.send(&json!([8, 68, call.request, {}, error, ["why", "\u{0}AQI="], { "k": 1 }]));
    caller.expect(&json!([8, 48, request, {}, error, ["why", "\u{0}AQI="], { "k": 1 }]));
}

fn events_reach_subscribers_of_all_serializers(net: &mut Net) {
    use weald_tests::wamp::{Peer, Serializer, Transport, details};
    let mut publisher = net.peer("a", A);
    let topic = net.uri("topic");
    let mut subscribers = Vec::new();
    for transport in [Transport::RawSocket, Transport::WebSocket] {
        for serializer in Serializer::ALL {
            for side in [A, B] {
                let at = net.doors(side).of(transport);
                let mut peer = Peer::connect("s", at, transport, serializer, &net.log);
                peer.join(crate::net::REALM, &details());
                let subscription = peer.subscribe(&topic, &none());
                subscribers.push((peer, subscription));
            }
        }
    }
    net.settle();
    let args = json!([1, "two", "\u{0}AwME", { "four": 4.5 }]);
    publisher.publish(&topic, &none(), &args);
    for (peer, subscription) in &mut subscribers {
        peer.event(*subscription, &args);
    }
}
