//! Events of the past (`event_history`).

use crate::net::{A, Net, none};
use crate::nodes::{KEPT, TRUST_LEVEL};
use crate::run::{MOMENT, Over, Run};
use serde_json::{Value, json};
use std::time::Instant;
use weald_tests::harness::wait::pause;
use weald_tests::wamp::{ID, PATIENCE, Peer, TEXT, matches};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, history_of_a_topic_without_one_is_refused);
    run.case(Over::Everything, events_of_the_past_are_told_on_each_node);
    run.case(Over::OneNode, history_is_chosen_from_by_what_is_asked_for);
    run.case(Over::OneNode, history_keeps_nothing_for_chosen_sessions);
}

/// The id of a subscription to what the nodes keep: of all runs, so that questions say which topic. The session that was on it
/// is gone, and with it the events of other runs.
fn subscription(net: &Net) -> u64 {
    let pattern = format!("com..{KEPT}");
    net.peer("subscriber", A).subscribe(&pattern, &json!({ "match": "wildcard" }))
}

fn kept(net: &Net) -> String {
    net.uri(KEPT)
}

/// The first arguments of the events that a question yields.
fn told(asker: &mut Peer, subscription: u64, question: &Value) -> Vec<Value> {
    let events = asker.ask("wamp.subscription.get_events", &json!([subscription]), question);
    let events = events.as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["args"][0].clone()).collect()
}

fn events_of_the_past_are_told_on_each_node(net: &mut Net) {
    let (mut publisher, mut asker) = net.pair();
    let topic = kept(net);
    let octets = "\u{0}AQI=";
    for k in 0..3 {
        publisher.publish_with(
            &topic,
            &json!({ "acknowledge": true, "disclose_me": true }),
            &json!([k, octets]),
            &json!({ "k": [k] }),
        );
        let request = publisher.last_request();
        publisher.expect(&json!([17, request, ID]));
    }
    // Nobody was subscribed when they came.
    let subscription = subscription(net);
    let question = json!({ "topic": topic });
    let end = Instant::now() + PATIENCE;
    let events = loop {
        let events = asker.ask("wamp.subscription.get_events", &json!([subscription]), &question);
        if events.as_array().is_some_and(|events| events.len() == 3) {
            break events;
        }
        assert!(Instant::now() < end, "{events}");
        pause(MOMENT / 10);
    };
    let expected = |k: u64| {
        json!({
            "timestamp": TEXT, "subscription": subscription, "publication": ID,
            "details": {
                "topic": topic, "publisher": publisher.session, "trustlevel": TRUST_LEVEL,
            },
            "args": [k, octets], "kwargs": { "k": [k] },
        })
    };
    for (k, event) in (0..).zip(events.as_array().unwrap()) {
        assert!(matches(&expected(k), event), "{event}");
    }
}

fn history_is_chosen_from_by_what_is_asked_for(net: &mut Net) {
    let (mut peer, mut asker) = net.pair();
    let (topic, other) =
        (kept(net), format!("com.{}x.{KEPT}", net.uri("").split('.').nth(1).unwrap()));
    let ids: Vec<u64> = (0..4).map(|k| peer.publish_acked(&topic, &none(), &json!([k]))).collect();
    peer.publish_acked(&other, &none(), &json!(["other"]));
    let subscription = subscription(net);
    for (more, expected) in [
        (json!({}), json!([0, 1, 2, 3])),
        (json!({ "limit": 2 }), json!([0, 1])),
        (json!({ "reverse": true, "limit": 3 }), json!([3, 2, 1])),
        (json!({ "from_publication": ids[1] }), json!([1, 2, 3])),
        (json!({ "after_publication": ids[1], "until_publication": ids[2] }), json!([2])),
        (json!({ "before_publication": ids[2] }), json!([0, 1])),
        (json!({ "before_time": "2020-01-01T00:00:00Z" }), json!([])),
        (json!({ "from_time": "2020-01-01T00:00:00Z" }), json!([0, 1, 2, 3])),
    ] {
        let mut question = more.clone();
        question["topic"] = topic.as_str().into();
        assert_eq!(json!(told(&mut asker, subscription, &question)), expected, "{more}");
    }
}

fn history_keeps_nothing_for_chosen_sessions(net: &mut Net) {
    let (mut peer, mut asker) = net.pair();
    let topic = kept(net);
    peer.publish_acked(&topic, &json!({ "eligible": [4711] }), &json!(["by id"]));
    peer.publish_acked(&topic, &json!({ "exclude": [4711] }), &json!(["by id"]));
    peer.publish_acked(&topic, &json!({ "eligible_authrole": ["admin"] }), &json!(["admin"]));
    peer.publish_acked(&topic, &json!({ "exclude_authrole": ["admin"] }), &json!(["all"]));
    let subscription = subscription(net);
    let question = json!({ "topic": topic });
    assert_eq!(told(&mut asker, subscription, &question), ["all"]);
}

fn history_of_a_topic_without_one_is_refused(net: &mut Net) {
    let (mut asker, mut subscriber) = net.pair();
    let topic = net.uri("forgotten");
    let subscription = subscriber.subscribe(&topic, &none());
    net.settle();
    subscriber.publish_acked(&topic, &none(), &json!([1]));
    let request = asker.call("wamp.subscription.get_events", &none(), &json!([subscription]));
    let answer = asker.receive();
    // No events, or none that are kept: not somebody else's.
    let fit = answer == json!([50, request, {}]) || answer == json!([50, request, {}, []]);
    let refused = answer[0] == 8 && answer[4] == "wamp.error.no_such_subscription";
    assert!(fit || refused, "{answer}");
}
