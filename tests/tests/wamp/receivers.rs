//! Black- and whitelists of receivers (`subscriber_blackwhite_listing`).

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::Peer;

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, eligible_sessions_alone_get_the_event);
    run.case(Over::Everything, excluded_sessions_do_not_get_the_event);
    run.case(Over::Everything, lists_of_authids_choose_receivers);
    run.case(Over::Everything, lists_of_authroles_choose_receivers);
    run.case(Over::Everything, eligible_but_empty_is_nobody);
    run.case(Over::Everything, receivers_must_pass_every_list);
    run.case(Over::Everything, publisher_may_be_eligible_only_without_exclude_me);
}

/// Three subscribers of a topic, the second one on the side of the publisher, and their subscription.
fn audience(net: &mut Net) -> (Peer, [Peer; 3], u64, String) {
    let publisher = net.peer("publisher", A);
    let topic = net.uri("topic");
    let mut subscription = 0;
    let subscribers = [("one", B), ("two", A), ("three", B)].map(|(name, side)| {
        let mut peer = net.peer(name, side);
        subscription = peer.subscribe(&topic, &none());
        peer
    });
    net.settle();
    (publisher, subscribers, subscription, topic)
}

/// Who of three gets an event with these options: an unrestricted one follows, which all get.
fn receivers(
    publisher: &mut Peer,
    all: &mut [Peer; 3],
    subscription: u64,
    topic: &str,
    options: &Value,
) -> Vec<usize> {
    publisher.publish(topic, options, &json!(["some"]));
    publisher.publish(topic, &none(), &json!(["all"]));
    let mut got = Vec::new();
    for (number, peer) in all.iter_mut().enumerate() {
        let event = peer.receive();
        assert_eq!((&event[0], &event[1]), (&json!(36), &json!(subscription)));
        if event[4][0] == "some" {
            got.push(number);
            peer.event(subscription, &json!(["all"]));
        }
    }
    got
}

fn eligible_sessions_alone_get_the_event(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    let options = json!({ "eligible": [all[0].session, all[1].session, 4711] });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [0, 1]);
}

fn excluded_sessions_do_not_get_the_event(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    let options = json!({ "exclude": [all[0].session, 4711] });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [1, 2]);
    let options = json!({ "exclude": [] });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [0, 1, 2]);
}

fn lists_of_authids_choose_receivers(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    let authids: Vec<Value> = all.iter().map(|peer| peer.welcome["authid"].clone()).collect();
    let options = json!({ "eligible_authid": [authids[2], "nobody"] });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [2]);
    let options = json!({ "exclude_authid": [authids[2], authids[1]] });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [0]);
}

fn lists_of_authroles_choose_receivers(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    for (options, expected) in [
        (json!({ "eligible_authrole": ["anonymous"] }), &[0, 1, 2][..]),
        (json!({ "eligible_authrole": ["admin"] }), &[]),
        (json!({ "exclude_authrole": ["anonymous", "admin"] }), &[]),
        (json!({ "exclude_authrole": ["admin"] }), &[0, 1, 2]),
    ] {
        let got = receivers(&mut publisher, &mut all, id, &topic, &options);
        assert_eq!(got, expected, "{options}");
    }
}

fn eligible_but_empty_is_nobody(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    for key in ["eligible", "eligible_authid", "eligible_authrole"] {
        let options = json!({ key: [] });
        let got = receivers(&mut publisher, &mut all, id, &topic, &options);
        assert!(got.is_empty(), "{key}: {got:?}");
    }
}

fn receivers_must_pass_every_list(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    let sessions: Vec<u64> = all.iter().map(|peer| peer.session).collect();
    let options = json!({
        "eligible": sessions,
        "eligible_authrole": ["anonymous"],
        "eligible_authid": [all[0].welcome["authid"], all[1].welcome["authid"]],
        "exclude": [sessions[1]],
    });
    assert_eq!(receivers(&mut publisher, &mut all, id, &topic, &options), [0]);
}

fn publisher_may_be_eligible_only_without_exclude_me(net: &mut Net) {
    let (mut publisher, mut all, id, topic) = audience(net);
    publisher.subscribe(&topic, &none());
    let own = json!({ "eligible": [publisher.session] });
    assert!(receivers(&mut publisher, &mut all, id, &topic, &own).is_empty());
    let own = json!({ "eligible": [publisher.session], "exclude_me": false });
    assert!(receivers(&mut publisher, &mut all, id, &topic, &own).is_empty());
    publisher.event(id, &json!(["some"]));
    publisher.expect_nothing();
}
