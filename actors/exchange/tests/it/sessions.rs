//! Single sessions, case by case.

use weald_exchange::core::{Failed, Input, Mode};
use weald_storage::Replicated;

use crate::nodes::{A, B, Node, Run, assert_equal, exchange};

/// Two nodes with the same keys.
fn equal(keys: u64) -> [Node; 2] {
    let mut a = Node::new(1);
    (0..keys).for_each(|n| a.put(n, b"same", 1));
    let b = Node::new(2);
    let run = exchange([a, b], 2);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    run.nodes
}

#[test]
fn equal_nodes_say_one_message_each() {
    let run = exchange(equal(100), 10);
    assert_eq!(run.messages, [1, 1]);
    for ended in run.ended {
        let outcome = ended.unwrap();
        assert_eq!(outcome.result, Ok(true));
        assert!(outcome.counters.bytes_in < 500, "{:?}", outcome.counters);
    }
}

#[test]
fn cost_follows_the_difference() {
    let mut nodes = equal(20_000);
    (0..5).for_each(|n| nodes[A].put(n * 1_000, b"from a", 10));
    (0..5).for_each(|n| nodes[B].put(n * 1_001 + 7, b"from b", 10));
    let run = exchange(nodes, 11);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    let counters = run.ended[A].as_ref().unwrap().counters;
    assert_eq!((counters.objects_in, counters.objects_out, counters.walks), (5, 5, 0));
    assert!(counters.bytes_in + counters.bytes_out < 4_096, "{counters:?}");
    assert!(counters.frames_in + counters.frames_out < 24, "{counters:?}");
}

#[test]
fn fresh_node_gets_what_was_swept() {
    let mut full = Node::new(1);
    (0..3_000).for_each(|n| full.put(n, b"old", 1));
    (0..1_000).for_each(|n| full.delete(n, 2));
    let mut nodes = [full];
    Node::sweep_all(&mut nodes, 100);
    let [full] = nodes;
    assert_eq!(full.rows(), 2_000, "the deletes are gone for good");
    for fresh_begins in [true, false] {
        let nodes = [full.clone(), Node::new(2)];
        let nodes = if fresh_begins { [nodes[1].clone(), nodes[0].clone()] } else { nodes };
        let run = exchange(nodes, 200);
        assert_equal(&run.nodes[A], &run.nodes[B]);
        let counters = run.ended[A].as_ref().unwrap().counters;
        assert!(counters.walks > 0, "{counters:?}");
        assert_eq!(run.ended[A].as_ref().unwrap().result, Ok(true));
        let again = exchange(run.nodes, 300);
        assert_eq!(again.messages, [1, 1]);
    }
}

#[test]
fn many_large_objects_travel_in_bounded_frames_and_windows() {
    let mut a = Node::new(1);
    (0..200).for_each(|n| a.put(n, &vec![7; 50_000], 1));
    a.put(1_000, &vec![8; 1_000_000], 1);
    let run = exchange([a, Node::new(2)], 2);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    let counters = run.ended[A].as_ref().unwrap().counters;
    assert!(counters.bytes_out < counters.frames_out * 262_144 + 1);
    assert!(counters.bytes_out < 11_500_000, "no object is sent twice: {counters:?}");
    assert!(run.flying_max < 24, "{}", run.flying_max);
}

#[test]
fn absent_node_learns_of_deletes_that_were_swept() {
    let [mut a, old] = equal(50);
    (0..20).for_each(|n| a.delete(n, 10));
    (50..60).for_each(|n| a.put(n, b"new", 10));
    // The absent one was fenced: it does not hold back the sweep.
    let mut alone = [a];
    Node::sweep_all(&mut alone, 100);
    let [a] = alone;
    for nodes in [[a.clone(), old.clone()], [old, a]] {
        let mut run = exchange(nodes, 200);
        assert_equal(&run.nodes[A], &run.nodes[B]);
        assert!((0..20).all(|n| run.nodes[A].get(n).is_none()), "nothing rises from the dead");
        assert!((20..60).all(|n| run.nodes[A].get(n).is_some()));
    }
}

#[test]
fn absent_node_keeps_what_only_it_has() {
    let [mut a, mut old] = equal(50);
    (0..20).for_each(|n| a.delete(n, 10));
    let mut alone = [a];
    Node::sweep_all(&mut alone, 100);
    let [a] = alone;
    // Written in the absence, also over a key that was deleted meanwhile.
    old.put(5, b"newer", 150);
    old.put(70, b"only here", 150);
    let mut run = exchange([a, old], 200);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    assert!(run.nodes[A].get(5).is_some() && run.nodes[A].get(70).is_some());
    assert_eq!(run.nodes[A].state().len(), 32);
}

#[test]
fn restored_node_begins_a_new_life() {
    let [a, b] = equal(10);
    let backup = b.clone();
    let mut nodes = [a, b];
    nodes[B].put(100, b"told others", 10);
    let run = exchange(nodes, 11);
    let [a, _] = run.nodes;
    let run = Run::new([a, backup], Mode::Exchange, 21).finish();
    assert_eq!(run.ended[B].as_ref().unwrap().result, Err(Failed::Renewed));
    assert!(run.ended[A].as_ref().unwrap().result.is_err());
    let run = exchange(run.nodes, 22);
    let mut run = exchange(run.nodes, 23);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    assert!(run.nodes[B].get(100).is_some());
    let incarnations = run.nodes[B].replicas[0].clock().unwrap().iter().count();
    run.nodes[B].put(0, b"a new dot", 30);
    assert!(run.nodes[B].replicas[0].clock().unwrap().iter().count() > incarnations);
}

#[test]
fn lost_row_never_deletes_the_good_copy() {
    for repaired in [false, true] {
        for damaged_begins in [false, true] {
            let mut nodes = equal(200);
            let damaged = usize::from(!damaged_begins);
            [3, 4, 5].into_iter().for_each(|n| nodes[damaged].lose(n));
            if repaired {
                [3, 4, 5].into_iter().for_each(|n| nodes[damaged].repair_tree(n));
            }
            // Some other difference, so that there is something to talk about.
            nodes[A].put(300, b"x", 10);
            let run = exchange(nodes, 11);
            let mut run = exchange(run.nodes, 12);
            for side in [A, B] {
                let lost = [3, 4, 5].into_iter().filter(|n| run.nodes[side].get(*n).is_none());
                let lost: Vec<u64> = lost.collect();
                assert!(lost.is_empty() || (!repaired && side == damaged), "{side} {lost:?}");
            }
            if repaired {
                assert_equal(&run.nodes[A], &run.nodes[B]);
            }
        }
    }
}

/// A backup was restored, and nobody noticed before it wrote: one dot names two values.
#[test]
fn dot_that_was_used_twice_loses_no_value() {
    let [a, b] = equal(10);
    let mut restored = b.clone();
    let mut nodes = [a, b];
    nodes[B].put(100, b"told others", 10);
    let [a, _] = exchange(nodes, 11).nodes;
    restored.put(200, b"under the same dot", 20);
    let mut run = exchange([a, restored], 21);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    assert!(run.nodes[A].get(100).is_some() && run.nodes[A].get(200).is_some());
}

#[test]
fn lost_rows_of_a_node_that_was_away_do_not_delete_the_good_copies() {
    for writes in [false, true] {
        let [mut a, mut old] = equal(50);
        (0..10).for_each(|n| a.delete(n, 10));
        let mut alone = [a];
        Node::sweep_all(&mut alone, 100);
        let [a] = alone;
        // Lost, and found missing by a scrub: the bucket adds up without them.
        (20..25).for_each(|n| old.lose(n));
        (20..25).for_each(|n| old.repair_tree(n));
        if writes {
            old.put(60, b"both know something that the other does not", 150);
        }
        let mut run = exchange([a, old], 200);
        assert!((20..25).all(|n| run.nodes[A].get(n).is_some()), "{writes}");
        assert!((0..10).all(|n| run.nodes[B].get(n).is_none()), "{writes}");
        run = exchange(run.nodes, 300);
        assert_equal(&run.nodes[A], &run.nodes[B]);
        assert!((20..25).all(|n| run.nodes[B].get(n).is_some()), "healed {writes}");
    }
}

/// The node that has lost rows is the one that has forgotten deletes: what it lacks must not pass for deleted.
#[test]
fn lost_rows_of_a_node_that_is_ahead_do_not_delete_the_good_copies() {
    for damaged_begins in [true, false] {
        let [mut ahead, mut old] = equal(50);
        (0..10).for_each(|n| ahead.delete(n, 10));
        let mut alone = [ahead];
        Node::sweep_all(&mut alone, 100);
        let [mut ahead] = alone;
        (20..25).for_each(|n| ahead.lose(n));
        (20..25).for_each(|n| ahead.repair_tree(n));
        old.put(60, b"so that both lack something", 150);
        let (nodes, damaged) = if damaged_begins { ([ahead, old], A) } else { ([old, ahead], B) };
        let mut run = exchange(nodes, 200);
        for side in [A, B] {
            assert!((20..25).all(|n| run.nodes[side].get(n).is_some()), "{side}");
        }
        // Once it was compared with everybody, it counts again: the other one learns what was deleted.
        let compared: usize = run.compared(damaged).iter().map(|c| c.buckets.len()).sum();
        assert_eq!((compared, run.compared(1 - damaged).len()), (5, 0));
        run = exchange(run.nodes, 300);
        assert_equal(&run.nodes[A], &run.nodes[B]);
        assert!((0..10).all(|n| run.nodes[A].get(n).is_none()));
        assert!(run.compared(damaged).is_empty(), "no mark is left");
    }
}

/// Where there are always writes, clocks are never equal; a marked bucket is compared all the same.
#[test]
fn lost_rows_come_back_while_others_write() {
    for damaged in [A, B] {
        let mut nodes = equal(50);
        nodes[damaged].lose(3);
        nodes[damaged].repair_tree(3);
        nodes[1 - damaged].put(61, b"in the same shard", 10);
        let mut run = exchange(nodes, 11);
        assert_eq!(run.compared(damaged).len(), 1);
        assert!(run.nodes[damaged].get(3).is_some());
        assert_equal(&run.nodes[A], &run.nodes[B]);
    }
}

/// Equal shards are opened all the same by the side that has marks: whether the peer's are sound has to be asked.
#[test]
fn equal_shards_take_marks_off_where_the_session_begins() {
    let mut nodes = equal(10);
    for side in [A, B] {
        nodes[side].lose(3);
        nodes[side].repair_tree(3);
    }
    for side in [A, B] {
        let run = exchange(nodes, 10);
        assert_eq!(run.compared(A).len(), 1, "{side}");
        let marks = |node: &Node| -> usize {
            node.replicas.iter().map(|replica| replica.damaged().unwrap().len()).sum()
        };
        assert_eq!(run.nodes.each_ref().map(marks), [0, 1 - side], "{side}");
        let [a, b] = run.nodes;
        nodes = [b, a];
    }
    assert_eq!(exchange(nodes, 10).messages, [1, 1]);
}

#[test]
fn clock_is_not_taken_over_when_something_was_refused() {
    let mut full = Node::new(1);
    (0..50).for_each(|n| full.put(n, b"old", 1));
    let mut alone = [full];
    Node::sweep_all(&mut alone, 100);
    let [full] = alone;
    for fresh_begins in [true, false] {
        let mut fresh = Node::new(2);
        fresh.refuses = Some(7);
        let nodes = if fresh_begins { [fresh, full.clone()] } else { [full.clone(), fresh] };
        let run = exchange(nodes, 200);
        let fresh = usize::from(!fresh_begins);
        for ended in &run.ended {
            assert_eq!(ended.as_ref().unwrap().result, Ok(false));
        }
        let mut nodes = run.nodes;
        assert_eq!(nodes[fresh].state().len(), 49);
        nodes[fresh].refuses = None;
        let run = exchange(nodes, 300);
        assert_eq!(run.ended[A].as_ref().unwrap().result, Ok(true));
        assert_equal(&run.nodes[A], &run.nodes[B]);
        assert_eq!(run.nodes[fresh].state().len(), 50);
    }
}

/// The clocks differ, and nobody can say by which keys.
#[test]
fn damaged_index_of_events_leads_to_a_walk() {
    let mut nodes = equal(50);
    (50..60).for_each(|n| nodes[A].put(n, b"new", 10));
    (0..10).for_each(|n| nodes[A].delete(n, 10));
    nodes[A].replicas.iter_mut().for_each(|replica| replica.forgot = true);
    let run = exchange(nodes, 11);
    assert_equal(&run.nodes[A], &run.nodes[B]);
    assert_eq!(run.nodes[B].state().len(), 50);
}

#[test]
fn looking_finds_the_difference_and_changes_nothing() {
    let mut nodes = equal(500);
    nodes[A].put(1_000, b"here", 10);
    (0..30).for_each(|n| nodes[B].put(2_000 + n, b"there", 10));
    nodes[A].put(7, b"changed", 10);
    let before = [nodes[A].state(), nodes[B].state()];
    let run = Run::new(nodes, Mode::Look, 11).finish();
    assert_eq!([run.nodes[A].state(), run.nodes[B].state()], before);
    let report = run.ended[A].as_ref().unwrap().diff.clone().unwrap();
    assert_eq!(
        (report.keys_lacking_here, report.keys_lacking_there, report.keys_differing),
        (30, 1, 1)
    );
    assert_eq!((report.events_lacking_here, report.events_lacking_there), (30, 2));
    assert_eq!((report.shards, report.first.len()), (2, 20));
}

#[test]
fn death_of_a_side_at_any_step_ends_the_session_and_the_next_one_completes() {
    let mut full = Node::new(1);
    (0..60).for_each(|n| full.put(n, b"old", 1));
    let mut nodes = [full];
    Node::sweep_all(&mut nodes, 100);
    let [mut full] = nodes;
    (300..330).for_each(|n| full.put(n, &[1; 10_000], 150));
    let mut other = Node::new(2);
    (1_000..1_010).for_each(|n| other.put(n, b"mine", 150));
    let steps = exchange([full.clone(), other.clone()], 200).steps;
    assert!(steps > 40, "{steps}");
    for at in 0..steps {
        let dies = at % 2;
        let mut run = Run::new([full.clone(), other.clone()], Mode::Exchange, 200);
        (0..at).for_each(|_| {
            run.step();
        });
        run.kill(dies);
        while run.step() {}
        let lives = 1 - dies;
        if run.ended[lives].is_none() {
            run.now_ms = run.next_deadline(lives).unwrap();
            run.input(lives, Input::Tick);
            while run.step() {}
        }
        assert!(run.ended[lives].is_some(), "step {at}");
        let run = exchange(run.nodes, run.now_ms + 1);
        assert_equal(&run.nodes[A], &run.nodes[B]);
    }
}
