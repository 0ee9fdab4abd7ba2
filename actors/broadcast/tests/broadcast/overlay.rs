//! Many cores in one network: everything reaches everybody, with about one copy for each.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weald_broadcast::core::Config;

use crate::net::{Faults, NONE, Net};

#[test]
fn full_mesh_sends_one_copy_to_each_and_a_join_causes_no_flood() {
    let mut net = Net::new(20, 1, &Config::default());
    net.full_mesh(19);
    for n in 0..19 {
        net.publish(n, 0, 2);
        net.run(2000);
    }
    assert_eq!((net.copies, net.counters().duplicate), (19 * 18, 0));
    net.copies = 0;
    net.full_mesh(20);
    for n in 0..20 {
        net.publish(n, 0, 1);
    }
    net.run(5000);
    // The newcomer lacks what was before it came, which is asked for once per root and tells of one path more.
    assert!((0..20).all(|root| net.lacking(root).iter().all(|(n, _, _)| *n == 19)));
    assert!(net.copies <= 20 * 19, "{} copies", net.copies);
    assert_eq!((net.counters().duplicate, net.counters().graft), (0, 0));
}

#[test]
fn partial_overlay_becomes_a_tree_for_each_root() {
    let mut net = Net::new(60, 2, &Config::default());
    net.partial(3);
    let roots = [0, 17, 42];
    for _ in 0..20 {
        for root in roots {
            net.publish(root, 0, 1);
        }
        net.run(200);
    }
    net.run(3000);
    net.copies = 0;
    for _ in 0..10 {
        for root in roots {
            net.publish(root, 0, 5);
        }
        net.run(2000);
    }
    assert!(roots.iter().all(|root| net.lacking(*root).is_empty()));
    let per_message = net.copies as f64 / 30.0;
    assert!((59.0..61.0).contains(&per_message), "{per_message} copies of 59 needed");
    assert!(net.counters().prune > 0);
}

#[test]
fn inner_nodes_that_die_are_grafted_around() {
    let mut net = Net::new(40, 3, &Config::default());
    let mut links = net.partial(3);
    for _ in 0..8 {
        net.publish(0, 0, 1);
        net.run(1500);
    }
    let inner: BTreeSet<usize> = (1..40).filter_map(|n| net.parent(n, 0)).collect();
    let dead: BTreeSet<usize> = inner.into_iter().filter(|n| *n != 0).take(4).collect();
    assert_eq!(dead.len(), 4);
    dead.iter().for_each(|n| net.kill(*n));
    // Published while nobody has noticed: only announcements can heal it.
    net.publish(0, 0, 3);
    net.run(100);
    assert!(!net.lacking(0).is_empty(), "the dead were on no path");
    for (n, others) in links.iter_mut().enumerate().filter(|(n, _)| !dead.contains(n)) {
        let before = others.len();
        others.retain(|m| !dead.contains(m));
        if others.len() < before {
            net.neighbours(n, others, false);
        }
    }
    net.run(400);
    assert_eq!(net.lacking(0), [], "not healed within 400 ms of noticing");
    let before = net.counters();
    assert!(before.graft > 0 && before.repaired > 0);
    net.publish(0, 0, 1);
    net.run(100);
    assert_eq!(net.lacking(0), [], "the trees were not repaired");
}

#[test]
fn nodes_that_die_unnoticed_cost_a_tick() {
    let mut net = Net::new(40, 4, &Config::default());
    net.partial(3);
    for _ in 0..9 {
        net.publish(0, 0, 1);
        net.run(1500);
    }
    let inner = (1..40).filter_map(|n| net.parent(n, 0)).find(|n| *n != 0).unwrap();
    net.kill(inner);
    net.publish(0, 0, 3);
    net.run(100);
    assert!(!net.lacking(0).is_empty(), "the dead one was on no path");
    net.run(5000);
    assert_eq!((net.lacking(0), net.behind), (vec![], 0));
    net.publish(0, 0, 3);
    net.run(100);
    assert_eq!(net.lacking(0), []);
}

#[test]
fn long_path_is_replaced_by_a_short_one() {
    let mut net = Net::new(12, 5, &Config::default());
    // A line of 12 nodes; then its ends are joined.
    let mut links: Vec<BTreeSet<usize>> = (0..12_usize)
        .map(|n| [n.wrapping_sub(1), n + 1].into_iter().filter(|m| *m < 12).collect())
        .collect();
    for (n, others) in links.iter().enumerate() {
        net.neighbours(n, others, false);
    }
    net.publish(0, 0, 1);
    net.run(3000);
    assert_eq!(net.parent(11, 0), Some(10));
    links[0].insert(11);
    links[11].insert(0);
    net.neighbours(0, &links[0], false);
    net.neighbours(11, &links[11], false);
    for _ in 0..6 {
        net.publish(0, 0, 1);
        net.run(3000);
    }
    assert_eq!((net.parent(11, 0), net.lacking(0)), (Some(0), vec![]));
    assert!(net.counters().optimised > 0);
}

#[test]
fn healed_full_mesh_is_a_star_again() {
    let mut net = Net::new(10, 6, &Config::default());
    net.full_mesh(10);
    net.faults = Faults { lost: 300, twice: 0, delay_ms: (1, 30) };
    for _ in 0..30 {
        (0..10).for_each(|n| net.publish(n, 0, 1));
        net.run(500);
    }
    assert!(net.counters().graft > 0);
    net.faults = NONE;
    for _ in 0..10 {
        (0..10).for_each(|n| net.publish(n, 0, 1));
        net.run(1500);
    }
    net.copies = 0;
    (0..10).for_each(|n| net.publish(n, 0, 1));
    net.run(3000);
    assert_eq!(net.copies, 90);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// What is doubled and late does no harm, and little is left to the exchange when a part of everything is lost.
    #[test]
    fn overlay_with_faults_delivers_nearly_everything(
        seed in any::<u64>(),
        is_full_mesh in any::<bool>(),
        lost in prop_oneof![Just(0_u32), 1_u32..100],
        twice in 0_u32..200,
        late_ms in 3_u64..120,
    ) {
        let mut net = Net::new(16, seed, &Config::default());
        if is_full_mesh { net.full_mesh(16) } else { drop(net.partial(2)) }
        net.faults = Faults { lost, twice, delay_ms: (1, late_ms) };
        for _ in 0..20 {
            let (root, stream) = (net.below(4), net.below(3));
            net.publish(root, u16::try_from(stream).unwrap(), 3);
            net.run(100);
        }
        net.run(5000);
        let lacking: u64 = (0..4).map(|root| net.lacking(root).iter().map(|l| l.2).sum::<u64>()).sum();
        // Of 20 times 3 events for 15 nodes.
        let most = if lost == 0 { 0 } else { 45 };
        prop_assert!(lacking <= most, "{lacking} of 900 lacking, {} behind", net.behind);
    }
}
