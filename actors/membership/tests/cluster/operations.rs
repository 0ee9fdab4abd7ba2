//! Join, leave, forget, replace, move, restart.

use weald_membership::config::{Config, Strategy};
use weald_membership::core::{Force, Input, OpError};
use weald_peers::{Liveness, Status};

use crate::world::{World, address, id, own};

const BOTH: [Strategy; 2] = [Strategy::FullMesh, Strategy::P2p];

#[test]
fn join_in_a_chain_makes_one_cluster() {
    for strategy in BOTH {
        let mut world = World::new(1, strategy);
        world.start(&own(1));
        for number in 2..=6 {
            world.start(&own(number));
            let request = world.join(number, &[number - 1]);
            world.run_until(5_000, |w| w.reply(number, request) == Some(Ok(())));
        }
        world.run_until(5_000, |w| w.is_whole(6) && w.is_connected_overlay());
    }
}

#[test]
fn mass_join_of_ten_through_one_seed_makes_one_cluster() {
    for (seed, strategy) in (0..10).flat_map(|seed| BOTH.map(|strategy| (seed, strategy))) {
        let mut world = World::new(seed, strategy);
        world.start(&own(1));
        for number in 2..=11 {
            world.start(&own(number));
            world.join(number, &[1]);
        }
        world.run_until(15_000, |w| w.is_whole(11) && w.is_connected_overlay());
    }
}

#[test]
fn join_without_anybody_there_fails_by_its_deadline() {
    let mut world = World::new(2, Strategy::FullMesh);
    world.start(&own(1));
    let request = world.join(1, &[9]);
    world.run(31_000);
    let reply = world.reply(1, request).unwrap();
    assert_eq!(reply, Err(OpError::NotJoined { last: "nobody there".into() }));
    // The seed comes up before the deadline: the join goes through.
    let request = world.join(1, &[9]);
    world.run(10_000);
    world.start(&own(9));
    world.run_until(5_000, |w| w.reply(1, request) == Some(Ok(())));
    let request = world.join(1, &[1]);
    world.run(31_000);
    assert!(matches!(world.reply(1, request), Some(Err(OpError::NotJoined { .. }))));
}

#[test]
fn leave_is_noted_by_all_and_is_not_undone_by_a_restart() {
    for strategy in BOTH {
        let mut world = World::cluster(3, strategy, 4);
        let request = world.leave(4);
        let took_ms = world.run_until(5_000, |w| w.reply(4, request) == Some(Ok(())));
        assert!(took_ms < 1_000, "the others answer at once, it took {took_ms} ms");
        let is_left = |w: &World| (1..=4).all(|n| w.thinks(n, 4).0 == Some(Status::Left));
        world.run_until(2_000, is_left);
        // Peers that were dialled as seeds stay for 30 s.
        world.run(31_000);
        assert!(world.node(4).connected.is_empty() && world.node(4).wanted.is_empty());
        assert!(!world.node(1).wanted.contains_key(&id(4)));
        // Discovery and a restart leave it where it is.
        world.kill(4);
        world.restart(4);
        world.input(id(4), Input::Discovered { addresses: vec![address(1)] });
        world.run(10_000);
        assert!(is_left(&world), "{}", world.describe());
        let request = world.join(4, &[2]);
        world.run_until(5_000, |w| w.reply(4, request) == Some(Ok(())));
        world.run_until(5_000, |w| w.is_whole(4));
    }
}

#[test]
fn leave_goes_on_without_those_that_do_not_answer() {
    let mut world = World::cluster(4, Strategy::FullMesh, 3);
    world.run(2_000);
    world.freeze(2);
    let request = world.leave(3);
    let took_ms = world.run_until(6_000, |w| w.reply(3, request) == Some(Ok(())));
    assert!(took_ms >= 2_000, "it has waited: {took_ms} {:?}", world.node(3).events);
    assert_eq!(world.thinks(1, 3).0, Some(Status::Left));
    world.thaw(2);
    world.run_until(40_000, |w| w.thinks(2, 3).0 == Some(Status::Left));
}

#[test]
fn forget_refuses_the_unknown_itself_and_the_living() {
    let mut world = World::cluster(5, Strategy::FullMesh, 3);
    let members = vec!["node-1".to_owned(), "node-2".into(), "node-3".into()];
    let unknown = Err(OpError::Unknown { who: "nobody".into(), members });
    assert_eq!(world.forget(1, "nobody", Force::Yes), unknown);
    assert_eq!(world.forget(1, "node-1", Force::Yes), Err(OpError::Itself));
    let is_up = Err(OpError::IsUp { name: "node-2".into() });
    assert_eq!(world.forget(1, "node-2", Force::No), is_up);
    assert_eq!(world.forget(1, &id(2).to_string(), Force::No), is_up);
    assert!(world.is_whole(3));
}

#[test]
fn evicted_node_stays_out_until_it_is_told_to_join() {
    for strategy in BOTH {
        let mut world = World::cluster(6, strategy, 4);
        world.kill(4);
        world.run_until(8_000, |w| w.thinks(1, 4).1 == Liveness::Down);
        assert_eq!(world.forget(1, "node-4", Force::No), Ok(()));
        world.run_until(5_000, |w| (1..4).all(|n| w.thinks(n, 4).0 == Some(Status::Evicted)));
        // It has missed the eviction, and comes back with a new incarnation: it is told.
        world.restart(4);
        world.run_until(8_000, |w| w.thinks(4, 4).0 == Some(Status::Evicted));
        assert_eq!(world.events(4, "self_evicted").len(), 1);
        world.run(10_000);
        assert!(world.node(4).wanted.is_empty() && world.node(4).connected.is_empty());
        // Also over a restart.
        world.kill(4);
        world.restart(4);
        world.run(10_000);
        assert!((1..=4).all(|n| world.thinks(n, 4).0 == Some(Status::Evicted)));
        let request = world.join(4, &[3]);
        world.run_until(5_000, |w| w.reply(4, request) == Some(Ok(())));
        world.run_until(8_000, |w| w.is_whole(4) && w.is_connected_overlay());
    }
}

#[test]
fn forced_forget_of_a_live_node_ends_its_activity() {
    for strategy in BOTH {
        let mut world = World::cluster(7, strategy, 4);
        assert_eq!(world.forget(2, "node-3", Force::Yes), Ok(()));
        world.run_until(3_000, |w| (1..=4).all(|n| w.thinks(n, 3).0 == Some(Status::Evicted)));
        world.run(31_000);
        assert!(world.node(3).connected.is_empty());
        let request = world.join(3, &[1]);
        world.run_until(5_000, |w| w.reply(3, request) == Some(Ok(())));
        world.run_until(8_000, |w| w.is_whole(4));
    }
}

#[test]
fn wiped_node_takes_the_place_of_its_dead_namesake() {
    for strategy in BOTH {
        let mut world = World::cluster(8, strategy, 4);
        world.kill(3);
        world.run(500);
        // Same name and address, another disk. While the old one may still be alive it is refused.
        let wiped = weald_membership::core::Own { node: id(33), ..own(3) };
        world.start(&wiped);
        let request = world.join(33, &[1]);
        world.run_until(15_000, |w| w.reply(33, request) == Some(Ok(())));
        world.run_until(10_000, |w| {
            [1, 2, 4, 33].iter().all(|n| {
                w.thinks(*n, 3).0 == Some(Status::Evicted)
                    && w.thinks(*n, 33) == (Some(Status::Joined), Liveness::Up)
            })
        });
    }
}

#[test]
fn live_name_is_refused_to_a_second_node() {
    let mut world = World::cluster(9, Strategy::FullMesh, 3);
    world.start(&weald_membership::core::Own {
        node: id(22),
        addresses: vec![address(22)],
        ..own(2)
    });
    let request = world.join(22, &[1, 2, 3]);
    world.run(31_000);
    let Some(Err(OpError::NotJoined { last })) = world.reply(22, request) else { panic!() };
    assert!(last.contains("node-2 belongs to the live member"), "{last}");
    assert!((1..=3).all(|n| world.thinks(n, 22).0.is_none()));
    assert!((1..=3).all(|n| world.thinks(n, 2) == (Some(Status::Joined), Liveness::Up)));
}

#[test]
fn two_live_nodes_that_got_one_name_at_once_are_noticed_and_the_greater_id_leaves() {
    let mut world = World::cluster(10, Strategy::FullMesh, 3);
    let twin = |number: u8| weald_membership::core::Own { name: "twin".into(), ..own(number) };
    world.start(&twin(8));
    world.start(&twin(9));
    // Through different members, before these hear of each other.
    world.join(8, &[1]);
    world.join(9, &[2]);
    world.run(2_000);
    let known = (1..=3).filter(|n| world.thinks(*n, 9).0.is_some()).count();
    assert!(known > 0, "both got in, or the test shows nothing: {}", world.describe());
    world.run(20_000);
    assert!((1..=3).all(|n| world.thinks(n, 8).0 == Some(Status::Joined)), "{}", world.describe());
    assert!((1..=3).all(|n| world.thinks(n, 9).0 == Some(Status::Left)), "{}", world.describe());
    assert!(!world.events(1, "name_conflict").is_empty());
    assert_eq!(world.events(9, "self_yielded").len(), 1);
}

#[test]
fn moved_node_is_found_at_its_new_address_and_the_old_one_is_forgotten() {
    for strategy in BOTH {
        let mut world = World::cluster(11, strategy, 4);
        world.kill(2);
        world.run(1_000);
        world.nodes.get_mut(&id(2)).unwrap().own.addresses = vec![address(200)];
        world.restart(2);
        world.run_until(10_000, |w| w.is_whole(4));
        for number in 1..=4 {
            let record = world.node(number).core.view().record(id(2)).unwrap();
            assert_eq!(record.addresses, vec![address(200)]);
            assert!(!world.node(number).wanted.values().flatten().any(|a| *a == address(2)));
        }
    }
}

#[test]
fn all_nodes_restarted_in_any_order_form_the_cluster_again() {
    for (seed, strategy) in (0..5).flat_map(|seed| BOTH.map(|strategy| (seed, strategy))) {
        let mut world = World::cluster(seed, strategy, 6);
        world.run(2_000);
        (1..=6).for_each(|number| world.kill(number));
        world.run(20_000);
        let mut order = vec![1, 2, 3, 4, 5, 6];
        weald_membership::rng::Rng::new(seed).shuffle(&mut order);
        for number in order {
            world.restart(number);
            world.run(1_500);
        }
        world.run_until(15_000, |w| w.is_whole(6) && w.is_connected_overlay());
    }
}

#[test]
fn absent_member_is_fenced_and_is_back_when_it_has_caught_up() {
    let config = Config { max_absence_ms: 60_000, ..Config::default() };
    let mut world = World::with(12, config);
    for number in 1..=3 {
        world.start(&own(number));
        world.join(number, &[1]);
    }
    world.run_until(5_000, |w| w.is_whole(3));
    world.kill(3);
    world.run(50_000);
    assert_eq!(world.thinks(1, 3), (Some(Status::Joined), Liveness::Down));
    world.run_until(20_000, |w| (1..3).all(|n| w.thinks(n, 3).0 == Some(Status::Fenced)));
    world.restart(3);
    world.run_until(5_000, |w| w.thinks(3, 3).0 == Some(Status::Fenced));
    // It has not heard of the others for longer than they may be away, and yet does not fence them: it was away itself.
    world.run(5_000);
    assert!((1..3).all(|n| world.thinks(3, n) == (Some(Status::Joined), Liveness::Up)));
    world.input(id(3), Input::RejoinDone);
    world.run_until(5_000, |w| w.is_whole(3));
    assert_eq!(world.events(1, "member_unfenced").len(), 1);
}

#[test]
fn records_of_the_gone_are_dropped_after_a_while_and_do_not_come_back() {
    let config = Config { max_absence_ms: 30_000, ..Config::default() };
    let mut world = World::with(13, config);
    for number in 1..=4 {
        world.start(&own(number));
        world.join(number, &[1]);
    }
    world.run_until(5_000, |w| w.is_whole(4));
    world.leave(4);
    world.run(20_000);
    world.kill(4);
    assert!((1..4).all(|n| world.thinks(n, 4).0 == Some(Status::Left)));
    world.run(200_000);
    assert!((1..4).all(|n| world.thinks(n, 4).0.is_none()), "{}", world.describe());
}

#[test]
fn discovery_adds_and_never_removes() {
    let mut world = World::new(14, Strategy::FullMesh);
    for number in 1..=3 {
        world.start(&own(number));
        let addresses = vec![address(1), address(2), address(99)];
        world.input(id(number), Input::Discovered { addresses });
    }
    world.run_until(5_000, |w| w.is_whole(3));
    for addresses in [vec![], vec![address(99)], vec![address(1)]] {
        for number in 1..=3 {
            world.input(id(number), Input::Discovered { addresses: addresses.clone() });
        }
        world.run(15_000);
        assert!(world.is_whole(3));
    }
}
