//! What merges, sweeps and questions of replicas do, case by case.

use std::collections::BTreeMap;
use std::sync::Arc;

use weald_storage::{
    Bucket, Clock, Context, Delta, Dot, Evidence, Object, Others, Replica, Replicated, Stable,
    TreeNode, VersionVector, WriteError, WriteOp, Written,
};

use crate::replicas::{actor, key, live, merge_op, missing, put_op, table};

/// One write; panics when it is refused.
fn write(replica: &mut Replica, op: WriteOp, now_ms: u64) -> Written {
    replica.apply(&[op], now_ms).remove(0).unwrap()
}

fn delete_op(n: u64) -> WriteOp {
    WriteOp::Delete { table: table(), key: key(n), context: None }
}

/// Sends all that `to` lacks.
fn send(from: &Replica, to: &mut Replica, now_ms: u64) -> bool {
    let (deltas, needs_walk) = missing(from, to, usize::MAX);
    for delta in deltas {
        write(to, merge_op(&delta, Evidence::Own), now_ms);
    }
    needs_walk
}

/// What a walk of the sound tree of `from` brings, and its clock.
fn walk(from: &Replica, to: &mut Replica, now_ms: u64) {
    let clock = Arc::new(from.clock().unwrap());
    let here: Vec<_> = to.objects().map(|(_, key, _)| key.clone()).collect();
    let keys = from.objects().map(|(_, key, _)| key.clone()).chain(here);
    for key in keys {
        let object = from.object(&table(), &key).unwrap().unwrap_or_default();
        let evidence = Evidence::Both(Arc::clone(&clock));
        let op = WriteOp::Merge { table: table(), key, object, dots: Vec::new(), evidence };
        write(to, op, now_ms);
    }
    to.adopt(&clock, &VersionVector::new(), None).unwrap();
}

fn two() -> (Replica, Replica) {
    (Replica::new(actor(1, 2)), Replica::new(actor(2, 2)))
}

fn both_of(replicas: &[&Replica]) -> Stable {
    let clocks: Vec<Clock> = replicas.iter().map(|replica| replica.clock().unwrap()).collect();
    let current = replicas.iter().map(|replica| replica.actor()).collect();
    weald_storage::stable(&clocks.iter().collect::<Vec<_>>(), &current, Others::Nobody)
}

#[test]
fn late_duplicate_does_not_bring_back_what_was_swept() {
    let (mut x, mut y) = two();
    let first = write(&mut x, put_op(1, b"a", None), 1).dot.unwrap();
    let (late, _) = missing(&x, &y, usize::MAX);
    assert_eq!(late[0].dots, [first]);
    write(&mut x, delete_op(1), 2);
    assert!(!send(&x, &mut y, 3));
    let stable = both_of(&[&x, &y]);
    assert_eq!(x.sweep(&stable, 50, 49, 9).swept, 1, "the delete is too young");
    for replica in [&mut x, &mut y] {
        let report = replica.sweep(&stable, 100, 49, 9);
        assert_eq!((report.reaped, report.more), (1, false));
        assert_eq!((replica.objects().count(), replica.events_len()), (0, 0));
        let written = write(replica, merge_op(&late[0], Evidence::Own), 101);
        assert_eq!((written.fresh, written.seq), (false, None));
        assert_eq!(replica.objects().count(), 0);
    }
    // Somebody who was not asked whether it is stable has to walk.
    let late = Replica::new(actor(3, 2));
    assert!(missing(&x, &late, 1).1);
}

#[test]
fn absence_is_evidence_only_when_it_is_said_so() {
    let (mut x, mut y) = two();
    let dot = write(&mut x, put_op(1, b"a", None), 1).dot.unwrap();
    send(&x, &mut y, 1);
    write(&mut y, delete_op(1), 2);
    let clock = Arc::new(y.clock().unwrap());
    let nothing = |evidence| WriteOp::Merge {
        table: table(),
        key: key(1),
        object: Object::new(),
        dots: Vec::new(),
        evidence,
    };
    for evidence in [Evidence::Own, Evidence::Neither] {
        let written = write(&mut x, nothing(evidence), 3);
        assert!(!written.fresh && live(&x, 1).contains(&dot));
    }
    let written = write(&mut x, nothing(Evidence::Both(Arc::clone(&clock))), 3);
    assert!(written.fresh && written.seq.is_some() && live(&x, 1).is_empty());
    assert_eq!(x.tree_root().unwrap(), TreeNode::default());
    // What the peer has not processed stays.
    let newer = write(&mut x, put_op(1, b"b", None), 4).dot.unwrap();
    write(&mut x, nothing(Evidence::Both(clock)), 5);
    assert!(live(&x, 1).contains(&newer));
    // The clock of a peer that knows more of us than we do tells that we fell back.
    let ahead: Clock = postcard::from_bytes(
        &postcard::to_stdvec(&BTreeMap::from([(x.actor(), (9_u64, Vec::<(u64, u64)>::new()))]))
            .unwrap(),
    )
    .unwrap();
    let op = nothing(Evidence::Both(Arc::new(ahead.clone())));
    let refused = x.apply(&[op], 6).remove(0);
    assert!(matches!(refused, Err(WriteError::OwnEventUnknown { counter: 9, known: 2, .. })));
    let refused = x.adopt(&ahead, &VersionVector::new(), None);
    assert!(matches!(refused, Err(WriteError::OwnEventUnknown { counter: 9, .. })));
    let dots = vec![Dot { actor: x.actor(), counter: 3 }];
    let (table, key, object) = (table(), key(1), Object::new());
    let op = WriteOp::Merge { table, key, object, dots, evidence: Evidence::Own };
    let refused = x.apply(&[op], 6).remove(0);
    assert!(matches!(refused, Err(WriteError::OwnEventUnknown { counter: 3, .. })));
}

/// A bucket has lost the row of a value and was rebuilt. By what evidence it comes back, and that nothing is left of a merge
/// that does not take it: contexts alone would say that it is dead.
#[test]
fn lost_value_comes_back_in_its_era_or_beyond_what_others_know() {
    let (mut x, mut y) = two();
    let dot = write(&mut y, put_op(3, b"a", None), 1).dot.unwrap();
    send(&y, &mut x, 1);
    let sibling = Context::new(&table(), &key(3), VersionVector::new());
    write(&mut y, put_op(3, b"b", Some(sibling)), 2);
    let before = x.clock().unwrap();
    x.damage_drop_row(&table(), &key(3));
    x.repair_tree(Bucket::of(&table(), &key(3)));
    let object = y.object(&table(), &key(3)).unwrap().unwrap();
    let delta = Delta { table: table(), key: key(3), object, dots: Vec::new() };
    assert_eq!(delta.object.live_len(), 2);
    for (evidence, held) in [
        (Evidence::Held(x.era()), 2),
        (Evidence::Held(Replica::new(actor(9, 2)).era()), 0),
        (Evidence::Beyond(Arc::default()), 2),
        (Evidence::Beyond(Arc::new(before)), 1),
        (Evidence::Own, 1),
    ] {
        let mut x = x.clone();
        write(&mut x, merge_op(&delta, evidence.clone()), 4);
        let live = live(&x, 3);
        assert_eq!((live.len(), live.contains(&dot)), (held, held == 2), "{evidence:?}");
        let object = x.object(&table(), &key(3)).unwrap();
        assert_eq!(object.is_some(), held > 0, "{evidence:?}");
    }
}

/// Contexts and tombstones that go, and clocks that come, end an era; nothing else does.
#[test]
fn era_ends_with_what_is_forgotten_and_taken_over() {
    let (mut x, mut y) = two();
    let mut era = x.era();
    let mut ends = |x: &Replica| std::mem::replace(&mut era, x.era()) != x.era();
    write(&mut x, put_op(1, b"a", None), 1);
    write(&mut y, put_op(2, b"b", None), 1);
    send(&y, &mut x, 1);
    assert!(!ends(&x));
    let stable: Stable = x.clock().unwrap().bases().into();
    assert_eq!(x.sweep(&stable, 10, 0, 99).stripped, 0);
    assert!(!ends(&x), "keys of events went, and nothing else");
    write(&mut x, delete_op(1), 20);
    let stable: Stable = x.clock().unwrap().bases().into();
    assert_eq!(x.sweep(&stable, 30, 0, 99).reaped, 1);
    assert!(ends(&x));
    x.adopt(&y.clock().unwrap(), &VersionVector::new(), None).unwrap();
    assert!(ends(&x) && !ends(&x));
}

#[test]
fn lost_row_is_not_claimed_and_comes_back() {
    let (mut x, mut y) = two();
    for n in 0..20 {
        write(&mut x, put_op(n, b"a", None), 1);
    }
    write(&mut x, delete_op(7), 1);
    send(&x, &mut y, 2);
    let root = x.tree_root().unwrap();
    x.damage_drop_row(&table(), &key(3));
    let bucket = Bucket::of(&table(), &key(3));
    assert!(!x.bucket(bucket).unwrap().sound);
    // Its event is not claimed, and that there is more is told: a third replica gets it from the other.
    let mut third = Replica::new(actor(3, 2));
    assert!(send(&x, &mut third, 3));
    assert_eq!(third.clock().unwrap().missing_dots(&Clock::default()), 20);
    let lost = x.deltas_of(&[Dot { actor: x.actor(), counter: 4 }]).unwrap();
    assert_eq!((lost.0.len(), lost.1.len()), (0, 1));
    // By its own clock the value would be dead; that is no evidence here.
    let object = y.object(&table(), &key(3)).unwrap().unwrap();
    let delta = Delta { table: table(), key: key(3), object, dots: Vec::new() };
    assert!(write(&mut x.clone(), merge_op(&delta, Evidence::Own), 4).fresh);
    assert!(write(&mut x, merge_op(&delta, Evidence::Neither), 4).fresh);
    assert_eq!(x.tree_root().unwrap(), root);
    // What came with it counts as evidence again once the bucket was compared with every member.
    assert_eq!(x.damaged().unwrap(), [bucket]);
    x.compared(&[bucket]);
    assert!(x.bucket(bucket).unwrap().sound);
    // One that is nowhere any more does not hold up a sweep, but its bucket is no evidence.
    x.damage_drop_row(&table(), &key(7));
    let (stable, bucket) = (both_of(&[&x, &y]), Bucket::of(&table(), &key(7)));
    assert_eq!((x.sweep(&stable, 100, 0, 99).swept, x.events_len()), (21, 0));
    assert!(!x.bucket(bucket).unwrap().sound);
    x.repair_tree(bucket);
    assert!(!x.bucket(bucket).unwrap().sound && x.damaged().unwrap() == [bucket]);
    x.compared(&[bucket]);
    assert!(x.bucket(bucket).unwrap().sound);
}

/// A row with siblings is lost without notice, and then a peer tells of another one: what was lost is not dead because this
/// side has processed it once, and nobody is told so. What contexts there were is not pretended to be known.
#[test]
fn event_for_a_lost_row_brings_back_what_was_lost() {
    let (mut x, mut y) = two();
    let nothing = Context::new(&table(), &key(1), VersionVector::new());
    let first = write(&mut x, put_op(1, b"a", None), 1).dot.unwrap();
    let second = write(&mut x, put_op(1, b"b", Some(nothing.clone())), 1).dot.unwrap();
    send(&x, &mut y, 1);
    x.damage_drop_row(&table(), &key(1));
    let third = write(&mut y, put_op(1, b"c", Some(nothing)), 2).dot.unwrap();
    send(&y, &mut x, 3);
    assert_eq!(live(&x, 1), [first, second, third].into());
    assert_eq!(x.damaged().unwrap(), [Bucket::of(&table(), &key(1))]);
    let stranger = Replica::new(actor(3, 2));
    let (told, needs_walk) = missing(&x, &stranger, usize::MAX);
    assert!(told.is_empty() && needs_walk, "{told:?}");
    send(&x, &mut y, 4);
    assert_eq!(live(&y, 1), [first, second, third].into());
}

#[test]
fn adopted_events_are_not_pretended_to_be_served() {
    let (mut x, mut y) = two();
    for n in 0..4 {
        write(&mut x, put_op(n, b"a", None), 1);
        write(&mut x, put_op(n, b"b", None), 1);
    }
    write(&mut x, delete_op(0), 1);
    let behind = y.clone();
    send(&x, &mut y, 2);
    let stable = both_of(&[&x, &y]);
    x.sweep(&stable, 10, 0, 99);
    write(&mut x, put_op(5, b"c", None), 11);
    // A new replica takes the objects of a walk, then the clock.
    let mut new = Replica::new(actor(3, 2));
    let before = (x.clock().unwrap(), x.swept().unwrap());
    for (table, key, object) in x.objects() {
        let (table, key, object) = (table.clone(), key.clone(), object.clone());
        let evidence = Evidence::Both(Arc::new(before.0.clone()));
        write(&mut new, WriteOp::Merge { table, key, object, dots: vec![], evidence }, 12);
    }
    assert!(new.clock().unwrap() != before.0);
    new.adopt(&before.0, &before.1, None).unwrap();
    assert_eq!(new.clock().unwrap(), before.0);
    assert_eq!(new.tree_root().unwrap(), x.tree_root().unwrap());
    // It can tell nobody what it has only heard of, and says so.
    assert!(missing(&x, &behind, 1).1 && missing(&new, &behind, 1).1);
    assert!(send(&new, &mut y, 13), "nor the last event, which came with the rest");
    assert!(!send(&x, &mut y, 13), "only that is lacking there");
    assert_eq!(y.clock().unwrap(), x.clock().unwrap());
    // Adopting what is known already changes nothing.
    let swept = x.swept().unwrap();
    x.adopt(&y.clock().unwrap(), &VersionVector::new(), None).unwrap();
    assert_eq!(x.swept().unwrap(), swept);
}

#[test]
fn event_without_effect_is_processed_and_not_logged() {
    let (mut x, mut y) = two();
    let first = write(&mut x, put_op(1, b"a", None), 1);
    send(&x, &mut y, 1);
    let second = write(&mut x, put_op(1, b"b", None), 1).dot.unwrap();
    let (deltas, _) = missing(&x, &y, usize::MAX);
    // The replacement arrives by another way, with the event of a third replica claimed.
    write(&mut y, merge_op(&deltas[0], Evidence::Own), 2);
    let third = Dot { actor: actor(3, 2), counter: 1 };
    let claim = Delta { dots: vec![third], ..deltas[0].clone() };
    let written = write(&mut y, merge_op(&claim, Evidence::Own), 3);
    assert_eq!((written.fresh, written.seq, written.dot), (true, None, None));
    assert!(y.clock().unwrap().contains(&third));
    // It is handed on with the object that reflects it.
    let passed_on = y.deltas_of(&[third, first.dot.unwrap()]).unwrap().0;
    assert_eq!(passed_on.len(), 1);
    assert_eq!(passed_on[0].object.live_dots().collect::<Vec<_>>(), [second]);
    assert_eq!(passed_on[0].object.entry(&third.actor).unwrap().n(), 1);
    // Numbers that no event has are not taken for events.
    let wild = [0, u64::MAX].map(|counter| Dot { actor: third.actor, counter }).to_vec();
    let op = merge_op(&Delta { dots: wild, ..claim }, Evidence::Own);
    assert!(!write(&mut y, op, 4).fresh);
}

#[test]
fn conditional_write_holds_over_a_sweep_and_not_over_a_change() {
    let (mut x, y) = two();
    let nothing = Context::new(&table(), &key(1), VersionVector::new());
    let put_if = |value: &[u8], expected: &Context| WriteOp::PutIf {
        table: table(),
        key: key(1),
        value: value.to_vec(),
        expected: Some(expected.clone()),
        ttl: None,
    };
    assert!(x.apply(&[put_if(b"a", &nothing)], 1)[0].is_ok());
    write(&mut x, put_op(1, b"b", None), 1);
    let object = x.object(&table(), &key(1)).unwrap().unwrap();
    let seen = Context::of(&table(), &key(1), &object);
    assert_eq!(x.sweep(&both_of(&[&x]), 9, 0, 9).swept, 2);
    let mut changed = x.clone();
    assert!(x.apply(&[put_if(b"c", &seen)], 10)[0].is_ok());
    write(&mut changed, delete_op(1), 10);
    assert!(changed.apply(&[put_if(b"c", &seen)], 11)[0].is_err());
    changed.sweep(&both_of(&[&changed]), 20, 0, 9);
    assert_eq!(changed.objects().count(), 0);
    assert!(changed.apply(&[put_if(b"c", &seen)], 21)[0].is_err(), "it was there, and is gone");
    assert!(changed.apply(&[put_if(b"c", &nothing)], 21)[0].is_ok());
    drop(y);
}

#[test]
fn expiry_is_written_by_the_writer_or_after_a_minute() {
    let (mut x, mut y) = two();
    let op = WriteOp::Put {
        table: table(),
        key: key(1),
        value: b"v".to_vec(),
        context: None,
        ttl: Some(std::time::Duration::from_millis(100)),
    };
    let read = write(&mut x, op, 1_000).context;
    send(&x, &mut y, 1_000);
    let expire = || WriteOp::Expire { table: table(), key: key(1), read: read.clone() };
    for (replica, now_ms, expires) in
        [(&x, 1_099, false), (&x, 1_100, true), (&y, 61_099, false), (&y, 61_100, true)]
    {
        let written = write(&mut replica.clone(), expire(), now_ms);
        assert_eq!(written.dot.is_some(), expires, "{now_ms}");
    }
    // The node is what counts, not its life.
    x.renew(4);
    assert!(write(&mut x, expire(), 1_100).dot.is_some());
}

#[test]
fn stripped_objects_of_a_walk_are_not_handed_to_those_who_need_their_contexts() {
    let (mut x, mut y) = two();
    let old = write(&mut x, put_op(1, b"a", None), 1).dot.unwrap();
    let mut behind = Replica::new(actor(4, 2));
    send(&x, &mut y, 1);
    send(&x, &mut behind, 1);
    let new = write(&mut y, put_op(1, b"b", None), 2).dot.unwrap();
    send(&y, &mut x, 2);
    assert_eq!(x.sweep(&both_of(&[&x, &y]), 10, 0, 9).stripped, 1);
    let object = x.object(&table(), &key(1)).unwrap().unwrap();
    assert_eq!(object.entries().len(), 1, "that the old value was replaced is only in the clock");
    let mut walked = Replica::new(actor(3, 2));
    let (table, key) = (table(), key(1));
    let clock = Arc::new(x.clock().unwrap());
    let evidence = Evidence::Both(Arc::clone(&clock));
    let op = WriteOp::Merge { table, key, object, dots: Vec::new(), evidence };
    write(&mut walked, op.clone(), 11);
    walked.adopt(&clock, &x.swept().unwrap(), None).unwrap();
    assert!(missing(&walked, &behind, 1).1, "only a walk brings the end of the old value");
    send(&walked, &mut behind, 12);
    assert_eq!(live(&behind, 1), [old].into());
    write(&mut behind, op, 13);
    assert_eq!(live(&behind, 1), [new].into());
}

/// A value is replaced, everybody has the replacement and forgets what it had replaced; then it is itself replaced. One that
/// goes back to a backup with the first value hears of the last event alone: it must not take the one between for processed,
/// of which nobody can tell it what it had replaced. Else, with equal clocks, the first value would pass for one that the
/// others have lost.
#[test]
fn replaced_value_of_a_stripped_object_is_not_taken_for_processed() {
    let (mut x, mut y) = two();
    let old = write(&mut x, put_op(1, b"old", None), 1).dot.unwrap();
    send(&x, &mut y, 1);
    let mut restored = Replica::new(actor(3, 2));
    send(&x, &mut restored, 1);
    let between = write(&mut y, put_op(1, b"between", None), 2).dot.unwrap();
    let mut z = Replica::new(actor(4, 2));
    send(&y, &mut x, 2);
    send(&y, &mut z, 2);
    for replica in [&mut x, &mut y, &mut z] {
        let stable = replica.clock().unwrap().bases().into();
        assert_eq!(replica.sweep(&stable, 10, 0, 9).stripped, 1);
    }
    let last = write(&mut z, put_op(1, b"last", None), 11).dot.unwrap();
    send(&z, &mut x, 11);
    for delta in z.deltas_after(&z.actor(), 0, usize::MAX).unwrap().deltas {
        assert_eq!(delta.dots, [last]);
        write(&mut restored, merge_op(&delta, Evidence::Own), 12);
    }
    assert_eq!(live(&restored, 1), [old, last].into());
    let clock = restored.clock().unwrap();
    assert!(clock.contains(&last) && !clock.contains(&between));
    assert!(missing(&x, &restored, usize::MAX).1, "only a walk can tell");
    // Nothing is forgotten there while what its object names has not been processed.
    let everything = both_of(&[&x, &restored]);
    let before = restored.object(&table(), &key(1)).unwrap();
    assert_eq!(restored.sweep(&everything, 100, 0, 9).swept, 0);
    assert_eq!(restored.object(&table(), &key(1)).unwrap(), before);
    walk(&x, &mut restored, 101);
    assert_eq!(live(&restored, 1), [last].into());
    assert_eq!(restored.clock().unwrap(), x.clock().unwrap());
    let report = restored.sweep(&both_of(&[&restored]), 200, 0, 9);
    assert_eq!((report.stripped, restored.events_len()), (1, 0));
}

/// What a walk brings may be stripped of its contexts: until the clock is taken over it is not processed, and afterwards it
/// is not told to others.
#[test]
fn values_of_a_walk_are_processed_with_the_clock_only() {
    let (mut x, mut y) = two();
    let old = write(&mut x, put_op(1, b"old", None), 1).dot.unwrap();
    send(&x, &mut y, 1);
    let mut behind = [4, 5].map(|n| Replica::new(actor(n, 2)));
    behind.iter_mut().for_each(|replica| assert!(!send(&x, replica, 1)));
    let new = write(&mut y, put_op(1, b"new", None), 2).dot.unwrap();
    send(&y, &mut x, 2);
    assert_eq!(x.sweep(&both_of(&[&x, &y]), 10, 0, 9).stripped, 1);
    let object = x.object(&table(), &key(1)).unwrap().unwrap();
    let delta = Delta { table: table(), key: key(1), object, dots: Vec::new() };
    let [first, second] = &mut behind;
    // In a bucket that is damaged there, what the peer does not hold is no evidence.
    write(first, merge_op(&delta, Evidence::Neither), 11);
    assert_eq!(live(first, 1), [old, new].into());
    assert!(!first.clock().unwrap().contains(&new));
    assert!(missing(&x, first, 1).1);
    walk(&x, first, 12);
    assert_eq!(live(first, 1), [new].into());
    assert!(first.clock().unwrap().contains(&new));
    let (told, needs_walk) = missing(first, second, usize::MAX);
    assert!(needs_walk && told.iter().all(|delta| !delta.dots.contains(&new)), "{told:?}");
    assert_eq!(first.deltas_of(&[new]).unwrap(), (Vec::new(), vec![new]));
    send(first, second, 13);
    assert!(!second.clock().unwrap().contains(&new));
}

/// An event that went down with all who had it, while an event that replaced it was told: nobody waits for it, and when it
/// turns up after all it does not come to life.
#[test]
fn event_that_is_lost_for_good_is_not_waited_for() {
    let (mut x, mut y) = two();
    let (mut first, mut second) = (Replica::new(actor(8, 2)), Replica::new(actor(9, 2)));
    let lost = write(&mut first, put_op(1, b"lost", None), 1).dot.unwrap();
    let late = first.deltas_of(&[lost]).unwrap().0;
    send(&first, &mut second, 1);
    let told = write(&mut second, put_op(1, b"told", None), 1).dot.unwrap();
    write(&mut x, merge_op(&second.deltas_of(&[told]).unwrap().0[0], Evidence::Own), 2);
    assert!(x.clock().unwrap().contains(&told) && !x.clock().unwrap().contains(&lost));
    send(&x, &mut y, 2);
    write(&mut y, delete_op(1), 3);
    send(&y, &mut x, 3);
    // As long as the node of the lost event counts, it may still tell.
    let clocks = [&x, &y, &first].map(|replica| replica.clock().unwrap());
    let current = [&x, &y, &first].map(Replica::actor).into();
    let stable =
        weald_storage::stable(&clocks.iter().collect::<Vec<_>>(), &current, Others::Nobody);
    assert_eq!(x.clone().sweep(&stable, 10, 0, 9).swept, 0);
    let stable = both_of(&[&x, &y]);
    for replica in [&mut x, &mut y] {
        let report = replica.sweep(&stable, 10, 0, 9);
        assert_eq!((report.reaped, replica.objects().count(), replica.events_len()), (1, 0, 0));
        assert!(!write(replica, merge_op(&late[0], Evidence::Own), 11).fresh);
    }
    assert_eq!(x.clock().unwrap(), y.clock().unwrap());
}

/// The same, with a member that is fenced and has what was lost. The context of what replaced it is all that tells that it is
/// dead, so it is not forgotten until that member is back, or out.
#[test]
fn event_that_only_a_fenced_member_has_stays_dead_when_it_comes_back() {
    let (mut rest, mut away) = two();
    write(&mut away, put_op(1, b"never told", None), 1);
    let mut backup = away.clone();
    let told = write(&mut away, put_op(1, b"told", None), 2).dot.unwrap();
    write(&mut rest, merge_op(&away.deltas_of(&[told]).unwrap().0[0], Evidence::Own), 2);
    let last = write(&mut rest, put_op(1, b"last", None), 3).dot.unwrap();
    let (clock, current) = (rest.clock().unwrap(), [rest.actor()].into());
    let sweep = |replica: &mut Replica, others| {
        replica.sweep(&weald_storage::stable(&[&clock], &current, others), 10, 0, 9)
    };
    assert_eq!(sweep(&mut rest.clone(), Others::Nobody).stripped, 1);
    assert_eq!(sweep(&mut rest, Others::Fenced).stripped, 0);
    backup.renew(4);
    send(&backup, &mut rest, 11);
    assert_eq!(live(&rest, 1), [last].into());
}
