//! Ledgers against plain maps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::ledger::{Ledger, MARKERS_MAX};
use super::{Row, Value};
use crate::registry::Kind;
use weald_wamp::message::MatchPolicy;

fn row(number: usize) -> Row {
    Row {
        realm: "realm1".into(),
        kind: Kind::Subscription,
        uri: format!("a.{number}").into(),
        policy: MatchPolicy::Exact,
    }
}

fn value(count: u64) -> Value {
    if count == 0 {
        Value::GONE
    } else {
        Value { count, oldest_ms: 1, newest_ms: count, ..Value::GONE }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Change(usize, u64),
    /// The follower reads a part of about so many bytes.
    Follow(usize),
    Forget(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..12usize, 0..4u64).prop_map(|(row, count)| Op::Change(row, count)),
        3 => (1..300usize).prop_map(Op::Follow),
        1 => (0..80u64).prop_map(Op::Forget),
    ]
}

/// Reads one part, the way peers do: into what is gathered when it begins from the beginning.
fn follow(ledger: &Ledger, held: &mut Ledger, gathering: &mut Option<(Ledger, u64)>, bytes: usize) {
    let (from, begun) = match gathering {
        Some((gathered, begun)) => (gathered.version(), *begun),
        None => (held.version(), 0),
    };
    let part = ledger.since(from, begun, bytes);
    assert!(part.rows.is_sorted_by(|a, b| a.version < b.version));
    assert!(part.rows.iter().all(|row| row.version > part.base && row.version <= part.version));
    if part.base == 0 {
        *gathering = Some((Ledger::new(1), ledger.version()));
    }
    let Some((gathered, _)) = gathering else {
        held.take(part, 0);
        return;
    };
    gathered.take(part, 0);
    if gathered.version() == ledger.version() {
        let before: BTreeMap<Row, Value> =
            held.live().map(|(row, value)| (row.clone(), *value)).collect();
        let changes = held.become_gathered(gathering.take().unwrap().0);
        let mut applied = before;
        for (row, value) in changes {
            assert_ne!(applied.get(&row).copied().unwrap_or_default(), value, "no change");
            if value.is_gone() {
                applied.remove(&row);
            } else {
                applied.insert(row, value);
            }
        }
        assert!(held.live().eq(applied.iter()));
    }
}

proptest! {
    #[test]
    fn ledger_holds_what_was_changed_and_followers_end_up_with_the_same(
        ops in prop::collection::vec(op(), 1..80)
    ) {
        let mut model = BTreeMap::new();
        let mut ledger = Ledger::new(1);
        let mut held = Ledger::new(1);
        let mut gathering = None;
        for (now_ms, op) in (0u64..).zip(ops) {
            match op {
                Op::Change(number, count) => {
                    let was = model.get(&row(number)).copied().unwrap_or_default();
                    let changed = ledger.change(&row(number), value(count), now_ms);
                    prop_assert_eq!(changed, was != value(count));
                    if count == 0 {
                        model.remove(&row(number));
                    } else {
                        model.insert(row(number), value(count));
                    }
                }
                Op::Follow(bytes) => follow(&ledger, &mut held, &mut gathering, bytes),
                Op::Forget(before_ms) => ledger.forget(before_ms),
            }
            prop_assert!(ledger.live().eq(model.iter()));
            prop_assert!(ledger.is_sound() && held.is_sound());
            prop_assert_eq!(ledger.live_count(), model.len());
        }
        let mut rounds = 0;
        while held.version() < ledger.version() || gathering.is_some() {
            follow(&ledger, &mut held, &mut gathering, 100);
            rounds += 1;
            prop_assert!(rounds < 200);
        }
        prop_assert!(held.live().eq(model.iter()));
        prop_assert_eq!(held.digest(), ledger.digest());
        ledger.forget(u64::MAX);
        prop_assert_eq!(ledger.markers_count(), 0);
        let digest = ledger.digest();
        ledger.renew(9);
        prop_assert!(ledger.is_sound() && ledger.live().eq(model.iter()));
        prop_assert_eq!((ledger.incarnation(), ledger.digest()), (9, digest));
    }
}

#[test]
fn markers_are_bounded_and_who_lacks_them_gets_everything() {
    let mut ledger = Ledger::new(1);
    let count = MARKERS_MAX + 10;
    for number in 0..count {
        ledger.change(&row(number), value(1), 0);
    }
    let told = ledger.version();
    for number in 1..count {
        ledger.change(&row(number), Value::GONE, 0);
    }
    assert_eq!((ledger.markers_count(), ledger.live_count()), (MARKERS_MAX, 1));
    let part = ledger.since(told, 0, usize::MAX);
    assert_eq!((part.base, part.version, part.rows.len()), (0, ledger.version(), 1));
    let later = ledger.since(told + 10, 0, usize::MAX);
    assert_eq!((later.base, later.rows.len()), (told + 10, MARKERS_MAX - 1));
}

#[test]
fn row_that_comes_back_leaves_no_marker() {
    let mut ledger = Ledger::new(1);
    for round in 0..100 {
        ledger.change(&row(1), value(1), round);
        ledger.change(&row(1), Value::GONE, round);
    }
    assert_eq!(ledger.markers_count(), 1);
    ledger.change(&row(1), value(2), 200);
    ledger.forget(1_000);
    assert_eq!((ledger.markers_count(), ledger.live_count()), (0, 1));
    assert!(ledger.is_sound());
    // Nothing was forgotten, so whoever has an old version needs this row only.
    assert_eq!(ledger.since(3, 0, usize::MAX).base, 3);
}
