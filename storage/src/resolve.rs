//! What a reader sees when a key has concurrent values.
//!
//! Guarantees: a resolution depends only on the values, their stamps and their dots, and on which
//! of them have expired; so replicas with equal objects answer alike. Resolving is a pure read:
//! what to write, if anything, is given to the caller, who issues a new dot for it.
//! Refuses: to lose data when a merge function fails: the reader then gets all siblings and the
//! reason.
//!
//! All live values compete under `lww`, not only the newest of each actor: a clock set back would
//! otherwise let the smaller stamp win.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::{Key, TableName};
use crate::object::{Object, Value, ValueRef};
use crate::union::union;

/// How a table treats concurrent values.
///
/// # Shape
/// As text: `lww`, `siblings` or `merge:<name>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Resolver {
    /// The value with the greatest stamp wins, ties go to the greater dot.
    #[default]
    Lww,
    /// Readers get all of them.
    Siblings,
    /// A registered function makes one of them; see [`Resolvers`].
    Merge(String),
}

/// Text that names no resolver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown resolver {text:?}: expected lww, siblings or merge:<name>")]
pub struct ResolverError {
    text: String,
}

impl FromStr for Resolver {
    type Err = ResolverError;

    fn from_str(text: &str) -> Result<Self, ResolverError> {
        match text.split_once(':') {
            None if text == "lww" => Ok(Self::Lww),
            None if text == "siblings" => Ok(Self::Siblings),
            Some(("merge", name)) if !name.is_empty() => Ok(Self::Merge(name.to_owned())),
            None | Some(_) => Err(ResolverError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lww => f.write_str("lww"),
            Self::Siblings => f.write_str("siblings"),
            Self::Merge(name) => write!(f, "merge:{name}"),
        }
    }
}

impl TryFrom<String> for Resolver {
    type Error = ResolverError;

    fn try_from(text: String) -> Result<Self, ResolverError> {
        text.parse()
    }
}

impl From<Resolver> for String {
    fn from(resolver: Resolver) -> Self {
        resolver.to_string()
    }
}

/// Makes one value of at least two. Must not depend on the order of the values, and must give
/// `x` for values that are all `x`; anything else makes replicas repair each other for ever.
pub type MergeFn = dyn Fn(&TableName, &Key, &[&[u8]]) -> Result<Vec<u8>, String> + Send + Sync;

/// The outcome of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What the reader sees; several values only with [`Resolver::Siblings`] or after a failure.
    pub values: Vec<Value>,
    /// What to write under the context that was read, so that the siblings become one. `None`
    /// when there is nothing to repair. May be a tombstone.
    pub repair: Option<Value>,
    /// Why a merge function gave nothing; the values are then the siblings.
    pub failure: Option<MergeFailure>,
}

impl Resolved {
    /// True when the key should be repaired.
    #[must_use]
    pub const fn needs_repair(&self) -> bool {
        self.repair.is_some()
    }

    const fn plain(values: Vec<Value>) -> Self {
        Self { values, repair: None, failure: None }
    }
}

/// A merge function could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeFailure {
    /// No function has this name on this node.
    #[error("no merge function is registered as {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The function refused the values.
    #[error("merge function {name:?} failed: {why}")]
    Refused {
        /// The name.
        name: String,
        /// What it said.
        why: String,
    },
}

/// The winner of `lww` and whether its key should be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lww<'a> {
    /// The value with the greatest stamp, ties to the greater dot; it may be a tombstone or
    /// expired, and then the key is absent: no older value takes its place.
    pub winner: Option<ValueRef<'a>>,
    /// True when there are live values that differ from each other.
    pub needs_repair: bool,
}

/// Finds the winner among live values, borrowed from an object or a record.
#[must_use]
#[inline]
pub fn lww<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> Lww<'a> {
    let mut values = values.into_iter();
    let Some(first) = values.next() else {
        return Lww { winner: None, needs_repair: false };
    };
    let mut winner = first;
    let mut needs_repair = false;
    for value in values {
        // Equal siblings arise when replicas repair a key at once; repairing those again would
        // only make more of them.
        needs_repair |= !value.same_content(&first);
        if (value.stamp, value.dot) > (winner.stamp, winner.dot) {
            winner = value;
        }
    }
    Lww { winner: Some(winner), needs_repair }
}

/// The merge functions of a node, by name. Cheap to clone.
#[derive(Clone)]
pub struct Resolvers {
    merges: BTreeMap<String, Arc<MergeFn>>,
}

impl Default for Resolvers {
    /// The built-in functions: `max` (the greatest value, bytewise) and `union` (JSON arrays as
    /// sets, JSON objects key by key).
    fn default() -> Self {
        let mut resolvers = Self { merges: BTreeMap::new() };
        resolvers.register("max", |_, _, values| {
            Ok(values.iter().max().map_or_else(Vec::new, |value| value.to_vec()))
        });
        resolvers.register("union", |_, _, values| union(values));
        resolvers
    }
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.merges.keys()).finish()
    }
}

impl Resolvers {
    /// Registers a merge function; one of the same name is replaced.
    pub fn register(
        &mut self,
        name: &str,
        merge: impl Fn(&TableName, &Key, &[&[u8]]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) {
        self.merges.insert(name.to_owned(), Arc::new(merge));
    }

    /// True when a merge function has this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.merges.contains_key(name)
    }

    /// The registered names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.merges.keys().map(String::as_str)
    }

    /// What a reader of `object` sees at `now_ms`.
    #[must_use]
    pub fn resolve(
        &self,
        resolver: &Resolver,
        table: &TableName,
        key: &Key,
        object: &Object,
        now_ms: u64,
    ) -> Resolved {
        self.resolve_refs(resolver, table, key, object.refs(), now_ms)
    }

    /// As [`Self::resolve`], for values borrowed from an object or a record.
    #[must_use]
    pub fn resolve_refs<'a>(
        &self,
        resolver: &Resolver,
        table: &TableName,
        key: &Key,
        values: impl Iterator<Item = ValueRef<'a>>,
        now_ms: u64,
    ) -> Resolved {
        match resolver {
            Resolver::Lww => {
                let Lww { winner, needs_repair } = lww(values);
                let winner =
                    winner.map(|winner| (winner.visible(now_ms).is_some(), winner.to_value()));
                let repair = winner.clone().filter(|_| needs_repair).map(|(_, value)| value);
                let visible = winner.filter(|(visible, _)| *visible).map(|(_, value)| value);
                Resolved { values: visible.into_iter().collect(), repair, failure: None }
            }
            Resolver::Siblings => Resolved::plain(siblings(values, now_ms)),
            Resolver::Merge(name) => {
                let values: Vec<_> = values.collect();
                self.merge(name, table, key, &values, now_ms)
            }
        }
    }

    fn merge(
        &self,
        name: &str,
        table: &TableName,
        key: &Key,
        values: &[ValueRef<'_>],
        now_ms: u64,
    ) -> Resolved {
        let Lww { winner, needs_repair } = lww(values.iter().copied());
        let visible: Vec<_> = values.iter().filter(|v| v.visible(now_ms).is_some()).collect();
        let Some(winner) = winner.filter(|_| needs_repair) else {
            return Resolved::plain(visible.first().map(|v| v.to_value()).into_iter().collect());
        };
        if visible.is_empty() {
            // All deleted or expired: the latest of them stands for all.
            return Resolved { values: vec![], repair: Some(winner.to_value()), failure: None };
        }
        let payloads: Vec<&[u8]> = visible.iter().filter_map(|v| v.payload).collect();
        let merged = if payloads.windows(2).all(|pair| pair[0] == pair[1]) {
            Ok(payloads[0].to_vec())
        } else {
            self.call(name, table, key, &payloads)
        };
        match merged {
            Ok(payload) => {
                // A value that never expires keeps the merged one from expiring.
                let all = visible.iter().map(|v| v.expires_ms).collect::<Option<Vec<_>>>();
                let merged = Value {
                    stamp: winner.stamp,
                    expires_ms: all.and_then(|all| all.into_iter().max()),
                    payload: Some(payload),
                };
                Resolved { values: vec![merged.clone()], repair: Some(merged), failure: None }
            }
            Err(failure) => Resolved {
                values: visible.iter().map(|v| v.to_value()).collect(),
                repair: None,
                failure: Some(failure),
            },
        }
    }

    fn call(
        &self,
        name: &str,
        table: &TableName,
        key: &Key,
        payloads: &[&[u8]],
    ) -> Result<Vec<u8>, MergeFailure> {
        let merge =
            self.merges.get(name).ok_or_else(|| MergeFailure::Unknown { name: name.to_owned() })?;
        merge(table, key, payloads)
            .map_err(|why| MergeFailure::Refused { name: name.to_owned(), why })
    }
}

fn siblings<'a>(values: impl Iterator<Item = ValueRef<'a>>, now_ms: u64) -> Vec<Value> {
    values.filter(|v| v.visible(now_ms).is_some()).map(|v| v.to_value()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Hlc;
    use crate::ids::{Actor, Dot, NodeId};
    use crate::vector::VersionVector;

    const NOW_MS: u64 = 1_000;

    /// Siblings by node, stamp, expiry and payload.
    fn object(values: &[(u8, u64, Option<u64>, Option<&str>)]) -> Object {
        let mut object = Object::new();
        for (node, stamp, expires_ms, payload) in values {
            let actor = Actor { node: NodeId([*node; 16]), incarnation: 1 };
            let counter = object.entry(&actor).map_or(1, |entry| entry.n() + 1);
            let payload = payload.map(|text| text.as_bytes().to_vec());
            let value = Value { stamp: Hlc::new(*stamp, 0), expires_ms: *expires_ms, payload };
            object.write(&VersionVector::new(), Dot { actor, counter }, value);
        }
        object
    }

    fn resolve(resolver: &str, object: &Object) -> Resolved {
        let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
        let mut resolvers = Resolvers::default();
        resolvers.register("fails", |_, _, _| Err("always".to_owned()));
        resolvers.resolve(&resolver.parse().unwrap(), &table, &key, object, NOW_MS)
    }

    fn texts(resolved: &Resolved) -> Vec<&str> {
        // Readers never see tombstones.
        let payloads = resolved.values.iter().map(|v| v.payload.as_deref().unwrap());
        payloads.map(|payload| std::str::from_utf8(payload).unwrap()).collect()
    }

    #[test]
    fn reads_of_every_resolver() {
        let past = Some(NOW_MS);
        let future = Some(NOW_MS + 1);
        for (name, values, lww, siblings, max) in [
            ("nothing", &[][..], &[][..], &[][..], &[][..]),
            ("one", &[(1, 5, None, Some("a"))], &["a"], &["a"], &["a"]),
            ("deleted", &[(1, 5, None, None)], &[], &[], &[]),
            ("expired now", &[(1, 5, past, Some("a"))], &[], &[], &[]),
            ("expires later", &[(1, 5, future, Some("a"))], &["a"], &["a"], &["a"]),
            (
                "greater stamp",
                &[(1, 6, None, Some("a")), (2, 5, None, Some("b"))],
                &["a"],
                &["a", "b"],
                &["b"],
            ),
            (
                "equal stamps: greater dot",
                &[(2, 5, None, Some("a")), (1, 5, None, Some("b"))],
                &["a"],
                &["b", "a"],
                &["b"],
            ),
            (
                "one actor, clock set back",
                &[(1, 9, None, Some("old")), (1, 5, None, Some("new"))],
                &["old"],
                &["new", "old"],
                &["old"],
            ),
            ("later delete", &[(1, 5, None, Some("a")), (2, 6, None, None)], &[], &["a"], &["a"]),
            (
                "earlier delete",
                &[(1, 6, None, Some("a")), (2, 5, None, None)],
                &["a"],
                &["a"],
                &["a"],
            ),
            (
                "expired winner lets no older value through",
                &[(1, 5, None, Some("a")), (2, 6, past, Some("b"))],
                &[],
                &["a"],
                &["a"],
            ),
            ("two deletes", &[(1, 5, None, None), (2, 6, None, None)], &[], &[], &[]),
        ] {
            let object = object(values);
            assert_eq!(texts(&resolve("lww", &object)), lww, "lww: {name}");
            assert_eq!(texts(&resolve("siblings", &object)), siblings, "siblings: {name}");
            assert_eq!(texts(&resolve("merge:max", &object)), max, "max: {name}");
        }
    }

    #[test]
    fn repairs_of_every_resolver() {
        let one = object(&[(1, 5, None, Some("a"))]);
        let same = object(&[(1, 5, None, Some("a")), (2, 5, None, Some("a"))]);
        for resolver in ["lww", "siblings", "merge:max"] {
            for object in [&one, &same, &Object::new()] {
                assert!(!resolve(resolver, object).needs_repair(), "{resolver}");
            }
        }
        let deleted = object(&[(1, 5, None, Some("a")), (2, 6, None, None)]);
        let tombstone = Value::tombstone(Hlc::new(6, 0));
        assert_eq!(resolve("lww", &deleted).repair, Some(tombstone.clone()));
        assert_eq!(resolve("siblings", &deleted).repair, None);
        // Under merge a value outlives a concurrent delete, with the later of both stamps.
        let kept = Value { payload: Some(b"a".to_vec()), ..tombstone };
        assert_eq!(resolve("merge:max", &deleted).repair, Some(kept));
        // Only deletes: the latest of them.
        let both = object(&[(1, 6, None, None), (2, 5, None, None)]);
        assert_eq!(resolve("merge:max", &both).repair, Some(tombstone.clone()));
        assert_eq!(resolve("lww", &both).repair, Some(tombstone));
    }

    #[test]
    fn merged_value_expires_last() {
        let (soon, late) = (Some(NOW_MS + 1), Some(NOW_MS + 9));
        for (first, second, expected) in
            [(soon, late, late), (soon, None, None), (late, soon, late)]
        {
            let object = object(&[(1, 5, first, Some("a")), (2, 6, second, Some("b"))]);
            let resolved = resolve("merge:max", &object);
            assert_eq!(resolved.values[0].expires_ms, expected);
            assert_eq!(resolved.values[0].stamp, Hlc::new(6, 0));
        }
    }

    #[test]
    fn failing_merge_gives_all_siblings_and_the_reason() {
        let object =
            object(&[(1, 5, None, Some("a")), (2, 6, None, Some("b")), (3, 7, None, None)]);
        for (resolver, why) in [
            ("merge:fails", "merge function \"fails\" failed: always"),
            ("merge:absent", "no merge function is registered as \"absent\""),
            (
                "merge:union",
                "merge function \"union\" failed: not JSON: expected value at line 1 column 1",
            ),
        ] {
            let resolved = resolve(resolver, &object);
            assert_eq!(texts(&resolved), ["a", "b"]);
            assert_eq!(resolved.failure.as_ref().unwrap().to_string(), why);
            assert!(!resolved.needs_repair());
        }
    }

    #[test]
    fn union_merges_json() {
        let object = object(&[(1, 5, None, Some("[2]")), (2, 6, None, Some("[1]"))]);
        assert_eq!(texts(&resolve("merge:union", &object)), ["[1,2]"]);
        let names: Vec<String> = Resolvers::default().names().map(str::to_owned).collect();
        assert_eq!(names, ["max", "union"]);
        assert!(Resolvers::default().contains("max") && !Resolvers::default().contains("min"));
    }

    #[test]
    fn resolver_text_round_trips() {
        for text in ["lww", "siblings", "merge:max", "merge:a:b"] {
            let resolver: Resolver = text.parse().unwrap();
            assert_eq!(resolver.to_string(), text);
            let json = serde_json::to_string(&resolver).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Resolver>(&json).unwrap(), resolver);
        }
        for text in ["", "LWW", "merge", "merge:", "lww:", "other:max"] {
            assert!(text.parse::<Resolver>().is_err(), "{text}");
        }
    }
}
