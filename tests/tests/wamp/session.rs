//! HELLO, WELCOME, GOODBYE, ABORT.

use crate::net::{A, B, Net, REALM, none};
use crate::run::{Over, Run};
use serde_json::json;
use std::collections::BTreeSet;
use weald_tests::wamp::{ANY, ID, TEXT, details};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, hello_without_credentials_joins_anonymously);
    run.case(Over::OneNode, hello_of_unknown_realm_aborts);
    run.case(Over::OneNode, hello_of_invalid_realm_aborts);
    run.case(Over::OneNode, hello_with_unknown_keys_joins);
    run.case(Over::OneNode, hello_without_common_method_aborts);
    run.case(Over::OneNode, goodbye_is_answered);
    run.case(Over::OneNode, abort_of_established_session_ends_it_without_reply);
    run.case(Over::Everything, session_ids_are_random_and_unique);
    run.case(Over::OneNode, welcome_announces_every_feature);
    run.case(Over::Everything, goodbye_ends_subscriptions_and_registrations);
    run.case(Over::Everything, lost_connection_ends_subscriptions_and_registrations);
    run.case(Over::OneNode, goodbye_after_requests_comes_after_their_answers);
}

fn hello_without_credentials_joins_anonymously(net: &mut Net) {
    for side in [A, B] {
        let peer = net.peer("a", side);
        let expected = json!({
            "authid": TEXT, "authrole": "anonymous", "authmethod": "anonymous", "realm": REALM,
        });
        assert!(weald_tests::wamp::matches(&expected, &peer.welcome), "{}", peer.welcome);
    }
}

fn hello_of_unknown_realm_aborts(net: &mut Net) {
    let mut peer = net.connect("a", A);
    peer.send(&json!([1, net.uri("nowhere"), details()]));
    peer.expect(&json!([3, {}, "wamp.error.no_such_realm"]));
    peer.expect_closed();
}

fn hello_of_invalid_realm_aborts(net: &mut Net) {
    let mut peer = net.connect("a", A);
    peer.send(&json!([1, "not a realm..", details()]));
    let abort = peer.expect(&json!([3, {}, TEXT]));
    let reason = abort[2].as_str().unwrap();
    assert!(["wamp.error.invalid_uri", "wamp.error.no_such_realm"].contains(&reason), "{abort}");
    peer.expect_closed();
}

fn hello_with_unknown_keys_joins(net: &mut Net) {
    let mut hello = details();
    hello["x_unknown"] = json!({ "deep": [1, { "er": null }] });
    hello["roles"]["observer"] = json!({ "features": { "unheard_of": true } });
    hello["roles"]["caller"]["features"]["not_yet_known"] = json!(true);
    hello["resumable"] = json!(true);
    net.join("a", A, &hello);
}

fn hello_without_common_method_aborts(net: &mut Net) {
    let mut hello = details();
    hello["authmethods"] = json!(["carrier_pigeon"]);
    let mut peer = net.connect("a", A);
    peer.send(&json!([1, REALM, hello]));
    peer.expect(&json!([3, {}, "wamp.error.no_matching_auth_method"]));
    peer.expect_closed();
}

fn goodbye_is_answered(net: &mut Net) {
    let mut peer = net.peer("a", A);
    peer.send(&json!([6, { "message": "bye" }, "wamp.close.close_realm"]));
    peer.expect(&json!([6, {}, "wamp.close.goodbye_and_out"]));
}

fn abort_of_established_session_ends_it_without_reply(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let procedure = net.uri("procedure");
    peer.register(&procedure, &none());
    peer.send(&json!([3, {}, "com.example.enough"]));
    peer.expect_closed();
    let mut other = net.peer("b", A);
    let error = other.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
}

fn session_ids_are_random_and_unique(net: &mut Net) {
    let peers: Vec<_> = (0..6).map(|k| net.peer("a", k % 2)).collect();
    let ids: BTreeSet<u64> = peers.iter().map(|p| p.session).collect();
    assert_eq!(ids.len(), peers.len(), "{ids:?}");
    // One in 2^53/2^33 is that small: six are not.
    assert!(ids.iter().any(|id| *id > 1 << 33), "not drawn from 1..2^53: {ids:?}");
}

fn welcome_announces_every_feature(net: &mut Net) {
    let peer = net.peer("a", A);
    let broker = [
        "publisher_identification",
        "publication_trustlevels",
        "pattern_based_subscription",
        "session_meta_api",
        "subscription_meta_api",
        "subscriber_blackwhite_listing",
        "publisher_exclusion",
        "event_history",
        "event_retention",
        "subscription_revocation",
        "payload_passthru_mode",
    ];
    let dealer = [
        "progressive_call_results",
        "progressive_call_invocations",
        "call_timeout",
        "call_canceling",
        "caller_identification",
        "call_trustlevels",
        "pattern_based_registration",
        "session_meta_api",
        "registration_meta_api",
        "shared_registration",
        "registration_revocation",
        "call_reroute",
        "testament_meta_api",
        "payload_passthru_mode",
    ];
    let roles = &peer.welcome["roles"];
    let missing: Vec<_> = (broker.iter().map(|name| ("broker", name)))
        .chain(dealer.iter().map(|name| ("dealer", name)))
        .filter(|(role, name)| roles[role]["features"][name] != true)
        .collect();
    assert!(missing.is_empty(), "not announced: {missing:?} in {roles}");
    for sketch in ["sharded_registration", "sharded_subscription"] {
        for role in ["broker", "dealer"] {
            let announced = &roles[role]["features"][sketch];
            assert_ne!(announced, &json!(true), "{sketch} has no defined behaviour");
        }
    }
}

fn goodbye_ends_subscriptions_and_registrations(net: &mut Net) {
    let (mut leaver, mut other) = net.pair();
    let (topic, procedure) = (net.uri("topic"), net.uri("procedure"));
    leaver.subscribe(&topic, &none());
    leaver.register(&procedure, &none());
    net.settle();
    leaver.goodbye();
    net.settle();
    let error = other.call_fails(&procedure, &none(), &json!([]));
    assert_eq!(error, "wamp.error.no_such_procedure");
    let found = other.ask("wamp.subscription.match", &json!([topic]), &none());
    assert!(found[0].is_null() || found[0] == json!([]), "{found}");
    other.register(&procedure, &none());
}

fn lost_connection_ends_subscriptions_and_registrations(net: &mut Net) {
    let (lost, mut other) = net.pair();
    let procedure = net.uri("procedure");
    {
        let mut lost = lost;
        lost.register(&procedure, &none());
        net.settle();
    }
    // The socket is closed; when the node notices is its own affair.
    let end = std::time::Instant::now() + weald_tests::wamp::PATIENCE;
    loop {
        let request = other.next_request();
        other.send(&json!([64, request, {}, procedure]));
        let answer = other.receive();
        if answer[0] == 65 {
            break;
        }
        assert_eq!(answer[4], "wamp.error.procedure_already_exists");
        assert!(std::time::Instant::now() < end, "the registration of a lost session stays");
    }
}

fn goodbye_after_requests_comes_after_their_answers(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let topic = net.uri("topic");
    peer.send_together(&[
        json!([32, 1, {}, topic]),
        json!([16, 2, { "acknowledge": true, "exclude_me": false }, topic, ["x"]]),
        json!([6, {}, "wamp.close.close_realm"]),
    ]);
    peer.expect(&json!([33, 1, ID]));
    peer.expect_all(&[json!([17, 2, ID]), json!([36, ID, ID, {}, ["x"]])]);
    peer.expect(&json!([6, ANY, "wamp.close.goodbye_and_out"]));
}
