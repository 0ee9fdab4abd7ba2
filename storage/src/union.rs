//! The built-in merge function `union` for JSON values.
//!
//! Guarantees: the result depends on the set of values only, not on their order or grouping;
//! equal results have equal bytes (keys and set members sorted, no spaces).
//! Refuses: top-level scalars and mixtures of arrays and objects: there is no union of those.
//!
//! Arrays are sets: members are kept once, compared by their canonical text. Objects are merged
//! key by key; under one key arrays and objects are merged in turn, of other differing values the
//! one with the greater canonical text stays, an array beats a scalar and an object beats both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

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
        let json: Json = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        let tree = tree_of(json);
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
    let mut out = String::new();
    put(&merged, &mut out);
    Ok(out.into_bytes())
}

fn tree_of(json: Json) -> Tree {
    match json {
        Json::Array(members) => {
            let text = |member: Json| {
                let mut out = String::new();
                put(&tree_of_member(member), &mut out);
                out
            };
            Tree::Set(members.into_iter().map(text).collect())
        }
        Json::Object(map) => Tree::Map(
            map.into_iter()
                .map(|(name, json)| (name, tree_of(json)))
                .collect(),
        ),
        scalar @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) => {
            Tree::Scalar(scalar.to_string())
        }
    }
}

/// Members of a set are values of their own: an array among them keeps order and repetitions.
fn tree_of_member(json: Json) -> Tree {
    match json {
        Json::Array(members) => {
            let mut out = String::from("[");
            for (i, member) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                put(&tree_of_member(member), &mut out);
            }
            out.push(']');
            Tree::Scalar(out)
        }
        Json::Object(map) => Tree::Map(
            map.into_iter()
                .map(|(name, json)| (name, tree_of_member(json)))
                .collect(),
        ),
        scalar @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) => {
            Tree::Scalar(scalar.to_string())
        }
    }
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
                out.push_str(&Json::from(name.as_str()).to_string());
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
            (
                &[r#"{"a":{"x":1}}"#, r#"{"a":{"y":null}}"#],
                r#"{"a":{"x":1,"y":null}}"#,
            ),
            (
                &[r#"{"a":[1]}"#, r#"{"a":"text"}"#, r#"{"a":{}}"#],
                r#"{"a":{}}"#,
            ),
            (&[r#"{"a":"z"}"#, r#"{"a":[]}"#], r#"{"a":[]}"#),
            // Members are values of their own: order and repetitions within them stay.
            (&["[[2,1,1]]", "[[1,2]]"], "[[1,2],[2,1,1]]"),
            (
                &[r#"[{"b":1,"a":2}]"#, r#"[{ "a":2, "b":1 }]"#],
                r#"[{"a":2,"b":1}]"#,
            ),
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
        assert!(
            of(&["[1]", &"[".repeat(100_000)])
                .unwrap_err()
                .starts_with("not JSON")
        );
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
