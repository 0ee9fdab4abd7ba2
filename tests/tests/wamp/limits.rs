//! Clients that ask for too much, or take too little.

use crate::net::{A, B, Net, none};
use crate::run::{MOMENT, Over, Run};
use serde_json::json;
use std::time::Instant;
use weald_tests::wamp::{Got, PATIENCE};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::OneNode, slow_consumer_delays_nobody_and_loses_its_session);
    run.case(Over::Once, long_uris_are_refused_or_served);
    run.case(Over::Once, testaments_are_limited);
    run.case(Over::Nodes, subscriptions_of_a_session_go_with_it);
}

fn slow_consumer_delays_nobody_and_loses_its_session(net: &mut Net) {
    let (mut publisher, mut slow) = net.pair();
    let mut quick = net.peer("quick", B);
    let (topic, payload) = (net.uri("flood"), "x".repeat(200_000));
    let id = slow.subscribe(&topic, &none());
    quick.subscribe(&topic, &none());
    let session = slow.session;
    // Far more than the sockets of two sides and a queue hold. The slow one reads nothing.
    let end = Instant::now() + PATIENCE * 3;
    let mut gone = false;
    for k in 0..2000 {
        publisher.publish(&topic, &none(), &json!([k, payload]));
        quick.event(id, &json!([k, payload]));
        if k % 50 == 49 {
            let request = publisher.call("wamp.session.get", &none(), &json!([session]));
            let answer = publisher.receive();
            gone = answer[0] == 8;
            assert_eq!(answer[if gone { 2 } else { 1 }], request, "{answer}");
        }
        if gone {
            break;
        }
        assert!(Instant::now() < end, "the slow client keeps its session");
    }
    if gone {
        // What it had been sent before is there, then the end.
        loop {
            match slow.poll(PATIENCE) {
                Got::Message(_) => {}
                Got::Closed(_) => break,
                other => panic!("{other:?}"),
            }
        }
        return;
    }
    panic!("400 MB were taken from a client that reads nothing");
}

fn long_uris_are_refused_or_served(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for len in [100, 1000, 10_000, 200_000] {
        let uri = net.uri(&"x".repeat(len));
        for kind in ["exact", "prefix", "wildcard"] {
            let request = peer.next_request();
            peer.send(&json!([32, request, { "match": kind }, uri]));
            let answer = peer.receive();
            let refused = answer[0] == 8 && answer[4] == "wamp.error.invalid_uri";
            assert!(answer[0] == 33 || refused, "{len} {kind}: {answer}");
            assert!(len > 100 || answer[0] == 33, "{len} {kind}: {answer}");
        }
    }
    // Many components: a lookup among wildcards must not take for ever.
    let many = net.uri(&["a"; 200].join("."));
    peer.publish_acked(&many, &none(), &json!([]));
}

fn testaments_are_limited(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let topic = net.uri("will");
    for k in 0..10_000 {
        let request = peer.call("wamp.session.add_testament", &none(), &json!([topic, [k], {}]));
        let answer = peer.receive();
        let refused = answer[0] == 8;
        assert_eq!(answer[if refused { 2 } else { 1 }], request, "{answer}");
        if refused {
            assert!(k >= 10, "at least ten testaments");
            return;
        }
    }
    panic!("a session may leave any number of testaments");
}

fn subscriptions_of_a_session_go_with_it(net: &mut Net) {
    const TOPICS: usize = 2000;
    let (mut asker, mut other) = net.pair();
    let topics: Vec<_> = (0..TOPICS).map(|k| net.uri(&format!("many.t{k}"))).collect();
    let messages: Vec<_> =
        topics.iter().map(|topic| json!([32, other.next_request(), {}, topic])).collect();
    other.send_together(&messages);
    for _ in 0..TOPICS {
        assert_eq!(other.receive()[0], 33);
    }
    net.settle();
    let known = |asker: &mut weald_tests::wamp::Peer, topic: &str| {
        let found = asker.ask("wamp.subscription.lookup", &json!([topic]), &none());
        !found.get(0).is_none_or(serde_json::Value::is_null)
    };
    assert!(known(&mut asker, &topics[0]) && known(&mut asker, &topics[TOPICS - 1]));
    drop(other);
    let end = Instant::now() + PATIENCE;
    for topic in &topics {
        while known(&mut asker, topic) {
            assert!(Instant::now() < end, "{topic} is still subscribed");
            weald_tests::harness::wait::pause(MOMENT / 10);
        }
    }
}
