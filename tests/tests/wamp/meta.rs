//! The meta API: sessions, registrations, subscriptions.

use crate::net::{A, B, Net, none};
use crate::run::{Over, Run};
use serde_json::{Value, json};
use weald_tests::wamp::{ANY, Got, ID, PATIENCE, Peer, TEXT};

pub(crate) fn add(run: &mut Run) {
    run.case(Over::Everything, sessions_are_counted_listed_and_told);
    run.case(Over::Everything, joins_and_leaves_are_published);
    run.case(Over::OneNode, unknown_session_is_told_so);
    run.case(Over::Everything, session_is_killed);
    run.case(Over::Everything, sessions_of_an_authid_are_killed);
    run.case(Over::OneNode, own_session_is_not_killed);
    run.case(Over::OneNode, kill_with_invalid_reason_is_refused);
    run.case(Over::Everything, registrations_are_told);
    run.case(Over::Everything, life_of_a_registration_is_published);
    run.case(Over::OneNode, unknown_registration_is_told_so);
    run.case(Over::Everything, subscriptions_are_told);
    run.case(Over::Everything, life_of_a_subscription_is_published);
    run.case(Over::OneNode, unknown_subscription_is_told_so);
    run.case(Over::OneNode, unknown_meta_procedure_is_told_so);
    run.case(Over::OneNode, wrong_meta_arguments_are_refused);
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

fn sessions_are_counted_listed_and_told(net: &mut Net) {
    let (mut asker, other) = net.pair();
    let count = asker.ask("wamp.session.count", &json!([]), &none())[0].as_u64().unwrap();
    assert!(count >= 2, "{count}");
    let none_such = asker.ask("wamp.session.count", &json!([["no such role"]]), &none());
    assert_eq!(none_such[0], 0);
    let list = ids(&asker.ask("wamp.session.list", &json!([]), &none())[0]);
    assert!([asker.session, other.session].iter().all(|id| list.contains(id)), "{list:?}");
    let list = ids(&asker.ask("wamp.session.list", &json!([["anonymous"]]), &none())[0]);
    assert!(list.contains(&other.session), "{list:?}");
    for peer in [&other.session, &asker.session.clone()] {
        let told = asker.ask("wamp.session.get", &json!([peer]), &none())[0].clone();
        let expected = json!({
            "session": peer, "authid": TEXT, "authrole": "anonymous", "authmethod": "anonymous",
        });
        assert!(weald_tests::wamp::matches(&expected, &told), "{told}");
    }
}

/// Messages until one is like that; the others belong to other cases.
fn wait_for(peer: &mut Peer, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < end {
        match peer.poll(PATIENCE) {
            Got::Message(message) if wanted(&message) => return message,
            Got::Message(_) => {}
            other => panic!("waited for {what}: {other:?}"),
        }
    }
    panic!("waited for {what}")
}

fn joins_and_leaves_are_published(net: &mut Net) {
    let mut watcher = net.peer("watcher", A);
    let join = watcher.subscribe_amid_events("wamp.session.on_join");
    let leave = watcher.subscribe_amid_events("wamp.session.on_leave");
    net.settle();
    let mut other = net.peer("other", B);
    let session = other.session;
    let event =
        wait_for(&mut watcher, "on_join", |m| m[1] == join && m[4][0]["session"] == session);
    let expected = json!({
        "session": session, "authid": other.welcome["authid"], "authrole": "anonymous",
        "authmethod": "anonymous", "authprovider": ANY,
    });
    assert!(weald_tests::wamp::matches(&expected, &event[4][0]), "{event}");
    other.goodbye();
    let event = wait_for(&mut watcher, "on_leave", |m| m[1] == leave && m[4][0] == session);
    assert_eq!(event[4], json!([session, other.welcome["authid"], "anonymous"]));
    let lost = net.peer("lost", B);
    let session = lost.session;
    drop(lost);
    wait_for(&mut watcher, "on_leave", |m| m[1] == leave && m[4][0] == session);
    watcher.send(&json!([6, {}, "wamp.close.close_realm"]));
}

fn unknown_session_is_told_so(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for procedure in ["wamp.session.get", "wamp.session.kill"] {
        let error = peer.call_fails(procedure, &none(), &json!([4711]));
        assert_eq!(error, "wamp.error.no_such_session", "{procedure}");
    }
}

fn session_is_killed(net: &mut Net) {
    let (mut killer, mut victim) = net.pair();
    let kwargs = json!({ "reason": "com.example.enough", "message": "go" });
    killer.ask("wamp.session.kill", &json!([victim.session]), &kwargs);
    victim.expect(&json!([6, { "message": "go" }, "com.example.enough"]));
    let error = killer.call_fails("wamp.session.get", &none(), &json!([victim.session]));
    assert_eq!(error, "wamp.error.no_such_session");
    let mut second = net.peer("second", B);
    killer.ask("wamp.session.kill", &json!([second.session]), &none());
    second.expect(&json!([6, {}, "wamp.close.killed"]));
    second.send(&json!([6, {}, "wamp.close.goodbye_and_out"]));
    second.expect_closed();
}

fn sessions_of_an_authid_are_killed(net: &mut Net) {
    let (mut killer, mut victim) = net.pair();
    let authid = victim.welcome["authid"].clone();
    let killed = killer.ask("wamp.session.kill_by_authid", &json!([authid]), &none());
    assert_eq!(ids(&killed[0]), [victim.session]);
    victim.expect(&json!([6, {}, "wamp.close.killed"]));
    let own = killer.welcome["authid"].clone();
    let killed = killer.ask("wamp.session.kill_by_authid", &json!([own]), &none());
    assert!(ids(&killed[0]).is_empty(), "never the caller's own: {killed}");
    let killed = killer.ask("wamp.session.kill_by_authrole", &json!(["no such role"]), &none());
    assert_eq!(killed[0], 0);
}

fn own_session_is_not_killed(net: &mut Net) {
    let mut peer = net.peer("a", A);
    let error = peer.call_fails("wamp.session.kill", &none(), &json!([peer.session]));
    assert_eq!(error, "wamp.error.no_such_session");
}

fn kill_with_invalid_reason_is_refused(net: &mut Net) {
    let (mut killer, mut victim) = net.pair();
    let kwargs = json!({ "reason": "no uri.." });
    let request = killer.call_with("wamp.session.kill", &none(), &json!([victim.session]), &kwargs);
    assert_eq!(killer.refusal(48, request), "wamp.error.invalid_uri");
    victim.expect_nothing();
}

fn registrations_are_told(net: &mut Net) {
    let (mut asker, mut callee) = net.pair();
    let exact = net.uri("reg.exact");
    let id = callee.register(&exact, &json!({ "invoke": "roundrobin" }));
    let prefix = callee.register(&net.uri("reg"), &json!({ "match": "prefix" }));
    let wildcard = callee.register(&net.uri("reg..x"), &json!({ "match": "wildcard" }));
    net.settle();
    let list = asker.ask("wamp.registration.list", &json!([]), &none())[0].clone();
    for (kind, id) in [("exact", id), ("prefix", prefix), ("wildcard", wildcard)] {
        assert!(ids(&list[kind]).contains(&id), "{kind}: {list}");
    }
    let found = asker.ask("wamp.registration.lookup", &json!([exact]), &none());
    assert_eq!(found[0], id);
    let args = json!([net.uri("reg"), { "match": "prefix" }]);
    assert_eq!(asker.ask("wamp.registration.lookup", &args, &none())[0], prefix);
    let unknown = asker.ask("wamp.registration.lookup", &json!([net.uri("none")]), &none());
    assert_eq!(unknown.get(0).unwrap_or(&Value::Null), &Value::Null);
    for (procedure, best) in [("reg.exact", id), ("reg.a", prefix), ("reg.a.x", prefix)] {
        let found = asker.ask("wamp.registration.match", &json!([net.uri(procedure)]), &none());
        assert_eq!(found[0], best, "{procedure}");
    }
    let told = asker.ask("wamp.registration.get", &json!([id]), &none())[0].clone();
    let expected = json!({ "id": id, "created": TEXT, "uri": exact, "match": "exact", "invoke": "roundrobin" });
    assert!(weald_tests::wamp::matches(&expected, &told), "{told}");
    let callees = asker.ask("wamp.registration.list_callees", &json!([id]), &none());
    assert_eq!(ids(&callees[0]), [callee.session]);
    assert_eq!(asker.ask("wamp.registration.count_callees", &json!([id]), &none())[0], 1);
}

fn life_of_a_registration_is_published(net: &mut Net) {
    let (mut watcher, mut callee) = net.pair();
    let topics = ["on_create", "on_register", "on_unregister", "on_delete"];
    let subscriptions =
        topics.map(|topic| watcher.subscribe_amid_events(&format!("wamp.registration.{topic}")));
    net.settle();
    let procedure = net.uri("procedure");
    let id = callee.register(&procedure, &none());
    let session = callee.session;
    let mine = move |m: &Value| m[0] == 36 && m[4][0] == session;
    let event = wait_for(&mut watcher, "on_create", mine);
    assert_eq!(event[1], subscriptions[0], "{event}");
    let expected = json!({ "id": id, "created": TEXT, "uri": procedure, "match": "exact", "invoke": "single" });
    assert!(weald_tests::wamp::matches(&expected, &event[4][1]), "{event}");
    let event = wait_for(&mut watcher, "on_register", mine);
    assert_eq!((&event[1], &event[4][1]), (&json!(subscriptions[1]), &json!(id)), "{event}");
    callee.unregister(id);
    for (k, topic) in [(2, "on_unregister"), (3, "on_delete")] {
        let event = wait_for(&mut watcher, topic, mine);
        assert_eq!((&event[1], &event[4][1]), (&json!(subscriptions[k]), &json!(id)), "{event}");
    }
    watcher.send(&json!([6, {}, "wamp.close.close_realm"]));
}

fn unknown_registration_is_told_so(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for procedure in ["get", "list_callees", "count_callees"] {
        let procedure = format!("wamp.registration.{procedure}");
        let error = peer.call_fails(&procedure, &none(), &json!([4711]));
        assert_eq!(error, "wamp.error.no_such_registration", "{procedure}");
    }
}

fn subscriptions_are_told(net: &mut Net) {
    let (mut asker, mut subscriber) = net.pair();
    let exact = net.uri("sub.exact");
    let id = subscriber.subscribe(&exact, &none());
    let prefix = subscriber.subscribe(&net.uri("sub"), &json!({ "match": "prefix" }));
    let wildcard = subscriber.subscribe(&net.uri("sub."), &json!({ "match": "wildcard" }));
    net.settle();
    let list = asker.ask("wamp.subscription.list", &json!([]), &none())[0].clone();
    for (kind, id) in [("exact", id), ("prefix", prefix), ("wildcard", wildcard)] {
        assert!(ids(&list[kind]).contains(&id), "{kind}: {list}");
    }
    assert_eq!(asker.ask("wamp.subscription.lookup", &json!([exact]), &none())[0], id);
    let args = json!([net.uri("sub."), { "match": "wildcard" }]);
    assert_eq!(asker.ask("wamp.subscription.lookup", &args, &none())[0], wildcard);
    let mut matching = ids(&asker.ask("wamp.subscription.match", &json!([exact]), &none())[0]);
    // Somebody else may have the prefix that is everything.
    matching.retain(|found| [id, prefix, wildcard].contains(found));
    matching.sort_unstable();
    let mut expected = vec![id, prefix, wildcard];
    expected.sort_unstable();
    assert_eq!(matching, expected);
    let told = asker.ask("wamp.subscription.get", &json!([prefix]), &none())[0].clone();
    let expected =
        json!({ "id": prefix, "created": TEXT, "uri": net.uri("sub"), "match": "prefix" });
    assert!(weald_tests::wamp::matches(&expected, &told), "{told}");
    let all = asker.ask("wamp.subscription.list_subscribers", &json!([id]), &none());
    assert_eq!(ids(&all[0]), [subscriber.session]);
    assert_eq!(asker.ask("wamp.subscription.count_subscribers", &json!([id]), &none())[0], 1);
}

fn life_of_a_subscription_is_published(net: &mut Net) {
    let (mut watcher, mut subscriber) = net.pair();
    let topics = ["on_create", "on_subscribe", "on_unsubscribe", "on_delete"];
    let subscriptions =
        topics.map(|topic| watcher.subscribe_amid_events(&format!("wamp.subscription.{topic}")));
    net.settle();
    let topic = net.uri("topic");
    let session = subscriber.session;
    let mine = move |m: &Value| m[0] == 36 && m[4][0] == session;
    let id = subscriber.subscribe(&topic, &none());
    let event = wait_for(&mut watcher, "on_create", mine);
    assert_eq!(event[1], subscriptions[0], "{event}");
    let expected = json!({ "id": id, "created": TEXT, "uri": topic, "match": "exact" });
    assert!(weald_tests::wamp::matches(&expected, &event[4][1]), "{event}");
    let event = wait_for(&mut watcher, "on_subscribe", mine);
    assert_eq!((&event[1], &event[4][1]), (&json!(subscriptions[1]), &json!(id)), "{event}");
    subscriber.goodbye();
    for (k, topic) in [(2, "on_unsubscribe"), (3, "on_delete")] {
        let event = wait_for(&mut watcher, topic, mine);
        assert_eq!((&event[1], &event[4][1]), (&json!(subscriptions[k]), &json!(id)), "{event}");
    }
    watcher.send(&json!([6, {}, "wamp.close.close_realm"]));
}

fn unknown_subscription_is_told_so(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for procedure in ["get", "list_subscribers", "count_subscribers", "get_events"] {
        let procedure = format!("wamp.subscription.{procedure}");
        let error = peer.call_fails(&procedure, &none(), &json!([4711]));
        assert_eq!(error, "wamp.error.no_such_subscription", "{procedure}");
    }
}

fn unknown_meta_procedure_is_told_so(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for procedure in ["wamp.session.dance", "wamp.nothing", "wamp.registration"] {
        let error = peer.call_fails(procedure, &none(), &json!([]));
        assert_eq!(error, "wamp.error.no_such_procedure", "{procedure}");
    }
}

fn wrong_meta_arguments_are_refused(net: &mut Net) {
    let mut peer = net.peer("a", A);
    for (procedure, args) in [
        ("wamp.session.get", json!([])),
        ("wamp.session.get", json!(["text"])),
        ("wamp.session.get", json!([-1])),
        ("wamp.session.count", json!([7])),
        ("wamp.registration.lookup", json!([7])),
        ("wamp.registration.get", json!([{}])),
        ("wamp.subscription.match", json!([])),
        ("wamp.session.add_testament", json!([7])),
    ] {
        let error = peer.call_fails(procedure, &none(), &args);
        let fit = ["wamp.error.invalid_argument", "wamp.error.invalid_uri"];
        assert!(fit.contains(&error.as_str()), "{procedure} {args}: {error}");
    }
    let request = peer.next_request();
    peer.send(&json!([32, request, {}, net.uri("x")]));
    peer.expect(&json!([33, request, ID]));
}
