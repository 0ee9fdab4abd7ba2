//! L1 to L5 and L7 to L12, on states that histories reach.

use proptest::prelude::*;
use proptest::sample::Index;
use weald_storage::{
    Actor, Dot, Dvvset, EntryDigest, Key, NodeId, Resolver, Resolvers, TableName, VersionVector,
    encode_object, lww,
};

use crate::history::{KEYS, State, World, object_of};

const CASES: u32 = 10_000;

/// Three states of one key, reached in one history of `steps` steps.
fn three() -> impl Strategy<Value = (State, State, State)> {
    let words = prop::collection::vec(any::<u64>(), 1..40);
    let picks: [_; 3] = std::array::from_fn(|_| any::<Index>());
    (words, 0..KEYS, picks).prop_map(|(words, key, picks)| {
        let states = &World::play(&words).states[key];
        let [x, y, z] = picks.map(|pick| pick.get(states).clone());
        (x, y, z)
    })
}

fn one() -> impl Strategy<Value = State> {
    three().prop_map(|(x, _, _)| x)
}

/// An actor that occurs in histories, or one that does not.
fn actor() -> impl Strategy<Value = Actor> {
    (0..5_u8, 1..3_u32)
        .prop_map(|(node, incarnation)| Actor { node: NodeId([node; 16]), incarnation })
}

/// A dot of `actor` that no history has used.
fn new_dot(actor: Actor) -> Dot {
    Dot { actor, counter: 1_000 }
}

fn max(x: &VersionVector, y: &VersionVector) -> VersionVector {
    x.iter().chain(y.iter()).collect()
}

fn bytes(set: &Dvvset<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_object(&object_of(set.clone()), &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn l1_to_l4_merge_is_a_join((x, y, z) in three()) {
        let (x, y, z) = (x.set, y.set, z.set);
        prop_assert_eq!(x.sync(&y), y.sync(&x));
        prop_assert_eq!(x.sync(&y).sync(&z), x.sync(&y.sync(&z)));
        prop_assert_eq!(&x.sync(&x), &x);
        prop_assert_eq!(x.sync(&y).join(), max(&x.join(), &y.join()));
        prop_assert_eq!(x.sync(&y).sync(&y), x.sync(&y));
        let mut joined = x.join();
        joined.merge(&y.join());
        prop_assert_eq!(joined, max(&x.join(), &y.join()));
    }

    #[test]
    fn l5_and_l9_less_is_the_strict_order_of_what_was_seen((x, y, z) in three()) {
        let within = |a: &State, b: &State| a.seen & !b.seen == 0 && a.seen != b.seen;
        prop_assert_eq!(x.set.less(&y.set), within(&x, &y));
        prop_assert_eq!(x.set.equal(&y.set), x.seen == y.seen);
        prop_assert_eq!(x.set.less(&y.set), y.set.join().dominates(&x.set.join()));
        prop_assert_eq!(y.set.descends(&x.set.join()), within(&x, &y) || x.seen == y.seen);
        prop_assert_eq!(x.set.covered_by(&y.set.join()), within(&x, &y) || x.seen == y.seen);
        if x.set.less(&y.set) {
            prop_assert_eq!(&x.set.sync(&y.set), &y.set);
            prop_assert!(!y.set.less(&x.set));
            prop_assert!(!y.set.less(&z.set) || x.set.less(&z.set));
        }
        if x.set.equal(&y.set) {
            prop_assert_eq!(&x.set.sync(&y.set), &x.set);
        }
        prop_assert!(!x.set.less(&x.set));
        prop_assert!(x.set.clashes(&y.set).is_empty());
    }

    #[test]
    fn l7_and_l8_writes_replace_what_they_saw((x, y, _) in three(), actor in actor()) {
        let dot = new_dot(actor);
        let mut over = x.set.clone();
        over.write(&x.set.join(), dot, 999);
        prop_assert_eq!(over.live().collect::<Vec<_>>(), [(dot, &999)]);
        prop_assert!(x.set.less(&over));

        let mut blind = x.set.clone();
        blind.write(&VersionVector::new(), dot, 999);
        prop_assert_eq!(blind.live_len(), x.set.live_len() + 1);
        prop_assert!(x.set.live().all(|(dot, v)| blind.value_at(&dot) == Some(v)));
        prop_assert_eq!(blind.value_at(&dot), Some(&999));

        // A write after a read elsewhere is the merge of both, with what was read replaced.
        let mut after = x.set.clone();
        after.write(&y.set.join(), dot, 999);
        let kept = |(dot, _): &(Dot, &u64)| !y.set.join().covers(dot);
        let mut expected: Vec<_> = x.set.live().filter(kept).chain([(dot, &999)]).collect();
        expected.sort_by_key(|(dot, _)| (dot.actor, std::cmp::Reverse(dot.counter)));
        prop_assert_eq!(after.live().collect::<Vec<_>>(), expected);
        prop_assert!(y.set.less(&after) && x.set.less(&after));
    }

    #[test]
    fn l10_resolving_is_a_read_and_its_repair_is_stable(
        x in one(),
        actor in actor(),
        now_ms in 0..4_000_u64,
    ) {
        let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
        let resolvers = Resolvers::default();
        let object = object_of(x.set);
        for resolver in [Resolver::Lww, Resolver::Merge("max".to_owned())] {
            let resolved = resolvers.resolve(&resolver, &table, &key, &object, now_ms);
            prop_assert!(resolved.values.len() <= 1 && resolved.failure.is_none());
            let Some(repair) = resolved.repair.clone() else { continue };
            let mut repaired = object.clone();
            repaired.write(&object.join(), new_dot(actor), repair);
            let again = resolvers.resolve(&resolver, &table, &key, &repaired, now_ms);
            prop_assert_eq!(&again.values, &resolved.values);
            prop_assert!(!again.needs_repair());
            // Merging the repaired with the unrepaired changes nothing.
            prop_assert_eq!(repaired.sync(&object), repaired.clone());
            // Two replicas that repair at once agree, and do not go on repairing.
            let mut other = object.clone();
            let dot = Dot { actor: Actor { node: NodeId([99; 16]), incarnation: 1 }, counter: 1 };
            other.write(&object.join(), dot, resolved.repair.unwrap());
            let both = resolvers.resolve(&resolver, &table, &key, &repaired.sync(&other), now_ms);
            prop_assert_eq!(both.values, resolved.values);
            prop_assert!(both.repair.is_none());
        }
        // All live values compete, whichever actor wrote them.
        let winner = lww(object.refs()).winner;
        prop_assert_eq!(winner, object.refs().max_by_key(|v| (v.stamp, v.dot)));
        let siblings = resolvers.resolve(&Resolver::Siblings, &table, &key, &object, now_ms);
        let visible = object.values().filter(|v| v.visible(now_ms).is_some()).count();
        prop_assert_eq!(siblings.values.len(), visible);
    }

    #[test]
    fn l11_sets_do_not_outgrow_their_history(words in prop::collection::vec(any::<u64>(), 1..60)) {
        let world = World::play(&words);
        let actors_len = world.actors_len();
        for state in world.states.iter().flatten() {
            prop_assert!(state.set.entries().len() <= actors_len);
            prop_assert!(state.set.live_len() <= state.seen.count_ones() as usize);
            prop_assert_eq!(state.set.is_empty(), state.seen == 0);
        }
    }

    #[test]
    fn l12_equal_states_are_equal_bytes_and_digests((x, y, z) in three()) {
        let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
        let digest = |set: &Dvvset<u64>| EntryDigest::of_dots(&table, &key, set.live_dots());
        prop_assert_eq!(bytes(&x.set.sync(&y.set)), bytes(&y.set.sync(&x.set)));
        prop_assert_eq!(bytes(&x.set.sync(&y.set).sync(&z.set)), bytes(&x.set.sync(&y.set.sync(&z.set))));
        prop_assert_eq!(bytes(&x.set) == bytes(&y.set), x.seen == y.seen);
        // Contexts, stamps and payloads do not count.
        let same_dots = x.set.live_dots().eq(y.set.live_dots());
        prop_assert_eq!(digest(&x.set) == digest(&y.set), same_dots);
        let object = object_of(x.set.clone());
        let counts = object.values().any(|value| value.payload.is_some());
        let expected = counts.then(|| digest(&x.set));
        prop_assert_eq!(EntryDigest::of(&table, &key, &object), expected);
    }
}

#[test]
fn clashes_are_the_dots_with_two_values() {
    let dot = new_dot(Actor { node: NodeId([1; 16]), incarnation: 1 });
    let (mut x, mut y) = (Dvvset::new(), Dvvset::new());
    x.write(&VersionVector::new(), dot, 1);
    y.write(&VersionVector::new(), dot, 2);
    assert!(x.equal(&y));
    assert_eq!(x.clashes(&y), [dot]);
    assert_eq!(x.clashes(&x), []);
}
