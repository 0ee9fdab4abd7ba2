//! Light tasks: crashes, limits, stops, and what is left of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weald_supervision::{
    BoxError, ChildSpec, Event, Intensity, Record, Root, RootExit, Scope, StartError, Status,
    Strategy, SupervisorSpec, TASKS_LISTED_MAX, TaskContext, TaskCounts, TasksHandle, TasksSpec,
    TreeNode,
};

use crate::support::{LONG, block_on, log_in, records, until};

const SHORT: Duration = Duration::from_millis(50);

/// Lives until it is cancelled.
async fn idle(context: TaskContext) -> Result<(), BoxError> {
    context.cancelled().await;
    Ok(())
}

async fn root(scope: &Scope, tasks: &TasksHandle, spec: TasksSpec) -> Root {
    let often = Intensity { max_restarts: 100, window: LONG };
    let spec = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(often)
        .child(ChildSpec::tasks("tasks", tasks, spec));
    Root::start(scope, "node", spec).await.unwrap()
}

fn of(scope: &Scope, event: Event) -> Vec<Record> {
    let below = |record: &Record| record.event == event && record.path.starts_with("node/tasks/");
    records(scope).into_iter().filter(below).collect()
}

async fn until_running(tasks: &TasksHandle, count: usize) {
    let state = || format!("{:?}", tasks.counts());
    until(&format!("{count} tasks"), || tasks.count() == count, state).await;
}

#[test]
fn tasks_ten_thousand_are_listed_in_part_and_stop_together() {
    block_on(async {
        let scope = Scope::new("n", None);
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec::default()).await;
        for number in 0..10_000 {
            tasks.start(&format!("session-{number}"), idle).unwrap();
        }
        assert_eq!(tasks.count(), 10_000);
        let listed = tasks.list();
        assert_eq!(listed.len(), TASKS_LISTED_MAX);
        assert_eq!(&*listed[99].path, "node/tasks/session-99");
        let tree = scope.tree();
        let node = &tree.children[0];
        assert_eq!((node.path.as_str(), node.tasks), ("node/tasks", Some(10_000)));
        assert_eq!(node.children.len(), TASKS_LISTED_MAX);
        assert_eq!(node.children[3].path, "node/tasks/session-3");
        assert_eq!(node.children[3].status, Status::Running);
        assert_eq!(scope.which_children("node/tasks").unwrap().len(), TASKS_LISTED_MAX);
        assert_eq!(scope.count_children("node/tasks").unwrap().active, 10_000);
        let report = root.shutdown(LONG).await;
        assert!(report.in_order, "{report:?}");
        assert_eq!(root.wait().await, RootExit::Shutdown);
        let all = TaskCounts { started: 10_000, ended: 10_000, ..TaskCounts::default() };
        assert_eq!(tasks.counts(), all);
        assert_eq!(tasks.start("late", idle), Err(StartError::Down));
    });
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("told to panic late");
    }
}

#[test]
fn tasks_crash_is_a_report_and_touches_no_other() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec::default()).await;
        for name in ["a", "b"] {
            tasks.start(name, idle).unwrap();
        }
        tasks.start("fine", |_| async { Ok(()) }).unwrap();
        tasks
            .start("panics", |_| async {
                tokio::task::yield_now().await;
                panic!("told to panic")
            })
            .unwrap();
        tasks.start("fails", |_| async { Err("told to err".into()) }).unwrap();
        tasks
            .start("late", |_| {
                let grenade = Grenade;
                async move {
                    let _held = &grenade;
                    Ok(())
                }
            })
            .unwrap();
        until_running(&tasks, 2).await;
        let counts = TaskCounts { running: 2, started: 6, ended: 1, crashed: 3, killed: 0 };
        assert_eq!(tasks.counts(), counts);
        let mut crashes = of(&scope, Event::ChildExited);
        crashes.sort_by(|a, b| a.path.cmp(&b.path));
        let told: Vec<_> = crashes
            .iter()
            .map(|r| (r.path.as_str(), r.reason.as_deref().unwrap(), r.error.as_deref().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("node/tasks/fails", "error", "told to err"),
                ("node/tasks/late", "panic", "told to panic late"),
                ("node/tasks/panics", "panic", "told to panic"),
            ]
        );
        let panic = &crashes[2];
        assert!(panic.location.as_ref().unwrap().contains("tasks.rs:"), "{panic:?}");
        assert!(panic.uptime_ms.is_some() && panic.actor_type.is_some());
        assert_eq!(panic.child.as_deref(), Some("panics"));
        assert_eq!(panic.restart.as_deref(), Some("temporary"));
        assert!(of(&scope, Event::ChildStarted).is_empty(), "orderly lives are counted only");
        assert_eq!(scope.get("node/tasks").unwrap().restarts, 0);
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn tasks_refused_start_runs_nothing() {
    block_on(async {
        let scope = Scope::new("n", None);
        let tasks = TasksHandle::new("tasks");
        assert_eq!(tasks.start("early", idle), Err(StartError::Down));
        let spec = TasksSpec { tasks_max: 2, ..TasksSpec::default() };
        let root = root(&scope, &tasks, spec).await;
        assert!(tasks.wait_up(LONG).await);
        assert!(matches!(tasks.start("a/b", idle), Err(StartError::InvalidSpec { .. })));
        let made = tasks.start("bad", |_| -> std::future::Ready<Result<(), BoxError>> {
            panic!("told to panic")
        });
        assert!(matches!(made, Err(StartError::Failed { .. })), "{made:?}");
        assert_eq!(tasks.count(), 0);
        // From a thread that is none of the runtime's, too.
        let other = tasks.clone();
        std::thread::spawn(move || other.start("a", idle)).join().unwrap().unwrap();
        tasks.start("a", idle).unwrap();
        assert_eq!(tasks.start("b", idle), Err(StartError::Full { max: 2 }));
        assert_eq!(tasks.counts().started, 2);
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn tasks_stop_drops_those_that_do_not_end() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec { shutdown: SHORT, ..Default::default() }).await;
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let stuck = TASKS_LISTED_MAX + 50;
        for number in 0..stuck {
            let held = Counted(Arc::clone(&dropped));
            tasks
                .start(&format!("stuck-{number}"), |_| async move {
                    let _held = held;
                    std::future::pending().await
                })
                .unwrap();
        }
        tasks.start("good", idle).unwrap();
        let report = root.shutdown(LONG).await;
        assert!(!report.deadline_passed, "{report:?}");
        assert_eq!(dropped.load(Ordering::SeqCst), stuck, "all are gone once the stop is over");
        let counts = tasks.counts();
        assert_eq!((counts.ended, counts.killed, counts.running), (1, stuck as u64, 0));
        let killed = of(&scope, Event::ChildKilled);
        assert_eq!(killed.len(), TASKS_LISTED_MAX);
        assert!(killed.iter().all(|record| record.reason.as_deref() == Some("timeout")));
        let rest = records(&scope);
        let rest = rest.iter().find(|r| r.event == Event::ChildKilled && r.path == "node/tasks");
        assert_eq!(rest.unwrap().siblings, Some(50));
    });
}

#[test]
fn tasks_stop_reports_what_cannot_be_killed_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    block_on(async {
        let scope = Scope::with_kill_wait("n", Some(log_in(dir.path())), SHORT);
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec { shutdown: SHORT, ..Default::default() }).await;
        tasks
            .start("blocks", move |_| async move {
                blocked.recv().ok();
                Ok(())
            })
            .unwrap();
        let report = root.shutdown(LONG).await;
        assert!(!report.deadline_passed, "{report:?}");
        let killed = of(&scope, Event::ChildKilled);
        assert_eq!(killed.len(), 1);
        assert_eq!(killed[0].reason.as_deref(), Some("unkillable"));
        drop(release);
        until_running(&tasks, 0).await;
    });
}

#[test]
fn tasks_of_a_killed_supervisor_are_gone_before_its_successor_starts() {
    block_on(async {
        let scope = Scope::new("n", None);
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec::default()).await;
        let alive = Arc::new(AtomicUsize::new(0));
        struct Alive(Arc<AtomicUsize>);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        for round in 1..=20_u64 {
            for number in 0..100 {
                alive.fetch_add(1, Ordering::SeqCst);
                let held = Alive(Arc::clone(&alive));
                tasks
                    .start(&format!("task-{number}"), |_| async move {
                        let _held = held;
                        std::future::pending().await
                    })
                    .unwrap();
            }
            assert_eq!(tasks.count(), 100);
            scope.kill("node/tasks").unwrap();
            let is_up = |node: TreeNode| node.restarts == round && node.status == Status::Running;
            let restarted = || scope.get("node/tasks").is_ok_and(is_up);
            until("a restart", restarted, || format!("{:?}", scope.tree())).await;
            assert!(tasks.wait_up(LONG).await);
            assert_eq!((tasks.count(), alive.load(Ordering::SeqCst)), (0, 0));
        }
        assert_eq!(tasks.counts().killed, 2000);
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn tasks_started_while_they_are_stopped_leave_nothing_running() {
    block_on(async {
        let scope = Scope::new("n", None);
        let tasks = TasksHandle::new("tasks");
        let root = root(&scope, &tasks, TasksSpec { shutdown: LONG, ..Default::default() }).await;
        let starter = {
            let tasks = tasks.clone();
            tokio::spawn(async move {
                let mut started = 0_u64;
                while tasks.start("one", idle).is_ok() {
                    started += 1;
                    tokio::task::yield_now().await;
                }
                started
            })
        };
        until("tasks", || tasks.count() > 100, || format!("{:?}", tasks.counts())).await;
        assert!(root.shutdown(LONG).await.in_order);
        let started = starter.await.unwrap();
        let counts = tasks.counts();
        assert_eq!((counts.started, counts.ended, counts.running), (started, started, 0));
    });
}
