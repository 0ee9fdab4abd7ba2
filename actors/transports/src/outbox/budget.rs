//! What the queues of all connections share: bounds, counters, and a budget for those whose sockets are stuck.
//!
//! What it guarantees: bytes are counted while they are in the way of nobody but their own connection: from when a socket
//! stops taking them. When they are more than the budget together, the largest queue is dropped with its connection, until
//! they fit; a connection at or below its share never is.
//!
//! What it refuses: to count what is on its way through queues that flow, which each queue's own bound limits.

use super::queue::Bounds;
use super::{Inner, Kick, Outbox, Policy};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Bounds of what waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes that may wait for one connection, with a charge for each message. A single message of any length has room in
    /// an empty queue.
    pub queue_bytes_max: usize,
    /// How long a socket may take nothing while something waits.
    pub stuck_max: Duration,
    /// Bytes that may wait for all connections whose sockets are stuck.
    pub budget_bytes: usize,
    /// What to do with a client that does not read.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_bytes_max: 16 << 20,          // guess
            stuck_max: Duration::from_secs(30), // guess
            budget_bytes: 512 << 20,            // guess
            policy: Policy::Disconnect,
        }
    }
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Events left out because a client did not read.
    pub dropped_events: u64,
    /// Messages not sent because a client does not take ones so long.
    pub too_large: u64,
    /// Connections ended because their queue was full.
    pub queue_full: u64,
    /// Connections ended because their socket took nothing for too long.
    pub stuck: u64,
    /// Connections ended because all queues were too large together.
    pub budget: u64,
    /// Bytes that wait now for connections whose sockets are stuck.
    pub stuck_bytes: u64,
    /// Such connections now.
    pub stuck_connections: u64,
}

/// What all connections of a node share for sending.
#[derive(Debug)]
pub struct Egress {
    config: Config,
    dropped_events: AtomicU64,
    too_large: AtomicU64,
    queue_full: AtomicU64,
    stuck_kicks: AtomicU64,
    budget_kicks: AtomicU64,
    stuck_bytes: AtomicUsize,
    stuck: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    rows: BTreeMap<u64, Row>,
}

#[derive(Debug)]
struct Row {
    outbox: Weak<Inner>,
    bytes: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl Egress {
    /// Bounds and counters of their own.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            config,
            dropped_events: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            stuck_kicks: AtomicU64::new(0),
            budget_kicks: AtomicU64::new(0),
            stuck_bytes: AtomicUsize::new(0),
            stuck: Mutex::default(),
        })
    }

    /// The bounds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            dropped_events: self.dropped_events.load(Ordering::Relaxed),
            too_large: self.too_large.load(Ordering::Relaxed),
            queue_full: self.queue_full.load(Ordering::Relaxed),
            stuck: self.stuck_kicks.load(Ordering::Relaxed),
            budget: self.budget_kicks.load(Ordering::Relaxed),
            stuck_bytes: self.stuck_bytes.load(Ordering::Relaxed) as u64,
            stuck_connections: self.table().rows.len() as u64,
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { queue_bytes_max: self.config.queue_bytes_max, policy: self.config.policy }
    }

    pub(super) fn count_dropped(&self) {
        self.dropped_events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_too_large(&self) {
        self.too_large.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_kick(&self, why: Kick) {
        let counter = match why {
            Kick::QueueFull => &self.queue_full,
            Kick::Stuck => &self.stuck_kicks,
            Kick::Budget => &self.budget_kicks,
            Kick::Asked | Kick::Broken => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The share of one stuck connection if so many more bytes would be over the budget.
    pub(super) fn share(&self, more: usize) -> Option<usize> {
        let bytes = self.stuck_bytes.load(Ordering::Relaxed);
        (bytes.saturating_add(more) > self.config.budget_bytes)
            .then(|| self.config.budget_bytes / self.table().rows.len().max(1))
    }

    /// Ends the connections with the largest queues until all fit the budget. No outbox may be locked by the caller.
    pub(super) fn relieve(&self) {
        while self.stuck_bytes.load(Ordering::Relaxed) > self.config.budget_bytes {
            let largest = {
                let table = self.table();
                let by_size = |(_, row): &(&u64, &Row)| row.bytes.load(Ordering::Relaxed);
                table.rows.iter().max_by_key(by_size).and_then(|(_, row)| row.outbox.upgrade())
            };
            // Without one its last holder is just about to take its bytes off.
            let Some(largest) = largest else { return };
            Outbox(largest).kick_for_budget();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a stuck connection in the account; its bytes are taken off with it.
#[derive(Debug)]
pub(super) struct Place {
    egress: Arc<Egress>,
    id: u64,
    bytes: Arc<AtomicUsize>,
}

impl Place {
    pub(super) fn new(egress: &Arc<Egress>, outbox: Weak<Inner>) -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut table = egress.table();
        let id = table.next;
        table.next += 1;
        table.rows.insert(id, Row { outbox, bytes: Arc::clone(&bytes) });
        drop(table);
        Self { egress: Arc::clone(egress), id, bytes }
    }

    /// Sets how much waits; whether all together is over the budget.
    pub(super) fn resize(&self, bytes: usize) -> bool {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let total = &self.egress.stuck_bytes;
        let all = if bytes >= before {
            total.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before)
        } else {
            total.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes)
        };
        all > self.egress.config.budget_bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.resize(0);
        self.egress.table().rows.remove(&self.id);
    }
}
