//! Rules of the registry, one by one.

use super::*;

#[test]
fn subscribe_again_same_session_gives_the_same_id() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    let first = tables.subscribe(&session(1), "a.b", MatchPolicy::Exact, 1, &mut effects).unwrap();
    let again = tables.subscribe(&session(1), "a.b", MatchPolicy::Exact, 2, &mut effects).unwrap();
    let other = tables.subscribe(&session(2), "a.b", MatchPolicy::Exact, 3, &mut effects).unwrap();
    assert_eq!((first.created, first.joined), (true, true));
    assert_eq!((again.id, again.created, again.joined), (first.id, false, false));
    assert_eq!((other.id, other.created, other.joined), (first.id, false, true));
    let snapshot = tables.snapshot();
    let row = snapshot.subscription(MatchPolicy::Exact, "a.b").unwrap();
    assert_eq!(row.local().len(), 2);
}

/// Goal: two nodes that never spoke, and one that forgot everything, name a topic alike.
#[test]
fn ids_are_equal_on_every_node_and_differ_by_realm_kind_and_match() {
    let mut seen = Vec::new();
    for (realm, number) in [("realm1", 1), ("realm1", 2), ("realm2", 1)] {
        let mut tables = Tables::new(realm, node(number));
        let mut effects = Effects::default();
        let mut ids = Vec::new();
        for policy in [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard] {
            let done = tables.subscribe(&session(1), "a.b", policy, 1, &mut effects).unwrap();
            ids.push(done.id.get());
            let request = Register { policy, ..callee("a.b", InvokePolicy::Single, 1) };
            ids.push(tables.register(&session(1), &request, &mut effects).unwrap().id.get());
        }
        seen.push(ids);
    }
    assert_eq!(seen[0], seen[1]);
    let mut distinct = [&seen[0][..], &seen[2][..]].concat();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 12);
    assert!(distinct.iter().all(|id| (1..1 << 53).contains(id)));
}

#[test]
fn unsubscribe_and_unregister_of_others_are_refused_and_change_nothing() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    let topic = tables.subscribe(&session(1), "a", MatchPolicy::Exact, 1, &mut effects).unwrap();
    let request = callee("a", InvokePolicy::Single, 1);
    let procedure = tables.register(&session(1), &request, &mut effects).unwrap();
    tables.subscribe(&session(2), "b", MatchPolicy::Exact, 1, &mut effects).unwrap();
    effects = Effects::default();
    let done = tables.unsubscribe(session(2).0, topic.id, &mut effects);
    assert_eq!(done, Err(NoSuchSubscription));
    let done = tables.unregister(session(2).0, procedure.id, &mut effects);
    assert_eq!(done, Err(NoSuchRegistration));
    assert_eq!(tables.unsubscribe(session(3).0, topic.id, &mut effects), Err(NoSuchSubscription));
    assert!(effects.is_empty());
    assert_eq!(tables.owned(session(1).0), (1, 1));
}

#[test]
fn register_policies_must_agree() {
    use InvokePolicy::{First, RoundRobin, Single};
    for (taken, wanted, expected) in [
        (Single, Single, Some(RegisterError::AlreadyExists)),
        (Single, RoundRobin, Some(RegisterError::AlreadyExists)),
        (RoundRobin, Single, Some(RegisterError::AlreadyExists)),
        (RoundRobin, First, Some(RegisterError::PolicyConflict(RoundRobin))),
        (RoundRobin, RoundRobin, None),
    ] {
        // Whether the other callee is here or elsewhere makes no difference; on a node that is down it makes none at all.
        let mut here = tables(1);
        let mut effects = Effects::default();
        here.register(&session(1), &callee("p", taken, 1), &mut effects).unwrap();
        let mut elsewhere = tables(1);
        let change = InterestChange { key: registration("p"), row: row(taken, 1, 1, 1) };
        elsewhere.apply_remote(node(2), [change]);
        for tables in [&mut here, &mut elsewhere] {
            effects = Effects::default();
            let done = tables.register(&session(2), &callee("p", wanted, 2), &mut effects);
            assert_eq!(done.as_ref().err(), expected.as_ref(), "{taken:?} {wanted:?}");
            assert_eq!(effects.is_empty(), expected.is_some());
        }
        if expected.is_some() {
            elsewhere.set_node_usable(node(2), false, &mut effects);
            elsewhere.register(&session(2), &callee("p", wanted, 2), &mut effects).unwrap();
        }
    }
}

#[test]
fn register_again_same_session_is_refused() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    let request = callee("p", InvokePolicy::RoundRobin, 1);
    tables.register(&session(1), &request, &mut effects).unwrap();
    let done = tables.register(&session(1), &request, &mut effects);
    assert_eq!(done, Err(RegisterError::AlreadyExists));
}

#[test]
fn register_force_takes_the_place_of_all_others() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    for number in [1, 2] {
        let request = callee("p", InvokePolicy::RoundRobin, number);
        tables.register(&session(number), &request, &mut effects).unwrap();
    }
    let there = row(InvokePolicy::RoundRobin, 4, 1, 1);
    tables.apply_remote(node(3), [InterestChange { key: registration("p"), row: there }]);
    effects = Effects::default();
    let request = Register { force: true, ..callee("p", InvokePolicy::Single, 9) };
    let done = tables.register(&session(5), &request, &mut effects).unwrap();
    assert_eq!(done.revoked, [session(1).0, session(2).0]);
    assert_eq!(done.revoked_nodes, [node(3)]);
    let topics: Vec<_> = effects.meta.iter().map(MetaEvent::topic).collect();
    let (off, on) = ("wamp.registration.on_unregister", "wamp.registration.on_register");
    assert_eq!(topics, [off, off, on], "the registration itself stays");
    let here = row(InvokePolicy::Single, 1, 9, 9).map(|row| Interest { cleared_ms: 9, ..row });
    let told = InterestChange { key: registration("p"), row: here };
    assert_eq!(effects.interest, [told]);
    assert_eq!(tables.conflicts(), [], "the row of the node that is told is not used any more");
    let snapshot = tables.snapshot();
    let procedure = snapshot.procedure("p").unwrap();
    assert_eq!(procedure.registration().local().len(), 1);
    assert_eq!(procedure.nodes().count(), 0);
    // The other side of it.
    let (id, callees) = tables.revoke(MatchPolicy::Exact, "p", u64::MAX, &mut effects).unwrap();
    assert_eq!((id, callees), (done.id, vec![session(5).0]));
    tables.session_gone(session(1).0, &mut effects);
    assert_empty(&tables);
}

#[test]
fn meta_events_come_in_order_with_what_payloads_need() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    let request = Register {
        policy: MatchPolicy::Wildcard,
        ..callee("a..c", InvokePolicy::Last, 1_700_000_000_125)
    };
    let id = tables.register(&session(1), &request, &mut effects).unwrap().id;
    tables.register(&session(2), &request, &mut effects).unwrap();
    tables.unregister(session(1).0, id, &mut effects).unwrap();
    tables.unregister(session(2).0, id, &mut effects).unwrap();
    let seen: Vec<_> = effects.meta.iter().map(|e| (e.topic(), e.session.unwrap().get())).collect();
    assert_eq!(
        seen,
        [
            ("wamp.registration.on_create", 1),
            ("wamp.registration.on_register", 1),
            ("wamp.registration.on_register", 2),
            ("wamp.registration.on_unregister", 1),
            ("wamp.registration.on_unregister", 2),
            ("wamp.registration.on_delete", 2),
        ]
    );
    let MetaChange::Created(details) = &effects.meta[0].change else {
        panic!("{:?}", effects.meta[0]);
    };
    assert_eq!(details.id, RowId::Registration(id));
    assert_eq!(iso8601(details.created_ms), "2023-11-14T22:13:20.125Z");
    assert_eq!((&*details.uri, details.policy), ("a..c", MatchPolicy::Wildcard));
    assert_eq!(details.invoke, Some(InvokePolicy::Last));
}

#[test]
fn meta_events_created_and_deleted_are_once_in_a_cluster() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    let there = InterestChange { key: subscription("t"), row: row(InvokePolicy::Single, 1, 1, 1) };
    tables.apply_remote(node(2), [there.clone()]);
    let done = tables.subscribe(&session(1), "t", MatchPolicy::Exact, 5, &mut effects).unwrap();
    assert!(done.created, "the first of this node");
    tables.unsubscribe(session(1).0, done.id, &mut effects).unwrap();
    let topics: Vec<_> = effects.meta.iter().map(MetaEvent::topic).collect();
    assert_eq!(topics, ["wamp.subscription.on_subscribe", "wamp.subscription.on_unsubscribe"]);
    // Gone with its node: each node tells its own clients.
    effects = Effects::default();
    tables.set_node_usable(node(2), false, &mut effects);
    tables.set_node_usable(node(2), true, &mut effects);
    tables.drop_node(node(2), &mut effects);
    tables.set_node_usable(node(2), false, &mut effects);
    tables.apply_remote(node(2), [there]);
    tables.drop_node(node(2), &mut effects);
    let seen: Vec<_> = effects.meta.iter().map(|event| (event.topic(), event.session)).collect();
    let (on, off) = ("wamp.subscription.on_create", "wamp.subscription.on_delete");
    assert_eq!(seen, [(off, None), (on, None), (off, None)]);
    assert_empty(&tables);
}

#[test]
fn meta_topics_are_not_announced_themselves() {
    let mut tables = tables(1);
    for (topic, policy, announced) in [
        ("wamp.subscription.on_create", MatchPolicy::Exact, false),
        ("wamp", MatchPolicy::Prefix, false),
        ("wamp.session.", MatchPolicy::Wildcard, false),
        ("wampum", MatchPolicy::Exact, true),
    ] {
        let mut effects = Effects::default();
        tables.subscribe(&session(1), topic, policy, 1, &mut effects).unwrap();
        assert_eq!(!effects.meta.is_empty(), announced, "{topic}");
        assert_eq!(effects.interest.len(), 1, "other nodes are told in any case");
    }
}

/// Goal: after a partition both sides come to the same result, alone.
#[test]
fn conflicts_after_a_partition_are_judged_alike_on_both_sides() {
    use InvokePolicy::{First, RoundRobin, Single};
    for (one, two, loser) in [
        ((Single, 10), (Single, 20), Some(2)),
        ((Single, 20), (Single, 10), Some(1)),
        ((Single, 10), (Single, 10), Some(2)),
        ((Single, 20), (RoundRobin, 10), Some(1)),
        ((First, 10), (RoundRobin, 20), Some(2)),
        ((RoundRobin, 10), (RoundRobin, 20), None),
    ] {
        let mut sides = [tables(1), tables(2)];
        let mut told = Vec::new();
        for ((tables, (invoke, now_ms)), number) in sides.iter_mut().zip([one, two]).zip([1, 2]) {
            let mut effects = Effects::default();
            let request = callee("p", invoke, now_ms);
            tables.register(&session(number), &request, &mut effects).unwrap();
            assert_eq!(tables.conflicts(), []);
            told.push(effects.interest);
        }
        sides[0].apply_remote(node(2), told[1].clone());
        sides[1].apply_remote(node(1), told[0].clone());
        let losers: Vec<_> = sides.iter().flat_map(Tables::conflicts).collect();
        match loser {
            Some(number) => {
                assert_eq!(losers.len(), 1, "{one:?} {two:?}");
                assert_eq!(losers[0].callees, [session(number).0]);
                assert_eq!(losers[0].winner, node(if number == 1 { 2 } else { 1 }));
                // Even before it is told, no call of either side goes to it.
                for (side, here) in sides.iter().zip([1, 2]) {
                    let snapshot = side.snapshot();
                    let procedure = snapshot.procedure("p").unwrap();
                    let choice = procedure.choose(0, Excluded::default(), |_| false);
                    assert_eq!(matches!(choice, Choice::Local(_)), here != number);
                }
            }
            None => assert_eq!(losers, [], "{one:?} {two:?}"),
        }
    }
}

#[test]
fn apply_remote_refuses_what_no_node_may_have() {
    let mut tables = tables(1);
    let there = row(InvokePolicy::Single, 1, 1, 1);
    let long: Uri = "a".repeat(pattern::PATTERN_BYTES_MAX + 1).into();
    let key = InterestKey { kind: Kind::Subscription, policy: MatchPolicy::Prefix, uri: long };
    let nobody = row(InvokePolicy::Single, 0, 1, 1);
    let rows = [
        InterestChange { key, row: there },
        InterestChange { key: registration("p"), row: nobody },
        InterestChange { key: registration("q"), row: None },
    ];
    assert_eq!(tables.apply_remote(node(2), rows), 2);
    let mine = InterestChange { key: registration("p"), row: there };
    assert_eq!(tables.apply_remote(node(1), [mine]), 1);
    assert_empty(&tables);
}

#[test]
fn snapshot_never_changes() {
    let mut tables = tables(1);
    let mut effects = Effects::default();
    for number in 1..=100 {
        tables.subscribe(&session(number), "t", MatchPolicy::Exact, 1, &mut effects).unwrap();
    }
    let before = tables.snapshot();
    for number in 1..=100 {
        tables.session_gone(session(number).0, &mut effects);
    }
    tables.subscribe(&session(500), "t", MatchPolicy::Prefix, 2, &mut effects).unwrap();
    let matches = before.subscriptions("t");
    assert_eq!(matches.rows.len(), 1);
    assert!(matches.rows[0].local().iter().copied().eq((1..=100).map(session)));
    let now = tables.snapshot();
    let matches = now.subscriptions("t");
    assert_eq!(matches.rows.len(), 1);
    assert!(matches.rows[0].local().iter().copied().eq([session(500)]));
}

/// Goal: sessions that come and go leave nothing, neither rows nor interest.
#[test]
fn sessions_gone_a_thousand_with_a_hundred_subscriptions_leave_nothing_behind() {
    let mut tables = tables(1);
    let mut interest = std::collections::BTreeMap::new();
    let mut hear = |effects: Effects| {
        for InterestChange { key, row } in effects.interest {
            match row {
                Some(row) => interest.insert(key, row),
                None => interest.remove(&key),
            };
        }
        interest.len()
    };
    for client in 1..=1000 {
        let mut effects = Effects::default();
        for n in 0..100 {
            // A third alone, a third shared by all, a third shared by some.
            let (topic, policy) = match n % 3 {
                0 => (format!("own.{client}.{n}"), MatchPolicy::Exact),
                1 => (format!("all.{n}."), MatchPolicy::Prefix),
                _ => (format!("some..{}.{n}", client % 10), MatchPolicy::Wildcard),
            };
            tables.subscribe(&session(client), &topic, policy, 1, &mut effects).unwrap();
        }
        let procedure = format!("p.{}", client % 100);
        let request = callee(&procedure, InvokePolicy::RoundRobin, 1);
        tables.register(&session(client), &request, &mut effects).unwrap();
        hear(effects);
    }
    assert_eq!(tables.snapshot().len(), (34 * 1000 + 33 + 33 * 10, 100));
    assert_eq!(tables.owned(session(77).0), (100, 1));
    let mut told = 0;
    for client in 1..=1000 {
        let mut effects = Effects::default();
        tables.session_gone(session(client).0, &mut effects);
        told = hear(effects);
    }
    assert_eq!(told, 0, "other nodes still believe somebody is here");
    assert_empty(&tables);
}
