//! Any divergence converges.

use proptest::prelude::*;
use weald_exchange::core::{Input, Limits, Session};

use crate::nodes::{A, B, Node, assert_equal, exchange};

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u64),
    Delete(usize, u64),
    Exchange(usize, usize),
    /// All sweep what the first so many have.
    Sweep(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..3, 0_u64..12).prop_map(|(node, n)| Step::Put(node, n)),
        3 => (0_usize..3, 0_u64..12).prop_map(|(node, n)| Step::Delete(node, n)),
        2 => (0_usize..3, 0_usize..3).prop_map(|(a, b)| Step::Exchange(a, b)),
        1 => (1_usize..4).prop_map(Step::Sweep),
    ];
    prop::collection::vec(step, 0..60)
}

fn meet(nodes: &mut [Node], a: usize, b: usize, now_ms: u64) {
    let run = exchange([nodes[a].clone(), nodes[b].clone()], now_ms);
    let [x, y] = run.nodes;
    (nodes[a], nodes[b]) = (x, y);
}

/// Who does not take part in a sweep is fenced: it is a member no more until it has met those that do.
fn play(steps: &[Step]) -> Vec<Node> {
    let mut nodes: Vec<Node> = (1..=3).map(Node::new).collect();
    let mut fenced = [false; 3];
    let mut now_ms = 1_000;
    for (number, step) in steps.iter().enumerate() {
        now_ms += 10;
        match *step {
            Step::Put(node, n) => nodes[node].put(n, format!("v{number}").as_bytes(), now_ms),
            Step::Delete(node, n) => nodes[node].delete(n, now_ms),
            Step::Exchange(a, b) if a != b => {
                meet(&mut nodes, a, b, now_ms);
                if !fenced[a] || !fenced[b] {
                    (fenced[a], fenced[b]) = (false, false);
                }
            }
            Step::Exchange(..) => {}
            Step::Sweep(with) => {
                fenced[with..].fill(true);
                let members: Vec<usize> = (0..3).filter(|n| !fenced[*n]).collect();
                let mut swept: Vec<Node> = members.iter().map(|n| nodes[*n].clone()).collect();
                if !swept.is_empty() {
                    Node::sweep_all(&mut swept, now_ms);
                }
                for (at, node) in members.into_iter().zip(swept) {
                    nodes[at] = node;
                }
            }
        }
    }
    for _ in 0..3 {
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            now_ms += 10;
            meet(&mut nodes, a, b, now_ms);
        }
    }
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_divergence_converges(steps in steps()) {
        let nodes = play(&steps);
        assert_equal(&nodes[0], &nodes[1]);
        assert_equal(&nodes[1], &nodes[2]);
        let mut nodes = nodes;
        Node::sweep_all(&mut nodes, 1_000_000);
        for node in &nodes {
            prop_assert_eq!(node.rows(), node.state().len(), "no tombstone is left");
        }
        let run = exchange([nodes[0].clone(), nodes[2].clone()], 2_000_000);
        prop_assert_eq!(run.messages, [1, 1]);
        prop_assert!(run.ended[A].is_some() && run.ended[B].is_some());
    }

    #[test]
    fn any_frames_are_survived(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        tag in 0_u8..16,
    ) {
        let limits = Limits { idle_ms: 10, total_ms: 100 };
        let mut node = Node::new(1);
        node.put(1, b"x", 1);
        for begins in [true, false] {
            let mut session = if begins {
                Session::initiate(weald_exchange::core::Mode::Exchange, 0, limits, &node, 0).0
            } else {
                Session::respond(limits, 0)
            };
            for (number, body) in (0_u32..).zip(&frames) {
                let mut frame = number.to_be_bytes().to_vec();
                frame.extend([0, tag]);
                frame.extend(body);
                session.handle(&node, 1, Input::Frame(frame));
            }
            session.handle(&node, 50, Input::Tick);
            prop_assert!(session.is_finished());
        }
    }
}
