//! SUBSCRIBE, PUBLISH, EVENT.

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{ABSENT, ID};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, event_reaches_subscribers_with_its_payload);
    run.case(Over::Everything, event_without_payload_has_none);
    run.case(Over::Everything, publish_is_acknowledged_when_asked_only);
    run.case(Over::Everything, publications_have_distinct_ids);
    run.case(Over::Everything, subscribe_again_gives_the_same_subscription);
    run.case(Over::Everything, subscription_of_one_topic_is_shared);
    run.case(Over::Everything, unsubscribe_ends_events_of_that_session_only);
    run.case(Over::OneNode, unsubscribe_unknown_or_foreign_fails);
    run.case(Over::Everything, publisher_is_excluded_unless_asked_otherwise);
    run.case(Over::Everything, events_of_one_publisher_arrive_in_order);
    run.case(Over::OneNode, subscribed_precedes_events);
    run.case(Over::Everything, session_with_many_matching_subscriptions_gets_one_event_each);
    run.case(Over::Everything, publisher_is_disclosed_when_asked_only);
    run.case(Over::OneNode, invalid_topics_are_refused);
    run.case(Over::OneNode, invalid_topic_without_acknowledgement_is_dropped_silently);
    run.case(Over::OneNode, publish_to_reserved_topic_is_refused);
    run.case(Over::OneNode, unknown_options_are_ignored);
}

fn event_reaches_subscribers_with_its_payload(net: &mut Net) {
    let (mut publisher, mut far) = net.pair();
    let mut near = net.peer("near", A);
    let topic = net.uri("topic");
    let [here, there] = [near.subscribe(&topic, &none()), far.subscribe(&topic, &none())];
    net.settle();
    let (args, kwargs) = (json!(["a", 1, [true, null]]), json!({ "k": { "l": -1 } }));
    publisher.publish_with(&topic, &json!({ "acknowledge": true }), &args, &kwargs);
    let request = publisher.last_request();
    let publication = publisher.expect(&json!([17, request, ID]))[2].clone();
    near.expect(&json!([36, here, publication, {}, args, kwargs]));
    far.expect(&json!([36, there, publication, {}, args, kwargs]));
}

fn event_without_payload_has_none(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &none(), &Value::Null);
    publisher.publish(&topic, &none(), &json!([]));
    publisher.publish_with(&topic, &none(), &json!([]), &json!({ "only": "named" }));
    subscriber.expect(&json!([36, subscription, ID, {}]));
    subscriber.expect(&json!([36, subscription, ID, {}]));
    subscriber.expect(&json!([36, subscription, ID, {}, [], { "only": "named" }]));
}

fn publish_is_acknowledged_when_asked_only(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &none(), &json!([1]));
    publisher.publish(&topic, &json!({ "acknowledge": false }), &json!([2]));
    publisher.publish_acked(&topic, &none(), &json!([3]));
    for k in 1..=3 {
        subscriber.event(subscription, &json!([k]));
    }
    // Also where nobody listens.
    publisher.publish_acked(&net.uri("silence"), &none(), &Value::Null);
    publisher.expect_nothing();
}

fn publications_have_distinct_ids(net: &mut Net) {
    let mut publisher = net.peer("a", A);
    let topic = net.uri("topic");
    let mut ids: Vec<_> =
        (0..20).map(|k| publisher.publish_acked(&topic, &none(), &json!([k]))).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

fn subscribe_again_gives_the_same_subscription(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let first = subscriber.subscribe(&topic, &none());
    let again = subscriber.subscribe(&topic, &json!({ "match": "exact" }));
    assert_eq!(first, again);
    net.settle();
    publisher.publish(&topic, &none(), &json!([1]));
    publisher.publish(&topic, &none(), &json!([2]));
    subscriber.event(first, &json!([1]));
    subscriber.event(first, &json!([2]));
}

fn subscription_of_one_topic_is_shared(net: &mut Net) {
    let (mut a, mut b) = net.pair();
    let topic = net.uri("topic");
    for options in [none(), json!({ "match": "prefix" }), json!({ "match": "wildcard" })] {
        assert_eq!(a.subscribe(&topic, &options), b.subscribe(&topic, &options));
    }
    let other = a.subscribe(&net.uri("other"), &none());
    assert_ne!(other, a.subscribe(&topic, &none()));
}

fn unsubscribe_ends_events_of_that_session_only(net: &mut Net) {
    let (mut publisher, mut stays) = net.pair();
    let mut goes = net.peer("goes", B);
    let (topic, marker) = (net.uri("topic"), net.uri("marker"));
    let subscription = stays.subscribe(&topic, &none());
    assert_eq!(goes.subscribe(&topic, &none()), subscription);
    let marked = goes.subscribe(&marker, &none());
    net.settle();
    publisher.publish(&topic, &none(), &json!([1]));
    stays.event(subscription, &json!([1]));
    goes.event(subscription, &json!([1]));
    goes.unsubscribe(subscription);
    publisher.publish(&topic, &none(), &json!([2]));
    publisher.publish(&marker, &none(), &json!([3]));
    stays.event(subscription, &json!([2]));
    goes.event(marked, &json!([3]));
}

fn unsubscribe_unknown_or_foreign_fails(net: &mut Net) {
    let (mut publisher, mut owner) = net.pair();
    let topic = net.uri("topic");
    let subscription = owner.subscribe(&topic, &none());
    net.settle();
    for id in [subscription, 123_456_789] {
        let request = publisher.next_request();
        publisher.send(&json!([34, request, id]));
        assert_eq!(publisher.refusal(34, request), "wamp.error.no_such_subscription");
    }
    publisher.publish(&topic, &none(), &json!(["still"]));
    owner.event(subscription, &json!(["still"]));
    owner.unsubscribe(subscription);
    let request = owner.next_request();
    owner.send(&json!([34, request, subscription]));
    assert_eq!(owner.refusal(34, request), "wamp.error.no_such_subscription");
}

fn publisher_is_excluded_unless_asked_otherwise(net: &mut Net) {
    let (mut publisher, mut other) = net.pair();
    let topic = net.uri("topic");
    let subscription = publisher.subscribe(&topic, &none());
    other.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &none(), &json!([1]));
    publisher.publish(&topic, &json!({ "exclude_me": true }), &json!([2]));
    publisher.publish(&topic, &json!({ "exclude_me": false }), &json!([3]));
    publisher.event(subscription, &json!([3]));
    for k in 1..=3 {
        other.event(subscription, &json!([k]));
    }
}

fn events_of_one_publisher_arrive_in_order(net: &mut Net) {
    const EVENTS: u64 = 200;
    let (mut publisher, mut subscriber) = net.pair();
    let topics = [net.uri("one"), net.uri("two"), net.uri("three")];
    for topic in &topics {
        subscriber.subscribe(topic, &none());
    }
    net.settle();
    let messages: Vec<_> = (0..EVENTS)
        .map(|k| {
            let topic = &topics[usize::try_from(k % 3).unwrap()];
            json!([16, publisher.next_request(), {}, topic, [k]])
        })
        .collect();
    publisher.send_together(&messages);
    for k in 0..EVENTS {
        subscriber.expect(&json!([36, ID, ID, {}, [k]]));
    }
}

fn subscribed_precedes_events(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    // Published all the time; whichever is the first event, SUBSCRIBED came before it.
    let request = subscriber.next_request();
    for k in 0..50 {
        publisher.publish(&topic, &none(), &json!([k]));
        if k == 10 {
            subscriber.send(&json!([32, request, {}, topic]));
        }
    }
    let subscribed = subscriber.expect(&json!([33, request, ID]));
    publisher.publish(&topic, &none(), &json!(["last"]));
    loop {
        let event =
            subscriber.expect(&json!([36, subscribed[2], ID, {}, [weald_tests::wamp::ANY]]));
        if event[4][0] == "last" {
            break;
        }
    }
}

fn session_with_many_matching_subscriptions_gets_one_event_each(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("some.topic");
    let pattern = net.uri("some.");
    let ids = [
        subscriber.subscribe(&topic, &none()),
        subscriber.subscribe(&net.uri("some"), &json!({ "match": "prefix" })),
        subscriber.subscribe(&pattern, &json!({ "match": "wildcard" })),
    ];
    net.settle();
    let publication = publisher.publish_acked(&topic, &none(), &json!(["x"]));
    let expected = ids.map(|id| json!([36, id, publication, {}, ["x"]]));
    let events = subscriber.expect_all(&expected);
    for event in &events[1..] {
        assert_eq!(event[3]["topic"], *topic, "patterns tell the topic");
    }
    subscriber.expect_nothing();
}

fn publisher_is_disclosed_when_asked_only(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    publisher.publish(&topic, &none(), &json!([1]));
    publisher.publish(&topic, &json!({ "disclose_me": false }), &json!([2]));
    publisher.publish(&topic, &json!({ "disclose_me": true }), &json!([3]));
    let hidden = json!({
        "publisher": ABSENT, "publisher_authid": ABSENT, "publisher_authrole": ABSENT,
    });
    subscriber.expect(&json!([36, subscription, ID, hidden, [1]]));
    subscriber.expect(&json!([36, subscription, ID, hidden, [2]]));
    let shown = json!({
        "publisher": publisher.session,
        "publisher_authid": publisher.welcome["authid"],
        "publisher_authrole": "anonymous",
    });
    subscriber.expect(&json!([36, subscription, ID, shown, [3]]));
}

const INVALID: [&str; 7] = ["", ".", "com..bad", "com.bad.", ".com.bad", "com.b ad", "com.b#ad"];

fn invalid_topics_are_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for topic in INVALID {
        assert_eq!(peer.subscribe_fails(topic, &none()), "wamp.error.invalid_uri", "{topic:?}");
        assert_eq!(peer.publish_fails(topic, &none()), "wamp.error.invalid_uri", "{topic:?}");
    }
    for pattern in ["com.b ad", "com.b#ad."] {
        for kind in ["prefix", "wildcard"] {
            let error = peer.subscribe_fails(pattern, &json!({ "match": kind }));
            assert_eq!(error, "wamp.error.invalid_uri", "{pattern:?}");
        }
    }
    let error = peer.subscribe_fails(".com..bad", &json!({ "match": "prefix" }));
    assert_eq!(error, "wamp.error.invalid_uri");
}

fn invalid_topic_without_acknowledgement_is_dropped_silently(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for topic in INVALID {
        peer.publish(topic, &none(), &json!([1]));
    }
    peer.publish("wamp.session.on_join", &none(), &json!([1]));
    peer.expect_nothing();
}

fn publish_to_reserved_topic_is_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let refused = ["wamp.error.invalid_uri", "wamp.error.not_authorized"];
    for topic in ["wamp.session.on_join", "wamp.x", "wamp"] {
        let error = peer.publish_fails(topic, &none());
        assert!(refused.contains(&error.as_str()), "{topic}: {error}");
    }
    // It is the first component that is reserved.
    peer.publish_acked("wampx.is.free", &none(), &Value::Null);
    peer.subscribe("wamp.session.on_join", &none());
}

fn unknown_options_are_ignored(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let odd = json!({ "x_private": [1, { "a": null }], "_mine": "yes", "future": 1.5 });
    let subscription = subscriber.subscribe(&topic, &odd);
    net.settle();
    publisher.publish(&topic, &odd, &json!([1]));
    let details = subscriber.event(subscription, &json!([1]));
    assert!(details["x_private"].is_null(), "options are not for subscribers: {details}");
}
