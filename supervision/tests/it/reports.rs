//! Crash reports: what ended is told apart, and located.

use weald_supervision::{
    Address, ChildSpec, DynamicHandle, DynamicSpec, Event, Filter, Record, Restart, Root, Scope,
    Status, Strategy, SupervisorSpec,
};

use crate::support::{LONG, Msg, Probe, block_on, log_in, records, until};

async fn exit_of(message: Option<Msg>) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let scope = Scope::new("node-7", Some(log_in(dir.path())));
    let (address, probe) = (Address::new("w"), Probe::new("w"));
    let inner = SupervisorSpec::new(Strategy::RestForOne).child(probe.spec("w", &address));
    let spec = SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("s", inner));
    let root = Root::start(&scope, "node", spec).await.unwrap();
    let id = address.actor_id().unwrap().to_string();
    match message {
        Some(message) => {
            address.cast(message).unwrap();
            address.cast(Msg::Count).ok();
        }
        None => {
            address.cast(Msg::Hang).unwrap();
            until("hanging", || address.depth() == 0, String::new).await;
            address.cast(Msg::Count).unwrap();
            scope.kill("node/s/w").unwrap();
        }
    }
    until("restarted", || scope.get("node/s/w").unwrap().restarts == 1, String::new).await;
    root.shutdown(LONG).await;
    let all = records(&scope);
    let exits: Vec<_> = all.iter().filter(|r| r.event == Event::ChildExited).collect();
    assert_eq!(exits.len(), 1, "{exits:?}");
    let exit = exits[0].clone();
    assert_eq!((exit.node.as_str(), exit.path.as_str()), ("node-7", "node/s/w"));
    assert_eq!(exit.actor_id, Some(id));
    assert_eq!(exit.kind.as_deref(), Some("worker"));
    assert_eq!(exit.restart.as_deref(), Some("permanent"));
    assert_eq!(exit.strategy.as_deref(), Some("rest_for_one"));
    assert_eq!((exit.generation, exit.restarts), (Some(1), Some(0)));
    assert!(exit.uptime_ms.is_some() && exit.actor_type.as_deref().unwrap().ends_with("Probe"));
    exit
}

#[test]
fn panic_error_exit_and_kill_are_told_apart() {
    block_on(async {
        let handling =
            |r: &Record| r.message_type.as_deref().is_some_and(|t| t.ends_with("support::Msg"));

        let panic = exit_of(Some(Msg::Panic)).await;
        assert_eq!(panic.reason.as_deref(), Some("panic"));
        assert_eq!(panic.error.as_deref(), Some("told to panic"));
        let location = panic.location.clone().unwrap();
        assert!(location.contains("support.rs:"), "{location}");
        assert!(handling(&panic));

        let error = exit_of(Some(Msg::Fail)).await;
        assert_eq!(
            (error.reason.as_deref(), error.error.as_deref()),
            (Some("error"), Some("told to err"))
        );
        assert!(error.location.is_none() && handling(&error));

        let exit = exit_of(Some(Msg::Stop)).await;
        assert_eq!((exit.reason.as_deref(), exit.error.as_deref()), (Some("normal"), None));
        assert!(exit.message_type.is_none());

        let kill = exit_of(None).await;
        assert_eq!(
            (kill.reason.as_deref(), kill.error.as_deref()),
            (Some("killed"), Some("drill"))
        );
        assert!(handling(&kill), "it was killed while it handled a message");
        assert_eq!(kill.mailbox_depth, Some(1), "one message was lost");
    });
}

#[test]
fn task_panic_and_failed_start_are_reported_with_their_place() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let task =
            ChildSpec::task("t", |_| async { panic!("in a task") }).restart(Restart::Temporary);
        let factory = ChildSpec::task("f", |_| -> std::future::Ready<_> { panic!("in a factory") });
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .child(task)
            .child(factory.restart(Restart::Temporary));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        until("both gone", || scope.which_children("node").unwrap().is_empty(), String::new).await;
        root.shutdown(LONG).await;
        let address = Address::new("w");
        let child = ChildSpec::worker("w", &address, || -> (Probe, ()) { panic!("no actor") });
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(child);
        let error = Root::start(&scope, "node", spec).await.unwrap_err().to_string();
        assert!(error.contains("panic") && error.contains("no actor"), "{error}");
        let all = records(&scope);
        for (path, reason, text) in [
            ("node/t", "panic", "in a task"),
            ("node/f", "panic", "in a factory"),
            ("node/w", "start_failed", "no actor"),
        ] {
            let found =
                all.iter().find(|r| r.event == Event::ChildExited && r.path == path).unwrap();
            assert_eq!(found.reason.as_deref(), Some(reason));
            assert!(found.error.as_deref().unwrap().contains(text));
            assert!(found.location.as_deref().unwrap().contains("reports.rs:"));
        }
    });
}

#[test]
fn log_tells_the_story_of_a_restart_in_order() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let (a, b) = (Address::new("a"), Address::new("b"));
        let spec = SupervisorSpec::new(Strategy::OneForAll)
            .child(Probe::new("a").spec("a", &a))
            .child(Probe::new("b").spec("b", &b));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        a.cast(Msg::Panic).unwrap();
        until(
            "both again",
            || scope.get("node/b").unwrap().restarts == 1 && b.is_up(),
            String::new,
        )
        .await;
        root.shutdown(LONG).await;
        let story: Vec<String> = records(&scope)
            .iter()
            .map(|r| format!("{} {}", r.event, r.child.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(
            story,
            [
                "child_started a",
                "child_started b",
                "supervisor_started -",
                "child_exited a",
                "child_restarting a",
                "strategy_applied a",
                "child_stopping b",
                "child_stopped b",
                "child_restarted a",
                "child_restarted b",
                "child_stopping b",
                "child_stopped b",
                "child_stopping a",
                "child_stopped a",
                "supervisor_stopped -",
            ]
        );
        let log = scope.log().unwrap();
        let of_b = Filter {
            path: Some("node/b".into()),
            events: vec![Event::ChildStopped],
            ..Filter::default()
        };
        assert_eq!(log.query(&of_b).unwrap().len(), 2);
    });
}

#[test]
fn quiet_dynamic_supervisor_logs_crashes_only() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let handle = DynamicHandle::default();
        let limits = DynamicSpec { quiet: true, ..DynamicSpec::default() };
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .child(ChildSpec::dynamic("d", &handle, limits));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        for (id, message) in [("ok", Msg::Stop), ("bad", Msg::Panic)] {
            let address = Address::new(id);
            handle.start_child(Probe::new(id).spec(id, &address)).await.unwrap();
            address.cast(message).unwrap();
            until("gone", || handle.count() == 0, String::new).await;
        }
        root.shutdown(LONG).await;
        let all = records(&scope);
        let children: Vec<_> = all.iter().filter(|r| r.path.starts_with("node/d/")).collect();
        assert!(children.iter().all(|r| r.path == "node/d/bad"), "{children:?}");
        assert_eq!(children[0].event, Event::ChildExited);
    });
}

#[test]
fn records_are_traced_with_fields_under_the_target() {
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};

    #[derive(Default, Clone)]
    struct Catch(Arc<Mutex<Vec<String>>>);
    struct Fields(String);
    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.push_str(&format!("{}={value:?} ", field.name()));
        }
    }
    impl tracing::Subscriber for Catch {
        fn enabled(&self, meta: &tracing::Metadata<'_>) -> bool {
            meta.target() == "supervision"
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(format!("{} ", event.metadata().level()));
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let catch = Catch::default();
    let _default = tracing::subscriber::set_default(catch.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(probe.spec("w", &address));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        address.cast(Msg::Panic).unwrap();
        let again =
            || scope.get("node/w").is_ok_and(|n| n.restarts == 1 && n.status == Status::Running);
        until("restarted", again, String::new).await;
        root.shutdown(LONG).await;
    });
    let lines = catch.0.lock().unwrap().clone();
    let crash = lines.iter().find(|l| l.contains("event=\"child_exited\"")).unwrap();
    for part in [
        "ERROR",
        "node=n",
        "path=node/w",
        "reason=\"panic\"",
        "error=\"told to panic\"",
        "location=",
    ] {
        assert!(crash.contains(part), "{part} in {crash}");
    }
    assert!(lines.iter().any(|l| l.starts_with("WARN") && l.contains("child_restarting")));
}
