//! Random trees through the real supervisors, compared with the model of OTP.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weald_supervision::{Address, ChildSpec, Intensity, Root, RootExit, Scope, SupervisorSpec};

use crate::otp::Otp;
use crate::support::{Exclusive, Failing, LONG, Msg, Probe, Seen, block_on, until};
use crate::tree::{Node, Step, steps, tree, worker_paths};

const CASES: u32 = 250;
/// No restart ever leaves the window: the model's clock stands still.
const WINDOW_MS: u64 = 3_600_000;

struct Real {
    seen: Seen,
    failing: Failing,
    addresses: BTreeMap<String, Address<Msg>>,
}

impl Real {
    fn spec(&mut self, node: &Node, path: &str) -> SupervisorSpec {
        let sup = node.sup.as_ref().unwrap();
        let mut spec =
            SupervisorSpec::new(sup.strategy).auto_shutdown(sup.auto).intensity(Intensity {
                max_restarts: sup.intensity,
                window: std::time::Duration::from_millis(sup.window_ms),
            });
        for child in &sup.children {
            let path = format!("{path}/{}", child.id);
            let made = if child.sup.is_some() {
                ChildSpec::supervisor(&child.id, self.spec(child, &path))
            } else {
                let address = Address::new(&path);
                self.addresses.insert(path.clone(), address.clone());
                let probe = Probe {
                    path,
                    seen: self.seen.clone(),
                    failing: self.failing.clone(),
                    exclusive: Exclusive::default(),
                };
                probe.spec(&child.id, &address)
            };
            spec = spec.child(made.restart(child.restart).significant(child.significant));
        }
        spec
    }
}

/// What workers can tell: the model's trace without the supervisors' lines.
fn of_workers(trace: &[String], workers: &[String]) -> Vec<String> {
    let is_worker = |line: &&String| {
        let (word, path) = line.split_once(' ').unwrap();
        word != "killed" && workers.iter().any(|w| w == path)
    };
    trace.iter().filter(is_worker).cloned().collect()
}

#[test]
fn random_trees_of_actors_behave_as_otp_does() {
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 8,
        ..Config::default()
    });
    runner.run(&(tree(WINDOW_MS), steps(1)), |(root, steps)| block_on(case(root, steps))).unwrap();
}

async fn case(root: Node, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let workers = worker_paths(&root);
    let mut otp = Otp::boot(&root);
    let mut real =
        Real { seen: Seen::default(), failing: Failing::default(), addresses: BTreeMap::new() };
    let spec = real.spec(&root, "r");
    let scope = Scope::new("test", None);
    let handle = Root::start(&scope, "r", spec).await.unwrap();
    for step in &steps {
        if let Step::FailStarts(pick, times) = step
            && !workers.is_empty()
        {
            real.failing.add(&workers[pick % workers.len()], *times);
        }
        let killed = act(step, &otp, &real, &scope);
        otp.step(step, &workers);
        let expected = of_workers(&otp.trace, &workers);
        settle(&expected, &real, &scope, &otp, killed, step).await;
    }
    let expected_exit = if otp.is_up() || otp.trace.last().is_some_and(|l| l == "auto r") {
        RootExit::Shutdown
    } else {
        RootExit::Killed // stands for "gave up" below
    };
    handle.shutdown(LONG).await;
    otp.shutdown();
    prop_assert_eq!(&real.seen.all(), &of_workers(&otp.trace, &workers), "after the shutdown");
    match handle.wait().await {
        RootExit::GaveUp { .. } => prop_assert_eq!(expected_exit, RootExit::Killed),
        exit => prop_assert_eq!(exit, expected_exit),
    }
    Ok(())
}

/// Does the step; returns the id of the supervisor it killed.
fn act(step: &Step, otp: &Otp, real: &Real, scope: &Scope) -> Option<String> {
    match step {
        Step::Exits(exits) => {
            let live = otp.live_workers();
            if let Some((pick, abnormal)) = exits.first().filter(|_| !live.is_empty()) {
                let path = &live[pick % live.len()];
                let message = match (abnormal, pick % 3) {
                    (false, _) => Msg::Stop,
                    (true, 0) => Msg::Panic,
                    (true, 1) => Msg::Fail,
                    (true, _) => {
                        real.seen.push(format!("exit {path}"));
                        scope.kill(path).unwrap();
                        return None;
                    }
                };
                real.addresses[path].cast(message).unwrap();
            }
        }
        Step::KillSup(pick) => {
            let live = otp.live_sups();
            if !live.is_empty() {
                let path = &live[pick % live.len()];
                let id = scope.get(path).unwrap().actor_id;
                scope.kill(path).unwrap();
                return Some(id);
            }
        }
        Step::FailStarts(..) | Step::Advance(_) => {}
    }
    None
}

/// Waits until the workers told what is expected, and the tree looks as it should: with nothing of
/// the supervisor that was killed, which may have had no worker to tell of it.
async fn settle(
    expected: &[String],
    real: &Real,
    scope: &Scope,
    otp: &Otp,
    killed: Option<String>,
    step: &Step,
) {
    let tree_fits = || {
        let root_runs = scope.tree().status == weald_supervision::Status::Running;
        if root_runs != otp.is_up() {
            return false;
        }
        let mut up = Vec::new();
        running(&scope.tree(), &mut up);
        let mut wanted: Vec<String> = otp.live_workers();
        wanted.extend(otp.live_sups());
        wanted.sort();
        up.sort();
        up == wanted && killed.as_ref().is_none_or(|id| !has_actor(&scope.tree(), id))
    };
    let fits = || real.seen.all() == expected && tree_fits();
    until("the expected order", fits, || {
        format!(
            "{step:?}\n expected {expected:?}\n seen {:?}\n tree {:?}",
            real.seen.all(),
            scope.tree()
        )
    })
    .await;
}

fn running(node: &weald_supervision::TreeNode, out: &mut Vec<String>) {
    for child in &node.children {
        if child.status == weald_supervision::Status::Running {
            out.push(child.path.clone());
        }
        running(child, out);
    }
}

fn has_actor(node: &weald_supervision::TreeNode, id: &str) -> bool {
    (node.actor_id == id && node.status == weald_supervision::Status::Running)
        || node.children.iter().any(|child| has_actor(child, id))
}
