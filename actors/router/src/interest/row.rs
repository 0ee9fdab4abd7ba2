//! Rows of interest: what a node tells others of its sessions' subscriptions and registrations.

use std::sync::Arc;

use weald_wamp::message::{InvokePolicy, MatchPolicy};
use xxhash_rust::xxh3::Xxh3;

use crate::registry::{Interest, InterestChange, InterestKey, Kind, Uri};

/// Longest realm in a row, in bytes. // guess
pub const REALM_BYTES_MAX: usize = 1024;
/// Longest URI or pattern in a row, in bytes. // guess: far beyond any in use
pub const URI_BYTES_MAX: usize = 16 << 10;

/// What is wanted. The key of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// In which realm.
    pub realm: Arc<str>,
    /// What the sessions do.
    pub kind: Kind,
    /// The topic, procedure or pattern.
    pub uri: Uri,
    /// How it matches.
    pub policy: MatchPolicy,
}

/// How much of it. The value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Value {
    /// How calls are spread; of subscriptions without meaning.
    pub invoke: InvokePolicy,
    /// Sessions behind it; 0: the row is gone. A node that does not want to tell of every subscriber says 1 for any number.
    pub count: u64,
    /// Unix milliseconds of the oldest of them, by the clock of their node; 0 where nobody needs it.
    pub oldest_ms: u64,
    /// Unix milliseconds of the newest.
    pub newest_ms: u64,
    /// Of registrations: whoever has come before then, on any node, was replaced. 0: nobody.
    pub cleared_ms: u64,
}

impl Value {
    /// Nobody any more.
    pub const GONE: Self =
        Self { invoke: InvokePolicy::Single, count: 0, oldest_ms: 0, newest_ms: 0, cleared_ms: 0 };

    /// Whether nobody is behind the row any more.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.count == 0
    }
}

/// A row with its value, as changes are told.
pub type Change = (Row, Value);

/// A change of the registry of a realm, as it is told.
#[must_use]
pub fn change_of(realm: &Arc<str>, change: &InterestChange) -> Change {
    let InterestKey { kind, policy, uri } = &change.key;
    let row = Row { realm: Arc::clone(realm), kind: *kind, uri: Uri::clone(uri), policy: *policy };
    let value = change.row.map_or(Value::GONE, |of| {
        let Interest { invoke, count, oldest_ms, newest_ms, cleared_ms } = of;
        Value { invoke, count, oldest_ms, newest_ms, cleared_ms }
    });
    (row, value)
}

/// A change that was told, as the registry of [`Row::realm`] takes it.
#[must_use]
pub fn change_for((row, value): Change) -> InterestChange {
    let Value { invoke, count, oldest_ms, newest_ms, cleared_ms } = value;
    let interest = Interest { invoke, count, oldest_ms, newest_ms, cleared_ms };
    let key = InterestKey { kind: row.kind, policy: row.policy, uri: row.uri };
    InterestChange { key, row: (!value.is_gone()).then_some(interest) }
}

impl Row {
    /// Whether realm and URI are short enough to be told.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.realm.len() <= REALM_BYTES_MAX && self.uri.len() <= URI_BYTES_MAX
    }

    /// A digest of the row with its value, the same on every node; that of a gone row is 0. Digests of rows are added up, so
    /// the sum does not depend on their order.
    pub(super) fn digest(&self, value: &Value) -> u64 {
        if value.is_gone() {
            return 0;
        }
        let mut hasher = Xxh3::new();
        for text in [&self.realm, &self.uri] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        let codes = [kind::code(self.kind), policy::code(self.policy), invoke::code(value.invoke)];
        hasher.update(&codes);
        for number in [value.count, value.oldest_ms, value.newest_ms, value.cleared_ms] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.digest()
    }
}

/// Kinds on the wire.
pub(super) mod kind {
    use super::Kind;

    pub(in crate::interest) const fn code(kind: Kind) -> u8 {
        match kind {
            Kind::Subscription => 0,
            Kind::Registration => 1,
        }
    }

    pub(in crate::interest) const fn of(code: u8) -> Option<Kind> {
        match code {
            0 => Some(Kind::Subscription),
            1 => Some(Kind::Registration),
            _ => None,
        }
    }
}

/// Match policies on the wire.
pub(super) mod policy {
    use super::MatchPolicy;

    pub(in crate::interest) const fn code(policy: MatchPolicy) -> u8 {
        match policy {
            MatchPolicy::Exact => 0,
            MatchPolicy::Prefix => 1,
            MatchPolicy::Wildcard => 2,
        }
    }

    pub(in crate::interest) const fn of(code: u8) -> Option<MatchPolicy> {
        match code {
            0 => Some(MatchPolicy::Exact),
            1 => Some(MatchPolicy::Prefix),
            2 => Some(MatchPolicy::Wildcard),
            _ => None,
        }
    }
}

/// Invoke policies on the wire.
pub(super) mod invoke {
    use super::InvokePolicy;

    pub(in crate::interest) const fn code(policy: InvokePolicy) -> u8 {
        match policy {
            InvokePolicy::Single => 0,
            InvokePolicy::First => 1,
            InvokePolicy::Last => 2,
            InvokePolicy::RoundRobin => 3,
            InvokePolicy::Random => 4,
        }
    }

    pub(in crate::interest) const fn of(code: u8) -> Option<InvokePolicy> {
        match code {
            0 => Some(InvokePolicy::Single),
            1 => Some(InvokePolicy::First),
            2 => Some(InvokePolicy::Last),
            3 => Some(InvokePolicy::RoundRobin),
            4 => Some(InvokePolicy::Random),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_registry_come_back_as_they_were() {
        let realm: Arc<str> = "realm1".into();
        let invoke = InvokePolicy::RoundRobin;
        let interest = Interest { invoke, count: 3, oldest_ms: 5, newest_ms: 7, cleared_ms: 6 };
        for row in [None, Some(interest)] {
            let (kind, policy) = (Kind::Registration, MatchPolicy::Wildcard);
            let key = InterestKey { kind, policy, uri: "a..b".into() };
            let change = InterestChange { key, row };
            let told = change_of(&realm, &change);
            assert_eq!(told.1.is_gone(), row.is_none());
            assert_eq!(change_for(told), change);
        }
    }
}
