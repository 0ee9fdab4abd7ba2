//! Worked examples: the expected states of the published DVVSet unit tests, with counters that
//! step by one per key, and without the anonymous values that this type does not have.

use weald_storage::{
    Actor, Dot, Dvvset, Entry, Hlc, Key, NodeId, Object, Resolver, Resolvers, TableName, Value,
    VersionVector, lww,
};

fn actor(name: char) -> Actor {
    Actor { node: NodeId([u8::try_from(name).unwrap(); 16]), incarnation: 0 }
}

/// Reads `a:3[v3,v2] b:1[]`: values are live with the counters n, n - 1, ...
fn set(text: &str) -> Dvvset<String> {
    let entry = |text: &str| {
        let (head, values) = text.strip_suffix(']').unwrap().split_once('[').unwrap();
        let (name, n) = head.split_once(':').unwrap();
        let n: u64 = n.parse().unwrap();
        let values = values.split(',').filter(|v| !v.is_empty()).map(str::to_owned);
        let values = (0..n).rev().map(|below| below + 1).zip(values).collect();
        (actor(name.chars().next().unwrap()), Entry::from_parts(n, values).unwrap())
    };
    Dvvset::from_entries(text.split(' ').filter(|e| !e.is_empty()).map(entry).collect()).unwrap()
}

fn vector(entries: &[(char, u64)]) -> VersionVector {
    entries.iter().map(|(name, n)| (actor(*name), *n)).collect()
}

/// `set` after a write of `v` at `name`, with the next counter of the key.
fn put(set: &Dvvset<String>, context: &VersionVector, name: char, v: &str) -> Dvvset<String> {
    let known = set.entry(&actor(name)).map_or(0, Entry::n).max(context.get(&actor(name)));
    let mut after = set.clone();
    after.write(context, Dot { actor: actor(name), counter: known + 1 }, v.to_owned());
    after
}

fn stamped(set: Dvvset<String>) -> Object {
    set.map(|text| {
        let (payload, stamp) = text.split_once('@').unwrap_or((&text, &text));
        Value {
            stamp: Hlc::new(stamp.parse().unwrap(), 0),
            expires_ms: None,
            payload: Some(payload.as_bytes().to_vec()),
        }
    })
}

#[test]
fn rows_1_to_5_writes() {
    let nothing = VersionVector::new();
    let a0 = put(&Dvvset::new(), &nothing, 'a', "v1");
    let a1 = put(&a0, &a0.join(), 'a', "v2");
    for (row, found, expected) in [
        (1, a0.clone(), "a:1[v1]"),
        (2, a1.clone(), "a:2[v2]"),
        (3, put(&a1, &a1.join(), 'b', "v3"), "a:2[] b:1[v3]"),
        (4, put(&a1, &a0.join(), 'b', "v4"), "a:2[v2] b:1[v4]"),
        (5, put(&a1, &a0.join(), 'a', "v5"), "a:3[v5,v2]"),
    ] {
        assert_eq!(found, set(expected), "row {row}");
    }
}

#[test]
fn row_6_no_false_conflict() {
    let m = put(&Dvvset::new(), &VersionVector::new(), 'a', "v1");
    let read = m.join();
    assert_eq!(read, vector(&[('a', 1)]));
    let m = put(&m, &VersionVector::new(), 'a', "v2");
    assert_eq!(m, set("a:2[v2,v1]"));
    assert_eq!(put(&m, &read, 'a', "v3"), set("a:3[v3,v2]"));
}

#[test]
fn rows_7_to_9_merges() {
    let a = set("a:2[v2]");
    let (b, c) = (put(&a, &a.join(), 'b', "v3"), put(&a, &a.join(), 'c', "v3"));
    for (row, x, y, expected) in [
        (7, set("a:1[]"), set("a:2[v2,v1]"), "a:2[v2]"),
        (8, b, c, "a:2[] b:1[v3] c:1[v3]"),
        (9, set("x:1[]"), set("a:1[v1]"), "a:1[v1] x:1[]"),
    ] {
        assert_eq!(x.sync(&y), set(expected), "row {row}");
        assert_eq!(y.sync(&x), set(expected), "row {row}, other order");
    }
}

#[test]
fn rows_10_to_12_and_16_latest_and_first_as_reads() {
    // 16 DEVIATES on purpose: all live values compete, so the greater stamp wins although an
    // actor whose clock was set back wrote over it.
    for (row, clock, latest, first) in [
        (10, "a:4[5,2] b:1[] c:1[3]", "5", "2"),
        (11, "a:4[5,2] b:1[1]", "5", "1"),
        (12, "a:4[5@1002345,7@1002340] b:1[4@1001340]", "5", "4"),
        (16, "a:2[50@5,90@9]", "90", "50"),
    ] {
        let object = stamped(set(clock));
        let before = object.clone();
        let winner = lww(object.refs()).winner.unwrap();
        assert_eq!(winner.payload, Some(latest.as_bytes()), "row {row}");
        let earliest = object.refs().min_by_key(|v| (v.stamp, v.dot)).unwrap();
        assert_eq!(earliest.payload, Some(first.as_bytes()), "row {row}");
        assert_eq!(object, before, "row {row}");
    }
}

#[test]
fn row_13_reconcile_as_a_read() {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
    let mut resolvers = Resolvers::default();
    resolvers.register("sum", move |_, _, values| {
        Ok(values.iter().map(|v| number(v)).sum::<u64>().to_string().into_bytes())
    });
    resolvers.register("min", |_, _, values| Ok(values.iter().min().unwrap().to_vec()));
    let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
    let object = stamped(set("a:4[5,2] b:1[] c:1[3]"));
    for (name, expected) in [("sum", "10"), ("min", "2"), ("max", "5")] {
        let resolver = Resolver::Merge(name.to_owned());
        let resolved = resolvers.resolve(&resolver, &table, &key, &object, 0);
        assert_eq!(resolved.values[0].payload.as_deref(), Some(expected.as_bytes()), "{name}");
        assert_eq!(resolved.repair.as_ref(), Some(&resolved.values[0]), "{name}");
        // Writing the resolution under what was read gives one value under a new dot.
        let mut repaired = object.clone();
        let dot = Dot { actor: actor('b'), counter: 2 };
        repaired.write(&object.join(), dot, resolved.values[0].clone());
        assert_eq!(repaired.live_dots().collect::<Vec<_>>(), [dot]);
    }
}

#[test]
fn row_14_equal_ignores_values() {
    assert!(set("a:4[v5,v0] c:1[v3]").equal(&set("a:4[v555,v0] c:1[v3]")));
    assert!(!set("a:4[v5,v0] c:1[v3]").equal(&set("a:4[v5] c:1[v3]")));
    assert!(!set("a:4[v5,v0] c:1[v3]").equal(&set("a:5[v5,v0] c:1[v3]")));
    assert!(!set("a:4[v5,v0] c:1[v3]").equal(&set("a:4[v5,v0] b:1[v3]")));
    assert!(!set("a:4[v5,v0]").equal(&set("a:4[v5,v0] b:1[v3]")));
}

#[test]
fn row_15_less() {
    let after =
        |seen: &Dvvset<String>, server: &Dvvset<String>, name| put(server, &seen.join(), name, "v");
    let nothing = Dvvset::new();
    let a = after(&nothing, &nothing, 'x');
    let (b, b2, b3) = (after(&a, &a, 'a'), after(&a, &a, 'b'), after(&a, &a, 'z'));
    let c = after(&b, &a, 'c');
    let d = after(&c, &b2, 'd');
    for (name, x, y) in [
        ("A<B", &a, &b),
        ("A<C", &a, &c),
        ("A<D", &a, &d),
        ("B<C", &b, &c),
        ("B<D", &b, &d),
        ("B2<D", &b2, &d),
    ] {
        assert!(x.less(y), "{name}");
        assert!(!y.less(x), "not the reverse of {name}");
    }
    for (name, x, y) in [
        ("B2<C", &b2, &c),
        ("B<B2", &b, &b2),
        ("B2<B", &b2, &b),
        ("B3<D", &b3, &d),
        ("D<B2", &d, &b2),
    ] {
        assert!(!x.less(y), "not {name}");
    }
    for x in [&a, &b, &b2, &b3, &c, &d] {
        assert!(!x.less(x));
    }
}

#[test]
fn case_22_join_event_size_map_and_merge() {
    let a = set("a:1[v1]");
    let nothing = VersionVector::new();
    assert_eq!(Dvvset::<String>::new().join(), nothing);
    assert_eq!(a.join(), vector(&[('a', 1)]));
    assert_eq!(put(&a, &a.join(), 'b', "v2").join(), vector(&[('a', 1), ('b', 1)]));
    assert_eq!(put(&a, &nothing, 'a', "v2"), set("a:2[v2,v1]"));
    assert_eq!(put(&a, &nothing, 'b', "v2"), set("a:1[v1] b:1[v2]"));

    let many = set("a:4[v5,v0] c:1[v3]");
    assert_eq!((a.live_len(), many.live_len()), (1, 3));
    let actors: Vec<Actor> = many.entries().map(|(actor, _)| *actor).collect();
    assert_eq!(actors, [actor('a'), actor('c')]);
    assert_eq!(many.values().collect::<Vec<_>>(), ["v5", "v0", "v3"]);
    let doubled = many.clone().map(|v| format!("{v}{v}"));
    assert_eq!(doubled, set("a:4[v5v5,v0v0] c:1[v3v3]"));
    assert!(doubled.equal(&many));

    let x = set("x:1[]");
    let w = put(&a, &a.join(), 'b', "v2");
    let z = put(&a, &a.join(), 'a', "v2");
    assert_eq!(w.sync(&z), z.sync(&w));
    assert_eq!(w.sync(&z), set("a:2[v2] b:1[v2]"));
    assert_eq!(x.sync(&a).live_len(), 1);
}

#[test]
fn counters_with_holes_keep_the_right_values() {
    // Writes 3, 7 and 9 of one actor fell on this key, the others on its neighbours.
    let dot = |counter| Dot { actor: actor('a'), counter };
    let mut m = Dvvset::new();
    m.write(&VersionVector::new(), dot(3), "three");
    m.write(&VersionVector::new(), dot(7), "seven");
    let mut n = m.clone();
    n.write(&vector(&[('a', 3)]), dot(9), "nine");
    let entry = n.entry(&actor('a')).unwrap();
    assert_eq!((entry.floor(), entry.n()), (6, 9));
    assert_eq!(n.live_dots().collect::<Vec<_>>(), [dot(9), dot(7)]);
    assert_eq!(m.sync(&n), n);
    // A context between two dots replaces those below it and no other.
    let mut between = n.clone();
    assert!(between.discard(&vector(&[('a', 8)])));
    assert_eq!(between.live_dots().collect::<Vec<_>>(), [dot(9)]);
    assert!(!n.discard(&vector(&[('a', 5)])), "nothing below 7 was live");
}
