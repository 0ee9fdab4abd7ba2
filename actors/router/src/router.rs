//! The router of a node: its realms, and what they share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::Instant;
use weald_wamp::Limits;

use crate::clock::Clock;
use crate::realm::Realm;
use crate::relay::Relay;
use crate::session::Ending;
use crate::session::ids::Ids;

/// What holds for all clients of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time from the connection to the end of joining, and between sessions of one connection.
    pub handshake_timeout: Duration,
    /// Time a client has to answer the router's GOODBYE before its connection is closed.
    pub goodbye_timeout: Duration,
    /// What a message may cost.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10), // guess
            goodbye_timeout: Duration::from_secs(5),    // Bondy
            limits: Limits::default(),
        }
    }
}

/// The router. One for each node.
#[derive(Debug)]
pub struct Router {
    settings: Settings,
    realms: BTreeMap<ByteString, Arc<Realm>>,
    relay: Arc<Relay>,
    clock: Clock,
    ids: Arc<Ids>,
    is_draining: watch::Sender<bool>,
}

impl Router {
    /// A router with these realms.
    #[must_use]
    pub fn new(
        settings: Settings,
        realms: impl IntoIterator<Item = Arc<Realm>>,
        relay: Arc<Relay>,
        clock: Clock,
        ids: Arc<Ids>,
    ) -> Arc<Self> {
        let realms = realms.into_iter().map(|realm| (realm.name().clone(), realm)).collect();
        Arc::new(Self {
            settings,
            realms,
            relay,
            clock,
            ids,
            is_draining: watch::Sender::new(false),
        })
    }

    /// What holds for all clients.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a message may cost.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// A realm, if there is one of that name.
    #[must_use]
    pub fn realm(&self, name: &str) -> Option<Arc<Realm>> {
        self.realms.get(name).cloned()
    }

    /// All realms.
    pub fn realms(&self) -> impl Iterator<Item = &Arc<Realm>> {
        self.realms.values()
    }

    /// The way to other nodes.
    #[must_use]
    pub fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Whence sessions have their ids.
    pub(crate) fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// The moment of a reading of the realms' clock.
    #[must_use]
    pub fn instant(&self, at_ms: u64) -> Instant {
        self.clock.instant(at_ms)
    }

    /// Whether no new session is taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.is_draining.borrow()
    }

    /// Returns once no new session is taken.
    pub async fn draining(&self) {
        // The sender lives in `self`.
        self.is_draining.subscribe().wait_for(|is_draining| *is_draining).await.ok();
    }

    /// Sessions of this node.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.realms.values().map(|realm| realm.sessions_count()).sum()
    }

    /// Takes no more sessions and ends those there are, with GOODBYE `wamp.close.system_shutdown`; connections without one get
    /// ABORT for the same reason.
    pub fn drain(&self) {
        self.is_draining.send_replace(true);
        let ending = Ending::system_shutdown();
        for realm in self.realms.values() {
            realm.end_all(&ending);
        }
    }
}
