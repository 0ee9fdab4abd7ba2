//! Comparing whole views: with whoever connects or becomes a neighbour, and with a random neighbour now and then.
//!
//! ```text
//! A ── Sync{digest, own head} ──► B
//! A ◄── SyncEqual ── B                                  or
//! A ◄── SyncHeads{heads} … {heads, last} ── B
//! A ── IHave, what B lacks ──► B
//! ```
//! What each lacks then is asked for as if it had been announced along a tree: at once by who joins, else when it does not come
//! another way in time. So nothing is sent twice to a node that compares its view with many at a time.

use std::collections::BTreeSet;

use weald_storage::NodeId;

use super::{Membership, Output};
use crate::messages::{Announcement, Body, HEADS_MAX, Head, Message, Rumour};
use crate::plumtree::Hurry;

/// An answer is waited for so long, then asked for again. // guess
const ANSWER_MS: u64 = 2_000;
/// So often. // guess
const ATTEMPTS_MAX: u32 = 5;

/// A comparison that this node began.
#[derive(Debug, Clone)]
pub(super) struct Sync {
    pub(super) until_ms: u64,
    attempts: u32,
    /// Nodes of which the peer has the same record, or a newer one.
    same: BTreeSet<NodeId>,
    /// Nodes whose records have to come before this node has joined.
    missing: BTreeSet<NodeId>,
    /// Whether the peer has told all that it has.
    is_listed: bool,
    /// Whether this node's record went with the question.
    is_introduced: bool,
}

impl Membership {
    pub(super) fn start_sync(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let until_ms = self.clock.now_ms + ANSWER_MS;
        let (same, missing) = (BTreeSet::new(), BTreeSet::new());
        let (is_listed, is_introduced) = (false, false);
        let sync = Sync { until_ms, attempts: 1, same, missing, is_listed, is_introduced };
        self.syncs.insert(node, sync);
        self.ask(node, out);
    }

    /// The peer has learnt only now who this node is.
    pub(super) fn sync_again(&mut self, node: NodeId, out: &mut Vec<Output>) {
        if self.syncs.get(&node).is_some_and(|sync| !sync.is_listed) {
            self.ask(node, out);
        }
    }

    fn ask(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let digest = self.digest();
        let Some(own) = self.view.record(self.id).map(|record| self.entry(record)) else { return };
        let is_stranger = !self.view.is_member(node) && !self.plumtree.is_asked(node);
        let body = Body::Sync { digest, own: own.head(), is_stranger };
        // Who joins is not known there; anybody else may be.
        let is_new = self.view.len() == 1;
        if let Some(sync) = self.syncs.get_mut(&node) {
            sync.is_introduced |= is_new;
        }
        let records = if is_new { vec![own] } else { Vec::new() };
        self.send(node, Message { records, rumours: Vec::new(), body }, out);
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
            (sync.same, sync.missing) = (BTreeSet::new(), BTreeSet::new());
            sync.is_listed = false;
            self.ask(node, out);
        }
    }

    pub(super) fn on_sync(
        &mut self,
        from: NodeId,
        (digest, own): (u64, Head),
        is_stranger: bool,
        out: &mut Vec<Output>,
    ) {
        // Nobody knows better than the peer itself who it is, and it is not in need of its own record.
        let is_news = self.is_news(&own);
        if is_news {
            self.want_of(from, &own, out);
        }
        if digest == self.digest() {
            return self.send(from, Message::bare(Body::SyncEqual), out);
        }
        let mine = self.view.get(self.id).map(|row| (self.id, row));
        let others = self.view.rows().filter(|(node, _)| *node != self.id && *node != from);
        let theirs = self.view.get(from).map(|row| (from, row)).filter(|_| !is_news);
        let rows = mine.into_iter().chain(theirs).chain(others);
        let heads: Vec<Head> = rows.map(|(_, row)| self.entry(&row.record).head()).collect();
        let pages = heads.len().div_ceil(HEADS_MAX);
        let is_introduced = self.syncs.get(&from).is_some_and(|sync| sync.is_introduced);
        let introduces = is_stranger && !is_introduced;
        for (number, heads) in (1..).zip(heads.chunks(HEADS_MAX)) {
            let own = self.view.record(self.id).filter(|_| introduces && number == 1);
            let records = own.map(|record| self.entry(record)).into_iter().collect();
            let body = Body::SyncHeads { heads: heads.to_vec(), is_last: number == pages };
            self.send(from, Message { records, rumours: Vec::new(), body }, out);
        }
    }

    /// A peer's own record is news. If it was asked what it has, it comes with the answer.
    pub(super) fn want_of(&mut self, peer: NodeId, own: &Head, out: &mut Vec<Output>) {
        let is_coming = self.syncs.contains_key(&peer) && !self.view.is_member(peer);
        let hurry = if is_coming { Hurry::Wait } else { Hurry::Now };
        self.plumtree.want(self.clock.now_ms, (peer, None), own, hurry);
        self.graft_due(out);
    }

    /// What the peer has.
    pub(super) fn on_heads(
        &mut self,
        from: NodeId,
        heads: &[Head],
        is_last: bool,
        out: &mut Vec<Output>,
    ) {
        let is_joining = self.is_joining_through(from);
        let hurry = if is_joining { Hurry::Now } else { Hurry::Wait };
        for head in heads {
            self.hear(from, head, out);
            let is_news = self.is_news(head);
            if is_news {
                let hurry = if head.node == from { Hurry::Now } else { hurry };
                self.plumtree.want(self.clock.now_ms, (from, None), head, hurry);
            }
            let own = self.view.record(head.node).map(|record| self.entry(record).head());
            let Some(sync) = self.syncs.get_mut(&from) else { continue };
            if own.is_none_or(|own| own.rank() <= head.rank()) {
                sync.same.insert(head.node);
            }
            if is_news {
                sync.missing.insert(head.node);
            }
        }
        self.graft_due(out);
        if !is_last {
            return;
        }
        let Some(sync) = self.syncs.get_mut(&from) else { return };
        sync.is_listed = true;
        let is_done = sync.missing.is_empty() || !is_joining;
        let same = std::mem::take(&mut sync.same);
        let lacking = self.view.rows().filter(|(node, _)| !same.contains(node));
        let items = lacking.map(|(_, row)| {
            let head = self.entry(&row.record).head();
            Announcement { root: None, head }
        });
        let items: Vec<Announcement> = items.collect();
        for items in items.chunks(HEADS_MAX) {
            self.send(from, Message::bare(Body::IHave { items: items.to_vec() }), out);
        }
        if is_done {
            self.sync_done(from, out);
        }
    }

    /// What a peer thinks of a member, and since when it counts one as gone.
    pub(super) fn hear(&mut self, from: NodeId, head: &Head, out: &mut Vec<Output>) {
        let run_ms = self.clock.run_ms();
        self.view.gone_for(head, run_ms);
        let is_member = head.status.is_member() && self.view.is_member(head.node);
        if head.node == from || head.node == self.id || !is_member {
            return;
        }
        let (refute, liveness) = (head.refute, head.liveness);
        self.on_rumour(from, Rumour { node: head.node, refute, liveness }, out);
    }

    /// Records have come.
    pub(super) fn syncs_got(&mut self, heads: &[Head], out: &mut Vec<Output>) {
        let mut done = Vec::new();
        for (peer, sync) in &mut self.syncs {
            for head in heads {
                sync.missing.remove(&head.node);
            }
            if sync.is_listed && sync.missing.is_empty() {
                done.push(*peer);
            }
        }
        for peer in done {
            self.sync_done(peer, out);
        }
    }

    pub(super) fn sync_done(&mut self, from: NodeId, out: &mut Vec<Output>) {
        if self.syncs.remove(&from).is_some() {
            self.joined_through(from, out);
        }
    }

    /// Digest of the view, worked out when it changed.
    fn digest(&mut self) -> u64 {
        match self.digest {
            Some(digest) => digest,
            None => *self.digest.insert(self.view.digest()),
        }
    }
}
