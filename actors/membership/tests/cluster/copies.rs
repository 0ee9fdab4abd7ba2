//! Changes of records go along trees: how often each is sent, how soon it is everywhere, and what happens when it is lost.

use weald_membership::config::Strategy;
use weald_membership::core::Input;

use crate::world::{World, id, own};

/// Node 1 changes its record: how long it takes until all running nodes know, and how often the record was sent.
fn change(world: &mut World, count: usize, within_ms: u64) -> (u64, u64) {
    let before = world.copies;
    let incarnation = world.node(1).core.own().incarnation + 1;
    world.input(id(1), Input::Incarnation(incarnation));
    let took_ms = world.run_until(within_ms, |w| w.is_whole(count));
    // What comes too late counts, too.
    world.run(10_000);
    (took_ms, world.copies - before)
}

#[test]
fn change_in_a_full_mesh_costs_a_copy_for_each_other_member() {
    for count in [2_u8, 5, 20, 40] {
        let mut world = World::cluster(1, Strategy::FullMesh, count);
        world.run(60_000);
        for _ in 0..3 {
            let (took_ms, copies) = change(&mut world, count.into(), 1_000);
            assert_eq!(copies, u64::from(count) - 1, "and not more while views are compared");
            assert!(took_ms <= 200, "the root tells everybody: {took_ms} ms");
        }
    }
}

#[test]
fn crowd_that_joins_a_full_mesh_costs_a_copy_of_each_for_each_other() {
    for (seed, count) in (0..5).flat_map(|seed| [5_u8, 10, 20, 40].map(|count| (seed, count))) {
        let mut world = World::new(seed, Strategy::FullMesh);
        for number in 1..=count {
            world.start(&own(number));
            // Through several of those that are just joining themselves.
            world.join(number, &[number.div_ceil(4)]);
        }
        world.run_until(20_000, |w| w.is_whole(count.into()));
        world.run(40_000);
        let (copies, count) = (world.copies, u64::from(count));
        assert!(copies >= count * (count - 1), "{copies}: everybody has to be told of everybody");
        assert!(copies <= count * count, "{copies} copies of {count} changes");
    }
}

#[test]
fn change_in_an_overlay_is_everywhere_soon_and_its_tree_is_pruned() {
    for seed in 0..3 {
        let mut world = World::cluster(seed, Strategy::P2p, 50);
        world.run_until(30_000, World::is_connected_overlay);
        world.run(10_000);
        let (took_ms, first) = change(&mut world, 50, 1_000);
        assert!(took_ms <= 500, "it is pushed all the way: {took_ms} ms");
        assert!((49..=4 * 50).contains(&first), "each forwards it once: {first} copies");
        let later: Vec<u64> = (0..8).map(|_| change(&mut world, 50, 3_000).1).collect();
        let least = later.iter().copied().min().unwrap_or(u64::MAX);
        assert!((49..70).contains(&least), "what comes twice is pruned: {first}, then {later:?}");
    }
}

#[test]
fn change_that_is_lost_is_announced_by_others_and_then_pushed_by_them() {
    let mut world = World::cluster(4, Strategy::FullMesh, 6);
    world.run(5_000);
    world.cut(id(1), id(4), false);
    // Comparisons of whole views come later than that.
    let (took_ms, _) = change(&mut world, 6, 1_500);
    assert!(took_ms >= 300, "it took a graft: {took_ms} ms");
    let (took_ms, copies) = change(&mut world, 6, 1_500);
    assert!(took_ms <= 200, "who was asked goes on: {took_ms} ms");
    assert!(copies <= 7, "{copies} copies");
}

#[test]
fn change_survives_lost_messages_and_lost_parents_in_an_overlay() {
    for seed in 0..3 {
        let mut world = World::cluster(seed, Strategy::P2p, 30);
        world.run_until(30_000, World::is_connected_overlay);
        for _ in 0..3 {
            change(&mut world, 30, 3_000);
        }
        world.loss = 20;
        for _ in 0..3 {
            let incarnation = world.node(1).core.own().incarnation + 1;
            world.input(id(1), Input::Incarnation(incarnation));
            let knows = |w: &World, n: u8| {
                let record = w.node(n).core.view().record(id(1));
                record.is_some_and(|record| record.incarnation == incarnation)
            };
            // Where all that was sent and announced is lost, a few comparisons of views make up for it.
            world.run_until(120_000, |w| (1..=30).all(|n| knows(w, n)));
        }
        world.loss = 0;
        world.run(40_000);
        // The parents of many are gone: others take their place.
        let gone: Vec<u8> = (10..16).collect();
        gone.iter().for_each(|number| world.kill(*number));
        let incarnation = world.node(1).core.own().incarnation + 1;
        world.input(id(1), Input::Incarnation(incarnation));
        let knows = |w: &World, n: u8| {
            gone.contains(&n)
                || w.node(n).core.view().record(id(1)).is_some_and(|r| r.incarnation == incarnation)
        };
        world.run_until(10_000, |w| (1..=30).all(|n| knows(w, n)));
    }
}
