//! What is news, and how often it was told.
//!
//! Guarantees: an item is told at most a logarithmic number of times; a newer item about a node replaces the older; what was told
//! least goes first; a message is never larger than a page. Bounded by the number of nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use weald_storage::NodeId;

use crate::messages::{PAGE_BYTES, RUMOURS_MAX, Rumour};
use crate::view::Record;

/// Times an item is told, times `log2(members)`. // memberlist: 4, of which a part is piggybacked
const RETRANSMIT_FACTOR: u32 = 3;
/// Most rumours that wait; more than that, and the view's comparison has to do. // guess
const RUMOURS_WAITING_MAX: usize = 4_096;

/// News that wait to be told.
#[derive(Debug, Clone, Default)]
pub struct News {
    records: BTreeMap<NodeId, (u32, Arc<Record>)>,
    rumours: BTreeMap<NodeId, (u32, Rumour)>,
}

/// What one message carries.
pub type Batch = (Vec<Arc<Record>>, Vec<Rumour>);

impl News {
    /// A record is news.
    pub fn record(&mut self, record: &Arc<Record>) {
        self.records.insert(record.node, (0, Arc::clone(record)));
    }

    /// A rumour is news.
    pub fn rumour(&mut self, rumour: Rumour) {
        if self.rumours.len() < RUMOURS_WAITING_MAX || self.rumours.contains_key(&rumour.node) {
            self.rumours.insert(rumour.node, (0, rumour));
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rumours.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.rumours.clear();
    }

    /// Takes what one round carries, to be told to `receivers` of `neighbours` in a cluster of `members`.
    pub fn take(&mut self, receivers: usize, neighbours: usize, members: usize) -> Batch {
        let doublings = usize::BITS - members.leading_zeros();
        // Neighbours are told in turn: twice round is as good as everybody.
        let round = u32::try_from(neighbours.max(1) * 2).unwrap_or(u32::MAX);
        let limit = (RETRANSMIT_FACTOR * doublings).min(round);
        let told = u32::try_from(receivers).unwrap_or(u32::MAX);
        let records = self.take_records(told, limit);
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
        (records, rumours)
    }

    fn take_records(&mut self, told: u32, limit: u32) -> Vec<Arc<Record>> {
        let mut order: Vec<(u32, NodeId)> =
            self.records.iter().map(|(node, (told, _))| (*told, *node)).collect();
        order.sort_unstable();
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (_, node) in order {
            let Some((count, record)) = self.records.get_mut(&node) else { continue };
            bytes += record.len_hint();
            if bytes > PAGE_BYTES && !records.is_empty() {
                break;
            }
            *count += told;
            records.push(Arc::clone(record));
        }
        self.records.retain(|_, (count, _)| *count < limit);
        records
    }
}
