//! Restarts through addresses: nothing stale, nothing lost in silence, names free when needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weald_supervision::ractor;
use weald_supervision::{
    Address, Backoff, CallError, ChildSpec, DynamicHandle, DynamicSpec, Event, Intensity, Restart,
    Root, RootExit, Scope, ScopeError, Shutdown, StartError, Status, Strategy, SupervisorSpec,
    TerminateError, Undelivered,
};

use crate::support::{Exclusive, LONG, Msg, Probe, block_on, log_in, records, until};

const MANY: Intensity = Intensity { max_restarts: 1_000_000, window: Duration::from_secs(1) };

#[test]
fn address_over_1000_kills_leads_to_the_successor_each_time() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(MANY)
            .child(probe.spec("w", &address));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let mut last = address.actor_id().unwrap();
        for round in 0..1000 {
            scope.kill("node/w").unwrap();
            assert!(
                !address.is_up() || address.actor_id() != Some(last),
                "round {round}: a stale address"
            );
            assert!(address.wait_up(LONG).await, "round {round}");
            assert_eq!(address.call(Msg::Ping, LONG).await, Ok(0), "round {round}");
            let id = address.actor_id().unwrap();
            assert_ne!(id, last);
            last = id;
            until(
                "running",
                || scope.get("node/w").unwrap().status == Status::Running,
                String::new,
            )
            .await;
        }
        assert_eq!(scope.get("node/w").unwrap().restarts, 1000);
        assert!(!probe.seen.all().iter().any(|line| line.starts_with("OVERLAP")));
        assert!(root.shutdown(LONG).await.in_order);
    });
}

#[test]
fn supervisor_over_300_kills_comes_back_whole_without_overlap() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let addresses: Vec<Address<Msg>> = (0..4).map(|i| Address::new(&format!("w{i}"))).collect();
        let probes: Vec<Probe> = (0..4).map(|i| Probe::new(&format!("w{i}"))).collect();
        let mut inner = SupervisorSpec::new(Strategy::RestForOne);
        for (i, (probe, address)) in probes.iter().zip(&addresses).enumerate() {
            inner = inner.child(probe.spec(&format!("w{i}"), address));
        }
        let deep =
            SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("inner", inner));
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(MANY)
            .child(ChildSpec::supervisor("deep", deep));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        for round in 0..300 {
            let before: Vec<_> = addresses.iter().map(Address::actor_id).collect();
            scope.kill("node/deep").unwrap();
            let renewed = || {
                addresses.iter().zip(&before).all(|(a, old)| a.is_up() && a.actor_id() != *old)
                    && scope.get("node/deep").unwrap().status == Status::Running
            };
            until("all four new", renewed, || format!("round {round}: {:?}", scope.tree())).await;
        }
        for probe in &probes {
            let seen = probe.seen.all();
            assert_eq!(seen, vec![format!("start {}", probe.path); 301], "no overlap, no failure");
        }
        assert!(root.shutdown(LONG).await.in_order);
        let leftovers = records(&scope);
        assert!(
            leftovers
                .iter()
                .any(|r| r.event == Event::ChildKilled && r.reason.as_deref() == Some("leftover"))
        );
        assert!(!leftovers.iter().any(|r| r.reason.as_deref() == Some("unkillable")));
    });
}

#[test]
fn cast_to_a_dead_child_gives_the_message_back() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        assert!(matches!(address.cast(Msg::Count), Err(Undelivered::Down(Msg::Count))));
        let backoff =
            Backoff { jitter_percent: 0, ..Backoff::new(Duration::from_millis(300), LONG, 1) };
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .backoff(backoff)
            .child(probe.spec("w", &address));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        address.cast(Msg::Count).unwrap();
        assert_eq!(address.call(Msg::Ping, LONG).await, Ok(1));
        assert_eq!(address.call(Msg::DropReply, LONG).await, Err(CallError::Lost));
        address.cast(Msg::Hang).unwrap();
        let waiting = address.call(Msg::Ping, LONG);
        assert_eq!(
            address.call(Msg::Ping, Duration::from_millis(20)).await,
            Err(CallError::Timeout)
        );
        scope.kill("node/w").unwrap();
        assert!(!address.is_up(), "down from the kill on");
        assert!(matches!(address.cast(Msg::Count), Err(Undelivered::Down(_))));
        assert_eq!(address.call(Msg::Ping, LONG).await, Err(CallError::Down));
        assert_eq!(waiting.await, Err(CallError::Lost));
        until(
            "restarting",
            || scope.get("node/w").unwrap().status == Status::Restarting,
            String::new,
        )
        .await;
        assert_eq!(scope.kill("node/w"), Err(ScopeError::NotRunning { path: "node/w".into() }));
        assert!(address.wait_up(LONG).await);
        assert_eq!(address.call(Msg::Ping, LONG).await, Ok(0), "a new state");
        root.shutdown(LONG).await;
        assert!(matches!(address.cast(Msg::Count), Err(Undelivered::Down(_))));
    });
}

#[test]
fn casts_under_constant_kills_are_handled_or_counted_as_lost() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let handled = Arc::new(AtomicU64::new(0));
        let address: Address<Add> = Address::new("w");
        let counter = Arc::clone(&handled);
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(MANY)
            .child(ChildSpec::worker("w", &address, move || (Adder(Arc::clone(&counter)), ())));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let mut accepted = 0u64;
        for round in 0..200u64 {
            address.wait_up(LONG).await;
            for i in 0..100u64 {
                if i == round % 100 {
                    address.cast(Add::Panic).ok();
                }
                accepted += u64::from(address.cast(Add::One).is_ok());
            }
            tokio::task::yield_now().await;
        }
        root.shutdown(LONG).await;
        let lost: u64 = records(&scope)
            .iter()
            .filter(|r| matches!(r.event, Event::ChildExited | Event::ChildStopped))
            .filter_map(|r| r.mailbox_depth)
            .sum();
        // `lost` counts waiting `Panic`s, too, so it may exceed the difference by those.
        let handled = handled.load(Ordering::SeqCst);
        assert!(
            handled <= accepted && accepted <= handled + lost,
            "{accepted} = {handled} + {lost}?"
        );
        assert!(handled > 0 && lost > 0);
    });
}

enum Add {
    One,
    Panic,
}
impl ractor::Message for Add {}
struct Adder(Arc<AtomicU64>);
impl ractor::Actor for Adder {
    type Msg = Add;
    type State = ();
    type Arguments = ();
    async fn pre_start(
        &self,
        _: ractor::ActorRef<Add>,
        (): (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }
    async fn handle(
        &self,
        _: ractor::ActorRef<Add>,
        message: Add,
        (): &mut (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        match message {
            Add::One => self.0.fetch_add(1, Ordering::SeqCst),
            Add::Panic => panic!("chaos"),
        };
        Ok(())
    }
}

#[test]
fn full_mailbox_refuses_and_recovers() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::with_capacity("w", 3), Probe::new("w"));
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(probe.spec("w", &address));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let (release, block) = std::sync::mpsc::channel();
        address.cast(Msg::Block(block)).unwrap();
        until("blocked", || address.depth() == 0, String::new).await;
        for _ in 0..3 {
            address.cast(Msg::Count).unwrap();
        }
        assert!(matches!(address.cast(Msg::Count), Err(Undelivered::Full(_))));
        assert_eq!(address.call(Msg::Ping, LONG).await, Err(CallError::Down));
        assert_eq!((address.depth(), scope.get("node/w").unwrap().mailbox_depth), (3, 3));
        drop(release);
        until("drained", || address.depth() == 0, String::new).await;
        assert_eq!(address.call(Msg::Ping, LONG).await, Ok(3));
        root.shutdown(LONG).await;
    });
}

#[test]
fn child_that_never_starts_again_escalates_to_the_root() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let (a, b) = (Address::new("a"), Address::new("b"));
        let (pa, pb) = (
            Probe::new("a"),
            Probe { path: "b".into(), exclusive: Exclusive::default(), ..Probe::new("a") },
        );
        let pb = Probe { seen: pa.seen.clone(), failing: pa.failing.clone(), ..pb };
        let inner = SupervisorSpec::new(Strategy::OneForOne)
            .child(pa.spec("a", &a))
            .child(pb.spec("b", &b));
        let spec =
            SupervisorSpec::new(Strategy::OneForOne).child(ChildSpec::supervisor("s", inner));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        pa.failing.add("a", 255);
        a.cast(Msg::Panic).unwrap();
        let RootExit::GaveUp { report } = root.wait().await else { panic!("expected to give up") };
        assert!(report.contains("more than 5 restarts"), "{report}");
        let log = records(&scope);
        let exceeded: Vec<_> = log.iter().filter(|r| r.event == Event::IntensityExceeded).collect();
        assert_eq!(exceeded.len(), 2, "the supervisor, then the root");
        assert_eq!((exceeded[0].path.as_str(), exceeded[1].path.as_str()), ("node/s", "node"));
        assert_eq!(exceeded[0].restart_in_window, Some(6));
        assert_eq!(pa.seen.all().last().unwrap(), "fail a");
        assert!(!b.is_up());
    });
}

#[test]
fn dynamic_children_are_unique_bounded_and_restarted_alone() {
    block_on(async {
        let scope = Scope::new("n", None);
        let handle = DynamicHandle::new("d");
        let down = handle.start_child(Probe::new("x").spec("x", &Address::new("x"))).await;
        assert_eq!(down, Err(StartError::Down));
        let limits =
            DynamicSpec { restart: Restart::Permanent, max_children: 3, ..Default::default() };
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .child(ChildSpec::dynamic("d", &handle, limits));
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let addresses: Vec<Address<Msg>> = (0..3).map(|_| Address::new("w")).collect();
        let probe = Probe::new("w");
        for (i, address) in addresses.iter().enumerate() {
            let own = Probe { exclusive: Exclusive::default(), ..probe.clone() };
            let path = handle.start_child(own.spec(&i.to_string(), address)).await.unwrap();
            assert_eq!(path, format!("node/d/{i}"));
        }
        let extra = Address::new("extra");
        let duplicate = handle.start_child(probe.spec("1", &extra)).await;
        assert_eq!(duplicate, Err(StartError::Duplicate { id: "1".into() }));
        let full = handle.start_child(probe.spec("9", &extra)).await;
        assert_eq!(full, Err(StartError::Full { max: 3 }));
        assert_eq!(handle.count(), 3);
        addresses[1].cast(Msg::Fail).unwrap();
        until(
            "restarted",
            || scope.get("node/d/1").is_ok_and(|n| n.restarts == 1 && n.status == Status::Running),
            String::new,
        )
        .await;
        assert_eq!(addresses[1].call(Msg::Ping, LONG).await, Ok(0));
        handle.terminate_child("1").await.unwrap();
        assert_eq!(
            handle.terminate_child("1").await,
            Err(TerminateError::NotFound { id: "1".into() })
        );
        assert!(!addresses[1].is_up());
        probe.failing.add("w", 1);
        let failed = handle.start_child(probe.spec("1", &addresses[1])).await;
        assert!(matches!(failed, Err(StartError::Failed { .. })), "{failed:?}");
        assert_eq!((handle.count(), addresses[1].is_up()), (2, false));
        handle.start_child(probe.spec("1", &addresses[1])).await.unwrap();
        let bad = handle.start_child(probe.spec("a/b", &extra)).await;
        assert!(matches!(bad, Err(StartError::InvalidSpec { .. })));
        assert_eq!(scope.count_children("node/d").unwrap().active, 3);
        // Its children do not survive it.
        scope.kill("node/d").unwrap();
        until("empty again", || handle.is_up() && handle.count() == 0, String::new).await;
        assert!(addresses.iter().all(|a| !a.is_up()));
        root.shutdown(LONG).await;
    });
}

#[test]
fn temporary_and_transient_children_stay_down_as_they_should() {
    block_on(async {
        let scope = Scope::new("n", None);
        let names = ["permanent", "transient_ok", "transient_bad", "temporary"];
        let kinds =
            [Restart::Permanent, Restart::Transient, Restart::Transient, Restart::Temporary];
        let addresses: Vec<Address<Msg>> = names.iter().map(|n| Address::new(n)).collect();
        let mut spec = SupervisorSpec::new(Strategy::OneForOne);
        for ((name, kind), address) in names.iter().zip(kinds).zip(&addresses) {
            spec = spec.child(Probe::new(name).spec(name, address).restart(kind));
        }
        let root = Root::start(&scope, "node", spec).await.unwrap();
        addresses[0].cast(Msg::Stop).unwrap();
        addresses[1].cast(Msg::Stop).unwrap();
        scope.kill("node/transient_bad").unwrap();
        scope.kill("node/temporary").unwrap();
        let settled = || {
            scope.get("node/permanent").is_ok_and(|n| n.restarts == 1)
                && scope.get("node/transient_ok").is_ok_and(|n| n.status == Status::Stopped)
                && scope.get("node/transient_bad").is_ok_and(|n| n.restarts == 1)
                && scope.get("node/temporary").is_err()
        };
        until("settled", settled, || format!("{:?}", scope.tree())).await;
        let kept: Vec<_> =
            scope.which_children("node").unwrap().into_iter().map(|n| n.id).collect();
        assert_eq!(kept, names[..3]);
        root.shutdown(LONG).await;
    });
}

#[test]
fn brutal_shutdown_skips_post_stop() {
    block_on(async {
        let scope = Scope::new("n", None);
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        let child = probe.spec("w", &address).shutdown(Shutdown::Brutal);
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(child);
        let root = Root::start(&scope, "node", spec).await.unwrap();
        let report = root.shutdown(LONG).await;
        assert_eq!(report.killed, ["node/w"]);
        assert_eq!(probe.seen.all(), ["start w"]);
    });
}

#[test]
fn actor_that_kills_itself_leaves_no_address_behind() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("n", Some(log_in(dir.path())));
        let (address, probe) = (Address::new("w"), Probe::new("w"));
        let child = probe.spec("w", &address).restart(Restart::Temporary);
        let spec = SupervisorSpec::new(Strategy::OneForOne).child(child);
        let root = Root::start(&scope, "node", spec).await.unwrap();
        address.cast(Msg::KillSelf).unwrap();
        until("gone", || scope.get("node/w").is_err(), String::new).await;
        assert!(!address.is_up());
        assert!(matches!(address.cast(Msg::Count), Err(Undelivered::Down(_))));
        root.shutdown(LONG).await;
        let exit = records(&scope).into_iter().find(|r| r.event == Event::ChildExited).unwrap();
        assert_eq!((exit.reason.as_deref(), exit.error), (Some("killed"), None), "no drill");
    });
}

/// Holds what only one may hold, and takes its time to let go, as a file that is flushed does.
struct SlowToLetGo(Exclusive);
struct Held(Option<crate::support::Token>);
impl Drop for Held {
    fn drop(&mut self) {
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        wait.recv_timeout(Duration::from_millis(20)).ok();
        drop(self.0.take());
    }
}
impl ractor::Actor for SlowToLetGo {
    type Msg = Msg;
    type State = Held;
    type Arguments = ();
    async fn pre_start(
        &self,
        _: ractor::ActorRef<Msg>,
        (): (),
    ) -> Result<Held, ractor::ActorProcessingErr> {
        Ok(Held(Some(self.0.take().ok_or("the state before is still there")?)))
    }
    async fn handle(
        &self,
        _: ractor::ActorRef<Msg>,
        _: Msg,
        _: &mut Held,
    ) -> Result<(), ractor::ActorProcessingErr> {
        panic!("told to panic")
    }
}

#[test]
fn state_of_the_dead_is_dropped_before_the_successor_starts() {
    block_on(async {
        let scope = Scope::new("n", None);
        let addresses: Vec<Address<Msg>> = (0..2).map(|_| Address::new("w")).collect();
        let mut spec = SupervisorSpec::new(Strategy::OneForAll)
            .intensity(Intensity { max_restarts: 10, window: LONG });
        for (i, address) in addresses.iter().enumerate() {
            let exclusive = Exclusive::default();
            let factory = move || (SlowToLetGo(exclusive.clone()), ());
            spec = spec.child(ChildSpec::worker(&i.to_string(), address, factory));
        }
        let root = Root::start(&scope, "node", spec).await.unwrap();
        // By turns after a panic, after a kill, and (the sibling, each time) after an orderly stop.
        for round in 1..=10u64 {
            if round % 2 == 0 {
                addresses[0].cast(Msg::Count).unwrap();
            } else {
                scope.kill("node/0").unwrap();
            }
            let again = |id| {
                scope.get(id).is_ok_and(|n| n.restarts == round && n.status == Status::Running)
            };
            let both = || again("node/0") && again("node/1");
            until("both again, at once", both, || format!("{:?}", scope.tree())).await;
        }
        root.shutdown(LONG).await;
    });
}
