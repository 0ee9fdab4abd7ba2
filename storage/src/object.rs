//! What is stored under a key: stamped values in a [`Dvvset`].
//!
//! Guarantees: a deleted or expired value reads as absent, but stays a value with a dot, so that a
//! delete merges like any write.
//! Refuses: to choose between siblings; that is [`crate::resolve`].

use crate::dvvset::Dvvset;
use crate::hlc::Hlc;
use crate::ids::Dot;

/// One written value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value {
    /// When it was written, by the clock of the writer.
    pub stamp: Hlc,
    /// Unix ms from which it reads as absent; `None` is never.
    pub expires_ms: Option<u64>,
    /// The bytes; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
}

impl Value {
    /// A tombstone.
    #[must_use]
    pub const fn tombstone(stamp: Hlc) -> Self {
        Self { stamp, expires_ms: None, payload: None }
    }

    /// True when the value is a tombstone.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.payload.is_none()
    }

    /// The bytes, unless deleted or expired.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> Option<&[u8]> {
        if self.expires_ms.is_some_and(|at| at <= now_ms) { None } else { self.payload.as_deref() }
    }
}

/// A live value, borrowed from an object or straight from a record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueRef<'a> {
    /// Its name.
    pub dot: Dot,
    /// See [`Value::stamp`].
    pub stamp: Hlc,
    /// See [`Value::expires_ms`].
    pub expires_ms: Option<u64>,
    /// See [`Value::payload`].
    pub payload: Option<&'a [u8]>,
}

impl<'a> ValueRef<'a> {
    /// The bytes, unless deleted or expired.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> Option<&'a [u8]> {
        if self.expires_ms.is_some_and(|at| at <= now_ms) { None } else { self.payload }
    }

    /// An owned copy, without the dot.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value {
            stamp: self.stamp,
            expires_ms: self.expires_ms,
            payload: self.payload.map(<[u8]>::to_vec),
        }
    }

    /// True when the two differ at most in their dots.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        (self.stamp, self.expires_ms, self.payload)
            == (other.stamp, other.expires_ms, other.payload)
    }
}

/// The state of one key.
pub type Object = Dvvset<Value>;

impl Object {
    /// The live values, borrowed, in the order of [`Dvvset::live`].
    pub fn refs(&self) -> impl Iterator<Item = ValueRef<'_>> + Clone {
        self.live().map(|(dot, value)| ValueRef {
            dot,
            stamp: value.stamp,
            expires_ms: value.expires_ms,
            payload: value.payload.as_deref(),
        })
    }

    /// The greatest stamp of a live value.
    #[must_use]
    pub fn stamp_max(&self) -> Option<Hlc> {
        self.values().map(|value| value.stamp).max()
    }

    /// When the first of the live values that are not tombstones expires, in unix ms.
    #[must_use]
    pub fn expires_first_ms(&self) -> Option<u64> {
        self.values()
            .filter(|value| !value.is_tombstone())
            .filter_map(|value| value.expires_ms)
            .min()
    }

    /// True when every live value is a tombstone (also when there is none).
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.values().all(Value::is_tombstone)
    }
}
