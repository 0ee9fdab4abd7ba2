//! The wrapper every supervised actor runs in.
//!
//! Guarantees: a panic, an `Err` and an orderly end leave different marks in the [`Probe`]; the
//! address leads here exactly from the end of `pre_start` to the first sign of the end; the actor's
//! state is dropped before its supervisor can know of an orderly end.
//! Refuses: to change what the actor does; every callback is passed on as it is.

use std::any::type_name;
use std::future::Future;
use std::sync::Arc;

use ractor::message::SerializedMessage;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::address::Address;
use crate::panics;
use crate::probe::{Fate, Phase, Probe};

pub(crate) struct Guard<A: Actor> {
    actor: A,
    probe: Arc<Probe>,
    address: Option<Address<A::Msg>>,
}

/// The actor's state; `None` once `post_stop` is over.
pub(crate) struct GuardState<S>(Option<S>);

impl<A: Actor> Guard<A> {
    pub(crate) fn new(actor: A, probe: Arc<Probe>, address: Option<Address<A::Msg>>) -> Self {
        probe.describe(type_name::<A>(), type_name::<A::Msg>());
        Self { actor, probe, address }
    }

    /// Runs one callback of the actor and notes how it went wrong, if it did.
    async fn run<T>(
        &self,
        phase: Phase,
        callback: impl Future<Output = Result<T, ActorProcessingErr>>,
    ) -> Result<T, ActorProcessingErr> {
        self.probe.enter(phase);
        let fate = match panics::catch(callback).await {
            Ok(Ok(value)) => {
                self.probe.leave();
                return Ok(value);
            }
            Ok(Err(error)) => Fate::Error(chain(error.as_ref())),
            Err(caught) => Fate::Panic(caught),
        };
        let text = match &fate {
            Fate::Panic(caught) => caught.text.clone(),
            Fate::Error(text) | Fate::GaveUp(text) => text.clone(),
        };
        self.probe.fail(fate);
        // From here on nothing more may be taken for delivered.
        self.probe.close_address();
        Err(text.into())
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn live<S>(state: &mut GuardState<S>) -> &mut S {
    state.0.as_mut().expect("ractor makes no callback after post_stop")
}

impl<A: Actor> Actor for Guard<A> {
    type Msg = A::Msg;
    type State = GuardState<A::State>;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<A::Msg>,
        args: A::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let start = async { self.actor.pre_start(myself.clone(), args).await };
        let state = self.run(Phase::PreStart, start).await?;
        if let Some(address) = &self.address {
            let (held, id) = (address.clone(), myself.get_id());
            self.probe.set_on_close(Box::new(move || held.detach(id)));
            address.attach(myself, Arc::clone(&self.probe));
        }
        Ok(GuardState(Some(state)))
    }

    async fn post_start(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let state = live(state);
        self.run(Phase::PostStart, async { self.actor.post_start(myself, state).await }).await
    }

    async fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let state = live(state);
        self.run(Phase::Message, async { self.actor.handle(myself, message, state).await }).await
    }

    async fn handle_serialized(
        &self,
        myself: ActorRef<A::Msg>,
        message: SerializedMessage,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let state = live(state);
        self.run(Phase::Message, async {
            self.actor.handle_serialized(myself, message, state).await
        })
        .await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let state = live(state);
        self.run(Phase::SupervisionEvent, async {
            self.actor.handle_supervisor_evt(myself, event, state).await
        })
        .await
    }

    async fn post_stop(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.probe.close_address();
        {
            let state = live(state);
            self.run(Phase::PostStop, async { self.actor.post_stop(myself, state).await }).await?;
        }
        // ractor hands the state to the supervisor inside the exit event, which may lie in a queue
        // while the successor starts: files, ports and environments must be free by then.
        let state = state.0.take();
        if let Err(caught) = panics::catch_sync(|| drop(state)) {
            let text = caught.text.clone();
            self.probe.fail(Fate::Panic(caught));
            return Err(text.into());
        }
        self.probe.stopped_in_order();
        Ok(())
    }
}
