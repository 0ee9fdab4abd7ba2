//! Walks while others write: what happens between the steps of a session must not bring back what is dead.

use weald_exchange::core::{Mode, Shard};
use weald_storage::{Delta, Evidence, Object};

use crate::nodes::{A, B, Node, Run, assert_equal, exchange, key, table};

/// A node that deleted and replaced what the other one still holds, and has forgotten that it did: only a walk can tell.
/// Keys 0 to 9 were deleted, 10 to 19 replaced.
fn ahead_and_old() -> [Node; 2] {
    let mut old = Node::new(2);
    // Not by the node that replaces them: a new event of an actor covers its older ones.
    (0..40).for_each(|n| old.put(n, b"old", 1));
    let [mut ahead, old] = exchange([Node::new(1), old], 2).nodes;
    (0..10).for_each(|n| ahead.delete(n, 10));
    (10..20).for_each(|n| ahead.put(n, b"new", 10));
    let mut alone = [ahead];
    Node::sweep_all(&mut alone, 100);
    let [ahead] = alone;
    [ahead, old]
}

fn holds_old(node: &mut Node, n: u64) -> bool {
    let object = node.get(n).unwrap_or_default();
    object.values().any(|value| value.payload.as_deref() == Some(b"old"))
}

/// Runs a session in which `happens` after each step in turn, then one more; what is dead has to be dead on both.
fn at_any_step(nodes: &[Node; 2], happens: impl Fn(&mut Run)) {
    let steps = exchange(nodes.clone(), 200).steps;
    for at in 0..steps {
        let mut run = Run::new(nodes.clone(), Mode::Exchange, 200);
        (0..at).for_each(|_| _ = run.step());
        happens(&mut run);
        let run = exchange(run.finish().nodes, 300);
        let mut run = exchange(run.nodes, 400);
        for n in 0..20 {
            for side in [A, B] {
                assert!(!holds_old(&mut run.nodes[side], n), "key {n} at {side}, step {at}");
            }
        }
        assert_equal(&run.nodes[A], &run.nodes[B]);
    }
}

/// The key is absent on one side when the digests are compared, and present when the dead value of the other side arrives.
#[test]
fn key_written_anew_during_a_walk_does_not_bring_back_what_was_deleted() {
    let [ahead, old] = ahead_and_old();
    for (nodes, writer) in [([ahead.clone(), old.clone()], A), ([old, ahead], B)] {
        at_any_step(&nodes, |run| run.nodes[writer].put(5, b"anew", 250));
        at_any_step(&nodes, |run| run.nodes[writer].delete(15, 250));
    }
}

/// A third node that is as old talks to both meanwhile.
#[test]
fn dead_value_from_a_third_node_during_a_walk_does_not_stay() {
    let [ahead, mut old] = ahead_and_old();
    let dead: Vec<(u64, Object)> = [5, 15].map(|n| (n, old.get(n).unwrap())).into();
    for (nodes, fresh) in [([ahead.clone(), Node::new(3)], B), ([Node::new(3), ahead], A)] {
        at_any_step(&nodes, |run| {
            for (n, object) in &dead {
                let delta =
                    Delta { table: table(), key: key(*n), object: object.clone(), dots: vec![] };
                let items = vec![(delta, Evidence::Own)];
                let shard = Shard::of_number(u16::try_from(n % 2).unwrap() * 2);
                assert!(run.nodes[fresh].merge(shard, items, 250).remove(0).is_ok());
            }
        });
    }
}
