//! Transitions of the failure detector and of the overlay, one by one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use weald_membership::config::{self, HyParView as OverlayConfig};
use weald_membership::messages::{Body, Overlay, Rumour};
use weald_membership::overlay::{Env, HyParView, Outbox};
use weald_membership::rng::Rng;
use weald_membership::swim::{Around, Detector, Effect};
use weald_peers::Liveness::{self, Down, Suspect, Up};
use weald_storage::NodeId;

const fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

const fn said(number: u8, refute: u32, liveness: Liveness) -> Rumour {
    Rumour { node: id(number), refute, liveness }
}

struct Swim {
    detector: Detector,
    connected: BTreeSet<NodeId>,
    rng: Rng,
    now_ms: u64,
}

/// Node 1 that watches 2 to 5.
fn swim(connected: &[u8]) -> Swim {
    let mut detector = Detector::new(config::Swim::default(), id(1), 0);
    (2..=5).for_each(|n| detector.add(0, id(n), false));
    let connected = connected.iter().map(|n| id(*n)).collect();
    Swim { detector, connected, rng: Rng::new(1), now_ms: 0 }
}

impl Swim {
    fn hear(&mut self, from: u8, rumour: Rumour) -> Vec<Effect> {
        let mut out = Vec::new();
        let around = Around { connected: &self.connected, probed: None };
        self.detector.on_rumour(self.now_ms, id(from), rumour, around, &mut out);
        out
    }

    /// Ticks for a while; `answers` acknowledge their pings.
    fn run(&mut self, ms: u64, answers: &[u8]) -> Vec<Effect> {
        let mut all = Vec::new();
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            let mut out = Vec::new();
            let around = Around { connected: &self.connected, probed: None };
            self.detector.tick(self.now_ms, around, &mut self.rng, &mut out);
            let mut more = Vec::new();
            for effect in &out {
                if let Effect::Send(to, Body::Ping { seq, .. }) = effect
                    && answers.iter().any(|n| id(*n) == *to)
                {
                    self.detector.on_ack(self.now_ms, *to, *seq, &mut more);
                }
            }
            all.extend(out);
            all.extend(more);
        }
        all
    }

    fn of(&self, number: u8) -> (Liveness, u32) {
        let rumour = self.detector.rumour_of(id(number));
        (rumour.liveness, rumour.refute)
    }
}

#[test]
fn rumours_about_unconnected_nodes_follow_the_counter() {
    // Known before, rumour, known after.
    let table = [
        ((Up, 3), said(2, 2, Suspect), (Up, 3)),
        ((Up, 3), said(2, 3, Suspect), (Suspect, 3)),
        ((Up, 3), said(2, 4, Suspect), (Suspect, 4)),
        ((Up, 3), said(2, 3, Down), (Down, 3)),
        ((Up, 3), said(2, 2, Down), (Up, 3)),
        ((Suspect, 3), said(2, 3, Up), (Suspect, 3)),
        ((Suspect, 3), said(2, 4, Up), (Up, 4)),
        ((Suspect, 3), said(2, 3, Down), (Down, 3)),
        ((Down, 3), said(2, 3, Up), (Down, 3)),
        ((Down, 3), said(2, 3, Suspect), (Down, 3)),
        ((Down, 3), said(2, 4, Suspect), (Suspect, 4)),
        ((Down, 3), said(2, 4, Up), (Up, 4)),
    ];
    for ((liveness, refute), rumour, after) in table {
        let mut swim = swim(&[]);
        swim.hear(3, said(2, refute, Up));
        swim.hear(3, said(2, refute, liveness));
        assert_eq!(swim.of(2), (liveness, refute));
        let effects = swim.hear(4, rumour);
        assert_eq!(swim.of(2), after, "{liveness} {refute}, then {rumour:?}");
        let is_change = after != (liveness, refute);
        assert_eq!(effects.contains(&Effect::Spread(rumour)), is_change, "{rumour:?}");
    }
}

#[test]
fn rumours_about_a_connected_node_only_make_it_probed() {
    for rumour in [said(2, 0, Suspect), said(2, 9, Down)] {
        let mut swim = swim(&[2, 3]);
        let effects = swim.hear(3, rumour);
        assert_eq!(swim.of(2).0, Up);
        assert!(matches!(effects[0], Effect::Send(to, Body::Ping { .. }) if to == id(2)));
        assert_eq!(effects[1], Effect::Tell(id(2), rumour), "so that it refutes");
        swim.run(2_000, &[2, 3]);
        assert_eq!(swim.of(2).0, Up);
    }
}

#[test]
fn rumours_about_oneself_are_refuted_once() {
    let mut swim = swim(&[2]);
    assert_eq!(swim.hear(2, said(1, 0, Suspect)), [Effect::Spread(said(1, 1, Up))]);
    assert_eq!(swim.hear(2, said(1, 0, Down)), [], "refuted already");
    assert_eq!(swim.hear(2, said(1, 7, Down)), [Effect::Spread(said(1, 8, Up))]);
    // Of an earlier life: others would not believe a lower counter.
    assert_eq!(swim.hear(2, said(1, 9, Up)), [Effect::Spread(said(1, 10, Up))]);
    assert!(swim.detector.health() > 0);
}

#[test]
fn silent_node_is_asked_for_then_suspect_then_down() {
    let mut swim = swim(&[2, 3, 4, 5]);
    let effects = swim.run(10_000, &[3, 4, 5]);
    let at = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let ping = at(&|e| matches!(e, Effect::Send(to, Body::Ping { .. }) if *to == id(2)));
    let asked = at(&|e| matches!(e, Effect::Send(_, Body::PingRequest { .. })));
    let suspect = at(&|e| *e == Effect::Turned(id(2), Suspect));
    let down = at(&|e| *e == Effect::Turned(id(2), Down));
    assert!(ping < asked && asked < suspect && suspect < down);
    let helpers = effects.iter().filter_map(|e| match e {
        Effect::Send(to, Body::PingRequest { target, .. }) => Some((*to, *target)),
        _ => None,
    });
    let first: Vec<(NodeId, NodeId)> = helpers.take(3).collect();
    assert!(first.iter().all(|(to, target)| *to != id(2) && *target == id(2)));
    assert!(effects.contains(&Effect::Tell(id(2), said(2, 0, Suspect))), "it may refute");
    let turned = effects.iter().filter(|e| matches!(e, Effect::Turned(..))).count();
    assert_eq!(turned, 2, "nobody else is blamed");
}

#[test]
fn shared_suspicion_is_over_sooner() {
    let time_to_down = |others: &[u8]| {
        let mut swim = swim(&[3, 4]);
        swim.hear(3, said(2, 0, Suspect));
        for other in others {
            swim.hear(*other, said(2, 0, Suspect));
        }
        let began_ms = swim.now_ms;
        while swim.of(2).0 != Down {
            swim.run(100, &[3, 4]);
        }
        swim.now_ms - began_ms
    };
    let times = [&[][..], &[4], &[4, 5]].map(time_to_down);
    assert!(times[0] > times[1] && times[1] >= times[2], "{times:?}");
    assert!(times[2] >= config::Swim::default().suspect_hinted_ms);
}

#[test]
fn probe_for_another_is_answered_either_way() {
    let mut swim = swim(&[2, 3]);
    let around = Around { connected: &swim.connected, probed: None };
    let mut out = Vec::new();
    swim.detector.on_ping_request(0, id(3), 77, id(4), around, &mut out);
    assert_eq!(out, [Effect::Send(id(3), Body::PingFailed { seq: 77 })], "not connected");
    out.clear();
    swim.detector.on_ping_request(0, id(3), 78, id(2), around, &mut out);
    let Effect::Send(to, Body::Ping { seq, .. }) = out.remove(0) else { panic!() };
    assert_eq!(to, id(2));
    swim.detector.on_ack(50, id(3), seq, &mut out);
    assert_eq!(out, [], "somebody else's answer does not count");
    swim.detector.on_ack(50, id(2), seq, &mut out);
    assert_eq!(out, [Effect::Send(id(3), Body::PingReached { seq: 78 })]);
}

#[test]
fn pause_of_the_process_blames_nobody() {
    let mut swim = swim(&[2, 3, 4, 5]);
    swim.run(1_000, &[]);
    swim.now_ms += 3_600_000;
    let effects = swim.run(300, &[]);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Turned(..))), "{effects:?}");
}

struct World {
    alive: BTreeSet<NodeId>,
}

impl Env for World {
    fn is_connected(&self, _node: NodeId) -> bool {
        true
    }
    fn is_alive(&self, node: NodeId) -> bool {
        self.alive.contains(&node)
    }
    fn alive(&self) -> Vec<NodeId> {
        self.alive.iter().copied().collect()
    }
    fn lost(&self) -> Vec<NodeId> {
        Vec::new()
    }
}

struct Table {
    overlay: HyParView,
    rng: Rng,
    env: World,
}

/// Node 1 with these neighbours, among nodes 2 to 60.
fn table(neighbours: &[u8]) -> Table {
    let mut rng = Rng::new(3);
    let overlay = HyParView::new(OverlayConfig::default(), id(1), 0, &mut rng);
    let env = World { alive: (2..=60).map(id).collect() };
    let mut table = Table { overlay, rng, env };
    for number in neighbours {
        table.hear(*number, Overlay::Neighbour { is_urgent: true });
    }
    table
}

impl Table {
    fn hear(&mut self, from: u8, message: Overlay) -> Outbox {
        let mut out = Outbox::new();
        self.overlay.on_message(0, id(from), message, &self.env, &mut self.rng, &mut out);
        out
    }

    fn active(&self) -> Vec<u8> {
        self.overlay.active().iter().map(|node| node.0[0]).collect()
    }
}

#[test]
fn join_is_taken_and_forwarded_to_all_neighbours() {
    let mut table = table(&[2, 3]);
    let out = table.hear(9, Overlay::Join);
    assert_eq!(
        out,
        [
            (id(9), Overlay::NeighbourReply { is_accepted: true }),
            (id(2), Overlay::ForwardJoin { node: id(9), ttl: 6 }),
            (id(3), Overlay::ForwardJoin { node: id(9), ttl: 6 }),
        ]
    );
    assert_eq!(table.active(), [2, 3, 9]);
}

#[test]
fn join_to_a_full_node_demotes_one_neighbour_which_stays_connected_for_a_while() {
    let mut table = table(&[2, 3, 4, 5, 6]);
    let out = table.hear(9, Overlay::Join);
    assert_eq!(table.active().len(), 5);
    let Some((demoted, Overlay::Disconnect)) = out.first() else { panic!("{out:?}") };
    assert!(!table.overlay.active().contains(demoted));
    assert!(table.overlay.passive().contains(demoted));
    assert!(table.overlay.wanted().contains(demoted));
    table.overlay.tick(4_000, &table.env, &mut table.rng, &mut Outbox::new());
    assert!(!table.overlay.wanted().contains(demoted));
}

#[test]
fn forwarded_join_walks_is_kept_as_a_spare_and_ends_as_a_neighbour() {
    let mut table = table(&[2, 3]);
    let out = table.hear(2, Overlay::ForwardJoin { node: id(9), ttl: 6 });
    assert_eq!(out, [(id(3), Overlay::ForwardJoin { node: id(9), ttl: 5 })]);
    assert!(!table.overlay.passive().contains(&id(9)));
    let out = table.hear(2, Overlay::ForwardJoin { node: id(9), ttl: 3 });
    assert_eq!(out, [(id(3), Overlay::ForwardJoin { node: id(9), ttl: 2 })]);
    assert!(table.overlay.passive().contains(&id(9)), "at the passive walk length");
    let out = table.hear(2, Overlay::ForwardJoin { node: id(9), ttl: 0 });
    assert_eq!(out, [(id(9), Overlay::Neighbour { is_urgent: true })]);
    table.hear(9, Overlay::NeighbourReply { is_accepted: true });
    assert_eq!(table.active(), [2, 3, 9]);
    // Longer walks than our own are cut.
    let out = table.hear(2, Overlay::ForwardJoin { node: id(10), ttl: 255 });
    assert!(matches!(out[0].1, Overlay::ForwardJoin { ttl: 5, .. }));
}

#[test]
fn neighbour_request_is_refused_only_by_a_full_node_and_only_if_not_urgent() {
    let accepted =
        |out: &Outbox| out.iter().any(|(_, m)| *m == Overlay::NeighbourReply { is_accepted: true });
    assert!(accepted(&table(&[2]).hear(9, Overlay::Neighbour { is_urgent: false })));
    let mut full = table(&[2, 3, 4, 5, 6]);
    let out = full.hear(9, Overlay::Neighbour { is_urgent: false });
    assert_eq!(out, [(id(9), Overlay::NeighbourReply { is_accepted: false })]);
    assert!(accepted(&full.hear(2, Overlay::Neighbour { is_urgent: false })), "is one already");
    assert!(accepted(&full.hear(9, Overlay::Neighbour { is_urgent: true })));
    assert_eq!(full.active().len(), 5);
}

#[test]
fn lost_neighbour_is_replaced_by_a_spare_without_urgency() {
    let mut table = table(&[2, 3]);
    table.overlay.on_lost(0, id(3));
    assert_eq!(table.active(), [2]);
    let mut out = Outbox::new();
    table.overlay.tick(600, &table.env, &mut table.rng, &mut out);
    assert!(matches!(out[0].1, Overlay::Neighbour { is_urgent: false }), "{out:?}");
    // Isolated, it does not take no for an answer.
    table.overlay.on_lost(700, id(2));
    out.clear();
    table.overlay.tick(1_300, &table.env, &mut table.rng, &mut out);
    assert!(matches!(out[0].1, Overlay::Neighbour { is_urgent: true }), "{out:?}");
}

#[test]
fn one_sided_neighbourhood_is_repaired_by_a_ping() {
    let mut open = table(&[2]);
    let mut out = Outbox::new();
    open.overlay.on_neighbour_ping(0, id(9), &mut out);
    assert_eq!((open.active(), out.len()), (vec![2, 9], 0));
    let mut full = table(&[2, 3, 4, 5, 6]);
    full.overlay.on_neighbour_ping(0, id(9), &mut out);
    assert_eq!(out, [(id(9), Overlay::Disconnect)]);
}

#[test]
fn shuffle_walks_and_its_answer_comes_back_to_the_origin() {
    let nodes: Vec<NodeId> = (30..38).map(id).collect();
    let shuffle = |ttl| Overlay::Shuffle { origin: id(20), id: 5, ttl, nodes: nodes.clone() };
    let mut middle = table(&[2, 3]);
    let out = middle.hear(2, shuffle(6));
    assert_eq!(out, [(id(3), shuffle(5))], "the origin stays what it was");
    let reply = Overlay::ShuffleReply { origin: id(20), id: 5, nodes: vec![id(40)] };
    assert_eq!(middle.hear(3, reply.clone()), [(id(2), reply.clone())]);
    assert_eq!(middle.hear(3, reply), [], "only once");
    let mut end = table(&[2, 3]);
    let out = end.hear(2, shuffle(1));
    assert!(matches!(&out[..], [(to, Overlay::ShuffleReply { origin, id: 5, .. })]
        if *to == id(2) && *origin == id(20)));
    assert!(nodes.iter().all(|node| end.overlay.passive().contains(node)));
}

#[test]
fn spares_stay_bounded_and_alive() {
    let mut table = table(&[2, 3]);
    for first in [10, 20, 30, 40, 50] {
        let nodes = (first..first + 10).map(id).chain([id(1), id(2), id(99)]).collect();
        table.hear(2, Overlay::Shuffle { origin: id(20), id: first.into(), ttl: 1, nodes });
    }
    let passive = table.overlay.passive();
    assert_eq!(passive.len(), 30);
    for node in [id(1), id(2), id(99)] {
        assert!(!passive.contains(&node), "itself, a neighbour, or unknown");
    }
}
