//! The ractor shell of a supervisor: carries out what [`Core`] decides.
//!
//! Supervised by: its parent supervisor, or [`crate::Root`]. Messages in: exits of children (as
//! ractor's supervision events), due restarts, and the requests of a [`DynamicHandle`].
//! Guarantees: one start or stop at a time, in the core's order; an exit is matched by the
//! incarnation's id and ignored when that is no longer current; nothing of a dead child (state,
//! handler, descendants) is left when its successor starts, or it is reported as unkillable.
//! Refuses: to decide anything; that is the core's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, RpcReplyPort,
    SupervisionEvent,
};

mod plan;
mod report;
mod requests;

pub(crate) use plan::Plan;

use crate::child::{ChildSpec, StartCx};
use crate::core::{Action, ChildPolicy, Close, Core, Input, Key};
use crate::error::{StartError, TerminateError};
use crate::incarnation::{Incarnation, Stopped};
use crate::probe::{Fate, Probe};
use crate::record::Event;
use crate::scope::{Declared, Scope, Status};
use crate::spec::{Kind, Shutdown};

pub(crate) struct Args {
    pub(crate) scope: Scope,
    pub(crate) path: Arc<str>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) probe: Arc<Probe>,
    /// Takes the typed error of a failed boot; ractor would make a text of it.
    pub(crate) failure: Arc<Mutex<Option<StartError>>>,
}

/// Messages of a supervisor.
#[derive(Debug)]
pub(crate) enum SupMsg {
    Due { key: Key, ticket: u64 },
    StartChild(Box<ChildSpec>, RpcReplyPort<Result<String, StartError>>),
    TerminateChild(String, RpcReplyPort<Result<(), TerminateError>>),
}

impl Message for SupMsg {}

pub(crate) struct Supervisor;

pub(crate) struct State {
    scope: Scope,
    path: Arc<str>,
    plan: Arc<Plan>,
    probe: Arc<Probe>,
    core: Core,
    slots: BTreeMap<Key, Slot>,
    by_actor: BTreeMap<ActorId, Key>,
    by_id: BTreeMap<Arc<str>, Key>,
    last_failure: Option<StartError>,
}

struct Slot {
    spec: ChildSpec,
    path: Arc<str>,
    live: Option<Arc<Incarnation>>,
    /// Starts tried so far.
    generation: u64,
}

impl Actor for Supervisor {
    type Msg = SupMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<SupMsg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let failure = Arc::clone(&args.failure);
        let mut state = State::new(args);
        match state.drive(&myself, Input::Boot).await {
            None => {
                state.emit_own(Event::SupervisorStarted, None, None);
                Ok(state)
            }
            Some(_start_failed) => {
                let error = state.last_failure.take().unwrap_or(StartError::Down);
                state.emit_own(
                    Event::SupervisorStopped,
                    Some("start_failed"),
                    Some(error.to_string()),
                );
                let text = error.to_string();
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(text.into())
            }
        }
    }

    async fn handle(
        &self,
        myself: ActorRef<SupMsg>,
        message: SupMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupMsg::Due { key, ticket } => {
                let close = state.drive(&myself, Input::Due { key, ticket }).await;
                state.finish(&myself, close)
            }
            SupMsg::StartChild(spec, reply) => {
                let answer = state.start_child(&myself, *spec).await;
                // Who asked may have gone; the child stays, as it was asked for.
                reply.send(answer).ok();
                Ok(())
            }
            SupMsg::TerminateChild(id, reply) => {
                let answer = state.terminate_child(&myself, id).await;
                reply.send(answer).ok();
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupMsg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let close = match event {
            SupervisionEvent::ActorTerminated(cell, boxed, reason) => {
                drop(boxed);
                state.on_exit(&myself, &cell, reason.as_deref()).await
            }
            SupervisionEvent::ActorFailed(cell, _) => state.on_exit(&myself, &cell, None).await,
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => None,
        };
        state.finish(&myself, close)
    }

    async fn post_stop(
        &self,
        myself: ActorRef<SupMsg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if state.drive(&myself, Input::Shutdown).await.is_some() {
            state.emit_own(Event::SupervisorStopped, Some("shutdown"), None);
        }
        Ok(())
    }
}

impl State {
    fn new(args: Args) -> Self {
        let Args { scope, path, plan, probe, .. } = args;
        let policies: Vec<ChildPolicy> =
            plan.children.iter().map(|c| plan.child_policy(c)).collect();
        let mut state = Self {
            core: Core::new(plan.policy, &policies),
            scope,
            path,
            probe,
            slots: BTreeMap::new(),
            by_actor: BTreeMap::new(),
            by_id: BTreeMap::new(),
            last_failure: None,
            plan: Arc::clone(&plan),
        };
        for (key, spec) in (0..).zip(&plan.children) {
            let path = format!("{}/{}", state.path, spec.id).into();
            state.insert(key, spec.clone(), path);
        }
        state.publish_count();
        state
    }

    fn insert(&mut self, key: Key, spec: ChildSpec, path: Arc<str>) {
        let declared = Declared { order: key, kind: spec.kind, strategy: spec.strategy };
        self.scope.declare(&path, declared);
        self.by_id.insert(Arc::clone(&spec.id), key);
        self.slots.insert(key, Slot { spec, path, live: None, generation: 0 });
    }

    /// Feeds the core and does what it asks for, until it is content or closes.
    async fn drive(&mut self, myself: &ActorRef<SupMsg>, input: Input) -> Option<Close> {
        let mut next = Some(input);
        let mut out = Vec::new();
        while let Some(input) = next.take() {
            self.core.handle(self.scope.now_ms(), input, &mut out);
            for action in out.drain(..) {
                match action {
                    Action::Start(key) => next = Some(self.start(&myself.get_cell(), key).await),
                    Action::Stop(key) => {
                        self.stop(key).await;
                        next = Some(Input::Stopped(key));
                    }
                    Action::StopAll(keys) => next = self.stop_all(&keys).await,
                    Action::Schedule { key, ticket, delay_ms } => {
                        self.schedule(myself, SupMsg::Due { key, ticket }, delay_ms, key);
                    }
                    Action::Forget(key) => self.forget(key),
                    Action::Note(note) => self.note(note),
                    Action::Close(close) => return Some(close),
                }
            }
        }
        None
    }

    /// Ends the supervisor as the core decided.
    fn finish(
        &mut self,
        myself: &ActorRef<SupMsg>,
        close: Option<Close>,
    ) -> Result<(), ActorProcessingErr> {
        match close {
            None => Ok(()),
            Some(Close::Shutdown | Close::AutoShutdown(_)) => {
                self.emit_own(Event::SupervisorStopped, Some("auto_shutdown"), None);
                myself.stop(Some("shutdown".to_owned()));
                Ok(())
            }
            Some(Close::Intensity(key) | Close::StartFailed(key)) => {
                let child = self.slots.get(&key).map_or("?", |slot| &slot.path);
                let text = format!(
                    "more than {} restarts in {} ms, the last one of {child}",
                    self.plan.policy.intensity_max, self.plan.policy.window_ms
                );
                self.emit_own(Event::SupervisorStopped, Some("gave_up"), Some(text.clone()));
                self.probe.fail(Fate::GaveUp(text.clone()));
                Err(text.into())
            }
        }
    }

    async fn start(&mut self, myself: &ActorCell, key: Key) -> Input {
        let Some(slot) = self.slots.get_mut(&key) else {
            return Input::StartFailed(key);
        };
        slot.generation += 1;
        let (spec, path) = (slot.spec.clone(), Arc::clone(&slot.path));
        self.scope.starting(&path, slot.generation - 1);
        if spec.kind == Kind::Supervisor {
            self.scope.reap(&path).await;
        }
        let probe = Arc::new(Probe::default());
        let cx = StartCx {
            scope: self.scope.clone(),
            path: Arc::clone(&path),
            parent: Some(myself.clone()),
            probe: Arc::clone(&probe),
        };
        let started = match spec.start_timeout {
            None => (spec.start)(cx).await,
            Some(limit) => {
                let late = || Err(StartError::Timeout { path: path.to_string(), limit });
                tokio::time::timeout(limit, (spec.start)(cx))
                    .await
                    .unwrap_or_else(|_elapsed| late())
            }
        };
        match started {
            Ok((cell, join)) => {
                let seq = self.scope.next_start_seq();
                let now_ms = self.scope.now_ms();
                let id = cell.get_id();
                let live = Arc::new(Incarnation::new(seq, path, cell, join, probe, now_ms));
                self.scope.running(&live.path, &live);
                self.by_actor.insert(id, key);
                let again = self.slots.get_mut(&key).is_some_and(|slot| {
                    slot.live = Some(live);
                    slot.generation > 1
                });
                let event = if again { Event::ChildRestarted } else { Event::ChildStarted };
                self.emit_child(key, event, |_| ());
                Input::Started(key)
            }
            Err(error) => {
                probe.close_address();
                if spec.kind == Kind::Supervisor {
                    self.scope.reap(&path).await;
                }
                self.scope.ended(&path, error.to_string());
                self.emit_child(key, Event::ChildExited, |record| {
                    record.reason = Some(error.reason().to_owned());
                    record.error = Some(error.to_string());
                    record.location = error.location();
                    record.message_type = Some("pre_start".to_owned());
                    record.actor_type = probe.actor_type.get().map(|t| (*t).to_owned());
                });
                self.last_failure = Some(error);
                Input::StartFailed(key)
            }
        }
    }

    async fn stop(&mut self, key: Key) {
        let Some((live, how)) = self.begin_stop(key) else {
            return;
        };
        let stopped = live.stop(how, self.scope.kill_wait()).await;
        self.end_stop(key, &live, stopped).await;
    }

    /// All at the same time: what a dynamic supervisor may do, its children being independent.
    async fn stop_all(&mut self, keys: &[Key]) -> Option<Input> {
        let mut stopping = Vec::new();
        for key in keys {
            if let Some((live, how)) = self.begin_stop(*key) {
                match how {
                    Shutdown::Brutal => live.kill(),
                    Shutdown::Timeout(_) | Shutdown::Infinity => live.request_stop(),
                }
                stopping.push((*key, live, how, tokio::time::Instant::now()));
            }
        }
        for (key, live, how, since) in stopping {
            let left = match how {
                Shutdown::Timeout(limit) => {
                    Shutdown::Timeout(limit.saturating_sub(since.elapsed()))
                }
                Shutdown::Brutal | Shutdown::Infinity => how,
            };
            let stopped = live.stop(left, self.scope.kill_wait()).await;
            self.end_stop(key, &live, stopped).await;
        }
        keys.first().map(|key| Input::Stopped(*key))
    }

    fn begin_stop(&mut self, key: Key) -> Option<(Arc<Incarnation>, Shutdown)> {
        let default = self.plan.default_shutdown();
        let slot = self.slots.get_mut(&key)?;
        let live = slot.live.take()?;
        let how = slot.spec.shutdown_or(default);
        self.scope.set_status(&slot.path, Status::Stopping);
        self.by_actor.remove(&live.cell.get_id());
        self.emit_with(key, Event::ChildStopping, &live, |_| ());
        Some((live, how))
    }

    async fn end_stop(&mut self, key: Key, live: &Arc<Incarnation>, stopped: Stopped) {
        if self.slots.get(&key).is_some_and(|slot| slot.spec.kind == Kind::Supervisor) {
            self.scope.reap(&live.path).await;
        }
        live.probe.close_address();
        let exit = live.probe.exit(Some("shutdown"), false);
        let killed = match stopped {
            Stopped::InOrder => None,
            Stopped::Brutally => Some("brutal"),
            Stopped::TimedOut => Some("timeout"),
            Stopped::Unkillable => Some("unkillable"),
        };
        let last_exit = killed.unwrap_or(exit.reason).to_owned();
        match killed {
            Some(reason) => {
                self.scope.killed(&live.path, stopped == Stopped::Unkillable);
                self.emit_with(key, Event::ChildKilled, live, |record| {
                    record.reason = Some(reason.to_owned());
                    record.mailbox_depth = Some(exit.mailbox_depth);
                });
            }
            None => {
                // It failed while it was to stop, or just before: OTP's shutdown_error.
                if exit.abnormal {
                    self.emit_exit(key, live, exit.clone());
                }
                self.emit_with(key, Event::ChildStopped, live, |record| {
                    record.reason = Some(exit.reason.to_owned());
                    record.mailbox_depth = Some(exit.mailbox_depth);
                });
            }
        }
        self.scope.ended(&live.path, last_exit);
    }

    async fn on_exit(
        &mut self,
        myself: &ActorRef<SupMsg>,
        cell: &ActorCell,
        reason: Option<&str>,
    ) -> Option<Close> {
        // An incarnation that was stopped meanwhile, or an actor that is none of ours.
        let key = self.by_actor.remove(&cell.get_id())?;
        let live = self.slots.get_mut(&key)?.live.take()?;
        let kind = self.slots.get(&key)?.spec.kind;
        // An actor that killed itself, or was killed by the runtime, could not say goodbye.
        live.probe.close_address();
        // The event comes a moment before the task has dropped the actor's state.
        let gone = live.gone_within(self.scope.kill_wait()).await;
        if kind == Kind::Supervisor {
            self.scope.reap(&live.path).await;
        }
        let exit = live.probe.exit(reason, reason == Some("actor_task_cancelled"));
        self.scope.ended(&live.path, exit.describe());
        let abnormal = exit.abnormal;
        self.emit_exit(key, &live, exit);
        if !gone {
            self.emit_with(key, Event::ChildKilled, &live, |record| {
                record.reason = Some("unkillable".to_owned());
            });
        }
        self.drive(myself, Input::Exited { key, abnormal }).await
    }

    fn schedule(&self, myself: &ActorRef<SupMsg>, due: SupMsg, delay_ms: u64, key: Key) {
        if let Some(slot) = self.slots.get(&key) {
            self.scope.set_status(&slot.path, Status::Restarting);
        }
        let myself = myself.clone();
        if delay_ms == 0 {
            // Behind the exits that are queued: ractor serves those first. Fails when we are ending.
            myself.send_message(due).ok();
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            // The supervisor may have ended meanwhile; its successor does not know the ticket.
            myself.send_message(due).ok();
        });
    }

    fn forget(&mut self, key: Key) {
        if let Some(slot) = self.slots.remove(&key) {
            self.by_id.remove(&slot.spec.id);
            self.scope.forget(&slot.path);
            self.publish_count();
        }
    }
}
