//! The ractor shell: the only writer of the table.

use super::core::{Entry, NameError, Names};
use super::handle::Shared;
use crate::service::PushHandle;
use std::sync::Arc;
use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};

/// How the holder of a name is reached.
#[derive(Clone)]
pub struct Holder(pub PushHandle);

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holder")
    }
}

/// Messages of the registry actor.
#[derive(Debug)]
pub enum Msg {
    /// Register a name.
    Register {
        /// The name.
        name: String,
        /// Who asks.
        entry: Entry<Holder>,
        /// The answer.
        reply: RpcReplyPort<Result<Entry<Holder>, NameError>>,
    },
    /// Give a name back.
    Unregister {
        /// The name.
        name: String,
        /// Who asks.
        session: u64,
        /// The answer.
        reply: RpcReplyPort<Result<(), NameError>>,
    },
    /// A session has ended.
    Closed {
        /// Its number.
        session: u64,
    },
}

impl Message for Msg {}

/// The actor. Restart type `Permanent`, under the root.
#[derive(Debug)]
pub struct RegistryActor;

/// The actor's state: its own copy of the table, published after each change.
#[derive(Debug)]
pub struct State {
    names: Names<Holder>,
    shared: Arc<Shared>,
}

impl Actor for RegistryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Msg>,
        shared: Arc<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        let mut names = Names::clone(&shared.names.load());
        // News of sessions that ended while no registry was running are lost: ask the source.
        if names.retain(|session| shared.sessions.is_open(session)) > 0 {
            shared.names.store(Arc::new(names.clone()));
        }
        Ok(State { names, shared })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Register { name, entry, reply } => {
                let open = state.shared.sessions.is_open(entry.session);
                let result = if open {
                    state.names.register(&name, entry)
                } else {
                    Err(NameError::NotHeld(name))
                };
                state.publish();
                drop(reply.send(result));
            }
            Msg::Unregister { name, session, reply } => {
                let result = state.names.unregister(session, &name);
                state.publish();
                drop(reply.send(result));
            }
            Msg::Closed { session } => {
                if state.names.close(session) > 0 {
                    state.publish();
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn publish(&self) {
        self.shared.names.store(Arc::new(self.names.clone()));
    }
}
