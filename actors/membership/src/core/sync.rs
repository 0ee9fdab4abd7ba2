//! Comparing whole views: with whoever connects, and with a random neighbour now and then.
//!
//! ```text
//! A ── Sync{digest}, own record ──► B
//! A ◄── SyncEqual ── B                         or
//! A ◄── SyncPage{answer} … {answer, last} ── B
//! A ── SyncPage …, what B lacks ──► B
//! ```

use std::collections::BTreeSet;

use weald_storage::NodeId;

use super::{Membership, Output};
use crate::messages::{Body, Entry, Message, PAGE_BYTES};

/// An answer is waited for so long, then asked for again. // guess
const ANSWER_MS: u64 = 2_000;
/// So often. // guess
const ATTEMPTS_MAX: u32 = 5;

/// A comparison that this node began.
#[derive(Debug, Clone)]
pub(super) struct Sync {
    pub(super) until_ms: u64,
    attempts: u32,
    /// Nodes of which the peer has the same record.
    same: BTreeSet<NodeId>,
}

impl Membership {
    pub(super) fn start_sync(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let until_ms = self.clock.now_ms + ANSWER_MS;
        self.syncs.insert(node, Sync { until_ms, attempts: 1, same: BTreeSet::new() });
        self.ask(node, out);
    }

    fn ask(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let digest = self.digest();
        let own = self.view.record(self.id).map(|record| self.entry(record));
        let records = own.into_iter().collect();
        let message = Message { records, rumours: Vec::new(), body: Body::Sync { digest } };
        self.send(node, message, out);
    }

    pub(super) fn tick_syncs(&mut self, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        let late = self.syncs.iter().filter(|(_, sync)| sync.until_ms <= now_ms);
        for node in late.map(|(node, _)| *node).collect::<Vec<_>>() {
            let Some(sync) = self.syncs.get_mut(&node) else { continue };
            if sync.attempts >= ATTEMPTS_MAX {
                self.syncs.remove(&node);
                continue;
            }
            (sync.attempts, sync.until_ms) = (sync.attempts + 1, now_ms + ANSWER_MS);
            self.ask(node, out);
        }
    }

    pub(super) fn on_sync(&mut self, from: NodeId, digest: u64, out: &mut Vec<Output>) {
        if digest == self.digest() {
            self.send(from, Message::bare(Body::SyncEqual), out);
        } else {
            self.send_pages(from, true, &BTreeSet::new(), out);
        }
    }

    /// A page came: what it says about records that are equal here.
    pub(super) fn note_page(&mut self, from: NodeId, entries: &[Entry]) {
        let Some(sync) = self.syncs.get_mut(&from) else { return };
        for entry in entries {
            let own = self.view.record(entry.record.node);
            if own.is_none_or(|own| own.rank() <= entry.record.rank()) {
                sync.same.insert(entry.record.node);
            }
        }
    }

    /// The last page came: the peer gets what it lacks.
    pub(super) fn answer_pages(&mut self, from: NodeId, out: &mut Vec<Output>) {
        if let Some(sync) = self.syncs.get(&from) {
            let same = sync.same.clone();
            self.send_pages(from, false, &same, out);
            self.sync_done(from, out);
        }
    }

    pub(super) fn sync_done(&mut self, from: NodeId, out: &mut Vec<Output>) {
        if self.syncs.remove(&from).is_some() {
            self.joined_through(from, out);
        }
    }

    fn send_pages(
        &self,
        to: NodeId,
        is_answer: bool,
        without: &BTreeSet<NodeId>,
        out: &mut Vec<Output>,
    ) {
        // The own record first: it makes the receiver listen to the rest.
        let own = self.view.get(self.id).map(|row| (self.id, row));
        let rows = own.into_iter().chain(self.view.rows().filter(|(node, _)| *node != self.id));
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (_, row) in rows.filter(|(node, _)| !without.contains(node)) {
            let len = row.record.len_hint();
            if bytes + len > PAGE_BYTES {
                let records = std::mem::take(&mut page);
                let body = Body::SyncPage { is_answer, is_last: false };
                self.send(to, Message { records, rumours: Vec::new(), body }, out);
                bytes = 0;
            }
            bytes += len;
            page.push(self.entry(&row.record));
        }
        let body = Body::SyncPage { is_answer, is_last: true };
        self.send(to, Message { records: page, rumours: Vec::new(), body }, out);
    }

    /// Digest of the view, worked out when it changed.
    fn digest(&mut self) -> u64 {
        match self.digest {
            Some(digest) => digest,
            None => *self.digest.insert(self.view.digest()),
        }
    }
}
