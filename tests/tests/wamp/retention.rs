//! Events kept for later subscribers (`event_retention`).

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use weald_tests::harness::wait::pause;
use weald_tests::wamp::{Got, ID, PATIENCE, Peer, TEXT};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, retained_event_reaches_later_subscriber);
    run.case(Over::OneNode, retained_event_is_for_those_who_ask);
    run.case(Over::OneNode, newest_retained_event_replaces_older_ones);
    run.case(Over::Everything, patterns_get_the_retained_event_of_each_topic);
    run.case(Over::OneNode, retained_event_is_for_its_receivers_only);
    run.case(Over::OneNode, retained_event_with_receivers_hides_no_other);
    run.case(Over::Once, many_retained_events_arrive_once_each);
    run.case(Over::OneNode, retained_event_is_an_event_for_those_who_are_there);
}

fn retain() -> Value {
    json!({ "retain": true })
}

fn get() -> Value {
    json!({ "get_retained": true })
}

/// Subscribes anew until the retained event has arrived from the other node; it does not say when it has.
fn subscribe_until(peer: &mut Peer, topic: &str, options: &Value, events: usize) -> Vec<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let subscription = peer.subscribe(topic, options);
        let mut got = Vec::new();
        let request = peer.next_request();
        peer.send(&json!([34, request, subscription]));
        loop {
            match peer.poll(PATIENCE) {
                Got::Message(message) if message[0] == 36 => got.push(message),
                Got::Message(message) if message[0] == 35 => break,
                other => panic!("{other:?}"),
            }
        }
        if got.len() >= events {
            return got;
        }
        assert!(Instant::now() < end, "{} of {events} retained events", got.len());
        pause(Duration::from_millis(20));
    }
}

fn retained_event_reaches_later_subscriber(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    publisher.publish_with(
        &topic,
        &json!({ "retain": true, "acknowledge": true }),
        &json!(["kept", "\u{0}AQI="]),
        &json!({ "k": [1] }),
    );
    let request = publisher.last_request();
    let publication = publisher.expect(&json!([17, request, ID]))[2].clone();
    let events = subscribe_until(&mut subscriber, &topic, &get(), 1);
    assert_eq!(events.len(), 1);
    let expected =
        json!([36, ID, publication, { "retained": true }, ["kept", "\u{0}AQI="], { "k": [1] }]);
    assert!(weald_tests::wamp::matches(&expected, &events[0]), "{events:?}");
    // The publisher is gone; its event is not.
    publisher.goodbye();
    assert_eq!(subscribe_until(&mut subscriber, &topic, &get(), 1).len(), 1);
}

fn retained_event_is_for_those_who_ask(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    publisher.publish_acked(&topic, &retain(), &json!([1]));
    publisher.publish_acked(&topic, &none(), &json!([2]));
    subscriber.subscribe(&topic, &none());
    subscriber.expect_nothing();
    let mut other = net.peer("other", B);
    let id = other.subscribe(&topic, &get());
    assert_eq!(other.event(id, &json!([1]))["retained"], true);
    other.expect_nothing();
    let id = other.subscribe(&net.uri("never"), &get());
    assert!(id > 0);
    other.expect_nothing();
}

fn newest_retained_event_replaces_older_ones(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    for k in 0..5 {
        publisher.publish_acked(&topic, &retain(), &json!([k]));
    }
    let id = subscriber.subscribe(&topic, &get());
    subscriber.event(id, &json!([4]));
    subscriber.expect_nothing();
}

fn patterns_get_the_retained_event_of_each_topic(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topics = ["r.one", "r.two", "r.three.below"].map(|topic| net.uri(topic));
    for topic in &topics {
        publisher.publish_acked(topic, &retain(), &json!(["old"]));
        publisher.publish_acked(topic, &retain(), &json!([topic]));
    }
    let prefix = json!({ "match": "prefix", "get_retained": true });
    let mut events = subscribe_until(&mut subscriber, &net.uri("r."), &prefix, 3);
    events.sort_by_key(|event| event[3]["topic"].to_string());
    let mut expected = topics.to_vec();
    expected.sort();
    assert_eq!(events.len(), 3);
    for (event, topic) in events.iter().zip(&expected) {
        let pattern = json!([36, ID, ID, { "retained": true, "topic": topic }, [TEXT]]);
        assert!(weald_tests::wamp::matches(&pattern, event), "{event}");
    }
    let wildcard = json!({ "match": "wildcard", "get_retained": true });
    let events = subscribe_until(&mut subscriber, &net.uri("r."), &wildcard, 2);
    assert_eq!(events.len(), 2, "{events:?}");
    let events = subscribe_until(&mut subscriber, &topics[0], &get(), 1);
    assert_eq!(events.len(), 1, "{events:?}");
}

fn retained_event_is_for_its_receivers_only(net: &mut Net) {
    let (mut publisher, mut one) = net.pair();
    let mut two = net.peer("two", A);
    for (key, value) in [
        ("eligible", json!([one.session])),
        ("exclude", json!([two.session])),
        ("eligible_authid", json!([one.welcome["authid"]])),
        ("exclude_authid", json!([two.welcome["authid"]])),
    ] {
        let topic = net.uri(key);
        let options = json!({ "retain": true, key: value });
        publisher.publish_acked(&topic, &options, &json!([key]));
        let id = one.subscribe(&topic, &get());
        one.event(id, &json!([key]));
        two.subscribe(&topic, &get());
        two.expect_nothing();
    }
    let topic = net.uri("roles");
    let options = json!({ "retain": true, "exclude_authrole": ["anonymous"] });
    publisher.publish_acked(&topic, &options, &json!([]));
    one.subscribe(&topic, &get());
    one.expect_nothing();
}

fn retained_event_with_receivers_hides_no_other(net: &mut Net) {
    let (mut publisher, mut one) = net.pair();
    let mut two = net.peer("two", A);
    let topic = net.uri("topic");
    publisher.publish_acked(&topic, &retain(), &json!(["all"]));
    let options = json!({ "retain": true, "eligible": [one.session] });
    publisher.publish_acked(&topic, &options, &json!(["one"]));
    let id = one.subscribe(&topic, &get());
    one.event(id, &json!(["one"]));
    two.subscribe(&topic, &get());
    two.event(id, &json!(["all"]));
    one.expect_nothing();
    two.expect_nothing();
}

fn many_retained_events_arrive_once_each(net: &mut Net) {
    const EVENTS: usize = 350;
    let (mut publisher, mut subscriber) = net.pair();
    for k in 0..EVENTS {
        publisher.publish_acked(&net.uri(&format!("many.t{k}")), &retain(), &json!([k]));
    }
    let prefix = json!({ "match": "prefix", "get_retained": true });
    let id = subscriber.subscribe(&net.uri("many"), &prefix);
    let mut got: Vec<u64> = (0..EVENTS)
        .map(|_| {
            subscriber.expect(&json!([36, id, ID, {}, [weald_tests::wamp::ANY]]))[4][0]
                .as_u64()
                .unwrap()
        })
        .collect();
    got.sort_unstable();
    assert!(got.iter().copied().eq(0..EVENTS as u64), "{got:?}");
    subscriber.expect_nothing();
}

fn retained_event_is_an_event_for_those_who_are_there(net: &mut Net) {
    let (mut publisher, mut subscriber) = net.pair();
    let topic = net.uri("topic");
    let id = subscriber.subscribe(&topic, &get());
    publisher.publish(&topic, &retain(), &json!([1]));
    assert_ne!(subscriber.event(id, &json!([1]))["retained"], true);
    subscriber.expect_nothing();
}
