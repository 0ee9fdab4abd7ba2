//! The sessions of a node.

use super::{Identity, Session};
use crate::service::Credentials;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weald_link::Close;
use weald_proto::request::ClientRole;

/// A session as the table lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub session: u64,
    /// The client's name.
    pub name: String,
    /// What it may do.
    pub role: ClientRole,
    /// Where it is.
    pub peer: String,
    /// Requests in flight.
    pub in_flight: usize,
}

/// All sessions of a node, of every way in. Numbers are never used twice.
#[derive(Default)]
pub struct Sessions {
    last: AtomicU64,
    sessions: Mutex<BTreeMap<u64, Slot>>,
}

/// A place in the table, taken before the session exists so that the number of clients is bounded.
struct Slot {
    identity: Identity,
    key: Option<[u8; 32]>,
    session: Option<Arc<Session>>,
}

/// A session that stands on a credential.
struct Checked {
    identity: Identity,
    key: [u8; 32],
    session: Arc<Session>,
}

impl Slot {
    fn checked(&self) -> Option<Checked> {
        let (key, session) = (self.key?, self.session.clone()?);
        Some(Checked { identity: self.identity.clone(), key, session })
    }
}

impl Checked {
    /// Ends the session if its credential is gone or another; whether it was.
    fn end_without(&self, credentials: &dyn Credentials) -> bool {
        let Identity { name, role, peer } = &self.identity;
        let holds = credentials.lookup(name) == Some((self.key, *role));
        if !holds {
            tracing::info!(event = "credential_gone", client = %name, peer = %peer, "credential taken away, session ends");
            self.session.end(Close::Local("the credential was taken away".to_owned()));
        }
        !holds
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// An empty table.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sessions open, those being set up included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Sessions of a client.
    #[must_use]
    pub fn connections(&self, name: &str) -> usize {
        self.lock().values().filter(|slot| slot.key.is_some() && slot.identity.name == name).count()
    }

    /// Whether a session is open, or being set up.
    #[must_use]
    pub fn is_open(&self, session: u64) -> bool {
        self.lock().contains_key(&session)
    }

    /// All sessions.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let slots = self.lock();
        let entry = |(session, slot): (&u64, &Slot)| Entry {
            session: *session,
            name: slot.identity.name.clone(),
            role: slot.identity.role,
            peer: slot.identity.peer.clone(),
            in_flight: slot.session.as_ref().map_or(0, |session| session.in_flight()),
        };
        slots.iter().map(entry).collect()
    }

    /// Ends every session whose credential is gone or not the same any more. How many those were.
    pub fn recheck(&self, credentials: &dyn Credentials) -> usize {
        let checked: Vec<_> = self.lock().values().filter_map(Slot::checked).collect();
        checked.into_iter().filter(|session| session.end_without(credentials)).count()
    }

    /// As [`Sessions::recheck`], for one session.
    pub(crate) fn recheck_one(&self, session: u64, credentials: &dyn Credentials) {
        let checked = self.lock().get(&session).and_then(Slot::checked);
        if let Some(session) = checked {
            session.end_without(credentials);
        }
    }

    /// Takes a place for a session; none when `max` clients of this kind are there. `key`: a client with a credential.
    pub(crate) fn admit(
        self: &Arc<Self>,
        identity: Identity,
        key: Option<[u8; 32]>,
        max: usize,
    ) -> Option<Place> {
        let mut slots = self.lock();
        if slots.values().filter(|slot| slot.key.is_some() == key.is_some()).count() >= max {
            return None;
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        slots.insert(id, Slot { identity, key, session: None });
        Some(Place { table: Arc::clone(self), id, is_local: key.is_none() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Slot>> {
        // Nothing in here panics half-way.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the table; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Sessions>,
    id: u64,
    is_local: bool,
}

impl Place {
    /// The number of the session.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is for somebody on this machine, who needs no credential.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The session that takes the place.
    pub(crate) fn fill(&self, session: &Arc<Session>) {
        if let Some(slot) = self.table.lock().get_mut(&self.id) {
            slot.session = Some(Arc::clone(session));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let slot = self.table.lock().remove(&self.id);
        drop(slot);
    }
}
