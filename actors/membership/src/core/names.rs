//! One name, one node.
//!
//! A new node under the name of a member that is down takes its place: its disk was wiped. Two live nodes with one name are
//! refused each other's connections (see [`crate::admission`]); if both became members all the same, at once through
//! different members, the one with the greater id leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use weald_peers::{Liveness, Status};
use weald_storage::NodeId;

use super::{Event, Membership, Output};

/// A conflict has to last for so long before one gives way: liveness needs time to settle. // guess
const CONFLICT_MS: u64 = 10_000;

impl Membership {
    pub(super) fn look_at_names(&mut self, out: &mut Vec<Output>) {
        let mut by_name: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (node, row) in self.view.members() {
            by_name.entry(&row.record.name).or_default().push(node);
        }
        let shared = by_name.into_iter().filter(|(_, nodes)| nodes.len() > 1);
        let shared: Vec<(String, Vec<NodeId>)> =
            shared.map(|(name, nodes)| (name.to_owned(), nodes)).collect();
        let mut conflicts = BTreeMap::new();
        for (name, nodes) in shared {
            let (dead, live): (Vec<NodeId>, Vec<NodeId>) =
                nodes.into_iter().partition(|n| self.detector.liveness(*n) == Liveness::Down);
            // A suspect may be the dead one: wait until it is clear.
            let Some(new) = live.iter().copied().find(|n| self.is_up(*n)) else { continue };
            for old in dead {
                self.evict(old, out);
                self.announce_own(out);
                out.push(Output::Event(Event::Replaced { name: name.clone(), old, new }));
            }
            for pair in live.windows(2) {
                let pair = (pair[0], pair[1]);
                let since_ms = self.conflicts.get(&pair).copied();
                conflicts.insert(pair, since_ms.unwrap_or(self.clock.now_ms));
                if since_ms.is_none() {
                    let (one, other) = pair;
                    let name = name.clone();
                    out.push(Output::Event(Event::NameConflict { name, one, other }));
                }
            }
        }
        self.conflicts = conflicts;
        let now_ms = self.clock.now_ms;
        let yields_to = self.conflicts.iter().find(|((_, greater), since_ms)| {
            *greater == self.id && now_ms.saturating_sub(**since_ms) >= CONFLICT_MS
        });
        if let Some(to) = yields_to.map(|((to, _), _)| *to)
            && self.leave.is_none()
        {
            self.set_own_status(Status::Left);
            self.announce(out);
            let name = self.own().name.clone();
            self.stop(out);
            out.push(Output::Event(Event::SelfYielded { name, to }));
        }
    }

    /// Evicts a node; it may be told, if it is connected.
    pub(super) fn evict(&mut self, node: NodeId, out: &mut Vec<Output>) {
        if let Some(record) = self.view.record(node) {
            let record = Arc::new(record.with_status(Status::Evicted));
            self.merge(&record, 0, out);
        }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.detector.liveness(node) == Liveness::Up
    }
}
