//! A persistent list in the order of joining.
//!
//! What it is: chunks of members, each member under the number it joined with. Iteration runs over slices, the n-th
//! member is found by chunk lengths, and a member leaves by its number in logarithmic time plus one chunk.
//!
//! What it guarantees: numbers ascend; a clone never sees later changes and shares all chunks that did not change.

use std::sync::Arc;

/// Members of a chunk. A change copies one chunk and the list of chunks.
const CHUNK_LEN: usize = 64; // guess: copying it costs about as much as copying the list of chunks of 10,000 members

/// Which member joined before which, over all lists of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(pub(super) u64);

type Chunk<M> = Vec<(Turn, M)>;

/// Members in the order of joining.
#[derive(Debug, Clone)]
pub struct Members<M> {
    chunks: Vec<Arc<Chunk<M>>>,
    len: usize,
}

impl<M> Default for Members<M> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<M> Members<M> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, in the order of joining.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &M> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(_, member)| member))
    }

    /// All from the n-th on, counted from 0.
    pub fn iter_from(&self, mut n: usize) -> impl Iterator<Item = &M> {
        let mut at = 0;
        while let Some(chunk) = self.chunks.get(at).filter(|chunk| chunk.len() <= n) {
            n -= chunk.len();
            at += 1;
        }
        self.chunks[at..].iter().flat_map(|chunk| chunk.iter().map(|(_, member)| member)).skip(n)
    }

    /// Who joined first of those here.
    pub fn first(&self) -> Option<&M> {
        self.iter().next()
    }

    /// Who joined last.
    pub fn last(&self) -> Option<&M> {
        self.iter().next_back()
    }
}

impl<M: Clone> Members<M> {
    /// Puts a member at the end. `turn` is greater than any here.
    pub(super) fn push(&mut self, turn: Turn, member: M) {
        debug_assert!(
            self.chunks.last().and_then(|chunk| chunk.last()).is_none_or(|(last, _)| *last < turn)
        );
        self.len += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_LEN => Arc::make_mut(chunk).push((turn, member)),
            Some(_) | None => self.chunks.push(Arc::new(vec![(turn, member)])),
        }
    }

    /// Takes the member out that joined with this number.
    pub(super) fn remove(&mut self, turn: Turn) -> Option<M> {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|m| m.0 <= turn));
        let at = after.checked_sub(1)?;
        let place = self.chunks[at].binary_search_by_key(&turn, |(turn, _)| *turn).ok()?;
        let (_, member) = Arc::make_mut(&mut self.chunks[at]).remove(place);
        self.len -= 1;
        if self.chunks[at].is_empty() {
            self.chunks.remove(at);
        } else if at > 0 && self.chunks[at - 1].len() + self.chunks[at].len() <= CHUNK_LEN / 2 {
            // Lest a list that was long stays long with a member per chunk.
            let chunk = self.chunks.remove(at);
            Arc::make_mut(&mut self.chunks[at - 1]).extend(chunk.iter().cloned());
        }
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_random_changes_agree_with_a_vec(
            ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600),
        ) {
            let (mut members, mut model) = (Members::default(), Vec::new());
            let mut snapshots = Vec::new();
            for (number, (leaves, who)) in (0..).zip(ops) {
                // Grows first, shrinks then.
                if model.is_empty() || (number < 400 && (!leaves || number < 200)) {
                    members.push(Turn(number), number);
                    model.push(number);
                } else {
                    let gone = model.remove(who.index(model.len()));
                    prop_assert_eq!(members.remove(Turn(gone)), Some(gone));
                    prop_assert_eq!(members.remove(Turn(gone)), None);
                }
                prop_assert_eq!(members.len(), model.len());
                if number % 50 == 0 {
                    snapshots.push((members.clone(), model.clone()));
                }
            }
            snapshots.push((members, model));
            for (members, model) in snapshots {
                prop_assert!(members.iter().eq(&model));
                prop_assert!(members.iter().rev().eq(model.iter().rev()));
                prop_assert_eq!(members.first(), model.first());
                prop_assert_eq!(members.last(), model.last());
                for n in [0, 1, 63, 64, 65, model.len()] {
                    prop_assert!(members.iter_from(n).eq(model.iter().skip(n)));
                }
                prop_assert!(members.chunks.len() <= 1 + model.len() * 4 / CHUNK_LEN + 1);
            }
        }
    }
}
