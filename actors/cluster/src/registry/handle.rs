//! What everybody but the registry actor holds.

use super::actor::{Holder, Msg};
use super::core::{Entry, NameError, Names};
use crate::service::Caller;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use weald_supervision::{Address, CallError};

/// Who is connected. The registry asks when news of ended sessions may have been missed.
pub trait OpenSessions: std::fmt::Debug + Send + Sync {
    /// Whether a session is open.
    fn is_open(&self, session: u64) -> bool;
    /// Open sessions of a client.
    fn connections(&self, client: &str) -> usize;
}

impl OpenSessions for crate::session::Sessions {
    fn is_open(&self, session: u64) -> bool {
        Self::is_open(self, session)
    }

    fn connections(&self, client: &str) -> usize {
        Self::connections(self, client)
    }
}

/// What outlives the registry actor.
#[derive(Debug)]
pub struct Shared {
    /// The table as last published.
    pub(super) names: ArcSwap<Names<Holder>>,
    /// Who is connected.
    pub(super) sessions: Arc<dyn OpenSessions>,
}

/// Why a registry call failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry said no.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The registry is down or did not answer in time.
    #[error("the registry did not answer: {0}")]
    Unavailable(CallError),
}

/// The registry as its users hold it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryHandle {
    address: Address<Msg>,
    shared: Arc<Shared>,
}

impl RegistryHandle {
    /// An empty table of names for these sessions.
    #[must_use]
    pub fn new(sessions: Arc<dyn OpenSessions>) -> Self {
        let shared = Shared { names: ArcSwap::from_pointee(Names::default()), sessions };
        Self { address: Address::new("registry"), shared: Arc::new(shared) }
    }

    /// The address the actor is to be started under.
    #[must_use]
    pub fn address(&self) -> &Address<Msg> {
        &self.address
    }

    /// What the actor is to be started with.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Who is connected.
    #[must_use]
    pub fn sessions(&self) -> &dyn OpenSessions {
        &*self.shared.sessions
    }

    /// Registers a name for the caller.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing changes unless the registry did not answer.
    pub async fn register(
        &self,
        name: String,
        caller: &Caller,
        now_ms: u64,
        timeout: Duration,
    ) -> Result<Entry<Holder>, RegistryError> {
        let entry = Entry {
            session: caller.session,
            owner: caller.name.clone(),
            since_ms: now_ms,
            holder: Holder(Arc::clone(&caller.push)),
        };
        let call = self.address.call(|reply| Msg::Register { name, entry, reply }, timeout);
        Ok(call.await.map_err(RegistryError::Unavailable)??)
    }

    /// Gives a name of the caller back.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn unregister(
        &self,
        name: String,
        session: u64,
        timeout: Duration,
    ) -> Result<(), RegistryError> {
        let call = self.address.call(|reply| Msg::Unregister { name, session, reply }, timeout);
        Ok(call.await.map_err(RegistryError::Unavailable)??)
    }

    /// A session has ended: its names are free.
    pub fn closed(&self, session: u64) {
        // When the actor is down, its successor finds the session closed.
        drop(self.address.cast(Msg::Closed { session }));
    }

    /// Who holds a name, on a snapshot. A holder whose session has ended is not found, even before its names are freed.
    #[must_use]
    pub fn whereis(&self, name: &str) -> Option<Entry<Holder>> {
        let entry = self.shared.names.load().whereis(name).cloned()?;
        self.shared.sessions.is_open(entry.session).then_some(entry)
    }

    /// Names that start with `prefix`, at most `max`.
    #[must_use]
    pub fn names(&self, prefix: &str, max: usize) -> Vec<(String, Entry<Holder>)> {
        let names = self.shared.names.load();
        names.names(prefix).take(max).map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }
}
