//! The broadcast of a simulated node: plumtree between its replicas and the network.

use std::collections::BTreeSet;

use weald_broadcast::core as plumtree;
use weald_broadcast::messages::{self, Gossip, Graft, IHave, Prune};
use weald_peers::{Channel, Dots, WireDelta};
use weald_storage::{Delta, Dot, Evidence, NodeId, Replicated};

use super::history::Place;
use super::process::Process;
use super::replicas::Notes;

impl Process {
    /// A place has new events of this node.
    pub fn committed(&mut self, place: Place, notes: &mut Notes<'_>) {
        let actor = self.replicas.of(place).actor();
        loop {
            let after = self.pushed.get(&place).copied().unwrap_or_default();
            let found = self.replicas.of(place).deltas_after(&actor, after, messages::GOSSIP_BYTES);
            let Ok(deltas) = found else { return };
            let Some(last) = deltas.last else { return };
            self.pushed.insert(place, last.counter);
            // A delta may tell of older events of its key as well, and of those of others: all are news to somebody.
            let dots =
                Dots::from_iter(deltas.deltas.iter().flat_map(|delta| delta.dots.iter().copied()));
            let events: Vec<WireDelta> = deltas.deltas.iter().map(WireDelta::from).collect();
            self.plumtree(plumtree::Input::Published { stream: place.0, dots }, &events, notes);
            if !deltas.more {
                return;
            }
        }
    }

    pub(super) fn plumtree(
        &mut self,
        input: plumtree::Input,
        events: &[WireDelta],
        notes: &mut Notes<'_>,
    ) {
        let mut out = Vec::new();
        self.plumtree.handle(notes.now_ms, input, &mut out);
        for output in out {
            self.perform(output, events, notes);
        }
    }

    fn perform(&mut self, output: plumtree::Output, events: &[WireDelta], notes: &mut Notes<'_>) {
        match output {
            plumtree::Output::Push { to, root, round, stream, dots } => {
                let wanted: BTreeSet<Dot> = dots.iter().collect();
                let events =
                    events.iter().filter(|event| event.dots.iter().any(|d| wanted.contains(&d)));
                let gossip = Gossip { root, round, stream, events: events.cloned().collect() };
                if let Ok(body) = gossip.encode() {
                    for to in to {
                        self.send(to, Channel::Data, messages::GOSSIP, body.clone());
                    }
                }
            }
            plumtree::Output::Answer { to, root, round, stream, dots } => {
                let dots: Vec<Dot> = dots.iter().collect();
                let Ok((deltas, unknown)) = self.replicas.of(Place(stream)).deltas_of(&dots) else {
                    return;
                };
                let events = deltas.iter().map(WireDelta::from).collect();
                if let Ok(body) = (Gossip { root, round, stream, events }).encode() {
                    self.send(to, Channel::Data, messages::GOSSIP, body);
                }
                if !unknown.is_empty() {
                    self.behind(to, notes);
                }
            }
            plumtree::Output::SendIHave { to, items } => {
                self.control(to, messages::I_HAVE, messages::encode(&IHave(items)).ok());
            }
            plumtree::Output::SendGraft { to, root, stream, dots } => {
                notes.sometimes.hit("graft");
                self.control(
                    to,
                    messages::GRAFT,
                    messages::encode(&Graft { root, stream, dots }).ok(),
                );
            }
            plumtree::Output::SendPrune { to, root } => {
                notes.sometimes.hit("prune");
                self.control(to, messages::PRUNE, messages::encode(&Prune { root }).ok());
            }
            plumtree::Output::Behind { peer } => self.behind(peer, notes),
        }
    }

    fn control(&mut self, to: NodeId, kind: u16, body: Option<Vec<u8>>) {
        if let Some(body) = body {
            self.send(to, Channel::Control, kind, body);
        }
    }

    pub(super) fn on_broadcast(
        &mut self,
        from: NodeId,
        kind: u16,
        body: &[u8],
        notes: &mut Notes<'_>,
    ) {
        match kind {
            messages::GOSSIP => {
                if let Ok(gossip) = Gossip::decode(body) {
                    self.on_gossip(from, gossip, notes);
                }
            }
            messages::I_HAVE => {
                let Ok(IHave(items)) = messages::decode(body) else { return };
                for announced in items {
                    notes.sometimes.hit("ihave");
                    let clock = self.replicas.clock(Place(announced.stream));
                    let missing =
                        announced.dots.iter().filter(|dot| !clock.contains(dot)).collect();
                    self.plumtree(plumtree::Input::IHave { from, announced, missing }, &[], notes);
                }
            }
            messages::GRAFT => {
                let Ok(Graft { root, stream, dots }) = messages::decode(body) else { return };
                self.plumtree(plumtree::Input::Graft { from, root, stream, dots }, &[], notes);
            }
            messages::PRUNE => {
                let Ok(Prune { root }) = messages::decode(body) else { return };
                self.plumtree(plumtree::Input::Prune { from, root }, &[], notes);
            }
            _ => {}
        }
    }

    fn on_gossip(&mut self, from: NodeId, gossip: Gossip, notes: &mut Notes<'_>) {
        let Gossip { root, round, stream, events } = gossip;
        let place = Place(stream);
        notes.sometimes.hit("gossip");
        let deltas: Result<Vec<Delta>, _> = events.iter().map(WireDelta::decode).collect();
        let Ok(deltas) = deltas else { return };
        let (mut fresh, mut duplicate) = (Vec::new(), Vec::new());
        let results =
            self.merge(place, deltas.iter().map(|d| (d.clone(), Evidence::Own)).collect(), notes);
        for (delta, result) in deltas.iter().zip(results) {
            match result {
                Ok(true) => fresh.extend(delta.dots.iter().copied()),
                Ok(false) => duplicate.extend(delta.dots.iter().copied()),
                Err(_) => {}
            }
        }
        if fresh.is_empty() && !duplicate.is_empty() {
            notes.sometimes.hit("duplicate");
        }
        let (fresh, duplicate) = (Dots::from_iter(fresh), Dots::from_iter(duplicate));
        let input = plumtree::Input::Gossip { from, root, round, stream, fresh, duplicate };
        self.plumtree(input, &events, notes);
    }
}
