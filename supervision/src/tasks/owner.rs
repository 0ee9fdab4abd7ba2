//! The supervisor of tasks: an actor that does nothing but begin and end.
//!
//! Supervised by: a supervisor, as of kind supervisor. Messages in: none. State owned: the group of its tasks. Guarantees: its
//! end is theirs, however it comes.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message};

use super::group::Group;
use super::{TasksHandle, TasksSpec};
use crate::record::{Event, Record};
use crate::scope::Scope;
use crate::spec::{Kind, Strategy};

pub(crate) struct Owner;

pub(crate) struct OwnerArgs {
    pub(crate) scope: Scope,
    pub(crate) path: Arc<str>,
    pub(crate) handle: TasksHandle,
    pub(crate) spec: TasksSpec,
}

/// Nobody sends anything.
#[derive(Debug)]
pub(crate) enum Nothing {}

impl Message for Nothing {}

pub(crate) struct State {
    args: OwnerArgs,
    group: Arc<Group>,
}

impl Drop for State {
    fn drop(&mut self) {
        // Killed: nobody else ends them.
        self.args.handle.down();
        self.group.abort_all();
    }
}

impl Actor for Owner {
    type Msg = Nothing;
    type State = State;
    type Arguments = OwnerArgs;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        args: OwnerArgs,
    ) -> Result<State, ActorProcessingErr> {
        if let Some(before) = args.handle.attach(None) {
            let left = before.paths();
            before.abort_all();
            before.gone_or_reported(&left, "leftover").await;
        }
        let (scope, path) = (args.scope.clone(), Arc::clone(&args.path));
        let group = Group::new(scope, path, args.spec.tasks_max, args.handle.totals());
        let group = Arc::new(group);
        args.scope.set_tasks(&args.path, &group);
        args.handle.attach(Some(Arc::clone(&group)));
        emit(&args, Event::SupervisorStarted, None);
        Ok(State { args, group })
    }

    async fn post_stop(
        &self,
        _: ActorRef<Nothing>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.args.handle.down();
        state.group.stop(state.args.spec.shutdown).await;
        emit(&state.args, Event::SupervisorStopped, Some("shutdown"));
        Ok(())
    }
}

fn emit(args: &OwnerArgs, event: Event, reason: Option<&str>) {
    let mut record = Record::new(event, &args.path);
    record.kind = Some(Kind::Supervisor.name().to_owned());
    record.strategy = Some(Strategy::Dynamic.name().to_owned());
    record.reason = reason.map(str::to_owned);
    args.scope.emit(record);
}
