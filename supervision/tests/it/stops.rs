//! Starts and stops: order, time-outs, kills, and what cannot be killed.

use std::time::Duration;

use weald_supervision::ractor;
use weald_supervision::{
    Address, AutoShutdown, Backoff, ChildSpec, DynamicHandle, DynamicSpec, Event, Intensity, Kind,
    Record, Restart, Root, RootExit, Scope, Shutdown, StartError, Status, Strategy, SupervisorSpec,
    TaskContext,
};

use crate::support::{Exclusive, LONG, Msg, Probe, block_on, log_in, records, until};

const SHORT: Duration = Duration::from_millis(50);

/// Three workers a, b, c that share one diary.
fn three() -> (Probe, Vec<Address<Msg>>, SupervisorSpec) {
    let probe = Probe::new("");
    let mut spec = SupervisorSpec::new(Strategy::OneForOne);
    let mut addresses = Vec::new();
    for id in ["a", "b", "c"] {
        let address = Address::new(id);
        let own = Probe { path: id.into(), exclusive: Exclusive::default(), ..probe.clone() };
        spec = spec.child(own.spec(id, &address).shutdown(Shutdown::Timeout(SHORT)));
        addresses.push(address);
    }
    (probe, addresses, spec)
}

#[test]
fn children_start_in_order_and_stop_in_reverse() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (probe, _addresses, spec) = three();
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let tree = scope.tree();
        assert_eq!(
            (tree.path.as_str(), tree.kind, tree.status),
            ("node", Kind::Supervisor, Status::Running)
        );
        assert_eq!(tree.strategy, Some(Strategy::OneForOne));
        assert_eq!(
            tree.children.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(),
            ["node/a", "node/b", "node/c"]
        );
        let json = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::from_str::<weald_supervision::TreeNode>(&json).unwrap(), tree);
        let report = root.shutdown(LONG).await;
        assert!(report.in_order && !report.deadline_passed, "{report:?}");
        assert_eq!(
            probe.seen.all(),
            ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
        );
        assert_eq!(root.wait().await, RootExit::Shutdown);
        assert!(root.shutdown(LONG).await.in_order, "again");
        assert!(scope.tree().children.is_empty());
    });
}

#[test]
fn failing_boot_stops_what_was_started_in_reverse() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (probe, addresses, spec) = three();
        probe.failing.add("c", 1);
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("s", spec));
        let error = Root::start(&scope, "node", spec.clone()).await.unwrap_err();
        let StartError::Failed { path, reason, error, .. } = error else { panic!("{error}") };
        assert_eq!(
            (path.as_str(), reason.as_str(), error.as_str()),
            ("node/s/c", "error", "told to fail")
        );
        assert_eq!(probe.seen.all(), ["start a", "start b", "fail c", "stop b", "stop a"]);
        assert!(addresses.iter().all(|a| !a.is_up()));
        // The same specification starts once the fault is gone.
        let root = Root::start(&scope, "node", spec).await.unwrap();
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn stuck_child_is_killed_after_its_time_and_the_rest_stops_in_order() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (probe, addresses, spec) = three();
        let root = Root::start(&scope, "node", spec).await.unwrap();
        addresses[1].cast(Msg::Hang).unwrap();
        until("hanging", || addresses[1].depth() == 0, String::new).await;
        let report = root.shutdown(LONG).await;
        assert_eq!(report.killed, ["node/b"]);
        assert!(!report.in_order && !report.deadline_passed);
        assert!(report.elapsed_ms >= 50 && report.elapsed_ms < 5000, "{report:?}");
        assert_eq!(probe.seen.all()[3..], ["stop c", "stop a"]);
    });
}

#[test]
fn blocked_child_is_reported_as_unkillable_not_waited_for() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let log = log_in(dir.path());
        let scope = Scope::with_kill_wait("n", Some(log), SHORT);
        let (probe, addresses, spec) = three();
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let (release, block) = std::sync::mpsc::channel();
        addresses[1].cast(Msg::Block(block)).unwrap();
        until("blocked", || addresses[1].depth() == 0, String::new).await;
        let report = root.shutdown(LONG).await;
        assert_eq!(report.unkillable, ["node/b"]);
        assert!(report.elapsed_ms < 5000, "{report:?}");
        assert_eq!(probe.seen.all()[3..], ["stop c", "stop a"]);
        assert!(records(&scope).iter().any(|r| {
            r.event == Event::ChildKilled
                && r.path == "node/b"
                && r.reason.as_deref() == Some("unkillable")
        }));
        drop(release);
    });
}

#[test]
fn root_deadline_kills_what_is_left() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        let inner = SupervisorSpec::new(Strategy::OneForOne)
            .child(probe.spec("w", &address).shutdown(Shutdown::Infinity));
        let spec =
            SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("s", inner));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        address.cast(Msg::Hang).unwrap();
        until("hanging", || address.depth() == 0, String::new).await;
        let report = root.shutdown(SHORT).await;
        assert!(
            report.deadline_passed && report.killed.contains(&"node/s/w".to_owned()),
            "{report:?}"
        );
        assert!(scope.tree().children.is_empty());
        tokio::time::timeout(LONG, root.wait()).await.unwrap();
    });
}

#[test]
fn killed_root_leaves_nothing_running() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (_, addresses, spec) = three();
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("s", spec));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        scope.kill("node").unwrap();
        assert_eq!(root.wait().await, RootExit::Killed);
        assert!(addresses.iter().all(|a| !a.is_up()));
        assert!(scope.tree().children.is_empty());
    });
}

#[test]
fn start_that_takes_too_long_fails() {
    block_on(async {
        let scope = Scope::new("n", None);
        let address = Address::new("slow");
        let child = ChildSpec::worker("slow", &address, || (Slow, ())).start_timeout(SHORT);
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(child);
        let error = Root::start(&scope, "node", spec).await.unwrap_err();
        assert_eq!(error, StartError::Timeout { path: "node/slow".into(), limit: SHORT });
        assert!(!address.is_up());
    });
}

struct Slow;
impl ractor::Actor for Slow {
    type Msg = Msg;
    type State = ();
    type Arguments = ();
    async fn pre_start(
        &self,
        _: ractor::ActorRef<Msg>,
        (): (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        std::future::pending().await
    }
}

#[test]
fn significant_task_ends_its_supervisor_in_order() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (probe, _addresses, inner) = three();
        let job = ChildSpec::task("job", |cx: TaskContext| async move {
            assert_eq!(cx.path(), "node/s/job");
            Ok(())
        });
        let inner = inner
            .auto_shutdown(AutoShutdown::AnySignificant)
            .child(job.restart(Restart::Transient).significant(true));
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .child(ChildSpec::supervisor("s", inner).restart(Restart::Temporary));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        until("ended", || scope.get("node/s").is_err(), || format!("{:?}", scope.tree())).await;
        assert_eq!(probe.seen.all()[3..], ["stop c", "stop b", "stop a"]);
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn task_ends_on_cancellation_and_is_killed_when_it_does_not() {
    block_on(async {
        let scope = Scope::new("n", None);
        let probe = Probe::new("t");
        let seen = probe.seen.clone();
        let polite = ChildSpec::task("polite", move |cx: TaskContext| {
            let seen = seen.clone();
            async move {
                cx.cancelled().await;
                assert!(cx.is_cancelled());
                seen.push("cancelled".into());
                Ok(())
            }
        });
        let deaf =
            ChildSpec::task("deaf", |_| std::future::pending()).shutdown(Shutdown::Timeout(SHORT));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(polite).child(deaf);
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let report = root.shutdown(LONG).await;
        assert_eq!(report.killed, ["node/deaf"]);
        assert_eq!(probe.seen.all(), ["cancelled"]);
    });
}

#[test]
fn contradictory_specifications_are_refused_before_anything_starts() {
    block_on(async {
        let scope = Scope::new("n", None);
        let worker = |id: &str| Probe::new(id).spec(id, &Address::new(id));
        let one = || SupervisorSpec::new(Strategy::OneForOne);
        let any = || one().auto_shutdown(AutoShutdown::AnySignificant);
        let bad = [
            one().child(worker("a")).child(worker("a")),
            one().child(worker("")),
            one().child(worker("a/b")),
            any().child(worker("a").significant(true)),
            one().child(worker("a").restart(Restart::Transient).significant(true)),
            SupervisorSpec::new(Strategy::Dynamic),
            one().child(ChildSpec::supervisor("s", one().child(worker("x")).child(worker("x")))),
        ];
        for spec in bad {
            let error = Root::start(&scope, "node", spec).await.unwrap_err();
            assert!(matches!(error, StartError::InvalidSpec { .. }), "{error}");
        }
    });
}

#[test]
fn killed_supervisor_with_a_blocked_child_is_back_once_the_child_lets_go() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::with_kill_wait("n", Some(log_in(dir.path())), SHORT);
        let (probe, addresses, inner) = three();
        let many = Intensity { max_restarts: 1000, window: LONG };
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(many)
            .backoff(Backoff::new(SHORT, SHORT, 1))
            .child(ChildSpec::supervisor("s", inner));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let (release, block) = std::sync::mpsc::channel();
        addresses[1].cast(Msg::Block(block)).unwrap();
        until("blocked", || addresses[1].depth() == 0, String::new).await;
        scope.kill("node/s").unwrap();
        // The old b still holds what only one may hold: the new one cannot start, and says so.
        let refused = || probe.seen.all().iter().any(|line| line == "OVERLAP b");
        until("a refused start", refused, || format!("{:?}", probe.seen.all())).await;
        let unkillable =
            |r: &Record| r.path == "node/s/b" && r.reason.as_deref() == Some("unkillable");
        assert!(records(&scope).iter().any(unkillable));
        drop(release);
        let whole = || scope.get("node/s").is_ok_and(|n| n.status == Status::Running);
        until("whole again", whole, || format!("{:?}", scope.tree())).await;
        assert!(addresses.iter().all(Address::is_up));
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn thousands_of_dynamic_children_stop_at_the_same_time() {
    block_on(async {
        let scope = Scope::new("n", None);
        let handle = DynamicHandle::default();
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::dynamic(
            "d",
            &handle,
            DynamicSpec::default(),
        ));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        for i in 0..2000 {
            // Each takes 50 ms to end: one after the other would take 100 s.
            let slow = ChildSpec::task(&i.to_string(), |cx: TaskContext| async move {
                cx.cancelled().await;
                tokio::time::sleep(SHORT).await;
                Ok(())
            });
            handle.start_child(slow).await.unwrap();
        }
        assert_eq!(scope.count_children("node/d").unwrap().active, 2000);
        let report = root.shutdown(Duration::from_secs(60)).await;
        assert!(report.in_order && report.elapsed_ms < 20_000, "{report:?}");
    });
}
