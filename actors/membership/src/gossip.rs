//! Who is said to be alive, and how often it was told.
//!
//! Guarantees: a rumour is told at most a logarithmic number of times; a newer one about a node replaces the older; what was
//! told least goes first. Bounded by the number of nodes. Records go another way: see `plumtree.rs`.

use std::collections::BTreeMap;

use weald_storage::NodeId;

use crate::messages::{RUMOURS_MAX, Rumour};

/// Times an item is told, times `log2(members)`. // memberlist: 4, of which a part is piggybacked
const RETRANSMIT_FACTOR: u32 = 3;
/// Most rumours that wait; more than that, and they are heard of later. // guess
const RUMOURS_WAITING_MAX: usize = 4_096;

/// Rumours that wait to be told.
#[derive(Debug, Clone, Default)]
pub struct Rumours {
    rumours: BTreeMap<NodeId, (u32, Rumour)>,
}

impl Rumours {
    /// A rumour is news.
    pub fn rumour(&mut self, rumour: Rumour) {
        if self.rumours.len() < RUMOURS_WAITING_MAX || self.rumours.contains_key(&rumour.node) {
            self.rumours.insert(rumour.node, (0, rumour));
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rumours.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rumours.clear();
    }

    /// Takes what one round carries, to be told to `receivers` of `neighbours` in a cluster of `members`.
    pub fn take(&mut self, receivers: usize, neighbours: usize, members: usize) -> Vec<Rumour> {
        let doublings = usize::BITS - members.leading_zeros();
        // Neighbours are told in turn: twice round is as good as everybody.
        let round = u32::try_from(neighbours.max(1) * 2).unwrap_or(u32::MAX);
        let limit = (RETRANSMIT_FACTOR * doublings).min(round);
        let told = u32::try_from(receivers).unwrap_or(u32::MAX);
        let mut order: Vec<(u32, NodeId)> =
            self.rumours.iter().map(|(node, (told, _))| (*told, *node)).collect();
        order.sort_unstable();
        let mut rumours = Vec::new();
        for (_, node) in order.into_iter().take(RUMOURS_MAX) {
            let Some((count, rumour)) = self.rumours.get_mut(&node) else { continue };
            *count += told;
            rumours.push(*rumour);
        }
        self.rumours.retain(|_, (count, _)| *count < limit);
        rumours
    }
}
