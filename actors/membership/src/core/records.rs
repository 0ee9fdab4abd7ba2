//! Records of others: taking them in, and what follows.

use std::sync::Arc;

use weald_peers::{Liveness, Status};
use weald_storage::NodeId;

use super::{Event, Membership, Output};
use crate::messages::{Body, Entry, Head, Message, Rumour};
use crate::view::{Merged, Record};

impl Membership {
    /// Takes in what a peer sent, its own record first. False when the peer is no member: nothing else is taken then.
    pub(super) fn absorb(
        &mut self,
        from: NodeId,
        entries: Vec<Entry>,
        out: &mut Vec<Output>,
    ) -> bool {
        let (own, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.record.node == from);
        for entry in own {
            self.absorb_one(from, &entry, out);
        }
        if !self.view.is_member(from) {
            return false;
        }
        for entry in others {
            self.absorb_one(from, &entry, out);
            if !self.is_active() {
                return false;
            }
        }
        true
    }

    fn absorb_one(&mut self, from: NodeId, entry: &Entry, out: &mut Vec<Output>) {
        let node = entry.record.node;
        if node == self.id {
            self.on_own_record(&entry.record, out);
            return;
        }
        self.merge(&entry.record, entry.gone_for_ms, out);
        if from != node {
            let (refute, liveness) = (entry.refute, entry.liveness);
            self.on_rumour(from, Rumour { node, refute, liveness }, out);
        }
    }

    /// Records have been taken in: nobody has to be asked for them, and what was new goes on.
    pub(super) fn took(
        &mut self,
        from: NodeId,
        heads: &[Head],
        body: &Body,
        out: &mut Vec<Output>,
    ) {
        for head in heads {
            self.plumtree.arrived(head);
            if self.is_same(head) {
                self.plumtree.has(from, head.node);
            }
        }
        let is_new = self.fresh.iter().any(|node| *node != self.id);
        self.pass_on(from, body, out);
        if let Body::News { root: Some(root), is_answer: false } = body
            && !is_new
        {
            self.on_nothing_new(from, *root, heads, out);
        }
        self.syncs_got(heads, out);
    }

    /// Takes a record in and does what follows from it.
    pub(super) fn merge(&mut self, record: &Arc<Record>, gone_for_ms: u64, out: &mut Vec<Output>) {
        let (node, now_ms) = (record.node, self.clock.now_ms);
        // What everybody may have dropped already is not news.
        let is_old = !record.status.is_member() && gone_for_ms > self.config.max_absence_ms;
        if is_old && self.view.get(node).is_none() {
            return;
        }
        let before = match self.view.merge(record, self.clock.moment(), gone_for_ms) {
            Merged::Nothing => return,
            Merged::Refused => {
                out.push(Output::Event(Event::Overflow { node }));
                return;
            }
            Merged::New => None,
            Merged::Changed(before) => Some(before),
        };
        self.fresh.push(node);
        self.digest = None;
        self.stale.snapshot = true;
        self.stale.peers = true;
        if record.status.is_member() {
            self.detector.add(now_ms, node, false);
        } else {
            self.detector.remove(node);
            self.plumtree.forget(node);
            if let Some(overlay) = &mut self.overlay {
                overlay.forget(now_ms, node);
            }
            self.contacts.insert(node, now_ms + super::FAREWELL_MS);
            self.leave_without(node);
            if record.status == Status::Evicted {
                self.tell_evicted(node, out);
            }
        }
        out.extend(events(record, before.as_deref()).into_iter().map(Output::Event));
    }

    /// Lets a connected peer know that it is evicted. False when it is not.
    pub(super) fn tell_evicted(&self, node: NodeId, out: &mut Vec<Output>) -> bool {
        let Some(record) = self.view.record(node).filter(|r| r.status == Status::Evicted) else {
            return false;
        };
        // The sender's own record comes first: only a member is listened to.
        let own = self.view.record(self.id);
        let records = own.into_iter().chain([record]).map(|record| self.entry(record)).collect();
        self.send(node, Message { records, rumours: Vec::new(), body: Body::Gossip }, out);
        true
    }

    /// A record ready to be sent.
    pub(super) fn entry(&self, record: &Arc<Record>) -> Entry {
        let rumour = self.detector.rumour_of(record.node);
        let gone_for_ms = match self.view.get(record.node) {
            Some(row) if !record.status.is_member() => {
                self.clock.run_ms().saturating_sub(row.gone_run_ms)
            }
            _ => 0,
        };
        Entry {
            record: Arc::clone(record),
            gone_for_ms,
            refute: rumour.refute,
            liveness: rumour.liveness,
        }
    }

    /// Fences who is away for too long, and drops records that nobody needs.
    pub(super) fn look_at_absence(&mut self, out: &mut Vec<Output>) {
        let at = self.clock.moment();
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for (node, row) in self.view.members().filter(|(node, _)| *node != self.id) {
            if self.detector.liveness(node) != Liveness::Down {
                present.push(node);
            } else if row.record.status != Status::Fenced
                && at.run_ms.saturating_sub(row.seen_run_ms) > self.config.max_absence_ms
            {
                absent.push(Arc::new(row.record.with_status(Status::Fenced)));
            }
        }
        for node in present {
            self.view.seen(node, at);
        }
        for record in absent {
            self.merge(&record, 0, out);
        }
        self.announce_own(out);
        // Twice: everybody drops it before it could come back from somebody who counts a little slower.
        let ttl_ms = self.config.max_absence_ms.saturating_mul(2);
        if !self.view.drop_gone(at.run_ms, ttl_ms, self.id).is_empty() {
            self.digest = None;
            self.stale.snapshot = true;
        }
    }
}

/// What a change of a record means to people.
fn events(record: &Record, before: Option<&Record>) -> Vec<Event> {
    let (node, name) = (record.node, record.name.clone());
    let was = before.map(|before| before.status);
    let is_same = was == Some(record.status);
    let mut events = Vec::new();
    match record.status {
        Status::Joined if was == Some(Status::Fenced) => {
            events.push(Event::Unfenced { node, name: name.clone() });
        }
        Status::Joined if !was.is_some_and(Status::is_member) => {
            events.push(Event::Joined { node, name: name.clone() });
        }
        Status::Fenced if !is_same => events.push(Event::Fenced { node, name: name.clone() }),
        Status::Leaving if !is_same => events.push(Event::Leaving { node, name: name.clone() }),
        Status::Left if !is_same && before.is_some() => {
            events.push(Event::Left { node, name: name.clone() });
        }
        Status::Evicted if !is_same && before.is_some() => {
            events.push(Event::Evicted { node, name: name.clone() });
        }
        Status::Joined | Status::Fenced | Status::Leaving | Status::Left | Status::Evicted => {}
    }
    if let Some(before) = before.filter(|_| record.status.is_member()) {
        if before.addresses != record.addresses {
            let addresses = record.addresses.clone();
            events.push(Event::Moved { node, name: name.clone(), addresses });
        }
        if before.incarnation != record.incarnation {
            events.push(Event::Restarted { node, name, incarnation: record.incarnation });
        }
    }
    events
}
