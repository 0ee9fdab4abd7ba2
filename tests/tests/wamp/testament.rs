//! What sessions leave behind (`testament_meta_api`).

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{ID, Peer};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, testaments_are_published_when_the_connection_is_lost);
    run.case(Over::Everything, testaments_are_published_at_goodbye);
    run.case(Over::Everything, detached_testaments_come_before_destroyed_ones);
    run.case(Over::Everything, flushed_testaments_are_not_published);
    run.case(Over::Everything, testaments_keep_their_receivers);
    run.case(Over::OneNode, testament_for_reserved_topic_is_refused);
}

fn add_testament(peer: &mut Peer, topic: &str, args: &Value, scope: &str) {
    let kwargs = json!({ "scope": scope });
    peer.ask("wamp.session.add_testament", &json!([topic, args, { "k": 1 }]), &kwargs);
}

fn parties(net: &mut Net) -> (Peer, Peer, u64, String) {
    let (mut heir, testator) = net.pair();
    let topic = net.uri("will");
    let subscription = heir.subscribe(&topic, &none());
    net.settle();
    (heir, testator, subscription, topic)
}

fn testaments_are_published_when_the_connection_is_lost(net: &mut Net) {
    let (mut heir, mut testator, id, topic) = parties(net);
    let args = json!([topic, ["all my", { "goods": "\u{0}AQI=" }], { "k": 1 }]);
    testator.ask("wamp.session.add_testament", &args, &none());
    heir.expect_nothing();
    drop(testator);
    heir.expect(&json!([36, id, ID, {}, ["all my", { "goods": "\u{0}AQI=" }], { "k": 1 }]));
}

fn testaments_are_published_at_goodbye(net: &mut Net) {
    let (mut heir, mut testator, id, topic) = parties(net);
    for k in 0..3 {
        add_testament(&mut testator, &topic, &json!([k]), "destroyed");
    }
    testator.goodbye();
    for k in 0..3 {
        heir.expect(&json!([36, id, ID, {}, [k], { "k": 1 }]));
    }
}

fn detached_testaments_come_before_destroyed_ones(net: &mut Net) {
    let (mut heir, mut testator, id, topic) = parties(net);
    for (k, scope) in ["destroyed", "detached", "destroyed", "detached"].iter().enumerate() {
        add_testament(&mut testator, &topic, &json!([k]), scope);
    }
    drop(testator);
    for k in [1, 3, 0, 2] {
        heir.expect(&json!([36, id, ID, {}, [k], { "k": 1 }]));
    }
}

fn flushed_testaments_are_not_published(net: &mut Net) {
    let (mut heir, mut testator, id, topic) = parties(net);
    add_testament(&mut testator, &topic, &json!(["destroyed"]), "destroyed");
    add_testament(&mut testator, &topic, &json!(["detached"]), "detached");
    testator.ask("wamp.session.flush_testaments", &json!([]), &none());
    add_testament(&mut testator, &topic, &json!(["new"]), "destroyed");
    drop(testator);
    heir.expect(&json!([36, id, ID, {}, ["detached"], { "k": 1 }]));
    heir.expect(&json!([36, id, ID, {}, ["new"], { "k": 1 }]));
}

fn testaments_keep_their_receivers(net: &mut Net) {
    let (mut heir, mut testator, id, topic) = parties(net);
    let mut other = net.peer("other", A);
    other.subscribe(&topic, &none());
    net.settle();
    let options = json!({ "exclude": [heir.session], "acknowledge": true });
    let kwargs = json!({ "publish_options": options });
    testator.ask("wamp.session.add_testament", &json!([topic, ["secret"], {}]), &kwargs);
    let kwargs = json!({ "publish_options": {} });
    testator.ask("wamp.session.add_testament", &json!([topic, ["public"], {}]), &kwargs);
    drop(testator);
    heir.event(id, &json!(["public"]));
    other.event(id, &json!(["secret"]));
    other.event(id, &json!(["public"]));
}

fn testament_for_reserved_topic_is_refused(net: &mut Net) {
    let mut peer = net.peer("b", B);
    for topic in ["wamp.session.on_join", "no topic..", ""] {
        let request = peer.call("wamp.session.add_testament", &none(), &json!([topic, [], {}]));
        let error = peer.refusal(48, request);
        let fit = ["wamp.error.invalid_uri", "wamp.error.not_authorized"];
        assert!(fit.contains(&error.as_str()), "{topic}: {error}");
    }
}
