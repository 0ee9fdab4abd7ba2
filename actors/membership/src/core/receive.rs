//! Messages of peers, and what follows from them.

use weald_peers::Liveness;
use weald_storage::NodeId;

use super::{EARLY_MAX, Event, Membership, Output, Rest, around, rest};
use crate::messages::{Body, Entry, Head, Message, Rumour};
use crate::overlay::{HyParView, Outbox};
use crate::swim::{Around, Effect};

impl Membership {
    pub(super) fn on_message(&mut self, from: NodeId, message: Message, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        if !self.is_active() || from == self.id {
            return;
        }
        if !self.connected.contains(&from) {
            // The other end may be told of the connection first.
            if self.early.len() < EARLY_MAX {
                self.early.push((now_ms, from, message));
            }
            return;
        }
        let Message { records, rumours, body } = message;
        let heads: Vec<Head> = records.iter().map(Entry::head).collect();
        let is_strange = |head: &Head| !self.view.is_member(head.node);
        let strangers: Vec<NodeId> =
            heads.iter().filter(|head| is_strange(head)).map(|head| head.node).collect();
        let is_listened_to = self.absorb(from, records, out);
        self.took(from, &heads, &body, out);
        if !matches!(body, Body::SyncHeads { .. }) {
            // What a peer answered before its record came was not listened to.
            strangers.into_iter().for_each(|node| self.sync_again(node, out));
        }
        if !is_listened_to {
            return self.on_stranger(from, &body, out);
        }
        self.view.seen(from, self.clock.moment());
        let mut effects = Vec::new();
        if !matches!(body, Body::Ack { .. }) {
            self.detector.alive(now_ms, from, &mut effects);
        }
        for rumour in rumours {
            self.detector.on_rumour(now_ms, from, rumour, around!(self), &mut effects);
        }
        let mut sends = Outbox::new();
        match body {
            Body::Gossip => {}
            Body::Ping { seq, is_neighbour } => {
                effects.push(Effect::Send(from, Body::Ack { seq }));
                if let Some(overlay) = self.overlay.as_mut().filter(|_| is_neighbour) {
                    overlay.on_neighbour_ping(now_ms, from, &mut sends);
                }
            }
            Body::Ack { seq } => self.detector.on_ack(now_ms, from, seq, &mut effects),
            Body::PingRequest { seq, target } => {
                let around = around!(self);
                self.detector.on_ping_request(now_ms, from, seq, target, around, &mut effects);
            }
            Body::PingReached { seq } => self.detector.on_reached(now_ms, seq, &mut effects),
            Body::PingFailed { seq } => self.detector.on_failed(seq),
            // What it has brought is taken and passed on.
            Body::News { .. } => {}
            Body::IHave { items } => self.on_i_have(from, &items, out),
            Body::Graft { root, nodes } => self.on_graft(from, root, &nodes, out),
            Body::Prune { root } => self.on_prune(from, root),
            Body::Sync { digest, own, is_stranger } => {
                self.on_sync(from, (digest, own), is_stranger, out);
            }
            Body::SyncEqual => self.sync_done(from, out),
            Body::SyncHeads { heads, is_last } => self.on_heads(from, &heads, is_last, out),
            Body::Announce => self.note_announced(from, out),
            Body::Noted { version } => self.on_noted(from, version),
            Body::Overlay(message) => {
                if let Some(overlay) = &mut self.overlay {
                    let rest = rest!(self);
                    overlay.on_message(now_ms, from, message, &rest, &mut self.rng, &mut sends);
                    self.stale.peers = true;
                }
            }
        }
        self.carry_out(effects, out);
        self.send_overlay(sends, out);
    }

    /// Whoever is no member is told so if it was evicted, and asked who it is if it says that it is back.
    fn on_stranger(&mut self, from: NodeId, body: &Body, out: &mut Vec<Output>) {
        match body {
            Body::Sync { own, .. } if own.node == from && self.is_news(own) => {
                self.want_of(from, own, out);
            }
            Body::Graft { nodes, .. } if nodes.contains(&self.id) => {
                self.answer(from, None, &[self.id], out);
            }
            _ => {
                self.tell_evicted(from, out);
                if let Body::Announce = body {
                    self.note_announced(from, out);
                }
            }
        }
    }

    /// Somebody says whether a node answers.
    pub(super) fn on_rumour(&mut self, from: NodeId, rumour: Rumour, out: &mut Vec<Output>) {
        let mut effects = Vec::new();
        self.detector.on_rumour(self.clock.now_ms, from, rumour, around!(self), &mut effects);
        self.carry_out(effects, out);
    }

    /// Does what the detector wants.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Send(to, body) => self.send(to, Message::bare(body), out),
                Effect::Tell(to, rumour) => {
                    let rumours = vec![rumour];
                    let message = Message { records: Vec::new(), rumours, body: Body::Gossip };
                    self.send(to, message, out);
                }
                Effect::Spread(rumour) => self.rumours.rumour(rumour),
                Effect::Turned(node, liveness) => self.turned(node, liveness, out),
            }
        }
    }

    fn turned(&mut self, node: NodeId, liveness: Liveness, out: &mut Vec<Output>) {
        self.stale.snapshot = true;
        self.stale.peers = true;
        self.stale.file = true;
        if liveness == Liveness::Down
            && let Some(overlay) = &mut self.overlay
        {
            overlay.on_lost(self.clock.now_ms, node);
        }
        let Some(row) = self.view.get(node) else { return };
        let name = row.record.name.clone();
        out.push(Output::Event(match liveness {
            Liveness::Up => Event::Up { node, name },
            Liveness::Suspect => Event::Suspect { node, name },
            Liveness::Down => Event::Down { node, name },
        }));
    }

    pub(super) fn send(&self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        if self.connected.contains(&to) {
            out.push(Output::Send { to, message });
        }
    }

    pub(super) fn send_overlay(&mut self, sends: Outbox, out: &mut Vec<Output>) {
        for (to, overlay) in sends {
            // Who hears of a new node this way may not have its record yet.
            let records = match &overlay {
                crate::messages::Overlay::ForwardJoin { node, .. } => {
                    self.view.record(*node).map(|record| self.entry(record)).into_iter().collect()
                }
                crate::messages::Overlay::Join => {
                    self.view.record(self.id).map(|record| self.entry(record)).into_iter().collect()
                }
                _ => Vec::new(),
            };
            let message = Message { records, rumours: Vec::new(), body: Body::Overlay(overlay) };
            self.send(to, message, out);
        }
    }
}
