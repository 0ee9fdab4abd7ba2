//! Crashes, hanging processes, cut links, splits.

use weald_membership::config::Strategy;
use weald_peers::{Liveness, Status};

use crate::world::{World, id, own};

#[test]
fn killed_node_is_down_within_two_seconds() {
    for (seed, count) in (0..10).flat_map(|seed| [2_u8, 3, 5, 10].map(|count| (seed, count))) {
        let mut world = World::cluster(seed, Strategy::FullMesh, count);
        world.run(1_000 + seed * 137);
        world.kill(count);
        world.run_until(2_000, |w| (1..count).all(|n| w.thinks(n, count).1 == Liveness::Down));
    }
}

#[test]
fn hanging_node_is_down_within_six_seconds() {
    for (seed, count) in (0..10).flat_map(|seed| [2_u8, 3, 5, 10].map(|count| (seed, count))) {
        let mut world = World::cluster(seed, Strategy::FullMesh, count);
        world.run(1_000 + seed * 137);
        world.freeze(count);
        world.run_until(6_000, |w| (1..count).all(|n| w.thinks(n, count).1 == Liveness::Down));
        world.thaw(count);
        world.run_until(6_000, |w| w.is_whole(count.into()));
        // It has slept, and blames nobody for that.
        assert_eq!(world.events(count, "member_down").len(), 0);
    }
}

#[test]
fn killed_neighbour_of_an_overlay_is_down_for_all() {
    for seed in 0..5 {
        let mut world = World::cluster(seed, Strategy::P2p, 12);
        world.run(5_000);
        world.kill(12);
        world.run_until(8_000, |w| (1..12).all(|n| w.thinks(n, 12).1 == Liveness::Down));
        world.restart(12);
        world.run_until(8_000, |w| w.is_whole(12) && w.is_connected_overlay());
    }
}

#[test]
fn cut_between_two_nodes_makes_nobody_suspect() {
    for (seed, breaks) in (0..10).flat_map(|seed| [true, false].map(|breaks| (seed, breaks))) {
        let mut world = World::cluster(seed, Strategy::FullMesh, 3);
        world.run(2_000);
        let before: usize = world.nodes.values().map(|n| n.events.len()).sum();
        world.cut(id(1), id(2), breaks);
        world.run(60_000);
        let after: usize = world.nodes.values().map(|n| n.events.len()).sum();
        assert_eq!(before, after, "nothing is noticed: {:?}", world.node(1).events);
        world.heal();
        world.run(10_000);
        assert!(world.is_whole(3));
    }
}

#[test]
fn node_behind_a_broken_link_restarts_and_is_up_for_all() {
    let mut world = World::cluster(3, Strategy::FullMesh, 3);
    world.cut(id(1), id(2), true);
    world.kill(2);
    world.run_until(6_000, |w| w.thinks(1, 2).1 == Liveness::Down);
    world.restart(2);
    // Node 1 hears of it through node 3 only.
    world.run_until(6_000, |w| w.thinks(1, 2).1 == Liveness::Up);
    world.run(20_000);
    assert_eq!(world.events(1, "member_down").len(), 1);
}

#[test]
fn split_of_any_length_merges_again() {
    for strategy in [Strategy::FullMesh, Strategy::P2p] {
        for (seed, seconds) in [(1, 1), (2, 5), (3, 30), (4, 600)] {
            let mut world = World::cluster(seed, strategy, 8);
            world.run(3_000);
            world.split(|node| node < id(4), seed % 2 == 0);
            world.run(seconds * 1_000);
            if seconds >= 30 {
                assert_eq!(world.thinks(1, 8), (Some(Status::Joined), Liveness::Down));
                assert_eq!(world.thinks(1, 2), (Some(Status::Joined), Liveness::Up));
            }
            world.heal();
            world.run_until(30_000, |w| w.is_whole(8) && w.is_connected_overlay());
        }
    }
}

#[test]
fn node_that_is_cut_off_from_all_does_not_make_others_doubt_each_other() {
    let mut world = World::cluster(5, Strategy::FullMesh, 5);
    world.run(2_000);
    world.split(|node| node == id(5), false);
    world.run(30_000);
    for number in 1..5 {
        assert_eq!(world.events(number, "member_down").len(), 1, "only the one that is cut off");
    }
    world.heal();
    world.run_until(10_000, |w| w.is_whole(5));
    world.run(10_000);
    for number in 1..5 {
        assert_eq!(world.events(number, "member_down").len(), 1);
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::cluster(42, Strategy::P2p, 10);
        world.kill(3);
        world.run(20_000);
        (world.sent, world.describe())
    };
    assert_eq!(run(), run());
}

#[test]
fn quiet_cluster_sends_little_and_nothing_is_large() {
    let mut world = World::cluster(6, Strategy::FullMesh, 3);
    world.run(60_000);
    let before = world.sent;
    world.run(60_000);
    // A ping and an answer per pair and second in both directions, and the comparison of views now and then.
    assert!(world.sent - before < 6 * 60 * 2 + 40, "{} messages", world.sent - before);
    assert!(world.bytes_max <= weald_membership::messages::MESSAGE_BYTES_MAX);
}

#[test]
fn lost_messages_delay_but_decide_nothing() {
    for strategy in [Strategy::FullMesh, Strategy::P2p] {
        let mut world = World::new(7, strategy);
        world.loss = 20;
        for number in 1..=8 {
            world.start(&own(number));
            world.join(number, &[1]);
        }
        world.run_until(40_000, |w| w.is_whole(8) && w.is_connected_overlay());
        world.run(120_000);
        let downs: usize = (1..=8).map(|n| world.events(n, "member_down").len()).sum();
        assert_eq!(downs, 0);
        let request = world.leave(8);
        world.run_until(6_000, |w| w.reply(8, request) == Some(Ok(())));
        world.run_until(60_000, |w| (1..8).all(|n| w.thinks(n, 8).0 == Some(Status::Left)));
    }
}
