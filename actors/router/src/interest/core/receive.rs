//! What peers say: digests, pulls and rows.

use weald_storage::NodeId;

use super::{ANSWER_BYTES, Interest, Output, Presence, Trouble, apply, drop_rows, of_part, settle};
use crate::interest::config::ms;
use crate::interest::ledger::Ledger;
use crate::interest::origin::{Asked, Gathering, Origin};
use crate::interest::wire::{Delta, Known, Message, Pull, Reason};

impl Interest {
    pub(super) fn on_digest(
        &mut self,
        now_ms: u64,
        from: NodeId,
        is_first: bool,
        known: &[Known],
        out: &mut Vec<Output>,
    ) {
        if let Some(origin) = self.origins.get_mut(&from).filter(|_| is_first) {
            // It was asked before it could answer, perhaps.
            origin.asked = None;
        }
        for one in known {
            if one.origin == self.own {
                if self.is_own_past(one.incarnation, one.version, Some(one.digest)) {
                    self.begin_new_life(one.incarnation, out);
                }
                continue;
            }
            if !self.meet(now_ms, from, one.origin, one.incarnation, out) {
                continue;
            }
            let Some(origin) = self.origins.get_mut(&one.origin) else { continue };
            origin.heard = origin.heard.max(one.version);
            let held = origin.ledger.version();
            let is_same = held != one.version || one.digest == origin.ledger.digest();
            if origin.is_settled && from == one.origin && !is_same {
                origin.distrust();
                out.push(Output::Trouble(one.origin, Trouble::Differs));
            }
            if origin.is_settled && held >= one.version {
                self.arrived(one.origin, out);
            } else {
                self.ask(now_ms, from, one.origin, out);
            }
        }
    }

    /// Whether something about the rows of `node` in a life of it may be used.
    fn meet(
        &mut self,
        now_ms: u64,
        from: NodeId,
        node: NodeId,
        incarnation: u64,
        out: &mut Vec<Output>,
    ) -> bool {
        let is_itself = from == node;
        let is_welcome = match self.members.get(&node) {
            Some(Presence::Answers | Presence::Silent) => true,
            Some(Presence::Gone) => false,
            None => is_itself,
        };
        if !is_welcome {
            return false;
        }
        let origin = match self.origins.get_mut(&node) {
            Some(origin) => origin,
            // It may speak a moment before it is said to be connected.
            None if is_itself => self.origins.entry(node).or_insert_with(|| Origin::new(now_ms)),
            None => return false,
        };
        // What others say of somebody who does not answer is old.
        if now_ms < origin.refused_until_ms || !(origin.is_reached || is_itself) {
            return false;
        }
        if incarnation > origin.ledger.incarnation() {
            origin.reborn(incarnation);
            drop_rows(node, origin, out);
        } else if incarnation < origin.ledger.incarnation() {
            if is_itself {
                // It has forgotten that it lived before: it takes a new life once it hears of it.
                origin.is_synced = false;
                settle(node, origin, out);
                let message = Message::Digest { is_first: false, known: self.known(node, false) };
                out.push(Output::Send { to: vec![node], message });
            }
            return false;
        }
        true
    }

    /// Asks `whom` for what is missing of a node's rows, unless somebody is asked already.
    pub(super) fn ask(&mut self, now_ms: u64, whom: NodeId, node: NodeId, out: &mut Vec<Output>) {
        let timeout_ms = ms(self.config.pull_timeout);
        let Some(origin) = self.origins.get_mut(&node) else { return };
        let is_waiting = origin.asked.is_some_and(|asked| {
            let is_better = whom == node && asked.whom != node;
            !is_better && now_ms.saturating_sub(asked.at_ms) < timeout_ms
        });
        if is_waiting || now_ms < origin.refused_until_ms {
            return;
        }
        origin.asked = Some(Asked { at_ms: now_ms, whom });
        let (incarnation, from, begun) = origin.needs();
        let message = Message::Pull(Pull { origin: node, incarnation, from, begun });
        out.push(Output::Send { to: vec![whom], message });
    }

    pub(super) fn on_pull(&mut self, peer: NodeId, wanted: &Pull, out: &mut Vec<Output>) {
        let Pull { origin: node, incarnation, from, begun } = *wanted;
        if node == self.own && self.is_own_past(incarnation, from, None) {
            self.begin_new_life(incarnation, out);
        }
        let is_neighbour = self.connected.contains(&peer);
        let ledger = if node == self.own {
            if is_neighbour {
                self.tree.grafted(peer);
            }
            &self.ledger
        } else {
            let origin = self.origins.get_mut(&node);
            let origin = origin.map(|origin| {
                origin.tree.grafted(peer);
                &*origin
            });
            match origin {
                Some(origin) if origin.is_settled && origin.is_reached => &origin.ledger,
                _ => return,
            }
        };
        // Who asks may know more than is known here.
        let held = (ledger.incarnation(), ledger.version());
        if (incarnation, from) > held {
            return;
        }
        let (from, begun) = if incarnation == held.0 { (from, begun) } else { (0, 0) };
        let part = ledger.since(from, begun, ANSWER_BYTES);
        let delta = of_part(node, ledger, Reason::Answer, part);
        out.push(Output::Send { to: vec![peer], message: Message::Delta(delta) });
    }

    pub(super) fn on_delta(
        &mut self,
        now_ms: u64,
        from: NodeId,
        delta: Delta,
        out: &mut Vec<Output>,
    ) {
        let node = delta.origin;
        if node == self.own || !self.meet(now_ms, from, node, delta.incarnation, out) {
            return;
        }
        let Some(origin) = self.origins.get_mut(&node) else { return };
        origin.heard = origin.heard.max(delta.end);
        let is_answer = delta.reason == Reason::Answer;
        if is_answer && origin.asked.is_some_and(|asked| asked.whom == from) {
            origin.asked = None;
        }
        let held = origin.ledger.version();
        if origin.is_trusted && delta.end <= held {
            origin.gathering = None;
            let late = (!is_answer && !self.is_full_mesh)
                .then(|| origin.tree.came_late(from, node))
                .flatten();
            // Something older says nothing, unless it is all that there is to be had.
            if origin.is_settled && (delta.end == held || is_answer) {
                self.arrived(node, out);
            }
            if let Some(peer) = late.filter(|peer| self.connected.contains(peer)) {
                out.push(Output::Send { to: vec![peer], message: Message::Prune(node) });
            }
        } else if delta.part.base == 0 || origin.gathering.is_some() {
            self.gather(now_ms, from, delta, out);
        } else if origin.is_trusted && delta.part.base <= held {
            self.advance(now_ms, from, delta, out);
        } else {
            self.ask(now_ms, from, node, out);
        }
    }

    /// Rows that follow on what is here.
    fn advance(&mut self, now_ms: u64, from: NodeId, mut delta: Delta, out: &mut Vec<Output>) {
        let node = delta.origin;
        let Some(origin) = self.origins.get_mut(&node) else { return };
        let held = origin.ledger.version();
        if delta.part.version > held {
            delta.part.rows.retain(|row| row.version > held);
            delta.part.base = held;
            let rows = origin.ledger.take(delta.part.clone(), now_ms);
            origin.is_settled = false;
            origin.tree.brought(from);
            origin.has_news = !self.is_full_mesh;
            apply(node, origin, rows, out);
            let others = self.others_than(from, node);
            if !others.is_empty() {
                let reason = match delta.reason {
                    Reason::Answer => Reason::News,
                    reason @ (Reason::News | Reason::NewsWithMore) => reason,
                };
                let message = Message::Delta(Delta { reason, ..delta.clone() });
                out.push(Output::Send { to: others, message });
            }
        }
        self.advanced(now_ms, from, &delta, out);
    }

    /// Rows from the beginning, or rows that follow on those.
    fn gather(&mut self, now_ms: u64, from: NodeId, delta: Delta, out: &mut Vec<Output>) {
        let node = delta.origin;
        let Some(origin) = self.origins.get_mut(&node) else { return };
        let (base, version) = (delta.part.base, delta.part.version);
        let gathered = origin.gathering.as_ref().map(|gathering| gathering.ledger.version());
        let is_news = gathered.is_none_or(|at| version > at);
        let is_last_word = delta.reason == Reason::Answer && gathered == Some(delta.end);
        if base == 0 && is_news {
            let ledger = Ledger::new(delta.incarnation);
            origin.gathering = Some(Gathering { ledger, begun: delta.end });
        }
        let Some(Gathering { ledger, .. }) = &mut origin.gathering else { return };
        if is_news && base <= ledger.version() {
            ledger.take(delta.part.clone(), now_ms);
        } else if !is_last_word {
            // A gap, or something old: nothing can be complete by it.
            return self.more(now_ms, from, &delta, out);
        }
        if ledger.live_count() > self.config.rows_max {
            return self.refuse(now_ms, node, out);
        }
        if ledger.version() < delta.end {
            return self.more(now_ms, from, &delta, out);
        }
        if ledger.digest() != delta.digest {
            return self.differs(now_ms, node, out);
        }
        let Some(Gathering { ledger: gathering, .. }) = origin.gathering.take() else { return };
        let rows = origin.ledger.become_gathered(gathering);
        origin.is_trusted = true;
        origin.tree.brought(from);
        apply(node, origin, rows, out);
        self.advanced(now_ms, from, &delta, out);
        let others = self.others_than(from, node);
        if others.is_empty() {
            return;
        }
        let message = if delta.reason == Reason::News && base == 0 {
            Message::Delta(delta)
        } else {
            // Who needs them asks: they may be many, and others may have them already.
            let known = self.known(node, false).into_iter().filter(|known| known.origin == node);
            Message::Digest { is_first: false, known: known.collect() }
        };
        out.push(Output::Send { to: others, message });
    }

    /// The rows in use have come closer to those of a delta.
    fn advanced(&mut self, now_ms: u64, from: NodeId, delta: &Delta, out: &mut Vec<Output>) {
        let node = delta.origin;
        let Some(origin) = self.origins.get_mut(&node) else { return };
        if origin.ledger.live_count() > self.config.rows_max {
            return self.refuse(now_ms, node, out);
        }
        if origin.ledger.version() < delta.end {
            return self.more(now_ms, from, delta, out);
        }
        if origin.ledger.digest() != delta.digest {
            return self.differs(now_ms, node, out);
        }
        origin.is_settled = true;
        let is_behind = origin.heard > origin.ledger.version();
        self.arrived(node, out);
        if is_behind {
            self.ask(now_ms, from, node, out);
        }
    }

    /// There is more than a delta has brought.
    fn more(&mut self, now_ms: u64, from: NodeId, delta: &Delta, out: &mut Vec<Output>) {
        if delta.reason != Reason::NewsWithMore {
            self.ask(now_ms, from, delta.origin, out);
        }
    }

    /// All rows of a node that are known of are here.
    fn arrived(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let Some(origin) = self.origins.get_mut(&node).filter(|origin| origin.is_reached) else {
            return;
        };
        origin.is_synced = true;
        origin.was_synced = true;
        settle(node, origin, out);
    }

    fn refuse(&mut self, now_ms: u64, node: NodeId, out: &mut Vec<Output>) {
        let rows_max = self.config.rows_max;
        let until_ms = now_ms.saturating_add(ms(self.config.refusal));
        let Some(origin) = self.origins.get_mut(&node) else { return };
        origin.refused_until_ms = until_ms;
        origin.reborn(origin.ledger.incarnation());
        drop_rows(node, origin, out);
        out.push(Output::Trouble(node, Trouble::TooMany(rows_max)));
    }

    /// What came does not add up to what it should be. The next digest leads to all rows being fetched.
    fn differs(&mut self, now_ms: u64, node: NodeId, out: &mut Vec<Output>) {
        let Some(origin) = self.origins.get_mut(&node) else { return };
        origin.distrust();
        // Not at once: should it never add up, it costs no more than a pull for each timeout.
        origin.asked = Some(Asked { at_ms: now_ms, whom: node });
        out.push(Output::Trouble(node, Trouble::Differs));
    }

    /// A peer gets news of a node another way.
    pub(super) fn on_prune(&mut self, from: NodeId, node: NodeId) {
        if !self.connected.contains(&from) {
            return;
        }
        if node == self.own {
            self.tree.pruned(from);
        } else if let Some(origin) = self.origins.get_mut(&node) {
            origin.tree.pruned(from);
        }
    }

    /// A neighbour is gone: news that it brought are asked of others.
    pub(super) fn replace_parent(&mut self, now_ms: u64, peer: NodeId, out: &mut Vec<Output>) {
        self.tree.lost(peer);
        let lost = |(node, origin): (&NodeId, &mut Origin)| Some((*node, origin.tree.lost(peer)?));
        let next: Vec<(NodeId, NodeId)> = self.origins.iter_mut().filter_map(lost).collect();
        for (node, whom) in next {
            if !self.is_full_mesh && self.connected.contains(&whom) && self.is_reached(node) {
                self.ask(now_ms, whom, node, out);
            }
        }
    }

    /// To whom news of a node go on: to nobody in a full mesh, where it has told everybody itself.
    fn others_than(&self, from: NodeId, node: NodeId) -> Vec<NodeId> {
        if self.is_full_mesh {
            return Vec::new();
        }
        let Some(origin) = self.origins.get(&node) else { return Vec::new() };
        let is_told = |peer: &NodeId| *peer != from && *peer != node && origin.tree.is_eager(*peer);
        self.connected.iter().copied().filter(is_told).collect()
    }
}
