//! Exact outputs of single nodes.

use std::collections::BTreeSet;

use weald_broadcast::core::{Announcement, Config, Input, Output, Plumtree};
use weald_peers::Dots;
use weald_storage::{Actor, NodeId};

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

/// Events `from..=to` of a node.
fn run(n: u8, from: u64, to: u64) -> Dots {
    Dots(vec![(Actor { node: node(n), incarnation: 1 }, vec![(from, to)])])
}

fn peers(of: &[u8]) -> BTreeSet<NodeId> {
    of.iter().map(|n| node(*n)).collect()
}

struct Case {
    tree: Plumtree,
    now_ms: u64,
}

impl Case {
    /// Node 1 with these neighbours.
    fn new(neighbours: &[u8], is_full_mesh: bool) -> Self {
        let mut case = Self { tree: Plumtree::new(node(1), Config::default()), now_ms: 5 };
        assert_eq!(case.neighbours(neighbours, is_full_mesh), []);
        case.at(5);
        case
    }

    fn at(&mut self, now_ms: u64) -> Vec<Output> {
        self.now_ms = now_ms;
        self.give(Input::Tick)
    }

    fn give(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.tree.handle(self.now_ms, input, &mut out);
        out
    }

    fn neighbours(&mut self, of: &[u8], is_full_mesh: bool) -> Vec<Output> {
        self.give(Input::Neighbours { peers: peers(of), is_full_mesh })
    }

    fn publish(&mut self, counter: u64) -> Vec<Output> {
        self.give(Input::Published { stream: 3, dots: run(1, counter, counter) })
    }

    fn fresh(&mut self, from: u8, root: u8, round: u16, counter: u64) -> Vec<Output> {
        let (fresh, duplicate) = (run(root, counter, counter), Dots::default());
        let (from, root) = (node(from), node(root));
        self.give(Input::Gossip { from, root, round, stream: 3, fresh, duplicate })
    }

    fn duplicate(&mut self, from: u8, root: u8, round: u16, counter: u64) -> Vec<Output> {
        let (fresh, duplicate) = (Dots::default(), run(root, counter, counter));
        let (from, root) = (node(from), node(root));
        self.give(Input::Gossip { from, root, round, stream: 3, fresh, duplicate })
    }

    fn i_have(&mut self, from: u8, root: u8, round: u16, has: Dots, missing: Dots) -> Vec<Output> {
        let announced = Announcement { root: node(root), round, stream: 3, dots: has };
        self.give(Input::IHave { from: node(from), announced, missing })
    }
}

fn push(to: &[u8], root: u8, round: u16, counter: u64) -> Output {
    let to = to.iter().map(|n| node(*n)).collect();
    Output::Push { to, root: node(root), round, stream: 3, dots: run(root, counter, counter) }
}

fn graft(to: u8, root: u8, stream: u16, dots: Dots) -> Output {
    Output::SendGraft { to: node(to), root: node(root), stream, dots }
}

fn prune(to: u8, root: u8) -> Output {
    Output::SendPrune { to: node(to), root: node(root) }
}

fn announce(to: u8, root: u8, round: u16, dots: Dots) -> Output {
    let items = vec![Announcement { root: node(root), round, stream: 3, dots }];
    Output::SendIHave { to: node(to), items }
}

#[test]
fn full_mesh_root_pushes_to_all_and_others_only_announce() {
    let mut case = Case::new(&[2, 3, 4], true);
    assert_eq!(case.publish(1), [push(&[2, 3, 4], 1, 0, 1)]);
    // One that joins later is pushed to at once, and by the root only.
    assert_eq!(case.neighbours(&[2, 3, 4, 5], true), []);
    assert_eq!(case.publish(2), [push(&[2, 3, 4, 5], 1, 0, 2)]);
    assert_eq!(case.fresh(2, 2, 0, 1), []);
    assert_eq!(case.fresh(2, 2, 0, 2), []);
    // Neither the root nor who has shown to have them is told.
    assert_eq!(case.i_have(3, 2, 1, run(2, 1, 2), Dots::default()), []);
    assert_eq!(case.at(1005), [announce(4, 2, 1, run(2, 1, 2)), announce(5, 2, 1, run(2, 1, 2))]);
    assert_eq!(case.at(2005), []);
}

#[test]
fn full_mesh_announces_to_the_next_by_id_only() {
    let mut tree = Plumtree::new(node(4), Config { announce_max: 2, ..Config::default() });
    let mut out = Vec::new();
    let peers = peers(&[1, 2, 3, 5]);
    tree.handle(0, Input::Neighbours { peers, is_full_mesh: true }, &mut out);
    let (from, fresh) = (node(3), run(3, 1, 1));
    let duplicate = Dots::default();
    let gossip = Input::Gossip { from, root: from, round: 0, stream: 3, fresh, duplicate };
    tree.handle(0, gossip, &mut out);
    tree.handle(1000, Input::Tick, &mut out);
    let told: Vec<_> = out.iter().filter(|o| matches!(o, Output::SendIHave { .. })).collect();
    assert_eq!(told, [&announce(1, 3, 1, run(3, 1, 1)), &announce(5, 3, 1, run(3, 1, 1))]);
}

#[test]
fn partial_tree_starts_with_all_neighbours_and_a_later_one_asks() {
    let mut case = Case::new(&[2, 3], false);
    assert_eq!(case.fresh(2, 9, 4, 1), [push(&[3], 9, 5, 1)]);
    assert_eq!(case.neighbours(&[2, 3, 4], false), []);
    assert_eq!(case.fresh(2, 9, 4, 2), [push(&[3], 9, 5, 2)]);
    assert_eq!(case.at(1005), [announce(4, 9, 5, run(9, 2, 2))]);
    let dots = run(9, 1, 2);
    let input = Input::Graft { from: node(4), root: node(9), stream: 3, dots: dots.clone() };
    let (to, root) = (node(4), node(9));
    assert_eq!(case.give(input), [Output::Answer { to, root, round: 5, stream: 3, dots }]);
    assert_eq!(case.fresh(2, 9, 4, 3), [push(&[3, 4], 9, 5, 3)]);
    // A prune takes it out again; a stranger is answered but not served from then on.
    assert_eq!(case.give(Input::Prune { from: node(3), root: node(9) }), []);
    let dots = run(9, 1, 1);
    case.give(Input::Graft { from: node(7), root: node(9), stream: 3, dots });
    assert_eq!(case.fresh(2, 9, 4, 4), [push(&[4], 9, 5, 4)]);
}

#[test]
fn duplicates_in_a_row_prune_but_never_the_parent() {
    let mut case = Case::new(&[2, 3, 4], false);
    case.fresh(2, 9, 1, 1);
    assert_eq!(case.duplicate(3, 9, 2, 1), []);
    assert_eq!(case.duplicate(4, 9, 2, 1), []);
    // Something new from it ends the row, and makes it the parent.
    case.fresh(3, 9, 2, 2);
    assert_eq!(case.duplicate(2, 9, 1, 2), []);
    assert_eq!(case.duplicate(2, 9, 1, 2), [prune(2, 9)]);
    assert_eq!(case.duplicate(4, 9, 2, 2), [prune(4, 9)]);
    for _ in 0..5 {
        assert_eq!(case.duplicate(3, 9, 2, 2), []);
    }
    // A prune that was lost is sent again.
    assert_eq!(case.duplicate(4, 9, 2, 3), []);
    assert_eq!(case.duplicate(4, 9, 2, 4), [prune(4, 9)]);
}

#[test]
fn full_mesh_prefers_the_root_to_a_detour() {
    let mut case = Case::new(&[2, 3], true);
    case.fresh(3, 2, 1, 1);
    assert_eq!(case.duplicate(2, 2, 0, 1), []);
    assert_eq!(case.duplicate(2, 2, 0, 2), [prune(3, 2)]);
    assert_eq!(case.tree.parent(&node(2)), Some(node(2)));
}

#[test]
fn missing_events_are_asked_of_one_announcer_after_the_other() {
    let mut case = Case::new(&[2, 3, 4], true);
    assert_eq!(case.i_have(3, 2, 1, run(2, 1, 4), run(2, 3, 4)), []);
    assert_eq!(case.tree.next_deadline(), Some(85));
    assert_eq!(case.at(50), []);
    assert_eq!(case.i_have(4, 2, 1, run(2, 1, 5), run(2, 3, 5)), []);
    // One of the two has come by itself.
    case.fresh(2, 2, 0, 3);
    assert_eq!(case.at(85), [graft(3, 2, 3, run(2, 4, 4))]);
    assert_eq!(case.at(124), []);
    assert_eq!(case.tree.due(125), [(3, run(2, 4, 5))]);
    assert_eq!(case.at(125), [graft(4, 2, 3, run(2, 4, 5))]);
    // Known from an exchange: nothing is left to ask for.
    assert_eq!(case.give(Input::Known { stream: 3, dots: run(2, 4, 5) }), []);
    assert_eq!(case.tree.due(5000), []);
}

#[test]
fn busy_stream_puts_grafts_off_a_few_times() {
    let mut case = Case::new(&[2, 3], true);
    case.i_have(3, 2, 1, run(2, 1, 1), run(2, 1, 1));
    for round in 0..4 {
        case.now_ms = 85 + round * 80;
        assert_eq!(case.tree.due(case.now_ms).len(), 1);
        assert_eq!(case.give(Input::Busy { stream: 4 }), []);
        assert_eq!(case.give(Input::Busy { stream: 3 }), []);
        assert_eq!(case.give(Input::Tick), []);
    }
    case.now_ms = 85 + 4 * 80;
    assert_eq!(case.give(Input::Busy { stream: 3 }), []);
    assert_eq!(case.give(Input::Tick), [graft(3, 2, 3, run(2, 1, 1))]);
}

#[test]
fn unanswered_grafts_end_in_an_exchange() {
    let mut case = Case::new(&[2, 3, 4], true);
    case.i_have(3, 2, 1, run(2, 1, 1), run(2, 1, 1));
    assert_eq!(case.at(85), [graft(3, 2, 3, run(2, 1, 1))]);
    assert_eq!(case.at(125), []);
    assert_eq!(case.at(1125), [Output::Behind { peer: node(3) }]);
    assert_eq!(case.at(9000), []);
    // Far too much to graft.
    let lost = run(2, 1, 1 << 40);
    assert_eq!(case.i_have(4, 2, 1, lost.clone(), lost), [Output::Behind { peer: node(4) }]);
    assert_eq!(case.tree.due(u64::MAX), []);
    assert_eq!(case.tree.counters().overflow, 2);
}

#[test]
fn late_events_lengthen_the_wait_and_lost_ones_shorten_it() {
    let mut case = Case::new(&[2, 3], true);
    case.i_have(3, 2, 1, run(2, 1, 1), run(2, 1, 1));
    case.at(85);
    case.fresh(2, 2, 0, 1);
    case.i_have(3, 2, 1, run(2, 2, 2), run(2, 2, 2));
    assert_eq!(case.tree.next_deadline(), Some(85 + 160));
    assert_eq!(case.at(85 + 160), [graft(3, 2, 3, run(2, 2, 2))]);
    case.fresh(3, 2, 1, 2);
    case.i_have(3, 2, 1, run(2, 3, 3), run(2, 3, 3));
    assert_eq!(case.tree.next_deadline(), Some(85 + 160 + 80));
}

#[test]
fn neighbour_down_asks_the_next_parent_at_once() {
    let mut case = Case::new(&[2, 3, 4], false);
    case.fresh(2, 9, 1, 1);
    case.i_have(4, 9, 2, run(9, 1, 1), Dots::default());
    case.give(Input::Prune { from: node(4), root: node(9) });
    // What waits for the tick is announced now, as others may have lost the same parent.
    case.fresh(2, 9, 1, 2);
    assert_eq!(
        case.neighbours(&[3, 4], false),
        [graft(4, 9, 0, Dots::default()), announce(4, 9, 2, run(9, 2, 2))]
    );
    // What the lost one was asked for is asked of the next.
    let mut case = Case::new(&[2, 3, 4], false);
    case.i_have(2, 9, 1, run(9, 1, 1), run(9, 1, 1));
    case.i_have(3, 9, 1, run(9, 1, 1), run(9, 1, 1));
    assert_eq!(case.at(85), [graft(2, 9, 3, run(9, 1, 1))]);
    case.neighbours(&[3, 4], false);
    assert_eq!(case.at(86), [graft(3, 9, 3, run(9, 1, 1))]);
}

#[test]
fn shorter_path_replaces_a_much_longer_one() {
    let mut case = Case::new(&[2, 3], false);
    case.fresh(2, 9, 8, 1);
    assert_eq!(case.i_have(3, 9, 3, run(9, 1, 1), Dots::default()), []);
    assert_eq!(
        case.i_have(3, 9, 2, run(9, 1, 1), Dots::default()),
        [graft(3, 9, 3, Dots::default()), prune(2, 9)]
    );
    assert_eq!(case.i_have(3, 9, 2, run(9, 1, 1), Dots::default()), []);
    assert_eq!(case.tree.counters().optimised, 1);
}

#[test]
fn peer_that_does_not_keep_up_is_only_told_for_a_while() {
    let mut case = Case::new(&[2, 3], true);
    case.publish(1);
    let behind = Output::Behind { peer: node(2) };
    assert_eq!(case.give(Input::Refused { peer: node(2) }), std::slice::from_ref(&behind));
    assert_eq!(case.give(Input::Refused { peer: node(2) }), []);
    assert_eq!(case.publish(2), [push(&[3], 1, 0, 2)]);
    assert_eq!(case.at(1005), [announce(2, 1, 0, run(1, 2, 2))]);
    assert_eq!(case.at(2005), []);
    assert_eq!(case.publish(3), [push(&[2, 3], 1, 0, 3)]);
    assert_eq!(case.give(Input::Refused { peer: node(2) }), [behind]);
    // It asks: it keeps up again.
    case.give(Input::Graft { from: node(2), root: node(1), stream: 3, dots: Dots::default() });
    assert_eq!(case.publish(4), [push(&[2, 3], 1, 0, 4)]);
}

#[test]
fn announcements_are_bounded() {
    let mut case = Case::new(&[2, 3], true);
    case.give(Input::Refused { peer: node(2) });
    let mut outputs = Vec::new();
    // Every second counter: nothing joins.
    for counter in 0..1024_u64 {
        outputs.extend(case.publish(counter * 2 + 1));
    }
    let sent = |o: &&Output| matches!(o, Output::SendIHave { .. });
    assert_eq!(outputs.iter().filter(sent).count(), 1);
    let scattered = Dots(vec![(
        Actor { node: node(1), incarnation: 1 },
        (0..9000).map(|n| (n * 2 + 1, n * 2 + 1)).collect(),
    )]);
    let out = case.give(Input::Published { stream: 3, dots: scattered });
    assert!(matches!(&out[0], Output::SendIHave { items, .. } if items.len() == 1));
}

#[test]
fn roots_are_bounded_and_the_own_one_stays() {
    let config = Config { roots_max: 3, ..Config::default() };
    let mut case = Case { tree: Plumtree::new(node(1), config), now_ms: 0 };
    case.neighbours(&[2], true);
    case.publish(1);
    for root in 10..20 {
        case.fresh(2, root, 1, 1);
    }
    assert_eq!(case.tree.counters().roots_dropped, 8);
    assert!(case.tree.children(&node(1)).is_some() && case.tree.children(&node(19)).is_some());
    assert!(case.tree.children(&node(10)).is_none());
}
