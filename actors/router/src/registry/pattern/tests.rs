//! The index against a naive model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const POLICIES: [MatchPolicy; 3] = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard];

type Model = BTreeMap<(MatchPolicy, String), u32>;

fn fits(policy: MatchPolicy, pattern: &str, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => pattern == uri,
        MatchPolicy::Prefix => uri.starts_with(pattern),
        MatchPolicy::Wildcard => {
            let (pattern, uri): (Vec<_>, Vec<_>) =
                (pattern.split('.').collect(), uri.split('.').collect());
            pattern.len() == uri.len()
                && pattern.iter().zip(&uri).all(|(p, u)| p.is_empty() || p == u)
        }
    }
}

/// The order of choice, greatest first: policy, length of a prefix, places of literals.
fn rank(policy: MatchPolicy, pattern: &str) -> (u8, usize, Vec<bool>) {
    match policy {
        MatchPolicy::Exact => (2, 0, Vec::new()),
        MatchPolicy::Prefix => (1, pattern.len(), Vec::new()),
        MatchPolicy::Wildcard => (0, 0, pattern.split('.').map(|c| !c.is_empty()).collect()),
    }
}

fn naive_all(model: &Model, uri: &str) -> Vec<(MatchPolicy, u32)> {
    let mut found: Vec<_> = model
        .iter()
        .filter(|((policy, pattern), _)| fits(*policy, pattern, uri))
        .map(|((policy, _), value)| (*policy, *value))
        .collect();
    found.sort_unstable();
    found
}

fn naive_best(model: &Model, uri: &str, keep: impl Fn(u32) -> bool) -> Option<(MatchPolicy, u32)> {
    model
        .iter()
        .filter(|((policy, pattern), value)| fits(*policy, pattern, uri) && keep(**value))
        .max_by_key(|((policy, pattern), _)| rank(*policy, pattern))
        .map(|((policy, _), value)| (*policy, *value))
}

type Entry = (String, u32);

fn check_against(index: &Index<Entry>, model: &Model, uris: &[String]) {
    assert_eq!(index.len(), model.len());
    for uri in uris {
        let mut all = Vec::new();
        index.all(uri, |policy, value| all.push((policy, value.1)));
        all.sort_unstable();
        assert_eq!(all, naive_all(model, uri), "all of {uri:?} in {model:?}");
        for keep in [|_: u32| true, |value: u32| value.is_multiple_of(2)] {
            let best =
                index.best(uri, |value| keep(value.1)).map(|(policy, value)| (policy, value.1));
            assert_eq!(best, naive_best(model, uri, keep), "best of {uri:?} in {model:?}");
        }
    }
    let mut each = Model::new();
    for policy in POLICIES {
        index.each(policy, |(uri, value)| {
            assert_eq!(each.insert((policy, uri.clone()), *value), None, "{uri} twice");
        });
    }
    assert_eq!(&each, model);
    for ((policy, pattern), value) in model {
        assert_eq!(index.get(*policy, pattern).map(|(_, value)| value), Some(value));
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(MatchPolicy, String, u32),
    Remove(MatchPolicy, String),
    /// Changes the entry in place.
    Change(MatchPolicy, String),
    Snapshot,
}

/// Few components, so that patterns meet; more than a list of children holds, so that both kinds are met.
fn pattern() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        3 => Just(String::new()),
        4 => "[ab]{1,2}",
        2 => (0..40_u8).prop_map(|n| format!("component-number-{n}")),
        1 => "[aä]",
    ];
    prop::collection::vec(component, 1..5).prop_map(|components| components.join("."))
}

fn op() -> impl Strategy<Value = Op> {
    let policy = || prop::sample::select(&POLICIES[..]);
    prop_oneof![
        6 => (policy(), pattern(), any::<u32>()).prop_map(|(m, p, v)| Op::Insert(m, p, v)),
        3 => (policy(), pattern()).prop_map(|(m, p)| Op::Remove(m, p)),
        2 => (policy(), pattern()).prop_map(|(m, p)| Op::Change(m, p)),
        1 => Just(Op::Snapshot),
    ]
}

proptest! {
    #[test]
    fn index_random_operations_agree_with_the_model(
        ops in prop::collection::vec(op(), 0..120),
        uris in prop::collection::vec(pattern(), 1..20),
    ) {
        let (mut index, mut model) = (Index::default(), Model::new());
        let mut snapshots = Vec::new();
        for op in ops {
            match op {
                Op::Insert(policy, pattern, value) => {
                    let before = index.insert(policy, pattern.as_str().into(), (pattern.clone(), value));
                    let before = before.unwrap().map(|(_, value)| value);
                    assert_eq!(before, model.insert((policy, pattern), value));
                }
                Op::Remove(policy, pattern) => {
                    let removed = index.remove(policy, &pattern).map(|(_, value)| value);
                    assert_eq!(removed, model.remove(&(policy, pattern)));
                }
                Op::Change(policy, pattern) => {
                    let value = index.get_mut(policy, &pattern).map(|(_, value)| {
                        *value = value.wrapping_add(1);
                        *value
                    });
                    let known = model.get_mut(&(policy, pattern)).map(|value| {
                        *value = value.wrapping_add(1);
                        *value
                    });
                    assert_eq!(value, known);
                }
                Op::Snapshot => snapshots.push((index.clone(), model.clone())),
            }
        }
        let mut uris = uris;
        uris.extend(model.keys().map(|(_, pattern)| pattern.clone()));
        check_against(&index, &model, &uris);
        for (index, model) in &snapshots {
            check_against(index, model, &uris);
        }
        // Taken down to nothing, it is as new.
        for (policy, pattern) in model.keys() {
            prop_assert!(index.remove(*policy, pattern).is_some());
        }
        check_against(&index, &Model::new(), &uris);
    }
}

#[test]
fn index_precedence_is_exact_then_longest_prefix_then_leftmost_literals() {
    const EXACT: [&str; 1] = ["a1.b2.c3.d4.e55"];
    const PREFIX: [&str; 2] = ["a1.b2.c3.d4", "a1.b2.c3"];
    const WILDCARD: [&str; 7] = [
        "a1.b2.c33..e5",
        "a1.b2..d4.e5",
        "a1.b2..d4.",
        "a1.b2...e5",
        "a1...d4.e5",
        "a1....e5",
        "a1....",
    ];
    let mut index = Index::default();
    for (policy, patterns) in
        [(POLICIES[0], &EXACT[..]), (POLICIES[1], &PREFIX[..]), (POLICIES[2], &WILDCARD[..])]
    {
        for pattern in patterns {
            index.insert(policy, Uri::from(*pattern), *pattern).unwrap();
        }
    }
    for (uri, expected) in [
        ("a1.b2.c3.d4.e55", Some("a1.b2.c3.d4.e55")),
        ("a1.b2.c3.d98.e74", Some("a1.b2.c3")),
        ("a1.b2.c3.d4.e325", Some("a1.b2.c3.d4")),
        // Prefixes are of strings, not of components.
        ("a1.b2.c3.d41", Some("a1.b2.c3.d4")),
        ("a1.b2.c33.d4.e5", Some("a1.b2.c3")),
        ("a1.b2.c55.d4.e5", Some("a1.b2..d4.e5")),
        ("a1.b2.c55.d4.e7", Some("a1.b2..d4.")),
        ("a1.b2.c88.d69.e5", Some("a1.b2...e5")),
        ("a1.b71.c9.d4.e5", Some("a1...d4.e5")),
        ("a1.b71.c9.d5.e5", Some("a1....e5")),
        ("a1.b1.c1.d1.e1", Some("a1....")),
        ("a2.b2.c2.d2.e2", None),
        ("a1.b1.c1.d1", None),
        ("a1.b1.c1.d1.e1.f1", None),
    ] {
        assert_eq!(index.best(uri, |_| true).map(|(_, found)| *found), expected, "{uri}");
    }
    // Without the prefix that shadows it, the wildcard of the longest first run is next.
    index.remove(MatchPolicy::Prefix, "a1.b2.c3");
    let best = index.best("a1.b2.c33.d4.e5", |_| true);
    assert_eq!(best, Some((MatchPolicy::Wildcard, &"a1.b2.c33..e5")));
}

#[test]
fn index_pattern_too_long_is_refused() {
    let mut index = Index::default();
    let long: Uri = "a".repeat(PATTERN_BYTES_MAX + 1).into();
    for policy in [MatchPolicy::Prefix, MatchPolicy::Wildcard] {
        assert_eq!(index.insert(policy, Uri::clone(&long), 0), Err(PatternTooLong));
    }
    assert!(index.is_empty());
    assert_eq!(index.insert(MatchPolicy::Exact, long, 0), Ok(None));
}

/// Goal: the deepest tries there can be are made, cloned on write, read, and dropped on the stack of an ordinary thread.
#[test]
fn index_deepest_tries_fit_the_stack() {
    let mut index = Index::default();
    let text = "a".repeat(PATTERN_BYTES_MAX);
    for len in 0..=PATTERN_BYTES_MAX {
        index.insert(MatchPolicy::Prefix, text[..len].into(), len).unwrap();
    }
    for len in 0..=PATTERN_BYTES_MAX {
        index.insert(MatchPolicy::Wildcard, ".".repeat(len).into(), len).unwrap();
    }
    let snapshot = index.clone();
    let (policy, longest) = snapshot.best(&text, |_| true).unwrap();
    assert_eq!((policy, *longest), (MatchPolicy::Prefix, PATTERN_BYTES_MAX));
    let mut matches = 0;
    snapshot.all(&"a.".repeat(PATTERN_BYTES_MAX), |_, _| matches += 1);
    assert_eq!(matches, 3, "the prefixes \"\" and \"a\", and the longest wildcard");
    assert!(index.remove(MatchPolicy::Prefix, &text).is_some());
    assert!(index.remove(MatchPolicy::Wildcard, &".".repeat(PATTERN_BYTES_MAX)).is_some());
    assert_eq!(snapshot.len(), index.len() + 2);
}
