//! Which claim counts: by tables, and on all nodes the same by proptest.

use super::directory::{Claim, Directory, Presence, presences};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use weald_peers::{Cluster, Liveness, Member, Status};
use weald_storage::NodeId;

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn claim(incarnation: u32, since_ms: u64) -> Claim {
    Claim { incarnation, life: 1, owner: "app".into(), since_ms }
}

fn presence(n: u8, incarnation: u32) -> (NodeId, Presence) {
    (node(n), Presence { name: format!("n{n}"), incarnation, is_member: true, is_up: true })
}

/// Nodes 1 to 4 in incarnation 5, as node 1 sees them.
fn directory() -> Directory {
    let mut directory = Directory::new(node(1));
    assert!(directory.set_nodes((1..=4).map(|n| presence(n, 5)).collect()));
    directory
}

fn change(directory: &mut Directory, n: u8, change: impl FnOnce(&mut Presence)) {
    let mut nodes: BTreeMap<_, _> = (1..=4).map(|n| presence(n, 5)).collect();
    change(nodes.get_mut(&node(n)).unwrap());
    directory.set_nodes(nodes);
}

fn holder(directory: &Directory, name: &str) -> Option<(u8, bool)> {
    directory.holder(name).map(|held| {
        assert_eq!(held.node_name, format!("n{}", held.node.0[0]));
        (held.node.0[0], held.is_up)
    })
}

#[test]
fn older_claim_counts_then_the_smaller_node() {
    let mut d = directory();
    assert_eq!(holder(&d, "pump"), None);
    assert!(
        d.set("pump", node(3), Some(claim(5, 20))) && !d.set("pump", node(3), Some(claim(5, 20)))
    );
    assert_eq!(holder(&d, "pump"), Some((3, true)));
    assert!(d.set("pump", node(4), Some(claim(5, 20))));
    assert_eq!(holder(&d, "pump"), Some((3, true)));
    assert!(d.set("pump", node(4), Some(claim(5, 19))));
    assert_eq!(holder(&d, "pump"), Some((4, true)));
    assert!(d.set("pump", node(4), None) && !d.set("pump", node(4), None));
    assert_eq!(holder(&d, "pump"), Some((3, true)));
    assert!(d.set("pump", node(3), None) && d.is_empty() && !d.set("pump", node(3), None));
}

#[test]
fn claims_of_this_node_are_looked_up_apart_and_give_way_to_older_ones() {
    let mut d = directory();
    d.set("pump", node(1), Some(claim(5, 10)));
    assert_eq!((holder(&d, "pump"), d.own("pump")), (None, Some(&claim(5, 10))));
    d.set("pump", node(2), Some(claim(5, 10)));
    assert_eq!(d.rival("pump", 10), None, "of the same age, and this node has the smaller id");
    assert_eq!(d.rival("pump", 11).unwrap().node, node(2));
    change(&mut d, 2, |two| two.is_up = false);
    assert_eq!(d.rival("pump", 11), None, "a claim that cannot be used takes nothing away");
    d.set("other", node(1), Some(claim(4, 1)));
    let own: Vec<_> = d.all_own().map(|(name, _)| name).collect();
    assert_eq!((own, d.len()), (vec!["other", "pump"], 2));
    d.clear();
    assert!(d.is_empty());
}

#[test]
fn nodes_that_are_down_gone_or_unknown_are_not_used() {
    for (what, then, listed) in [
        ("up", None, Some((2, true))),
        ("down", Some((3, true)), Some((2, false))),
        ("left", Some((3, true)), None),
        ("renewed", Some((3, true)), None),
        ("behind", None, Some((2, true))),
    ] {
        let mut d = directory();
        d.set("pump", node(2), Some(claim(5, 1)));
        change(&mut d, 2, |two| match what {
            "down" => two.is_up = false,
            "left" => two.is_member = false,
            "renewed" => two.incarnation = 6,
            "behind" => two.incarnation = 4,
            _ => {}
        });
        assert_eq!(holder(&d, "pump"), listed, "{what}");
        // A younger claim of a node that answers is used meanwhile.
        d.set("pump", node(3), Some(claim(5, 2)));
        assert_eq!(holder(&d, "pump"), then.or(listed), "{what}");
        let gone = matches!(what, "left" | "renewed");
        let removed: Vec<_> = d.to_remove(9).into_iter().map(|(_, node)| node).collect();
        assert_eq!(removed, if gone { vec![node(2)] } else { vec![] }, "{what}");
    }
    let mut d = directory();
    d.set("pump", node(9), Some(claim(1, 1)));
    assert!(holder(&d, "pump").is_none() && d.to_remove(9).is_empty(), "it may be about to join");
}

#[test]
fn first_member_that_answers_removes_what_is_gone_and_no_other() {
    let mut nodes: BTreeMap<_, _> = (1..=4).map(|n| presence(n, 5)).collect();
    nodes.get_mut(&node(4)).unwrap().is_member = false;
    let removers = |nodes: &BTreeMap<NodeId, Presence>| {
        let removes = |n: &u8| {
            let mut d = Directory::new(node(*n));
            d.set_nodes(nodes.clone());
            d.set("a", node(4), Some(claim(5, 1)));
            d.set("b", node(4), Some(claim(5, 1)));
            assert!(d.to_remove(1).len() <= 1);
            d.to_remove(9).len() == 2
        };
        (1..=4).filter(removes).collect::<Vec<u8>>()
    };
    assert_eq!(removers(&nodes), [1]);
    nodes.get_mut(&node(1)).unwrap().is_up = false;
    assert_eq!(removers(&nodes), [2]);
    nodes.get_mut(&node(2)).unwrap().is_member = false;
    assert_eq!(removers(&nodes), [3]);
}

#[test]
fn names_are_listed_by_prefix_in_order() {
    let mut d = directory();
    for name in ["b2", "a", "b1", "c", "b"] {
        d.set(name, node(2), Some(claim(5, 1)));
    }
    let names: Vec<_> = d.held("b").map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "b1", "b2"]);
}

#[test]
fn suspects_still_answer_and_those_who_left_are_no_members() {
    let member = |n: u8, status, liveness| Member {
        node: node(n),
        name: format!("n{n}"),
        incarnation: 5,
        version: 1,
        addresses: Vec::new(),
        status,
        liveness,
        seen_ms: 0,
    };
    let mut cluster = Cluster::alone(member(1, Status::Joined, Liveness::Up));
    for (n, status, liveness) in [
        (2, Status::Leaving, Liveness::Suspect),
        (3, Status::Fenced, Liveness::Down),
        (4, Status::Left, Liveness::Up),
        (5, Status::Evicted, Liveness::Down),
    ] {
        cluster.members.insert(node(n), member(n, status, liveness));
    }
    let found = presences(&cluster);
    let found: Vec<_> = found.values().map(|p| (p.is_member, p.is_up)).collect();
    assert_eq!(found, [(true, true), (true, true), (true, false), (false, true), (false, false)]);
}

proptest! {
    /// What the rows of all nodes become, one after the other, arrives on each node in an order of its own, some of it twice.
    #[test]
    fn every_node_finds_the_same_holder(
        rows in prop::collection::btree_map((0_u8..3, 1_u8..=4), prop::option::of((4_u32..=6, 0_u64..4)), 0..12),
        noise in prop::collection::vec((0_u8..3, 1_u8..=4, prop::option::of((4_u32..=6, 0_u64..4))), 0..12),
        states in prop::collection::vec((any::<bool>(), any::<bool>()), 4),
        seeds in prop::collection::vec(any::<u64>(), 4),
    ) {
        let nodes: BTreeMap<NodeId, Presence> = (1..=4_u8).zip(&states).map(|(n, (is_member, is_up))| {
            let (id, presence) = presence(n, 5);
            (id, Presence { is_member: *is_member, is_up: *is_up, ..presence })
        }).collect();
        let mut views = Vec::new();
        for (own, seed) in (1..=4_u8).zip(&seeds) {
            let mut d = Directory::new(node(own));
            let mut last: Vec<_> = rows.iter().collect();
            last.sort_by_key(|((name, n), _)| (u64::from(*name) * 7 + u64::from(*n) * 13 + 1).wrapping_mul(*seed | 1));
            let set = |d: &mut Directory, name: u8, n: u8, row: Option<(u32, u64)>| {
                d.set(&format!("name{name}"), node(n), row.map(|(i, since)| claim(i, since)));
            };
            noise.iter().for_each(|(name, n, row)| {
                if rows.contains_key(&(*name, *n)) {
                    set(&mut d, *name, *n, *row);
                }
            });
            if seed.is_multiple_of(2) {
                d.set_nodes(nodes.clone());
            }
            for ((name, n), row) in &last {
                set(&mut d, *name, *n, **row);
            }
            last.iter().rev().take(3).for_each(|((name, n), row)| set(&mut d, *name, *n, **row));
            d.set_nodes(nodes.clone());
            views.push(d);
        }
        for name in (0..3).map(|n| format!("name{n}")) {
            // An observer that holds nothing.
            let mut outside = Directory::new(node(9));
            outside.set_nodes(nodes.clone());
            for ((n, holder), row) in rows.iter().filter(|((n, _), _)| format!("name{n}") == name) {
                outside.set(&format!("name{n}"), node(*holder), row.map(|(i, since)| claim(i, since)));
            }
            let counted = outside.holder(&name).map(|held| (held.node, held.is_up));
            let mut keep = BTreeSet::new();
            for (own, view) in (1..=4_u8).zip(&views) {
                let seen = view.holder(&name).map(|held| (held.node, held.is_up));
                if counted.is_none_or(|(node, _)| node != NodeId([own; 16])) {
                    prop_assert_eq!(seen, counted, "{} at {}", name, own);
                }
                // Nodes that answer: which of them would go on holding it?
                let is_sound = |claim: &&Claim| states[usize::from(own) - 1] == (true, true) && claim.incarnation >= 5;
                if let Some(own_claim) = view.own(&name).filter(is_sound)
                    && view.rival(&name, own_claim.since_ms).is_none()
                {
                    keep.insert(node(own));
                }
            }
            let expected: BTreeSet<NodeId> = counted.filter(|(_, is_up)| *is_up).map(|(node, _)| node).into_iter().collect();
            prop_assert_eq!(keep, expected, "of those that hold {} the one that counts keeps it", name);
        }
    }
}
