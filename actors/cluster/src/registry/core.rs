//! The names that actors of this node's clients have. Pure.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most names that one session may hold.
pub const NAMES_PER_SESSION_MAX: usize = 1024;
/// Most names that a node knows of when it registers another. // guess: some ten MiB on each node
pub const NAMES_MAX: usize = 65_536;

/// Whether a text may be a name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let has_length = (1..=weald_proto::limits::NAME_BYTES_MAX).contains(&text.len());
    has_length && !text.chars().any(char::is_control)
}

/// Who holds a name. `H` is how the holder is reached.
#[derive(Debug, Clone)]
pub struct Entry<H> {
    /// The session that registered it.
    pub session: u64,
    /// The client's name.
    pub owner: String,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// How the holder is reached.
    pub holder: H,
}

/// Why a name was not registered or given back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Another session holds it.
    #[error("the name {name:?} is held by client {owner:?}{}", at(node))]
    Taken {
        /// The name.
        name: String,
        /// The client that holds it.
        owner: String,
        /// The node that the client is connected to; none: this one.
        node: Option<String>,
    },
    /// Empty, too long or with control characters.
    #[error("a name has 1 to {max} bytes and no control characters: {name:?}")]
    Malformed {
        /// The name.
        name: String,
        /// Bytes allowed.
        max: usize,
    },
    /// The session holds too many.
    #[error("a session may hold {NAMES_PER_SESSION_MAX} names")]
    TooMany,
    /// The cluster has too many.
    #[error("the cluster has {NAMES_MAX} names, which is the limit")]
    Full,
    /// Nobody, or somebody else, holds it.
    #[error("the name {0:?} is not held by this session")]
    NotHeld(String),
}

fn at(node: &Option<String>) -> String {
    node.as_ref().map_or_else(String::new, |node| format!(" at node {node:?}"))
}

/// The names of a node.
#[derive(Debug, Clone)]
pub struct Names<H> {
    by_name: BTreeMap<String, Entry<H>>,
    by_session: BTreeMap<u64, BTreeSet<String>>,
}

impl<H> Default for Names<H> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), by_session: BTreeMap::new() }
    }
}

impl<H: Clone> Names<H> {
    /// Registers a name. The holder itself may register it again, which replaces how it is reached; it has it since the first
    /// time.
    ///
    /// # Errors
    /// [`NameError::Malformed`], [`NameError::Taken`], [`NameError::TooMany`]; nothing changes.
    pub fn register(&mut self, name: &str, mut entry: Entry<H>) -> Result<Entry<H>, NameError> {
        if !is_name(name) {
            let max = weald_proto::limits::NAME_BYTES_MAX;
            return Err(NameError::Malformed { name: name.chars().take(80).collect(), max });
        }
        if let Some(held) = self.by_name.get(name) {
            if held.session != entry.session {
                let owner = held.owner.clone();
                return Err(NameError::Taken { name: name.into(), owner, node: None });
            }
            entry.since_ms = held.since_ms;
        }
        let names = self.by_session.entry(entry.session).or_default();
        if !names.contains(name) && names.len() >= NAMES_PER_SESSION_MAX {
            return Err(NameError::TooMany);
        }
        names.insert(name.into());
        self.by_name.insert(name.into(), entry.clone());
        Ok(entry)
    }

    /// Gives a name back.
    ///
    /// # Errors
    /// [`NameError::NotHeld`].
    pub fn unregister(&mut self, session: u64, name: &str) -> Result<(), NameError> {
        if self.by_name.get(name).is_none_or(|held| held.session != session) {
            return Err(NameError::NotHeld(name.into()));
        }
        drop(self.remove(name));
        Ok(())
    }

    /// Takes a name away from whoever has it.
    pub fn remove(&mut self, name: &str) -> Option<Entry<H>> {
        let entry = self.by_name.remove(name)?;
        if let Some(names) = self.by_session.get_mut(&entry.session) {
            names.remove(name);
            if names.is_empty() {
                self.by_session.remove(&entry.session);
            }
        }
        Some(entry)
    }

    /// Frees the names of a session that has ended. Which those are.
    pub fn close(&mut self, session: u64) -> BTreeSet<String> {
        let names = self.by_session.remove(&session).unwrap_or_default();
        for name in &names {
            self.by_name.remove(name);
        }
        names
    }

    /// Frees the names of all sessions for which `alive` says no. Returns how many sessions.
    pub fn retain(&mut self, alive: impl Fn(u64) -> bool) -> usize {
        let dead: Vec<u64> = self.by_session.keys().copied().filter(|s| !alive(*s)).collect();
        for session in &dead {
            drop(self.close(*session));
        }
        dead.len()
    }

    /// Who holds a name.
    #[must_use]
    pub fn whereis(&self, name: &str) -> Option<&Entry<H>> {
        self.by_name.get(name)
    }

    /// Names that start with `prefix`, in order.
    pub fn names<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Entry<H>)> {
        self.by_name
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session: u64) -> Entry<()> {
        Entry { session, owner: format!("client-{session}"), since_ms: 0, holder: () }
    }

    #[test]
    fn a_name_has_one_holder_and_is_free_when_its_session_ends() {
        let mut names = Names::default();
        names.register("pump", entry(1)).unwrap();
        let later = names.register("pump", Entry { since_ms: 9, ..entry(1) }).unwrap();
        assert_eq!(later.since_ms, 0, "it has the name since the first time");
        assert_eq!(
            names.register("pump", entry(2)).unwrap_err(),
            NameError::Taken { name: "pump".into(), owner: "client-1".into(), node: None }
        );
        assert_eq!(names.unregister(2, "pump"), Err(NameError::NotHeld("pump".into())));
        assert_eq!(names.close(1).len(), 1);
        names.register("pump", entry(2)).unwrap();
        assert_eq!(names.whereis("pump").unwrap().session, 2);
        names.unregister(2, "pump").unwrap();
        assert!(names.whereis("pump").is_none());
        assert!(names.close(2).is_empty() && names.remove("pump").is_none());
    }

    #[test]
    fn malformed_names_and_too_many_are_refused() {
        let mut names = Names::default();
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(matches!(names.register(bad, entry(1)), Err(NameError::Malformed { .. })));
        }
        for i in 0..NAMES_PER_SESSION_MAX {
            names.register(&format!("n{i}"), entry(1)).unwrap();
        }
        assert_eq!(names.register("one more", entry(1)).unwrap_err(), NameError::TooMany);
        assert_eq!(names.names("n10").count(), 1 + 10 + 24);
        assert_eq!(names.retain(|s| s != 1), 1);
        assert_eq!(names.names("").count(), 0);
    }
}
