//! Keys of `[realm]`: what a realm allows, keeps and tells.

use crate::net::{A, Net, none};
use crate::nodes::{Own, ways};
use crate::run::Run;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use weald_tests::harness::wait::wait_until;
use weald_tests::wamp::{ABSENT, Got, ID, PATIENCE, Peer, matches};

pub(crate) fn add(run: &mut Run) {
    run.alone(features_that_are_off_are_not_announced);
    run.alone(trust_level_and_disclosure_are_what_the_realm_says);
    run.alone(history_is_bounded_by_number_size_and_age);
    run.alone(retained_events_are_bounded_by_topics_size_and_age);
    run.alone(calls_have_the_time_that_the_realm_gives_them);
    run.alone(strict_uris_and_loose_request_ids_are_chosen);
    run.alone(sessions_have_no_more_than_they_may);
}

/// Features that depend on the configuration, as a node announces them.
fn announced(net: &Net) -> Value {
    let roles = net.peer("a", A).welcome["roles"].clone();
    let is_on = |role: &str, feature: &str| roles[role]["features"][feature] == true;
    json!({
        "history": is_on("broker", "event_history"),
        "retention": is_on("broker", "event_retention"),
        "trust": [is_on("broker", "publication_trustlevels"), is_on("dealer", "call_trustlevels")],
        "identity":
            [is_on("broker", "publisher_identification"), is_on("dealer", "caller_identification")],
        // Whatever the configuration says.
        "always": is_on("broker", "publisher_exclusion") && is_on("dealer", "call_timeout"),
    })
}

fn features_that_are_off_are_not_announced(_: &Run) -> String {
    let mut own = Own::start("announced", &[]);
    let default = json!({
        "history": false, "retention": true, "trust": [false, false], "identity": [true, true],
        "always": true,
    });
    for way in ways() {
        let net = own.net(way);
        assert_eq!(announced(&net), default, "{way:?}");
        // Asked for all the same, there is none.
        let mut peer = net.peer("a", A);
        let subscription = peer.subscribe(&net.uri("topic"), &none());
        let error =
            peer.call_fails("wamp.subscription.get_events", &none(), &json!([subscription]));
        assert_eq!(error, "wamp.error.no_such_subscription");
    }
    for (keys, changed) in [
        (&[("realm.history", "[\"com.example.a\"]")][..], json!({ "history": true })),
        (&[("realm.retained_topics", "0")], json!({ "retention": false })),
        (&[("realm.trust_level", "0")], json!({ "trust": [true, true] })),
        (&[("realm.disclosure", "\"always\"")], json!({})),
        (&[("realm.disclosure", "\"never\"")], json!({ "identity": [false, false] })),
    ] {
        own.run_with(keys);
        let mut expected = default.clone();
        for (key, value) in changed.as_object().unwrap() {
            expected[key] = value.clone();
        }
        assert_eq!(announced(&own.plain()), expected, "{keys:?}");
    }
    own.finish();
    "6 configurations".to_owned()
}

/// Details of an invocation and an event from a caller and publisher that asks for this.
fn details_of(net: &Net, disclose_me: &Value) -> (u64, [Value; 2]) {
    let (mut caller, mut callee) = net.pair();
    let (procedure, topic) = (net.uri("procedure"), net.uri("topic"));
    let registration = callee.register(&procedure, &none());
    let subscription = callee.subscribe(&topic, &none());
    let request = caller.call(&procedure, disclose_me, &json!([]));
    let call = callee.invoked(registration);
    callee.yields(call.request, &none(), &json!([]));
    caller.result(request, &json!([]));
    caller.publish(&topic, disclose_me, &json!([]));
    let event = callee.event(subscription, &json!([]));
    (caller.session, [call.details, event])
}

fn trust_level_and_disclosure_are_what_the_realm_says(_: &Run) -> String {
    let mut own =
        Own::start("always", &[("realm.disclosure", "\"always\""), ("realm.trust_level", "17")]);
    for way in ways() {
        let (session, [call, event]) = details_of(&own.net(way), &none());
        assert_eq!((&call["caller"], &call["trustlevel"]), (&json!(session), &json!(17)));
        assert_eq!((&event["publisher"], &event["trustlevel"]), (&json!(session), &json!(17)));
    }
    own.run_with(&[("realm.disclosure", "\"never\"")]);
    for way in ways() {
        let net = own.net(way);
        let (_, [call, event]) = details_of(&net, &none());
        assert!(matches(&json!({ "caller": ABSENT, "trustlevel": ABSENT }), &call), "{call}");
        assert!(matches(&json!({ "publisher": ABSENT, "trustlevel": ABSENT }), &event), "{event}");
        let (mut caller, mut callee) = net.pair();
        let (wants, refused) =
            (json!({ "disclose_me": true }), "wamp.error.option_disallowed.disclose_me");
        let procedure = net.uri("other");
        callee.register(&procedure, &none());
        assert_eq!(caller.call_fails(&procedure, &wants, &json!([])), refused);
        assert_eq!(caller.publish_fails(&net.uri("topic"), &wants), refused);
    }
    own.finish();
    "12 ways".to_owned()
}

/// The first arguments of the events that are kept for a topic, asked by somebody who did not publish them.
fn kept(asker: &mut Peer, subscription: u64) -> Vec<Value> {
    let events = asker.ask("wamp.subscription.get_events", &json!([subscription]), &none());
    let events = events.as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["args"][0].clone()).collect()
}

fn history_is_bounded_by_number_size_and_age(_: &Run) -> String {
    let history = ("realm.history", "[\"com.example.a\", \"prefix:com.example.p.\"]");
    let mut own = Own::start("history", &[history, ("realm.history_events", "3")]);
    let mut subscriptions = Vec::new();
    for way in ways() {
        let net = own.net(way);
        let (mut publisher, mut asker) = net.pair();
        let exact = net.peer("gone", A).subscribe("com.example.a", &none());
        let prefix = net.peer("gone", A).subscribe("com.example.p.", &json!({ "match": "prefix" }));
        for k in 0..5 {
            publisher.publish_acked("com.example.a", &none(), &json!([k]));
            publisher.publish_acked(&format!("com.example.p.{k}"), &none(), &json!([k]));
            publisher.publish_acked("com.example.b", &none(), &json!([k]));
        }
        assert_eq!(kept(&mut asker, exact), [2, 3, 4], "{way:?}");
        assert_eq!(kept(&mut asker, prefix), [2, 3, 4], "{way:?}");
        subscriptions.push(exact);
    }
    // Ids of subscriptions are the same for all, and after a restart.
    let exact = subscriptions[0];
    assert!(subscriptions.iter().all(|id| *id == exact));

    own.run_with(&[history, ("realm.history_size", "\"4KiB\"")]);
    let (mut publisher, mut asker) = own.plain().pair();
    for k in 0..5 {
        let long = "x".repeat(1500);
        publisher.publish_acked("com.example.a", &none(), &json!([k, long]));
    }
    assert_eq!(kept(&mut asker, exact), [3, 4], "4 KiB hold two of them");

    own.run_with(&[history, ("realm.history_age", "\"1s\"")]);
    let (mut publisher, mut asker) = own.plain().pair();
    publisher.publish_acked("com.example.a", &none(), &json!(["old"]));
    wait_until(PATIENCE, "the end of an old event", || {
        let left = kept(&mut asker, exact);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    own.finish();
    "number, size, age".to_owned()
}

/// What a new subscriber is told of a topic: its retained event, if there is one.
fn retained(net: &Net, topic: &str) -> Option<Value> {
    let mut peer = net.peer("late", A);
    let request = peer.next_request();
    peer.send(&json!([32, request, { "get_retained": true }, topic]));
    peer.expect(&json!([33, request, ID]));
    let request = peer.next_request();
    // Whatever is kept is sent before the answer to the next request.
    peer.send(&json!([34, request, 4711]));
    match peer.receive() {
        event if event[0] == 36 => Some(event[4].clone()),
        answer => {
            assert_eq!(answer[0], 8, "{answer}");
            None
        }
    }
}

fn retained_events_are_bounded_by_topics_size_and_age(_: &Run) -> String {
    let mut own = Own::start(
        "retained",
        &[("realm.retained_topics", "2"), ("realm.retained_event_size", "\"1KiB\"")],
    );
    let keep = json!({ "retain": true });
    for (number, way) in ways().into_iter().enumerate() {
        let net = own.net(way);
        let mut publisher = net.peer("publisher", A);
        // The topics are those of all ways.
        for topic in ["com.example.a", "com.example.b", "com.example.c"] {
            publisher.publish_acked(topic, &keep, &json!([number]));
        }
        publisher.publish_acked("com.example.a", &keep, &json!(["x".repeat(2000)]));
        assert_eq!(retained(&net, "com.example.a"), Some(json!([number])), "{way:?}");
        assert_eq!(retained(&net, "com.example.b"), Some(json!([number])), "{way:?}");
        assert_eq!(retained(&net, "com.example.c"), None, "{way:?}");
    }
    own.run_with(&[("realm.retained_topics", "0")]);
    let net = own.plain();
    net.peer("publisher", A).publish_acked("com.example.d", &keep, &json!([1]));
    assert_eq!(retained(&net, "com.example.d"), None);

    own.run_with(&[("realm.retained_age", "\"2s\"")]);
    let net = own.plain();
    let mut publisher = net.peer("publisher", A);
    let end = Instant::now() + PATIENCE;
    // A machine that sleeps between the two lets it grow old at once.
    loop {
        publisher.publish_acked("com.example.e", &keep, &json!([1]));
        if retained(&net, "com.example.e").is_some() {
            break;
        }
        assert!(Instant::now() < end, "an event is not kept at all");
    }
    wait_until(PATIENCE, "the end of an old event", || match retained(&net, "com.example.e") {
        None => Ok(()),
        Some(event) => Err(event),
    });
    own.finish();
    "topics, size, age".to_owned()
}

/// How a call ends that nobody answers.
fn unanswered(net: &Net, options: &Value) -> Value {
    let (mut caller, mut callee) = net.pair();
    let procedure = net.uri("procedure");
    // A callee that says it keeps the time itself, and does not.
    let registration = callee.register(&procedure, &json!({ "forward_timeout": true }));
    let request = caller.call(&procedure, options, &json!([]));
    let call = callee.invoked(registration);
    let refused = caller.refusal(48, request);
    assert_eq!(refused, "wamp.error.timeout");
    callee.interrupted(call.request);
    call.details["timeout"].clone()
}

fn calls_have_the_time_that_the_realm_gives_them(_: &Run) -> String {
    let mut own = Own::start("times", &[("realm.call_timeout_max", "\"300ms\"")]);
    for way in ways() {
        let net = own.net(way);
        assert_eq!(unanswered(&net, &none()), 300, "{way:?}");
        assert_eq!(unanswered(&net, &json!({ "timeout": 3_600_000 })), 300, "{way:?}");
        assert_eq!(unanswered(&net, &json!({ "timeout": 50 })), 50, "{way:?}");
    }
    own.run_with(&[("realm.call_timeout", "\"300ms\"")]);
    for way in ways() {
        let net = own.net(way);
        let (mut caller, mut callee) = net.pair();
        let procedure = net.uri("procedure");
        let registration = callee.register(&procedure, &none());
        let patient = caller.call(&procedure, &json!({ "timeout": 3_600_000 }), &json!([]));
        let first = callee.invoked(registration);
        let request = caller.call(&procedure, &none(), &json!([]));
        let second = callee.invoked(registration);
        assert_eq!(caller.refusal(48, request), "wamp.error.timeout");
        callee.interrupted(second.request);
        assert_eq!(caller.poll(Duration::from_millis(600)), Got::Nothing);
        callee.yields(first.request, &none(), &json!([1]));
        caller.result(patient, &json!([1]));
    }
    own.finish();
    "12 ways".to_owned()
}

fn strict_uris_and_loose_request_ids_are_chosen(_: &Run) -> String {
    let own = Own::start(
        "strict",
        &[("realm.uri_rules", "\"strict\""), ("realm.strict_request_ids", "false")],
    );
    for way in ways() {
        let net = own.net(way);
        let mut peer = net.peer("a", A);
        let invalid = "wamp.error.invalid_uri";
        for uri in ["com.Example.a", "com.example.a-b", "com.exämple"] {
            assert_eq!(peer.subscribe_fails(uri, &none()), invalid, "{uri}");
            assert_eq!(peer.register_fails(uri, &none()), invalid, "{uri}");
            assert_eq!(peer.publish_fails(uri, &none()), invalid, "{uri}");
            assert_eq!(peer.call_fails(uri, &none(), &json!([])), invalid, "{uri}");
            let error =
                peer.call_fails("wamp.session.add_testament", &none(), &json!([uri, [], {}]));
            assert_eq!(error, invalid, "{uri}");
        }
        for request in [4711, 7, 7, 9_007_199_254_740_992_u64] {
            peer.send(&json!([32, request, {}, net.uri("topic")]));
            peer.expect(&json!([33, request, ID]));
        }
    }
    own.finish();
    "6 ways".to_owned()
}

fn sessions_have_no_more_than_they_may(_: &Run) -> String {
    let own = Own::start(
        "session",
        &[
            ("realm.session_subscriptions", "2"),
            ("realm.session_registrations", "2"),
            ("realm.session_calls", "2"),
            ("realm.session_testaments", "2"),
        ],
    );
    let over = "weald.error.limit_exceeded";
    for way in ways() {
        let net = own.net(way);
        let (mut caller, mut peer) = net.pair();
        let topics: Vec<String> = (0..3).map(|k| net.uri(&format!("t{k}"))).collect();
        let subscription = peer.subscribe(&topics[0], &none());
        peer.subscribe(&topics[1], &none());
        assert_eq!(peer.subscribe_fails(&topics[2], &none()), over);
        peer.unsubscribe(subscription);
        peer.subscribe(&topics[2], &none());

        let first = peer.register(&topics[0], &none());
        let second = peer.register(&topics[1], &none());
        assert_eq!(peer.register_fails(&topics[2], &none()), over);
        peer.unregister(second);
        peer.register(&topics[2], &none());

        let calls = [0, 1].map(|_| caller.call(&topics[0], &none(), &json!([])));
        let invoked = [0, 1].map(|_| peer.invoked(first));
        assert_eq!(caller.call_fails(&topics[0], &none(), &json!([])), over);
        assert_eq!(caller.call_fails("wamp.session.count", &none(), &json!([])), over);
        peer.yields(invoked[0].request, &none(), &json!([]));
        caller.result(calls[0], &json!([]));
        let again = caller.call(&topics[0], &none(), &json!([]));
        peer.invoked(first);
        caller.cancel(again, "skip");
        assert_eq!(caller.refusal(48, again), "wamp.error.canceled");

        let testament = json!([topics[0], [], {}]);
        for _ in 0..2 {
            peer.ask("wamp.session.add_testament", &testament, &none());
        }
        let error = peer.call_fails("wamp.session.add_testament", &none(), &testament);
        assert_eq!(error, over);
    }
    own.finish();
    "6 ways".to_owned()
}
