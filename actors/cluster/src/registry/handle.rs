//! What everybody but the registry actor holds.

use super::actor::{Holder, Msg};
use super::core::{Entry, NameError, Names};
use crate::service::Caller;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use thiserror::Error;
use weald_supervision::{Address, CallError};

/// Sessions that are open now, and the clients they belong to. Changed when a client comes or goes, so a lock will do.
#[derive(Debug, Default)]
pub struct Sessions(RwLock<BTreeMap<u64, String>>);

impl Sessions {
    /// A session is open; nothing happens when that is known.
    pub fn ensure_open(&self, session: u64, client: &str) {
        if self.is_open(session) {
            return;
        }
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, client.into());
    }

    /// A session has ended.
    pub fn closed(&self, session: u64) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
    }

    /// Whether a session is open.
    #[must_use]
    pub fn is_open(&self, session: u64) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&session)
    }

    /// Open sessions of each client.
    #[must_use]
    pub fn by_client(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for client in self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            *counts.entry(client.clone()).or_insert(0) += 1;
        }
        counts
    }
}

/// What outlives the registry actor.
#[derive(Debug)]
pub struct Shared {
    /// The table as last published.
    pub(super) names: ArcSwap<Names<Holder>>,
    /// Sessions open now.
    pub(super) sessions: Sessions,
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

impl Default for RegistryHandle {
    fn default() -> Self {
        let names = ArcSwap::from_pointee(Names::default());
        let shared = Shared {
            names,
            sessions: Sessions::default(),
        };
        Self {
            address: Address::new("registry"),
            shared: Arc::new(shared),
        }
    }
}

impl RegistryHandle {
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

    /// Sessions open now.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.shared.sessions
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
        let call = self
            .address
            .call(|reply| Msg::Register { name, entry, reply }, timeout);
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
        let call = self.address.call(
            |reply| Msg::Unregister {
                name,
                session,
                reply,
            },
            timeout,
        );
        Ok(call.await.map_err(RegistryError::Unavailable)??)
    }

    /// A session has ended: its names are free.
    pub fn closed(&self, session: u64) {
        self.shared.sessions.closed(session);
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
        names
            .names(prefix)
            .take(max)
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect()
    }
}
