//! Ids of subscriptions and registrations.
//!
//! What it guarantees: an id is a hash of (realm, kind, match policy, URI), so that all nodes give a topic or procedure the
//! same one without asking each other, and a client that comes back finds it again. Where two collide on a node, the later
//! one takes the next free number there: the only case in which nodes differ.

use std::fmt;
use std::hash::Hash;

use weald_wamp::{RegistrationId, SubscriptionId};
use xxhash_rust::xxh3::xxh3_64;

use super::pattern::MatchPolicy;

/// The greatest id drawn: JavaScript counts exactly up to here.
const DRAWN_MAX: u64 = (1 << 53) - 1;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Somebody wants the events of a topic.
    Subscription,
    /// Somebody serves a procedure.
    Registration,
}

/// The id of a row, and with it its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowId {
    /// Of a subscription.
    Subscription(SubscriptionId),
    /// Of a registration.
    Registration(RegistrationId),
}

impl RowId {
    /// What the row is.
    pub fn kind(self) -> Kind {
        match self {
            Self::Subscription(_) => Kind::Subscription,
            Self::Registration(_) => Kind::Registration,
        }
    }

    /// The number, as payloads of the meta API hold it.
    pub fn get(self) -> u64 {
        match self {
            Self::Subscription(id) => id.get(),
            Self::Registration(id) => id.get(),
        }
    }
}

/// An id of one kind.
pub trait Id: Copy + Eq + Ord + Hash + fmt::Debug + Into<RowId> {
    /// What it names.
    const KIND: Kind;

    /// The id of a number from 1 to 2^53.
    fn from_number(number: u64) -> Option<Self>;
}

impl From<SubscriptionId> for RowId {
    fn from(id: SubscriptionId) -> Self {
        Self::Subscription(id)
    }
}

impl From<RegistrationId> for RowId {
    fn from(id: RegistrationId) -> Self {
        Self::Registration(id)
    }
}

impl Id for SubscriptionId {
    const KIND: Kind = Kind::Subscription;

    fn from_number(number: u64) -> Option<Self> {
        Self::new(number)
    }
}

impl Id for RegistrationId {
    const KIND: Kind = Kind::Registration;

    fn from_number(number: u64) -> Option<Self> {
        Self::new(number)
    }
}

/// The id of a row: the first number free, from the hash of what it is on.
///
/// # Panics
/// Every number is taken.
pub(super) fn draw<I: Id>(
    realm: &str,
    policy: MatchPolicy,
    uri: &str,
    is_taken: impl Fn(I) -> bool,
) -> I {
    next_free(number(realm, I::KIND, policy, uri), is_taken)
}

fn next_free<I: Id>(mut number: u64, is_taken: impl Fn(I) -> bool) -> I {
    for _ in 0..DRAWN_MAX {
        if let Some(id) = I::from_number(number).filter(|id| !is_taken(*id)) {
            return id;
        }
        number = number % DRAWN_MAX + 1;
    }
    panic!("a realm has 2^53 subscriptions or registrations");
}

/// The id that a row has, but where it collides with another one.
#[must_use]
pub fn expected<I: Id>(realm: &str, policy: MatchPolicy, uri: &str) -> Option<I> {
    I::from_number(number(realm, I::KIND, policy, uri))
}

/// # Shape
/// XXH3 of the realm's length (8 bytes, big-endian), the realm, a byte for kind and policy, the URI; its top 53 bits, and 1
/// instead of 0. Changing it makes nodes of two releases disagree about ids.
fn number(realm: &str, kind: Kind, policy: MatchPolicy, uri: &str) -> u64 {
    let tag = match (kind, policy) {
        (Kind::Subscription, MatchPolicy::Exact) => 0,
        (Kind::Subscription, MatchPolicy::Prefix) => 1,
        (Kind::Subscription, MatchPolicy::Wildcard) => 2,
        (Kind::Registration, MatchPolicy::Exact) => 3,
        (Kind::Registration, MatchPolicy::Prefix) => 4,
        (Kind::Registration, MatchPolicy::Wildcard) => 5,
    };
    let mut bytes = Vec::with_capacity(9 + realm.len() + uri.len());
    bytes.extend_from_slice(&(realm.len() as u64).to_be_bytes());
    bytes.extend_from_slice(realm.as_bytes());
    bytes.push(tag);
    bytes.extend_from_slice(uri.as_bytes());
    (xxh3_64(&bytes) >> 11).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn number_frozen_values() {
        let numbers = [
            number("realm1", Kind::Subscription, MatchPolicy::Exact, "com.example.topic"),
            number("realm1", Kind::Registration, MatchPolicy::Exact, "com.example.topic"),
            number("realm1", Kind::Registration, MatchPolicy::Wildcard, "com..topic"),
            number("", Kind::Subscription, MatchPolicy::Prefix, ""),
        ];
        assert_eq!(numbers, FROZEN);
    }

    const FROZEN: [u64; 4] =
        [5_905_947_081_274_066, 1_062_702_809_077_087, 2_600_096_327_575_164, 364_473_973_594_911];

    #[test]
    fn draw_collision_takes_the_next_number() {
        let mut taken = BTreeSet::new();
        let first: SubscriptionId =
            draw("realm1", MatchPolicy::Exact, "a.b", |id| taken.contains(&id));
        taken.insert(first);
        let second: SubscriptionId =
            draw("realm1", MatchPolicy::Exact, "a.b", |id| taken.contains(&id));
        assert_eq!(second.get(), first.get() + 1);
    }

    #[test]
    fn next_free_after_the_greatest_is_one() {
        let id: RegistrationId = next_free(DRAWN_MAX, |id: RegistrationId| id.get() == DRAWN_MAX);
        assert_eq!(id.get(), 1);
    }
}
