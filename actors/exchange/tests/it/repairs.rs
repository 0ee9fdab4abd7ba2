//! Lost rows, and what of other members may fill their place: with three nodes, and with clocks that move meanwhile.

use std::sync::Arc;

use weald_exchange::core::{Mode, Repairs, Shard};
use weald_peers::{Cluster, Liveness, Member, Status};
use weald_storage::{Delta, Evidence, NodeId, Object, Replicated, Space};

use crate::nodes::{A, B, Node, Run, assert_equal, exchange, key, table};

/// A node that deleted key 5, and has forgotten that it did; two that still hold its value, and know as much as each other.
fn ahead_and_two() -> [Node; 3] {
    let mut first = Node::new(2);
    (0..20).for_each(|n| first.put(n, b"old", 1));
    let [mut ahead, first] = exchange([Node::new(1), first], 2).nodes;
    let [first, second] = exchange([first, Node::new(3)], 3).nodes;
    ahead.delete(5, 10);
    // What the delete leaves in the clock besides: an event of another key.
    ahead.put(7, b"new", 10);
    let mut alone = [ahead];
    Node::sweep_all(&mut alone, 100);
    let [ahead] = alone;
    [ahead, first, second]
}

fn shard_of(n: u64) -> Shard {
    Shard::new(u16::try_from(n % 2).unwrap(), Space::Durable)
}

fn delta(n: u64, object: Object) -> Delta {
    Delta { table: table(), key: key(n), object, dots: vec![] }
}

/// A node drops a value on the word of one that is ahead, whose clock it takes over while it talks to one that still holds
/// the value. When that session was opened, both knew the same.
#[test]
fn value_whose_death_is_learned_meanwhile_is_not_taken_for_lost() {
    let [ahead, first, mut second] = ahead_and_two();
    let replica = &ahead.replicas[usize::from(shard_of(5).number())];
    let (clock, swept) = (replica.clock().unwrap(), replica.swept().unwrap());
    let word = Evidence::Both(Arc::new(clock.clone()));
    let merged = second.merge(shard_of(5), vec![(delta(5, Object::new()), word)], 150);
    assert!(merged[0].is_ok() && second.get(5).is_none());
    // What the object of the key still says of it goes, too.
    Node::sweep_all(std::slice::from_mut(&mut second), 160);
    for side in [A, B] {
        let pair =
            |second: Node, first: Node| if side == A { [second, first] } else { [first, second] };
        let nodes = pair(second.clone(), first.clone());
        let steps = exchange(nodes.clone(), 200).steps;
        let mut took = 0;
        for at in 0..=steps {
            let mut run = Run::new(nodes.clone(), Mode::Exchange, 200);
            (0..at).for_each(|_| _ = run.step());
            let held = run.nodes[side].get(5).is_some();
            took += usize::from(held);
            if !held {
                let replica = &mut run.nodes[side].replicas[usize::from(shard_of(5).number())];
                replica.adopt(&clock, &swept, None).unwrap();
            }
            let mut run = run.finish();
            assert_eq!(run.nodes[side].get(5).is_some(), held, "{side}, step {at}");
        }
        assert!(took > 0, "as long as nobody knows better it was lost");
    }
}

/// The same, and the value comes back before the clock is taken over.
#[test]
fn value_that_comes_back_during_a_walk_keeps_the_clock_from_being_taken_over() {
    let [ahead, mut first, second] = ahead_and_two();
    let value = first.get(5).unwrap();
    let clock_of = |node: &Node| node.replicas[usize::from(shard_of(5).number())].clock().unwrap();
    let knows = |node: &Node| clock_of(node).descends(&clock_of(&ahead));
    for side in [A, B] {
        let nodes = if side == A {
            [second.clone(), ahead.clone()]
        } else {
            [ahead.clone(), second.clone()]
        };
        let steps = exchange(nodes.clone(), 200).steps;
        let mut back = 0;
        for at in 0..=steps {
            let mut run = Run::new(nodes.clone(), Mode::Exchange, 200);
            (0..at).for_each(|_| _ = run.step());
            if knows(&run.nodes[side]) {
                // It is as far as the other one: whoever still holds the value is behind.
                break;
            }
            Node::sweep_all(std::slice::from_mut(&mut run.nodes[side]), 240);
            let era = run.nodes[side].replicas[usize::from(shard_of(5).number())].era();
            let item = (delta(5, value.clone()), Evidence::Held(era));
            assert!(run.nodes[side].merge(shard_of(5), vec![item], 250).remove(0).is_ok());
            let mut run = run.finish();
            let knows = knows(&run.nodes[side]);
            let holds = run.nodes[side].get(5).is_some();
            back += usize::from(holds);
            assert!(!(holds && knows), "{side}, step {at}");
        }
        assert!(back > 0, "{side}: nothing came back");
    }
}

fn repairs(own: u8, others: [u8; 2]) -> Repairs {
    let member = |n: u8| Member {
        node: NodeId([n; 16]),
        name: format!("n{n}"),
        incarnation: 1,
        version: 1,
        addresses: Vec::new(),
        status: Status::Joined,
        liveness: Liveness::Up,
        seen_ms: 0,
    };
    let mut cluster = Cluster::alone(member(own));
    cluster.members.extend(others.map(|n| (NodeId([n; 16]), member(n))));
    let mut repairs = Repairs::default();
    repairs.set_cluster(&cluster);
    repairs
}

/// A session that `damaged` begins with `peer`; gives back both, with the marks taken off that are due.
fn repair(damaged: Node, peer: Node, n: u8, repairs: &mut Repairs) -> [Node; 2] {
    let id = NodeId([n; 16]);
    let resorts = [Arc::new(repairs.resort(id)), Arc::default()];
    let run = Run::with_resorts([damaged, peer], resorts, Mode::Exchange, 300).finish();
    let [ended, _] = run.ended;
    let mut nodes = run.nodes;
    for done in repairs.compared(id, &ended.unwrap().compared) {
        nodes[A].replicas[usize::from(done.shard.number())].compared(&done.buckets);
    }
    nodes
}

fn marks(node: &Node) -> usize {
    node.replicas.iter().map(|replica| replica.damaged().unwrap().len()).sum()
}

/// Key 5 was replaced; one node has lost the row of the replacement, one holds it, and one comes back with what was replaced.
/// In whatever order the first talks to them, what was replaced stays away, and the replacement comes back.
#[test]
fn damaged_bucket_takes_nothing_from_a_member_that_is_behind_which_others_know_to_be_dead() {
    let mut old = Node::new(3);
    (0..20).for_each(|n| old.put(n, b"old", 1));
    let [mut damaged, old] = exchange([Node::new(1), old], 2).nodes;
    damaged.put(5, b"new", 10);
    let [damaged, whole] = exchange([damaged, Node::new(2)], 11).nodes;
    let mut both = [damaged, whole];
    Node::sweep_all(&mut both, 100);
    let [mut damaged, whole] = both;
    damaged.lose(5);
    damaged.repair_tree(5);
    let is_old = |node: &mut Node| {
        let object = node.get(5).unwrap_or_default();
        object.values().any(|value| value.payload.as_deref() == Some(b"old"))
    };
    for order in [[2, 3, 3], [3, 2, 3], [3, 3, 2]] {
        let (mut damaged, mut repairs) = (damaged.clone(), repairs(1, [2, 3]));
        let mut others = [whole.clone(), old.clone()];
        for n in order {
            let other = others[usize::from(n) - 2].clone();
            let [ours, theirs] = repair(damaged, other, n, &mut repairs);
            (damaged, others[usize::from(n) - 2]) = (ours, theirs);
            assert!(!is_old(&mut damaged) && !is_old(&mut others[0]), "{order:?} at {n}");
        }
        assert!(damaged.get(5).is_some(), "{order:?}");
        // The one that was behind learns what happened from one that is whole, and everybody is equal.
        let [ours, theirs] = others;
        others = exchange([ours, theirs], 400).nodes;
        for n in [2, 3] {
            let other = others[usize::from(n) - 2].clone();
            let [ours, theirs] = repair(damaged, other, n, &mut repairs);
            (damaged, others[usize::from(n) - 2]) = (ours, theirs);
        }
        assert_eq!(marks(&damaged), 0, "{order:?}");
        let [ours, theirs] = exchange([damaged, others[1].clone()], 500).nodes;
        assert_equal(&ours, &theirs);
        assert_equal(&ours, &others[0]);
    }
}

/// What only a member that is behind has comes back, too, once all others were asked.
#[test]
fn what_only_a_member_that_is_behind_still_has_comes_back() {
    let mut old = Node::new(3);
    (0..20).for_each(|n| old.put(n, b"old", 1));
    let [mut damaged, old] = exchange([Node::new(1), old], 2).nodes;
    // So that the old one is behind, and only a walk can tell: nobody else was there.
    damaged.delete(7, 10);
    let mut alone = [damaged];
    Node::sweep_all(&mut alone, 100);
    let [mut damaged] = alone;
    damaged.lose(5);
    damaged.repair_tree(5);
    let mut repairs = repairs(1, [2, 3]);
    let [mut damaged, old] = repair(damaged, old, 3, &mut repairs);
    assert!(damaged.get(5).is_none(), "the other one may know that it is dead");
    let [damaged, _] = repair(damaged, Node::new(2), 2, &mut repairs);
    let [mut damaged, _] = repair(damaged, old, 3, &mut repairs);
    assert!(damaged.get(5).is_some() && marks(&damaged) == 0);
}
