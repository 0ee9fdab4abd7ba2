//! `HyParView` with a hundred nodes.

use std::collections::BTreeSet;

use weald_membership::config::Strategy;
use weald_peers::Liveness;
use weald_storage::NodeId;

use crate::world::{World, id, own};

fn hundred(seed: u64) -> World {
    let mut world = World::new(seed, Strategy::P2p);
    for number in 1..=100 {
        world.start(&own(number));
        if number > 1 {
            world.join(number, &[1]);
        }
        if number % 10 == 0 {
            world.run(500);
        }
    }
    world.run_until(60_000, |w| w.is_whole(100) && w.is_connected_overlay());
    world
}

#[test]
fn hundred_nodes_are_connected_after_joining_and_after_a_third_fails() {
    let mut world = hundred(1);
    world.run(45_000);
    assert!(world.is_connected_overlay());
    for node in world.nodes.values() {
        let neighbours = node.core.neighbours().len();
        assert!((2..=5).contains(&neighbours), "{} has {neighbours}", node.own.name);
        assert!(node.connected.len() <= 20, "{} connections", node.connected.len());
    }
    let victims = (1..=100).filter(|n| n % 10 < 3).collect::<Vec<u8>>();
    for number in &victims {
        world.kill(*number);
    }
    world.run_until(20_000, World::is_connected_overlay);
    let is_known = |w: &World| {
        w.nodes
            .values()
            .filter(|n| n.is_running)
            .all(|n| victims.iter().all(|v| n.core.liveness(id(*v)) == Liveness::Down))
    };
    // Those that died with all their neighbours are found by the checks.
    world.run_until(120_000, is_known);
    let running: BTreeSet<NodeId> =
        world.nodes.iter().filter(|(_, n)| n.is_running).map(|(id, _)| *id).collect();
    let is_calm = |w: &World| {
        running.iter().all(|one| {
            running.iter().all(|other| w.nodes[one].core.liveness(*other) == Liveness::Up)
        })
    };
    world.run_until(30_000, |w| is_calm(w) && w.is_connected_overlay());
}

#[test]
fn split_hundred_merge_again() {
    let mut world = hundred(2);
    world.split(|node| node < id(40), true);
    world.run(60_000);
    assert!(!world.is_connected_overlay());
    world.heal();
    world.run_until(60_000, |w| w.is_whole(100) && w.is_connected_overlay());
}

#[test]
fn parts_that_knew_each_other_through_one_node_find_each_other_when_it_leaves() {
    let mut splits = 0;
    for seed in 0..10 {
        let mut world = World::new(seed, Strategy::P2p);
        for number in [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 7] {
            world.start(&own(number));
        }
        let is_left = |node| node < id(7);
        let bridge = id(7);
        let rest: Vec<NodeId> = world.nodes.keys().copied().filter(|n| *n != bridge).collect();
        for one in rest.iter().filter(|node| is_left(**node)) {
            for other in rest.iter().filter(|node| !is_left(**node)) {
                world.cut(*one, *other, true);
            }
        }
        for (first, last) in [(1, 6), (8, 13)] {
            for number in first + 1..=last {
                world.join(number, &[first]);
            }
        }
        world.join(7, &[1]);
        world.run(5_000);
        world.join(7, &[8]);
        world.run_until(60_000, |w| w.is_whole(13));
        world.heal();
        let request = world.leave(7);
        world.run_until(5_000, |w| w.reply(7, request) == Some(Ok(())));
        world.kill(7);
        splits += usize::from(!world.is_connected_overlay());
        world.run_until(8_500, World::is_connected_overlay);
        world.run_until(60_000, |w| w.is_whole(12));
        assert!(world.is_connected_overlay());
    }
    assert!(splits >= 5, "the overlay was split {splits} times: the test shows little");
}
