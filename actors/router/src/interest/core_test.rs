//! Exact answers of the core, one situation each.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::NodeId;

use super::core::{Input, Interest, Output, Presence, Trouble};
use super::wire::{Delta, Known, Message, Pull, Reason};
use super::{Config, Part, Row, URI_BYTES_MAX, Value, Versioned};
use crate::registry::Kind;
use weald_wamp::message::MatchPolicy;

const OWN: NodeId = NodeId([1; 16]);
const PEER: NodeId = NodeId([2; 16]);
const OTHER: NodeId = NodeId([3; 16]);
const ONE: Value = Value { count: 1, ..Value::GONE };

fn row(uri: &str) -> Row {
    Row {
        realm: "realm1".into(),
        kind: Kind::Registration,
        uri: uri.into(),
        policy: MatchPolicy::Exact,
    }
}

/// Rows `uris` of a node, as the versions that follow `base`.
fn delta(origin: NodeId, incarnation: u64, base: u64, uris: &[&str], digest: u64) -> Delta {
    let rows = (base + 1..).zip(uris).map(|(version, uri)| Versioned {
        version,
        row: row(uri),
        value: ONE,
    });
    let version = base + uris.len() as u64;
    let part = Part { base, version, rows: rows.collect() };
    Delta { origin, incarnation, end: version, digest, reason: Reason::News, part }
}

fn digest_of(uris: &[&str]) -> u64 {
    uris.iter().fold(0u64, |sum, uri| sum.wrapping_add(row(uri).digest(&ONE)))
}

struct Node {
    core: Interest,
    now_ms: u64,
}

impl Node {
    fn new(config: Config) -> Self {
        Self { core: Interest::new(OWN, 5, 1, config), now_ms: 1_000_000 }
    }

    /// Connected with [`PEER`], which has told the rows `uris` in its life 1.
    fn knowing(uris: &[&str]) -> Self {
        let mut node = Self::new(Config::default());
        node.give(Input::Up(PEER));
        node.said(Message::Delta(delta(PEER, 1, 0, uris, digest_of(uris))));
        node
    }

    fn give(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.core.handle(self.now_ms, input, &mut out);
        out
    }

    fn said(&mut self, message: Message) -> Vec<Output> {
        self.give(Input::Said { from: PEER, message })
    }

    fn members(&mut self, of: &[(NodeId, Presence)], is_full_mesh: bool) -> Vec<Output> {
        let members = of.iter().copied().collect();
        self.give(Input::Members { members, is_full_mesh })
    }
}

fn apply(node: NodeId, uris: &[&str], value: Value) -> Output {
    Output::Apply { node, rows: uris.iter().map(|uri| (row(uri), value)).collect() }
}

fn pull(to: NodeId, origin: NodeId, incarnation: u64, from: u64) -> Output {
    Output::Send {
        to: vec![to],
        message: Message::Pull(Pull { origin, incarnation, from, begun: 0 }),
    }
}

#[test]
fn rows_are_applied_and_then_usable_and_unusable_the_moment_the_peer_is_gone() {
    let mut node = Node::new(Config::default());
    let out = node.give(Input::Up(PEER));
    assert!(out.contains(&pull(PEER, PEER, 0, 0)), "{out:?}");
    assert_eq!(node.core.awaited(), BTreeSet::from([PEER]));
    let out = node.said(Message::Delta(delta(PEER, 1, 0, &["a", "b"], digest_of(&["a", "b"]))));
    let rows = apply(PEER, &["a", "b"], ONE);
    assert_eq!(out, [Output::Usable(PEER, false), rows, Output::Usable(PEER, true)]);
    assert_eq!(node.core.awaited(), BTreeSet::new());
    // It is no member, so nobody would say that it will not come back.
    let gone = [Output::Usable(PEER, false), Output::Drop(PEER)];
    assert_eq!(node.give(Input::Down(PEER)), gone);
}

#[test]
fn members_that_may_answer_are_awaited_before_they_are_connected() {
    let mut node = Node::new(Config::default());
    node.members(&[(PEER, Presence::Answers), (OTHER, Presence::Answers)], true);
    assert_eq!(node.core.awaited(), BTreeSet::from([PEER, OTHER]));
    node.give(Input::Up(PEER));
    assert_eq!(node.core.awaited(), BTreeSet::from([PEER, OTHER]), "its rows have not come yet");
    node.said(Message::Delta(delta(PEER, 1, 0, &["a"], digest_of(&["a"]))));
    assert_eq!(node.core.awaited(), BTreeSet::from([OTHER]));
    node.members(&[(PEER, Presence::Answers), (OTHER, Presence::Silent)], true);
    assert_eq!(node.core.awaited(), BTreeSet::new(), "whoever does not answer is not waited for");
    node.give(Input::Down(PEER));
    assert_eq!(node.core.awaited(), BTreeSet::new(), "once is enough");
}

#[test]
fn rows_of_a_member_outlive_a_short_absence_and_are_used_when_it_is_caught_up() {
    let mut node = Node::knowing(&["a"]);
    assert_eq!(node.members(&[(PEER, Presence::Answers)], true), []);
    assert_eq!(node.give(Input::Down(PEER)), [Output::Usable(PEER, false)]);
    let out = node.give(Input::Up(PEER));
    assert!(out.contains(&pull(PEER, PEER, 1, 1)) && out.len() == 2, "{out:?}");
    let nothing = Delta { reason: Reason::Answer, ..delta(PEER, 1, 1, &[], digest_of(&["a"])) };
    assert_eq!(node.said(Message::Delta(nothing)), [Output::Usable(PEER, true)]);
}

#[test]
fn rows_of_a_member_that_does_not_come_back_are_dropped_in_the_end() {
    let mut node = Node::knowing(&["a"]);
    node.members(&[(PEER, Presence::Answers)], true);
    node.give(Input::Down(PEER));
    node.members(&[(PEER, Presence::Silent)], true);
    node.now_ms += 599_000;
    assert!(!node.give(Input::Tick).contains(&Output::Drop(PEER)));
    node.now_ms += 2_000;
    assert!(node.give(Input::Tick).contains(&Output::Drop(PEER)));
    assert_eq!(node.core.others().count(), 0);
}

#[test]
fn rows_of_a_member_that_leaves_or_is_silent_are_not_used_although_it_is_connected() {
    let mut node = Node::knowing(&["a"]);
    assert_eq!(node.members(&[(PEER, Presence::Silent)], true), [Output::Usable(PEER, false)]);
    let out = node.members(&[(PEER, Presence::Answers)], true);
    assert_eq!(out, [pull(PEER, PEER, 1, 1)]);
    let out = node.members(&[(PEER, Presence::Gone)], true);
    assert_eq!(out, [Output::Drop(PEER)]);
    let news = delta(PEER, 1, 1, &["b"], digest_of(&["a", "b"]));
    assert_eq!(node.said(Message::Delta(news)), []);
}

#[test]
fn a_new_life_drops_the_rows_of_the_old_one_at_once() {
    let mut node = Node::knowing(&["a", "b"]);
    let known = Known { origin: PEER, incarnation: 2, version: 1, digest: digest_of(&["c"]) };
    let out = node.said(Message::Digest { is_first: false, known: vec![known] });
    let expected = [Output::Drop(PEER), pull(PEER, PEER, 2, 0)];
    assert_eq!(out, expected);
    let out = node.said(Message::Delta(delta(PEER, 2, 0, &["c"], digest_of(&["c"]))));
    let rows = apply(PEER, &["c"], ONE);
    assert_eq!(out, [Output::Usable(PEER, false), rows, Output::Usable(PEER, true)]);
    // What is late of the old life changes nothing, but for telling the peer of what is known of it.
    let out = node.said(Message::Delta(delta(PEER, 1, 2, &["z"], 0)));
    assert!(!out.iter().any(|output| matches!(output, Output::Apply { .. })), "{out:?}");
}

#[test]
fn a_gap_is_pulled_once_and_an_overlap_is_taken() {
    let mut node = Node::knowing(&["a", "b"]);
    let news = delta(PEER, 1, 3, &["d"], digest_of(&["a", "b", "c", "d"]));
    assert_eq!(node.said(Message::Delta(news.clone())), [pull(PEER, PEER, 1, 2)]);
    assert_eq!(node.said(Message::Delta(news)), [], "it is asked already");
    let overlap = delta(PEER, 1, 1, &["b", "c", "d"], digest_of(&["a", "b", "c", "d"]));
    assert_eq!(node.said(Message::Delta(overlap.clone())), [apply(PEER, &["c", "d"], ONE)]);
    assert_eq!(node.said(Message::Delta(overlap)), [], "it is known");
}

#[test]
fn everything_anew_changes_only_what_is_different() {
    let mut node = Node::knowing(&["a", "b"]);
    // The peer has forgotten what is gone, so its answer begins from the beginning.
    let mut anew = delta(PEER, 1, 0, &["b", "c"], digest_of(&["b", "c"]));
    anew.part.rows[0].version = 2;
    anew.part.rows[1].version = 9;
    (anew.part.version, anew.end) = (9, 9);
    let rows = vec![(row("a"), Value::GONE), (row("c"), ONE)];
    assert_eq!(node.said(Message::Delta(anew)), [Output::Apply { node: PEER, rows }]);
}

#[test]
fn rows_that_do_not_add_up_are_fetched_again() {
    let mut node = Node::knowing(&["a"]);
    let out = node.said(Message::Delta(delta(PEER, 1, 1, &["b"], 77)));
    let expected = [apply(PEER, &["b"], ONE), Output::Trouble(PEER, Trouble::Differs)];
    assert_eq!(out, expected);
    node.now_ms += 2_000;
    let known = Known { origin: PEER, incarnation: 1, version: 2, digest: 77 };
    let out = node.said(Message::Digest { is_first: false, known: vec![known] });
    assert_eq!(out, [pull(PEER, PEER, 1, 0)]);
}

#[test]
fn a_node_with_too_many_rows_is_refused_for_a_while() {
    let mut node = Node::new(Config { rows_max: 2, ..Config::default() });
    node.give(Input::Up(PEER));
    let two = delta(PEER, 1, 0, &["a", "b"], digest_of(&["a", "b"]));
    node.said(Message::Delta(two));
    let third = delta(PEER, 1, 2, &["c"], digest_of(&["a", "b", "c"]));
    let out = node.said(Message::Delta(third.clone()));
    let refused =
        [apply(PEER, &["c"], ONE), Output::Drop(PEER), Output::Trouble(PEER, Trouble::TooMany(2))];
    assert_eq!(out, refused);
    assert_eq!(node.said(Message::Delta(third.clone())), []);
    node.now_ms += 31_000;
    assert_eq!(node.said(Message::Delta(third)), [pull(PEER, PEER, 1, 0)]);
}

#[test]
fn a_node_whose_past_is_known_goes_on_as_a_later_life() {
    let mut node = Node::knowing(&[]);
    node.give(Input::Changed(&BTreeMap::from([(row("mine"), ONE)])));
    let known = Known { origin: OWN, incarnation: 8, version: 40, digest: 1 };
    let out = node.said(Message::Digest { is_first: false, known: vec![known] });
    assert_eq!(out[0], Output::Trouble(OWN, Trouble::PastLife));
    let Output::Send { to, message: Message::Digest { known, .. } } = &out[1] else {
        panic!("{out:?}")
    };
    let own = Known { origin: OWN, incarnation: 9, version: 1, digest: digest_of(&["mine"]) };
    assert_eq!((to.as_slice(), known[0]), ([PEER].as_slice(), own));
}

#[test]
fn changes_go_at_once_and_then_together() {
    let mut node = Node::knowing(&[]);
    let changed = |node: &mut Node, uri: &str, value| {
        node.give(Input::Changed(&BTreeMap::from([(row(uri), value)])))
    };
    let first = changed(&mut node, "a", ONE);
    let Output::Send { to, message: Message::Delta(delta) } = &first[0] else {
        panic!("{first:?}")
    };
    assert_eq!((to.as_slice(), delta.part.base, delta.end), ([PEER].as_slice(), 0, 1));
    assert_eq!(changed(&mut node, "b", ONE), []);
    assert_eq!(changed(&mut node, "b", Value { count: 2, ..ONE }), []);
    assert_eq!(changed(&mut node, "c", ONE), []);
    assert_eq!(changed(&mut node, "c", ONE), []);
    assert_eq!(node.core.next_deadline(), Some(node.now_ms + 5));
    node.now_ms += 5;
    let out = node.give(Input::Tick);
    let Output::Send { message: Message::Delta(delta), .. } = &out[0] else { panic!("{out:?}") };
    let rows: Vec<_> = delta.part.rows.iter().map(|r| (&*r.row.uri, r.value.count)).collect();
    assert_eq!((delta.part.base, rows), (1, vec![("b", 2), ("c", 1)]));
    assert_eq!(node.core.next_deadline(), None);
    let long = "x".repeat(URI_BYTES_MAX + 1);
    let out = changed(&mut node, &long, ONE);
    assert_eq!(out, [Output::Trouble(OWN, Trouble::TooLong)]);
}

#[test]
fn in_an_overlay_news_go_on_once_and_others_are_reached_through_peers() {
    let mut node = Node::new(Config::default());
    node.members(&[(PEER, Presence::Answers), (OTHER, Presence::Answers)], false);
    let far = NodeId([9; 16]);
    node.give(Input::Up(PEER));
    node.give(Input::Up(OTHER));
    let of_far = delta(far, 1, 0, &["a"], digest_of(&["a"]));
    assert_eq!(node.said(Message::Delta(of_far.clone())), [], "nobody knows of that node");
    let all = [PEER, OTHER, far].map(|node| (node, Presence::Answers));
    node.members(&all, false);
    let out = node.said(Message::Delta(of_far.clone()));
    let on = Output::Send { to: vec![OTHER], message: Message::Delta(of_far.clone()) };
    let rows = apply(far, &["a"], ONE);
    assert_eq!(out, [Output::Usable(far, false), rows, Output::Usable(far, true), on]);
    assert_eq!(node.said(Message::Delta(of_far)), []);
    let all = [(PEER, Presence::Answers), (OTHER, Presence::Answers), (far, Presence::Silent)];
    assert_eq!(node.members(&all, false), [Output::Usable(far, false)]);
}

#[test]
fn after_a_crash_in_the_middle_everything_is_said_again() {
    let mut node = Node::knowing(&["a"]);
    let mut out = Vec::new();
    node.core.restart(node.now_ms, false, BTreeSet::from([PEER]), &mut out);
    let rows = apply(PEER, &["a"], ONE);
    let again = [Output::Drop(PEER), Output::Usable(PEER, false), rows, Output::Usable(PEER, true)];
    assert_eq!(out[..4], again);
    assert_eq!(out.last(), Some(&pull(PEER, PEER, 1, 0)));
    let mut out = Vec::new();
    node.core.restart(node.now_ms, true, BTreeSet::from([PEER]), &mut out);
    assert!(out.iter().all(|output| matches!(output, Output::Send { .. })), "{out:?}");
}
