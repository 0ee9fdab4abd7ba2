//! What follows from an input: whom to be connected with, the neighbours, the snapshot, the file.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Liveness;
use weald_storage::NodeId;

use super::{Membership, Output, SAVE_MAX_MS, SAVE_MIN_MS};
use crate::saved::{Saved, SavedRow};
use crate::view::{Record, Row};

impl Membership {
    /// Works out what follows from the changes, once per input.
    pub(super) fn settle(&mut self, out: &mut Vec<Output>) {
        if self.stale.peers {
            self.stale.peers = false;
            self.settle_peers(out);
        }
        self.push_own(out);
        if self.stale.snapshot {
            self.stale.snapshot = false;
            self.stale.names = true;
            self.stale.file = true;
            out.push(Output::Changed);
        }
        let since_ms = self.clock.now_ms.saturating_sub(self.due.saved_ms);
        if (self.stale.file && since_ms >= SAVE_MIN_MS) || since_ms >= SAVE_MAX_MS {
            self.stale.file = false;
            self.due.saved_ms = self.clock.now_ms;
            out.push(Output::Persist(self.saved().encode()));
        }
    }

    fn settle_peers(&mut self, out: &mut Vec<Output>) {
        let is_up = |node: &NodeId| {
            self.connected.contains(node)
                && self.view.is_member(*node)
                && self.detector.liveness(*node) != Liveness::Down
        };
        let is_active = self.is_active();
        let (mut wanted, mut neighbours) = (BTreeSet::new(), BTreeSet::new());
        match &self.overlay {
            _ if !is_active => {}
            None => {
                wanted.extend(self.view.members().map(|(node, _)| node));
                neighbours.extend(self.connected.iter().copied().filter(is_up));
            }
            Some(overlay) => {
                wanted.extend(overlay.wanted());
                neighbours.extend(overlay.active().iter().copied().filter(is_up));
            }
        }
        if is_active {
            wanted.extend(self.contacts.keys().copied());
        }
        wanted.remove(&self.id);
        let with_addresses = wanted.into_iter().filter_map(|node| {
            let record = self.view.record(node).map(|record| &record.addresses);
            let addresses = record.or_else(|| self.infos.get(&node).map(|info| &info.addresses))?;
            Some((node, addresses.clone()))
        });
        let wanted: BTreeMap<NodeId, Vec<String>> = with_addresses.collect();
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            out.push(Output::Connect(wanted));
        }
        if neighbours != self.neighbours {
            let before = std::mem::replace(&mut self.neighbours, neighbours);
            self.stale.snapshot = true;
            for gone in before.difference(&self.neighbours).copied().collect::<Vec<_>>() {
                self.lost_neighbour(gone, out);
            }
            // What went along other connections since this one was made may have passed by.
            let is_due = |node: &&NodeId| self.id < **node && !self.syncs.contains_key(node);
            let new = self.neighbours.difference(&before).filter(is_due).copied();
            for node in new.collect::<Vec<_>>() {
                self.start_sync(node, out);
            }
        }
    }

    /// What is to be remembered.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let row = |(_, row): (NodeId, &Row)| SavedRow {
            record: Record::clone(&row.record),
            seen_ms: row.seen_ms,
            seen_run_ms: row.seen_run_ms,
            gone_run_ms: row.gone_run_ms,
        };
        Saved { run_ms: self.clock.run_ms(), rows: self.view.rows().map(row).collect() }
    }
}
