//! The built-in merge function `union` for JSON values.
//!
//! Guarantees: the result depends on the set of values only, not on their order or grouping;
//! equal results have equal bytes (keys and set members sorted, no spaces).
//! Refuses: top-level scalars and mixtures of arrays and objects: there is no union of those; and
//! values nested deeper than 64 levels.
//!
//! Arrays are sets: members are kept once, compared by their canonical text. Objects are merged
//! key by key; under one key arrays and objects are merged in turn, of other differing values the
//! one with the greater canonical text stays, an array beats a scalar and an object beats both.
//! Numbers are kept as they were written, so that none loses digits on its way: `1` and `1.0` are
//! two values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

/// Deepest nesting of a value. Bounds the stack, and the work: each level is scanned again.
const DEPTH_MAX: usize = 64; // guess

/// Canonical tree: one form per JSON value, whatever order its keys came in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    /// Canonical text.
    Scalar(String),
    /// Members by canonical text.
    Set(BTreeSet<String>),
    Map(BTreeMap<String, Self>),
}

/// The union of JSON texts; see the module.
///
/// # Errors
/// One of the values is no JSON array or object, or both kinds are mixed.
pub(crate) fn union(values: &[&[u8]]) -> Result<Vec<u8>, String> {
    let mut merged: Option<Tree> = None;
    for bytes in values {
        let json: &RawValue = serde_json::from_slice(bytes).map_err(not_json)?;
        let tree = tree_of(json.get(), Place::Value, DEPTH_MAX - 1)?;
        merged = Some(match (merged, tree) {
            (_, Tree::Scalar(_)) => return Err("a value is neither an array nor an object".into()),
            (None, tree) => tree,
            (Some(Tree::Set(_)), Tree::Map(_)) | (Some(Tree::Map(_)), Tree::Set(_)) => {
                return Err("some values are arrays, others objects".into());
            }
            (Some(before), tree) => join(before, tree),
        });
    }
    let merged = merged.ok_or("no values")?;
    Ok(text_of(&merged).into_bytes())
}

/// Where an array stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On its own or under a key: it is a set.
    Value,
    /// In a set: it is a member like any other, and keeps its order and repetitions.
    Member,
}

/// The tree of a JSON text that is known to be well-formed but for the escapes in its strings.
fn tree_of(json: &str, place: Place, depth_left: usize) -> Result<Tree, String> {
    let inner = |place, json: &RawValue| {
        let depth_left = depth_left.checked_sub(1).ok_or("a value is nested too deeply")?;
        tree_of(json.get(), place, depth_left)
    };
    match json.as_bytes().first() {
        Some(b'[') => {
            let members: Vec<&RawValue> = serde_json::from_str(json).map_err(not_json)?;
            let text = |member| inner(Place::Member, member).map(|tree| text_of(&tree));
            if place == Place::Value {
                return members.into_iter().map(text).collect::<Result<_, _>>().map(Tree::Set);
            }
            let members = members.into_iter().map(text).collect::<Result<Vec<_>, String>>()?;
            Ok(Tree::Scalar(format!("[{}]", members.join(","))))
        }
        Some(b'{') => {
            let map: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(not_json)?;
            let map = map.into_iter().map(|(name, json)| Ok((name, inner(place, json)?)));
            map.collect::<Result<_, String>>().map(Tree::Map)
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(not_json)?;
            Ok(Tree::Scalar(quoted(&text)))
        }
        Some(_) | None => Ok(Tree::Scalar(json.to_owned())),
    }
}

#[allow(clippy::needless_pass_by_value)] // the shape that map_err takes
fn not_json(error: serde_json::Error) -> String {
    format!("not JSON: {error}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn text_of(tree: &Tree) -> String {
    let mut out = String::new();
    put(tree, &mut out);
    out
}

fn join(x: Tree, y: Tree) -> Tree {
    match (x, y) {
        (Tree::Map(mut x), Tree::Map(y)) => {
            for (name, theirs) in y {
                let joined = match x.remove(&name) {
                    Some(ours) => join(ours, theirs),
                    None => theirs,
                };
                x.insert(name, joined);
            }
            Tree::Map(x)
        }
        (Tree::Set(mut x), Tree::Set(y)) => {
            x.extend(y);
            Tree::Set(x)
        }
        // The derived order ranks maps above sets above scalars, and scalars by their text.
        (x, y) => x.max(y),
    }
}

fn put(tree: &Tree, out: &mut String) {
    match tree {
        Tree::Scalar(text) => out.push_str(text),
        Tree::Set(members) => {
            out.push('[');
            for (i, member) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(member);
            }
            out.push(']');
        }
        Tree::Map(map) => {
            out.push('{');
            for (i, (name, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(name));
                out.push(':');
                put(value, out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde_json::Value as Json;

    use super::*;

    fn of(values: &[&str]) -> Result<String, String> {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        union(&values).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn union_examples() {
        for (values, expected) in [
            (&["[1]", "[2,1]"][..], "[1,2]"),
            (&["[]", "[]"], "[]"),
            (&[r#"["b"]"#, r#"["a","b"]"#], r#"["a","b"]"#),
            (&[r#"{"b":1}"#, r#"{"a":2}"#], r#"{"a":2,"b":1}"#),
            (&[r#"{"a":1}"#, r#"{"a":2}"#], r#"{"a":2}"#),
            (&[r#"{"a":[1]}"#, r#"{"a":[2]}"#], r#"{"a":[1,2]}"#),
            (&[r#"{"a":{"x":1}}"#, r#"{"a":{"y":null}}"#], r#"{"a":{"x":1,"y":null}}"#),
            (&[r#"{"a":[1]}"#, r#"{"a":"text"}"#, r#"{"a":{}}"#], r#"{"a":{}}"#),
            (&[r#"{"a":"z"}"#, r#"{"a":[]}"#], r#"{"a":[]}"#),
            // Members are values of their own: order and repetitions within them stay.
            (&["[[2,1,1]]", "[[1,2]]"], "[[1,2],[2,1,1]]"),
            (&[r#"[{"b":1,"a":2}]"#, r#"[{ "a":2, "b":1 }]"#], r#"[{"a":2,"b":1}]"#),
            (&["[1.0,1]", "[ 1e0 ]"], "[1,1.0,1e0]"),
            (
                &["[123456789012345678901234567890]", "[0.1000]"],
                "[0.1000,123456789012345678901234567890]",
            ),
            (&[r#"["\u00e9"]"#, "[\"\u{e9}\"]"], "[\"\u{e9}\"]"),
            (&[r#"{"a":1,"a":[2]}"#, r#"{"a":[3]}"#], r#"{"a":[2,3]}"#),
            (&[r#"{"\"k":1}"#, r#"{"\u0022k":1}"#], r#"{"\"k":1}"#),
        ] {
            assert_eq!(of(values).as_deref(), Ok(expected), "{values:?}");
        }
    }

    #[test]
    fn union_of_other_values_fails() {
        let scalar = "a value is neither an array nor an object";
        let mixed = "some values are arrays, others objects";
        for (values, expected) in [
            (["1", "[1]"], scalar),
            (["[1]", "null"], scalar),
            (["[]", "{}"], mixed),
            (["{}", "[]"], mixed),
        ] {
            assert_eq!(of(&values), Err(expected.to_owned()));
        }
        assert!(of(&["[1]", "[1"]).unwrap_err().starts_with("not JSON"));
        assert!(of(&["[1]", &"[".repeat(100_000)]).unwrap_err().starts_with("not JSON"));
        for text in ["[1] x", r#"["\ud800"]"#, "[01]", "[1,]", ""] {
            let error = of(&["[1]", text]).unwrap_err();
            assert!(error.starts_with("not JSON"), "{text}: {error}");
        }
    }

    #[test]
    fn union_of_deeply_nested_values_fails() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = nested(DEPTH_MAX);
        assert_eq!(of(&["[]", &deepest]), Ok(deepest));
        for depth in [DEPTH_MAX + 1, 100_000] {
            let error = of(&["[1]", &nested(depth)]).unwrap_err();
            assert_eq!(error, "a value is nested too deeply", "{depth}");
        }
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (0..3_u8).prop_map(Json::from),
            "[ab]".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let map = prop::collection::btree_map("[ab]", inner.clone(), 0..3);
            prop_oneof![
                prop::collection::vec(inner, 0..3).prop_map(Json::from),
                map.prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    fn map() -> impl Strategy<Value = String> {
        prop::collection::btree_map("[abc]", json(), 0..4)
            .prop_map(|map| Json::Object(map.into_iter().collect()).to_string())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn union_is_a_join(x in map(), y in map(), z in map()) {
            let all = of(&[&x, &y, &z]).unwrap();
            prop_assert_eq!(&of(&[&z, &y, &x]).unwrap(), &all);
            prop_assert_eq!(&of(&[&y, &x, &z, &y]).unwrap(), &all);
            prop_assert_eq!(&of(&[&of(&[&x, &y]).unwrap(), &z]).unwrap(), &all);
            prop_assert_eq!(&of(&[&x, &of(&[&y, &z]).unwrap()]).unwrap(), &all);
            prop_assert_eq!(&of(&[&all, &x]).unwrap(), &all);
        }
    }
}
