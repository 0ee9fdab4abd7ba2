//! Tables of exact actions, and a model of dynamic supervisors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Action, AutoShutdown, BackoffPolicy, ChildPolicy, Close, Core, Input, Key, Policy, Restart,
};
use crate::spec::Strategy as Fate;

fn policy(strategy: Fate) -> Policy {
    Policy {
        strategy,
        intensity_max: 3,
        window_ms: 1000,
        auto_shutdown: AutoShutdown::Never,
        backoff: None,
    }
}

const PERMANENT: ChildPolicy = ChildPolicy { restart: Restart::Permanent, significant: false };

/// Feeds the input, answers every start and stop with success, and returns what was done.
fn run(core: &mut Core, now_ms: u64, input: Input) -> Vec<Action> {
    let mut done = Vec::new();
    let mut next = Some(input);
    while let Some(input) = next.take() {
        let mut out = Vec::new();
        core.handle(now_ms, input, &mut out);
        next = match out.last() {
            Some(Action::Start(key)) => Some(Input::Started(*key)),
            Some(Action::Stop(key)) => Some(Input::Stopped(*key)),
            Some(Action::StopAll(keys)) => Some(Input::Stopped(keys[0])),
            _ => None,
        };
        done.extend(out);
        core.check().unwrap();
    }
    done.retain(|action| !matches!(action, Action::Note(_)));
    done
}

fn booted(policy: Policy, children: usize) -> Core {
    let mut core = Core::new(policy, &vec![PERMANENT; children]);
    run(&mut core, 0, Input::Boot);
    core
}

fn crash(core: &mut Core, now_ms: u64, key: Key) -> Vec<Action> {
    run(core, now_ms, Input::Exited { key, abnormal: true })
}

#[test]
fn each_strategy_touches_its_children_in_order() {
    use Action::{Start, Stop};
    assert_eq!(crash(&mut booted(policy(Fate::OneForOne), 4), 1, 1), [Start(1)]);
    let rest = [Stop(3), Stop(2), Start(1), Start(2), Start(3)];
    assert_eq!(crash(&mut booted(policy(Fate::RestForOne), 4), 1, 1), rest);
    let all = [Stop(3), Stop(2), Stop(0), Start(0), Start(1), Start(2), Start(3)];
    assert_eq!(crash(&mut booted(policy(Fate::OneForAll), 4), 1, 1), all);
}

#[test]
fn window_slides_and_both_of_its_ends_count() {
    let mut core = booted(policy(Fate::OneForOne), 1);
    for now_ms in [0, 500, 1000] {
        assert_eq!(crash(&mut core, now_ms, 0), [Action::Start(0)]);
    }
    // The first one lies 1001 ms back: forgotten. The second lies exactly 1000 ms back: counts.
    assert_eq!(crash(&mut core, 1001, 0), [Action::Start(0)]);
    assert_eq!(crash(&mut core, 1500, 0), [Action::Close(Close::Intensity(0))]);
}

#[test]
fn backoff_doubles_to_its_cap_and_starts_anew_after_a_long_life() {
    let backoff = BackoffPolicy {
        initial_ms: 10,
        max_ms: 50,
        jitter_percent: 0,
        seed: 1,
        reset_after_ms: 10_000,
    };
    let mut core = Core::new(
        Policy { intensity_max: 100, backoff: Some(backoff), ..policy(Fate::OneForOne) },
        &[PERMANENT],
    );
    run(&mut core, 0, Input::Boot);
    for (now_ms, expected) in [(1, 10), (2, 20), (3, 40), (4, 50), (5, 50), (20_000, 10)] {
        let [Action::Schedule { key: 0, ticket, delay_ms }] = crash(&mut core, now_ms, 0)[..]
        else {
            panic!("a schedule was expected");
        };
        assert_eq!(delay_ms, expected);
        assert_eq!(run(&mut core, now_ms, Input::Due { key: 0, ticket: ticket + 1 }), []);
        assert_eq!(run(&mut core, now_ms, Input::Due { key: 0, ticket }), [Action::Start(0)]);
        assert_eq!(run(&mut core, now_ms, Input::Due { key: 0, ticket }), [], "once");
    }
}

#[test]
fn jitter_is_bounded_and_replayed_by_its_seed() {
    let delays = |seed| {
        let backoff = BackoffPolicy {
            initial_ms: 1000,
            max_ms: 1000,
            jitter_percent: 30,
            seed,
            reset_after_ms: u64::MAX,
        };
        let mut core = Core::new(
            Policy { intensity_max: 100, backoff: Some(backoff), ..policy(Fate::OneForOne) },
            &[PERMANENT],
        );
        run(&mut core, 0, Input::Boot);
        (0..50)
            .map(|_| match crash(&mut core, 0, 0)[..] {
                [Action::Schedule { ticket, delay_ms, .. }] => {
                    run(&mut core, 0, Input::Due { key: 0, ticket });
                    delay_ms
                }
                _ => panic!("a schedule was expected"),
            })
            .collect::<Vec<_>>()
    };
    let first = delays(7);
    assert!(first.iter().all(|d| (700..=1000).contains(d)), "{first:?}");
    assert!(first.iter().any(|d| *d != first[0]));
    assert_eq!(first, delays(7));
    assert_ne!(first, delays(8));
}

#[test]
fn delayed_restart_stops_siblings_at_once_and_yields_to_an_earlier_one() {
    let backoff =
        BackoffPolicy { initial_ms: 10, max_ms: 10, jitter_percent: 0, seed: 0, reset_after_ms: 1 };
    let mut core =
        Core::new(Policy { backoff: Some(backoff), ..policy(Fate::RestForOne) }, &[PERMANENT; 4]);
    run(&mut core, 0, Input::Boot);
    let schedule = |key, ticket| Action::Schedule { key, ticket, delay_ms: 10 };
    assert_eq!(crash(&mut core, 0, 2), [schedule(2, 0), Action::Stop(3)]);
    assert_eq!(crash(&mut core, 5, 0), [schedule(0, 1), Action::Stop(1)]);
    assert_eq!(run(&mut core, 10, Input::Due { key: 2, ticket: 0 }), [], "0 comes first");
    let starts: Vec<Action> = (0..4).map(Action::Start).collect();
    assert_eq!(run(&mut core, 15, Input::Due { key: 0, ticket: 1 }), starts);
}

#[test]
fn dynamic_supervisor_stops_all_at_once() {
    let mut core = Core::new(policy(Fate::Dynamic), &[]);
    for _ in 0..3 {
        run(&mut core, 0, Input::Add(PERMANENT));
    }
    run(&mut core, 0, Input::Terminate(1));
    let done = run(&mut core, 0, Input::Shutdown);
    assert_eq!(done, [Action::StopAll(vec![0, 2]), Action::Close(Close::Shutdown)]);
    assert!(core.is_closing());
}

#[derive(Debug, Clone)]
enum Op {
    Add(Restart, bool),
    Exit(usize, bool),
    Terminate(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let restart =
        prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)];
    prop_oneof![
        4 => (restart, prop::bool::weighted(0.8)).prop_map(|(r, ok)| Op::Add(r, ok)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(i, bad)| Op::Exit(i, bad)),
        1 => any::<usize>().prop_map(Op::Terminate),
        2 => (0u64..800).prop_map(Op::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// simple_one_for_one as OTP documents it: children on their own, temporary and normally ended
    /// ones forgotten, a failed first start not retried and not counted, intensity over all.
    #[test]
    fn dynamic_supervisor_behaves_as_documented(ops in prop::collection::vec(op(), 0..40)) {
        let mut core = Core::new(policy(Fate::Dynamic), &[]);
        let mut live: BTreeMap<Key, Restart> = BTreeMap::new();
        let (mut now_ms, mut restarts_ms, mut next) = (0u64, Vec::<u64>::new(), 0u64);
        for op in ops {
            let keys: Vec<Key> = live.keys().copied().collect();
            match op {
                Op::Advance(ms) => now_ms += ms,
                Op::Add(restart, ok) => {
                    prop_assert_eq!(core.next_key(), next);
                    let mut out = Vec::new();
                    core.handle(now_ms, Input::Add(ChildPolicy { restart, significant: false }), &mut out);
                    prop_assert_eq!(&out, &[Action::Start(next)]);
                    out.clear();
                    let answer = if ok { Input::Started(next) } else { Input::StartFailed(next) };
                    core.handle(now_ms, answer, &mut out);
                    if ok {
                        prop_assert_eq!(&out, &[]);
                        live.insert(next, restart);
                    } else {
                        prop_assert_eq!(&out, &[Action::Forget(next)]);
                    }
                    next += 1;
                }
                Op::Terminate(i) if !keys.is_empty() => {
                    let key = keys[i % keys.len()];
                    live.remove(&key);
                    prop_assert_eq!(
                        run(&mut core, now_ms, Input::Terminate(key)),
                        [Action::Stop(key), Action::Forget(key)]
                    );
                }
                Op::Exit(i, abnormal) if !keys.is_empty() => {
                    let key = keys[i % keys.len()];
                    let done = run(&mut core, now_ms, Input::Exited { key, abnormal });
                    let again = match live[&key] {
                        Restart::Permanent => true,
                        Restart::Transient => abnormal,
                        Restart::Temporary => false,
                    };
                    if !again {
                        live.remove(&key);
                        prop_assert_eq!(done, [Action::Forget(key)]);
                        continue;
                    }
                    restarts_ms.push(now_ms);
                    let recent = restarts_ms.iter().filter(|t| **t + 1000 >= now_ms).count();
                    if recent <= 3 {
                        prop_assert_eq!(done, [Action::Start(key)]);
                    } else {
                        live.remove(&key);
                        let rest: Vec<Key> = live.keys().copied().collect();
                        let mut expected = Vec::new();
                        if !rest.is_empty() {
                            expected.push(Action::StopAll(rest));
                        }
                        expected.push(Action::Close(Close::Intensity(key)));
                        prop_assert_eq!(done, expected);
                        return Ok(());
                    }
                }
                Op::Terminate(_) | Op::Exit(..) => {}
            }
            for key in 0..next {
                prop_assert_eq!(core.is_up(key), live.contains_key(&key));
            }
        }
    }
}
