//! Prefixes and wildcards, of subscriptions and of registrations.

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, subscriptions_match_by_their_policy);
    run.case(Over::Everything, pattern_events_tell_their_topic);
    run.case(Over::OneNode, empty_prefix_matches_everything);
    run.case(Over::OneNode, unknown_match_is_refused);
    run.case(Over::OneNode, policies_of_one_string_are_independent);
    run.case(Over::Everything, best_registration_is_called);
    run.case(Over::Everything, calls_fall_back_when_the_better_registration_goes);
    run.case(Over::Everything, pattern_invocations_tell_the_procedure);
}

fn matching(kind: &str) -> Value {
    json!({ "match": kind })
}

fn subscriptions_match_by_their_policy(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let ids: BTreeMap<u64, &str> = [
        ("exact", "com.foo"),
        ("prefix", "com.foo"),
        ("prefix", "com.fo"),
        ("wildcard", "com."),
        ("wildcard", "com..bar"),
        ("wildcard", ".foo."),
    ]
    .map(|(kind, pattern)| {
        (subscriber.subscribe(&net.uri(pattern), &matching(kind)), (kind, pattern))
    })
    .into_iter()
    .map(|(id, (kind, pattern))| match (kind, pattern) {
        ("prefix", "com.foo") => (id, "prefix foo"),
        ("prefix", _) => (id, "prefix fo"),
        (_, pattern) => (id, pattern),
    })
    .collect();
    let marker = subscriber.subscribe(&net.uri("marker"), &none());
    net.settle();
    for (topic, expected) in [
        ("com.foo", &["com.foo", "com.", "prefix fo", "prefix foo"][..]),
        ("com.foo.bar", &[".foo.", "com..bar", "prefix fo", "prefix foo"]),
        ("com.foo-x", &["com.", "prefix fo", "prefix foo"]),
        ("com.x", &["com."]),
        ("com.x.y", &[]),
        ("com.x.bar", &["com..bar"]),
        ("com.x.y.bar", &[]),
        ("org.foo.x", &[".foo."]),
        ("com", &[]),
    ] {
        publisher.publish(&net.uri(topic), &none(), &json!([topic]));
        publisher.publish(&net.uri("marker"), &none(), &json!([]));
        let mut got = Vec::new();
        loop {
            let event = subscriber.receive();
            assert_eq!(event[0], 36, "{event}");
            let id = event[1].as_u64().unwrap();
            if id == marker {
                break;
            }
            assert_eq!(event[4], json!([topic]));
            got.push(ids[&id]);
        }
        got.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(got, expected, "{topic}");
    }
}

fn pattern_events_tell_their_topic(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let prefix = subscriber.subscribe(&net.uri("a"), &matching("prefix"));
    let wildcard = subscriber.subscribe(&net.uri("b..c"), &matching("wildcard"));
    net.settle();
    for (id, topic) in [(prefix, "a.b.c"), (prefix, "ab"), (wildcard, "b.x.c"), (wildcard, "b.y.c")]
    {
        let topic = net.uri(topic);
        publisher.publish(&topic, &none(), &json!([1]));
        let details = subscriber.event(id, &json!([1]));
        assert_eq!(details["topic"], *topic);
    }
}

fn empty_prefix_matches_everything(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let id = subscriber.subscribe("", &matching("prefix"));
    let topic = net.uri("any.thing");
    publisher.publish(&topic, &none(), &json!(["mine"]));
    // Events of other cases come, too.
    loop {
        let event = subscriber.receive();
        assert_eq!((&event[0], &event[1]), (&json!(36), &json!(id)));
        if event[3]["topic"] == *topic {
            break;
        }
    }
    subscriber.send(&json!([6, {}, "wamp.close.close_realm"]));
}

fn unknown_match_is_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for kind in [32, 64] {
        let request = peer.next_request();
        peer.send(&json!([kind, request, { "match": "fuzzy" }, net.uri("x")]));
        let answer = peer.receive();
        // The one for a bad value of an option, the other by the public vectors.
        if answer[0] == 3 {
            assert_eq!(answer[2], "wamp.error.protocol_violation");
            peer = net.peer("a", A);
        } else {
            assert_eq!((&answer[0], &answer[1]), (&json!(8), &json!(kind)), "{answer}");
            assert_eq!(answer[4], "wamp.error.invalid_argument");
        }
    }
}

fn policies_of_one_string_are_independent(net: &mut Net) {
    let (mut a, mut b) = net.pair();
    let uri = net.uri("same");
    let mut ids = Vec::new();
    for kind in ["exact", "prefix", "wildcard"] {
        ids.push(a.register(&uri, &matching(kind)));
        let error = b.register_fails(&uri, &matching(kind));
        assert_eq!(error, "wamp.error.procedure_already_exists", "{kind}");
        ids.push(a.subscribe(&uri, &matching(kind)));
    }
    let [_, first, _, second, _, third] = ids[..] else { panic!("{ids:?}") };
    assert!(first != second && second != third && first != third, "{ids:?}");
    assert!(ids[0] != ids[2] && ids[2] != ids[4] && ids[0] != ids[4], "{ids:?}");
}

fn best_registration_is_called(net: &mut Net) {
    let (mut caller, mut far) = net.pair();
    let mut near = net.peer("near", A);
    let patterns = [
        ("exact", "a1.b2.c3.d4.e55"),
        ("prefix", "a1.b2.c3"),
        ("prefix", "a1.b2.c3.d4"),
        ("wildcard", "a1.b2..d4.e5"),
        ("wildcard", "a1.b2.c33..e5"),
        ("wildcard", "a1.b2..d4.e5..g7"),
        ("wildcard", "a1.b2..d4..f6.g7"),
        ("wildcard", "a1.b2..d4."),
        ("wildcard", "a1.b2...e5"),
        ("wildcard", "a1...d4.e5"),
        ("wildcard", "a1....e5"),
        ("wildcard", "a1...."),
    ];
    let mut ids = BTreeMap::new();
    for (number, (kind, pattern)) in patterns.into_iter().enumerate() {
        // On both nodes: where a registration is does not matter.
        let callee = if number % 2 == 0 { &mut far } else { &mut near };
        ids.insert((kind, pattern), callee.register(&net.uri(pattern), &matching(kind)));
    }
    net.settle();
    for (procedure, kind, pattern) in [
        ("a1.b2.c3.d4.e55", "exact", "a1.b2.c3.d4.e55"),
        ("a1.b2.c3.d98.e74", "prefix", "a1.b2.c3"),
        ("a1.b2.c3.d4.e325", "prefix", "a1.b2.c3.d4"),
        ("a1.b2.c3.d4.e5", "prefix", "a1.b2.c3.d4"),
        // A prefix is one of the string, so a1.b2.c3 matches a1.b2.c33 and beats wildcards.
        ("a1.b2.c33.d4.e5", "prefix", "a1.b2.c3"),
        ("a1.b2.c88.d4.e5", "wildcard", "a1.b2..d4.e5"),
        ("a1.b2.c55.d4.e5.f6.g7", "wildcard", "a1.b2..d4.e5..g7"),
        ("a1.b2.c99.d4.e5.f6.g7", "wildcard", "a1.b2..d4.e5..g7"),
        ("a1.b2.c99.d4.e6.f6.g7", "wildcard", "a1.b2..d4..f6.g7"),
        ("a1.b2.c88.d4.e6", "wildcard", "a1.b2..d4."),
        ("a1.b2.c88.d99.e5", "wildcard", "a1.b2...e5"),
        ("a1.b9.c9.d4.e5", "wildcard", "a1...d4.e5"),
        ("a1.b9.c9.d9.e5", "wildcard", "a1....e5"),
        ("a1.b9.c9.d9.e9", "wildcard", "a1...."),
    ] {
        let number = patterns.iter().position(|p| *p == (kind, pattern)).unwrap();
        let callee = if number % 2 == 0 { &mut far } else { &mut near };
        let request = caller.call(&net.uri(procedure), &none(), &json!([procedure]));
        let call = callee.invoked(ids[&(kind, pattern)]);
        assert_eq!(call.args, json!([procedure]));
        callee.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
    }
    for unknown in ["a2.b2", "a1.b2.c2", "a1.b2.c2.d2.e2.f2"] {
        let error = caller.call_fails(&net.uri(unknown), &none(), &json!([]));
        assert_eq!(error, "wamp.error.no_such_procedure", "{unknown}");
    }
}

fn calls_fall_back_when_the_better_registration_goes(net: &mut Net) {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("some.procedure");
    let ids = [
        callee.register(&procedure, &none()),
        callee.register(&net.uri("some.proc"), &matching("prefix")),
        callee.register(&net.uri("some"), &matching("prefix")),
        callee.register(&net.uri("some."), &matching("wildcard")),
    ];
    for id in ids {
        net.settle();
        let request = caller.call(&procedure, &none(), &json!([]));
        let call = callee.invoked(id);
        callee.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
        callee.unregister(id);
    }
    net.settle();
    let error = caller.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
}

fn pattern_invocations_tell_the_procedure(net: &mut Net) {
    let mut caller = net.peer("a", A);
    let mut callee = net.peer("b", B);
    let prefix = callee.register(&net.uri("p"), &matching("prefix"));
    let wildcard = callee.register(&net.uri("w..x"), &matching("wildcard"));
    net.settle();
    for (id, procedure) in [(prefix, "p.q.r"), (prefix, "pq"), (wildcard, "w.1.x")] {
        let procedure = net.uri(procedure);
        let request = caller.call(&procedure, &none(), &json!([]));
        let call = callee.invoked(id);
        assert_eq!(call.details["procedure"], *procedure);
        callee.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
    }
}
