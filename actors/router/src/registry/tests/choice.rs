//! Each policy does what its name says, on one node and across nodes.

use std::collections::BTreeMap;

use super::*;

/// Whom a call went to: a session of this node by number, another node by its number times 1,000.
fn pick(choice: &Choice<'_, Session>) -> u64 {
    match choice {
        Choice::Local(callee) => callee.session.0.get(),
        Choice::Node(node) => u64::from(node.0[0]) * 1000,
        Choice::Busy => panic!("busy"),
        Choice::Nobody => panic!("nobody"),
    }
}

/// Node 2 with callees of these numbers, registered at 10, 20, ...; others as given.
fn shared(invoke: InvokePolicy, here: &[u64], there: &[(u8, Option<Interest>)]) -> Tables<Session> {
    let mut tables = tables(2);
    for (number, now_ms) in here.iter().zip((10..).step_by(10)) {
        let mut effects = Effects::default();
        tables.register(&session(*number), &callee("p", invoke, now_ms), &mut effects).unwrap();
    }
    for (id, row) in there {
        let change = InterestChange { key: registration("p"), row: *row };
        assert_eq!(tables.apply_remote(node(*id), [change]), 0);
    }
    tables
}

fn calls(tables: &Tables<Session>, count: u64) -> Vec<u64> {
    let snapshot = tables.snapshot();
    let procedure = snapshot.procedure("p").unwrap();
    // Spread over all 64 bits, as random numbers are.
    let random = |n: u64| n.wrapping_mul(u64::MAX / count.max(1));
    (0..count).map(|n| pick(&procedure.choose(random(n), Excluded::default(), |_| false))).collect()
}

#[test]
fn choose_first_and_last_by_time_across_nodes() {
    use InvokePolicy::{First, Last};
    for (invoke, there, expected) in [
        (First, vec![], 1),
        (Last, vec![], 3),
        (First, vec![(1, row(First, 2, 11, 31))], 1),
        (First, vec![(1, row(First, 2, 9, 31))], 1000),
        (First, vec![(1, row(First, 1, 9, 9)), (3, row(First, 1, 8, 8))], 3000),
        (Last, vec![(1, row(Last, 2, 1, 29))], 3),
        (Last, vec![(1, row(Last, 2, 1, 31)), (3, row(Last, 1, 30, 30))], 1000),
        // Of equal times the smaller node id is the first, the greater one the last.
        (First, vec![(1, row(First, 1, 10, 10))], 1000),
        (First, vec![(3, row(First, 1, 10, 10))], 1),
        (Last, vec![(1, row(Last, 1, 30, 30))], 3),
        (Last, vec![(3, row(Last, 1, 30, 30))], 3000),
    ] {
        let tables = shared(invoke, &[1, 2, 3], &there);
        assert_eq!(calls(&tables, 3), [expected; 3], "{invoke:?} {there:?}");
    }
}

#[test]
fn choose_first_and_last_after_the_clock_was_set_back_keep_the_order() {
    for (invoke, expected) in [(InvokePolicy::First, 1), (InvokePolicy::Last, 2)] {
        let mut tables = shared(invoke, &[1], &[]);
        let mut effects = Effects::default();
        tables.register(&session(2), &callee("p", invoke, 3), &mut effects).unwrap();
        assert_eq!(calls(&tables, 1), [expected]);
        assert_eq!(effects.interest[0].row, row(invoke, 2, 10, 10));
    }
}

#[test]
fn choose_roundrobin_takes_turns_in_order_of_registration() {
    let tables = shared(InvokePolicy::RoundRobin, &[5, 3, 9], &[]);
    assert_eq!(calls(&tables, 7), [5, 3, 9, 5, 3, 9, 5]);
    // Another snapshot goes on where the last one was.
    assert_eq!(calls(&tables, 3), [3, 9, 5]);
}

#[test]
fn choose_roundrobin_counts_the_callees_of_other_nodes() {
    let there = [
        (1, row(InvokePolicy::RoundRobin, 2, 20, 30)),
        (3, row(InvokePolicy::RoundRobin, 1, 20, 20)),
    ];
    let mut tables = shared(InvokePolicy::RoundRobin, &[5, 7], &there);
    assert_eq!(calls(&tables, 10), [5, 7, 1000, 1000, 3000, 5, 7, 1000, 1000, 3000]);
    tables.set_node_usable(node(1), false, &mut Effects::default());
    assert_eq!(calls(&tables, 5).iter().filter(|to| **to == 1000).count(), 0);
}

#[test]
fn choose_random_is_uniform_over_all_callees() {
    let there = [(3, row(InvokePolicy::Random, 3, 20, 30))];
    let tables = shared(InvokePolicy::Random, &[1, 2], &there);
    let mut hits = BTreeMap::new();
    for to in calls(&tables, 1000) {
        *hits.entry(to).or_insert(0) += 1;
    }
    // Numbers evenly spread over the range meet each callee evenly, but for those at borders.
    for (to, expected) in [(1, 200), (2, 200), (3000, 600)] {
        let hits: u64 = hits[&to];
        assert!(hits.abs_diff(expected) <= 2, "{to}: {hits}");
    }
}

#[test]
fn choose_random_without_some_is_uniform_over_the_rest() {
    let there = [(3, row(InvokePolicy::Random, 2, 20, 30))];
    let tables = shared(InvokePolicy::Random, &[1, 2, 4, 5], &there);
    let snapshot = tables.snapshot();
    let procedure = snapshot.procedure("p").unwrap();
    let excluded = [session(1).0, session(4).0];
    let excluded = Excluded { sessions: &excluded, nodes: &[] };
    let mut hits = BTreeMap::new();
    let mut random = 7_u64;
    for _ in 0..40_000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let to = pick(&procedure.choose(random ^ (random >> 29), excluded, |_| false));
        *hits.entry(to).or_insert(0_u64) += 1;
    }
    // 2 and 5 a quarter each, node 3 half; the numbers are the same at each run.
    assert_eq!(hits.keys().copied().collect::<Vec<_>>(), [2, 5, 3000]);
    for (to, expected) in [(2, 10_000_u64), (5, 10_000), (3000, 20_000)] {
        assert!(hits[&to].abs_diff(expected) < 500, "{to}: {}", hits[&to]);
    }
}

/// Goal: each policy goes on, call by call, until nobody is left, as the specification says for rerouting.
#[test]
fn choose_excluded_goes_on_in_order() {
    use InvokePolicy::{First, Last, Random, RoundRobin, Single};
    for (invoke, here, expected) in [
        (Single, &[1][..], Some(&[1][..])),
        (First, &[1, 2, 3, 4], Some(&[1, 2, 3, 4])),
        (Last, &[1, 2, 3, 4], Some(&[4, 3, 2, 1])),
        (RoundRobin, &[1, 2, 3, 4], Some(&[1, 2, 3, 4])),
        (Random, &[1, 2, 3, 4], None),
    ] {
        let tables = shared(invoke, here, &[]);
        let snapshot = tables.snapshot();
        let procedure = snapshot.procedure("p").unwrap();
        let mut tried = Vec::new();
        for n in 0..here.len() as u64 {
            let excluded = Excluded { sessions: &tried, nodes: &[] };
            let random = n.wrapping_mul(0x5851_f42d_4c95_7f2d);
            let Choice::Local(callee) = procedure.choose(random, excluded, |_| false) else {
                panic!("nobody after {tried:?}");
            };
            tried.push(callee.session.0);
        }
        let numbers: Vec<_> = tried.iter().map(|id| id.get()).collect();
        match expected {
            Some(expected) => assert_eq!(numbers, expected, "{invoke:?}"),
            None => {
                let mut sorted = numbers;
                sorted.sort_unstable();
                assert_eq!(sorted, here, "each of them once");
            }
        }
        let excluded = Excluded { sessions: &tried, nodes: &[] };
        assert!(matches!(procedure.choose(0, excluded, |_| false), Choice::Nobody));
    }
}

#[test]
fn choose_excluded_nodes_are_as_if_not_there() {
    use InvokePolicy::{First, Last, Random, RoundRobin};
    for invoke in [First, Last, RoundRobin, Random] {
        let there = [(1, row(invoke, 3, 5, 50)), (3, row(invoke, 3, 5, 50))];
        let tables = shared(invoke, &[7], &there);
        let snapshot = tables.snapshot();
        let procedure = snapshot.procedure("p").unwrap();
        let both = [node(1), node(3)];
        for n in 0..20_u64 {
            let random = n.wrapping_mul(u64::MAX / 20);
            let excluded = Excluded { sessions: &[], nodes: &both };
            assert_eq!(pick(&procedure.choose(random, excluded, |_| false)), 7);
            let excluded = Excluded { sessions: &[session(7).0], nodes: &both[..1] };
            assert_eq!(pick(&procedure.choose(random, excluded, |_| false)), 3000);
            let excluded = Excluded { sessions: &[session(7).0], nodes: &both };
            assert!(matches!(procedure.choose(random, excluded, |_| false), Choice::Nobody));
        }
    }
}

#[test]
fn choose_busy_callees_are_passed_over() {
    use InvokePolicy::{First, Last, Random, RoundRobin};
    for invoke in [First, Last, RoundRobin, Random] {
        let mut tables = tables(2);
        let mut effects = Effects::default();
        for number in 1..=3 {
            let concurrency = (number != 2).then_some(1);
            let options = CalleeOptions { concurrency, ..CalleeOptions::default() };
            let request = Register { options, ..callee("p", invoke, number) };
            tables.register(&session(number), &request, &mut effects).unwrap();
        }
        let snapshot = tables.snapshot();
        let procedure = snapshot.procedure("p").unwrap();
        for n in 0..9_u64 {
            let random = n.wrapping_mul(u64::MAX / 9);
            // Whoever sets no limit is not asked, and never busy.
            let choice = procedure.choose(random, Excluded::default(), |callee| {
                assert_ne!(callee.session, session(2));
                true
            });
            assert_eq!(pick(&choice), 2, "{invoke:?}");
            let excluded = [session(2).0];
            let excluded = Excluded { sessions: &excluded, nodes: &[] };
            let choice = procedure.choose(random, excluded, |callee| callee.session == session(1));
            assert_eq!(pick(&choice), 3, "{invoke:?}");
            assert!(matches!(procedure.choose(random, excluded, |_| true), Choice::Busy));
        }
    }
}

#[test]
fn choose_local_has_a_cursor_of_its_own_and_stays_here() {
    let there = [(1, row(InvokePolicy::RoundRobin, 2, 1, 1))];
    let tables = shared(InvokePolicy::RoundRobin, &[5, 7], &there);
    let snapshot = tables.snapshot();
    let procedure = snapshot.procedure("p").unwrap();
    for expected in [5, 7, 5, 7] {
        assert_eq!(pick(&procedure.choose_local(0, &[], |_| false)), expected);
        // Calls of clients here in between do not disturb it.
        let _: Vec<_> = calls(&tables, 1);
    }
    let excluded = [session(5).0, session(7).0];
    assert!(matches!(procedure.choose_local(0, &excluded, |_| false), Choice::Nobody));
}

#[test]
fn choose_disagreeing_nodes_the_oldest_stands() {
    use InvokePolicy::{RoundRobin, Single};
    // Node 1 took it alone, earlier: all calls go there.
    let tables = shared(RoundRobin, &[5, 7], &[(1, row(Single, 1, 9, 9))]);
    assert_eq!(calls(&tables, 3), [1000; 3]);
    // Later: its row is not used.
    let tables = shared(RoundRobin, &[5, 7], &[(1, row(Single, 1, 11, 11))]);
    assert_eq!(calls(&tables, 3), [5, 7, 5]);
    let tables = shared(Single, &[5], &[(1, row(Single, 1, 11, 11)), (3, row(Single, 1, 9, 9))]);
    assert_eq!(calls(&tables, 2), [3000; 2]);
}

#[test]
fn choose_hostile_counts_of_a_node_do_no_harm() {
    use InvokePolicy::{Random, RoundRobin};
    for invoke in [RoundRobin, Random] {
        let there = [(1, row(invoke, u64::MAX, 0, 0)), (3, row(invoke, u64::MAX, 9, 1))];
        let tables = shared(invoke, &[5], &there);
        assert!(calls(&tables, 5).iter().all(|to| [5, 1000, 3000].contains(to)));
    }
}
