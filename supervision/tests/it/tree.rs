//! Random trees and random faults.

use proptest::prelude::*;
use weald_supervision::{AutoShutdown, Restart, Strategy as Fate};

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) restart: Restart,
    pub(crate) significant: bool,
    /// `None` for a worker.
    pub(crate) sup: Option<Sup>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sup {
    pub(crate) strategy: Fate,
    pub(crate) auto: AutoShutdown,
    pub(crate) intensity: u32,
    pub(crate) window_ms: u64,
    pub(crate) children: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These workers end at the same moment: (pick, abnormal).
    Exits(Vec<(usize, bool)>),
    /// The next starts of this worker fail: (pick among all workers, how often).
    FailStarts(usize, u8),
    /// A supervisor (never the root) is killed.
    KillSup(usize),
    Advance(u64),
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        4 => Just(Restart::Permanent),
        3 => Just(Restart::Transient),
        2 => Just(Restart::Temporary)
    ]
}

fn worker() -> impl Strategy<Value = Node> {
    (restart(), any::<bool>()).prop_map(|(restart, significant)| Node {
        id: String::new(),
        restart,
        significant,
        sup: None,
    })
}

fn sup_of(child: impl Strategy<Value = Node>, window_ms: u64) -> impl Strategy<Value = Node> {
    let strategy =
        prop_oneof![Just(Fate::OneForOne), Just(Fate::OneForAll), Just(Fate::RestForOne)];
    let auto = prop_oneof![
        2 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant)
    ];
    (restart(), any::<bool>(), strategy, auto, 0u32..4, prop::collection::vec(child, 0..5))
        .prop_map(move |(restart, significant, strategy, auto, intensity, children)| Node {
            id: String::new(),
            restart,
            significant,
            sup: Some(Sup { strategy, auto, intensity, window_ms, children }),
        })
}

/// A root supervisor with up to three levels below it, ids and significance made valid.
pub(crate) fn tree(window_ms: u64) -> impl Strategy<Value = Node> {
    let inner = worker().prop_recursive(
        3,
        24,
        4,
        move |child| prop_oneof![2 => worker(), 3 => sup_of(child, window_ms)],
    );
    sup_of(inner, window_ms).prop_map(|mut root| {
        root.id = "r".to_owned();
        root.significant = false;
        tidy(&mut root);
        root
    })
}

fn tidy(node: &mut Node) {
    let Some(sup) = &mut node.sup else { return };
    for (i, child) in sup.children.iter_mut().enumerate() {
        child.id = format!("c{i}");
        child.significant &= sup.auto != AutoShutdown::Never && child.restart != Restart::Permanent;
        tidy(child);
    }
}

pub(crate) fn steps(exits_at_once: usize) -> impl Strategy<Value = Vec<Step>> {
    let exits =
        prop::collection::vec((any::<usize>(), prop::bool::weighted(0.75)), 1..=exits_at_once);
    prop::collection::vec(
        prop_oneof![
            8 => exits.prop_map(Step::Exits),
            3 => (any::<usize>(), 1u8..6).prop_map(|(pick, n)| Step::FailStarts(pick, n)),
            1 => any::<usize>().prop_map(Step::KillSup),
            2 => (1u64..1500).prop_map(Step::Advance),
        ],
        0..20,
    )
}

/// Paths of all workers the tree can have.
pub(crate) fn worker_paths(node: &Node) -> Vec<String> {
    let mut out = Vec::new();
    collect(node, &node.id, &mut out);
    out
}

fn collect(node: &Node, path: &str, out: &mut Vec<String>) {
    match &node.sup {
        None => out.push(path.to_owned()),
        Some(sup) => {
            for child in &sup.children {
                collect(child, &format!("{path}/{}", child.id), out);
            }
        }
    }
}
