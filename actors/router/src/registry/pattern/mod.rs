//! An index from (match policy, URI pattern) to a value.
//!
//! What it is: a hash map for exact URIs, a trie for prefixes and another one for wildcards; all three persistent, so that a
//! clone costs a few pointers and shares everything with the original.
//!
//! What it guarantees: a lookup allocates nothing and visits only what lies on the paths of the URI. [`Index::best`] is
//! the one choice of the specification (exact, else the longest prefix, else the wildcard that is literal earliest);
//! [`Index::all`] meets every match once. Clones never see later changes.
//!
//! What it refuses: to judge URIs (the codec does), and an order of [`Index::each`].
//!
//! # Limits
//! Patterns are at most [`PATTERN_BYTES_MAX`] long, for they are walked and dropped recursively. A lookup among wildcards
//! backtracks: it costs at most one step per node of the trie, and comes near that only where somebody registered thousands
//! of patterns which differ in nothing but the places of their blanks.

mod trie;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use weald_wamp::message::MatchPolicy;

use trie::{Trie, Walk};

/// Longest prefix or wildcard pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024; // guess: bounds the recursion to half of a thread's usual stack

/// A URI or pattern as tables hold it: copied out of the frame that brought it, so that it keeps no frame alive.
pub type Uri = Arc<str>;

/// A pattern that no index takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pattern is longer than {PATTERN_BYTES_MAX} bytes")]
pub struct PatternTooLong;

/// Values by match policy and pattern. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Index<T> {
    // Keyed at random by the standard library, against URIs made to collide. Its order shows nowhere.
    exact: imbl::HashMap<Uri, T>,
    prefix: Trie<T>,
    wildcard: Trie<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { exact: imbl::HashMap::new(), prefix: Trie::default(), wildcard: Trie::default() }
    }
}

impl<T> Index<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.prefix.len() + self.wildcard.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of exactly this policy and pattern.
    pub fn get(&self, policy: MatchPolicy, pattern: &str) -> Option<&T> {
        match policy {
            MatchPolicy::Exact => self.exact.get(pattern),
            MatchPolicy::Prefix => self.prefix.get(pattern),
            MatchPolicy::Wildcard => self.wildcard.get(pattern),
        }
    }

    /// The entry that a call of `uri` goes to: exact, else the longest prefix, else the wildcard whose components, read from
    /// the left, are literal where another's are blank. Entries that are not to `keep` are as if not there.
    pub fn best(&self, uri: &str, mut keep: impl FnMut(&T) -> bool) -> Option<(MatchPolicy, &T)> {
        if let Some(value) = self.exact.get(uri).filter(|value| keep(value)) {
            return Some((MatchPolicy::Exact, value));
        }
        let mut longest = None;
        self.prefix.prefixes(uri, |value| {
            if keep(value) {
                longest = Some(value);
            }
        });
        if let Some(value) = longest {
            return Some((MatchPolicy::Prefix, value));
        }
        let mut best = None;
        self.wildcard.wildcards(uri, &mut |value| {
            if !keep(value) {
                return Walk::On;
            }
            best = Some(value);
            Walk::Stop
        });
        best.map(|value| (MatchPolicy::Wildcard, value))
    }

    /// Visits every entry that `uri` matches: the exact one, the prefixes from the shortest, the wildcards.
    pub fn all<'a>(&'a self, uri: &str, mut visit: impl FnMut(MatchPolicy, &'a T)) {
        if let Some(value) = self.exact.get(uri) {
            visit(MatchPolicy::Exact, value);
        }
        self.prefix.prefixes(uri, |value| visit(MatchPolicy::Prefix, value));
        self.wildcard.wildcards(uri, &mut |value| {
            visit(MatchPolicy::Wildcard, value);
            Walk::On
        });
    }

    /// Visits every entry of a policy, in no order that may be relied on.
    pub fn each<'a>(&'a self, policy: MatchPolicy, mut visit: impl FnMut(&'a T)) {
        match policy {
            MatchPolicy::Exact => self.exact.values().for_each(visit),
            MatchPolicy::Prefix => self.prefix.each(&mut visit),
            MatchPolicy::Wildcard => self.wildcard.each(&mut visit),
        }
    }
}

impl<T: Clone> Index<T> {
    /// The entry of exactly this policy and pattern, to be changed.
    pub fn get_mut(&mut self, policy: MatchPolicy, pattern: &str) -> Option<&mut T> {
        match policy {
            MatchPolicy::Exact => self.exact.get_mut(pattern),
            MatchPolicy::Prefix => self.prefix.get_mut(pattern),
            MatchPolicy::Wildcard => self.wildcard.get_mut(pattern),
        }
    }

    /// Puts an entry, and returns the one it replaces.
    ///
    /// # Errors
    /// [`PatternTooLong`]: nothing has changed.
    pub fn insert(
        &mut self,
        policy: MatchPolicy,
        pattern: Uri,
        value: T,
    ) -> Result<Option<T>, PatternTooLong> {
        check(policy, &pattern)?;
        Ok(match policy {
            MatchPolicy::Exact => self.exact.insert(pattern, value),
            MatchPolicy::Prefix => self.prefix.insert(&pattern, value),
            MatchPolicy::Wildcard => self.wildcard.insert(&pattern, value),
        })
    }

    /// Takes an entry out.
    pub fn remove(&mut self, policy: MatchPolicy, pattern: &str) -> Option<T> {
        match policy {
            MatchPolicy::Exact => self.exact.remove(pattern),
            MatchPolicy::Prefix => self.prefix.remove(pattern),
            MatchPolicy::Wildcard => self.wildcard.remove(pattern),
        }
    }
}

/// Whether an index takes the pattern.
///
/// # Errors
/// [`PatternTooLong`], of prefixes and wildcards only.
pub fn check(policy: MatchPolicy, pattern: &str) -> Result<(), PatternTooLong> {
    let limited = policy != MatchPolicy::Exact;
    if limited && pattern.len() > PATTERN_BYTES_MAX { Err(PatternTooLong) } else { Ok(()) }
}
