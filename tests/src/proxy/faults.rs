//! What may happen to the traffic of one direction, and what did.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They do.
    #[default]
    Pass,
    /// They wait until the fault is over, as they do above TCP when all packets are lost.
    Stall,
    /// They are taken and thrown away, without any sign. Connections that lost something are reset when the fault is over.
    Swallow,
    /// Connections are reset, and new ones at once.
    Reset,
}

/// A time between `base` and `base + jitter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delay {
    /// Least.
    pub base: Duration,
    /// Most that is added.
    pub jitter: Duration,
}

/// What happens to messages of some services. Percentages are of messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageFaults {
    /// High bytes of the kinds concerned; empty for all kinds.
    pub services: Vec<u8>,
    /// Not passed on.
    pub drop_percent: usize,
    /// Passed on twice.
    pub duplicate_percent: usize,
    /// Passed on after up to `reorder_window` later ones.
    pub reorder_percent: usize,
    /// See `reorder_percent`.
    pub reorder_window: usize,
    /// Each waits so long, and may be overtaken.
    pub delay: Delay,
}

impl MessageFaults {
    /// Whether nothing happens.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.drop_percent == 0
            && self.duplicate_percent == 0
            && (self.reorder_percent == 0 || self.reorder_window == 0)
            && self.delay == Delay::default()
    }

    pub(super) fn concerns(&self, kind: u16) -> bool {
        let [service, _] = kind.to_be_bytes();
        self.services.is_empty() || self.services.contains(&service)
    }
}

/// What happens to the traffic of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// Whether bytes pass.
    pub flow: Flow,
    /// They arrive so much later, in order.
    pub delay: Delay,
    /// Bytes a second.
    pub bytes_per_s: Option<u64>,
    /// About one bit is flipped in so many bytes.
    pub corrupt_every: Option<u64>,
    /// What happens to messages; for connections whose TLS ends in the proxy.
    pub messages: MessageFaults,
}

impl Faults {
    /// Nothing but this flow.
    #[must_use]
    pub fn flow(flow: Flow) -> Self {
        Self { flow, ..Self::default() }
    }
}

/// What has passed one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections opened in this direction.
    pub connections: u64,
    /// Bytes passed on.
    pub bytes: u64,
    /// Bytes swallowed.
    pub swallowed: u64,
    /// Bits flipped.
    pub corrupted: u64,
    /// Connections reset by a fault.
    pub resets: u64,
    /// Messages passed on, each copy counted.
    pub messages: u64,
    /// Messages dropped.
    pub dropped: u64,
    /// Messages passed on twice.
    pub duplicated: u64,
    /// Messages that others have overtaken.
    pub reordered: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            bytes: self.bytes + other.bytes,
            swallowed: self.swallowed + other.swallowed,
            corrupted: self.corrupted + other.corrupted,
            resets: self.resets + other.resets,
            messages: self.messages + other.messages,
            dropped: self.dropped + other.dropped,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// Faults of one direction, with the number of resets asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) faults: Faults,
    pub(super) generation: u64,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Link {
    wanted: watch::Sender<Wanted>,
    counts: [AtomicU64; 9],
}

/// The fields of [`Counts`] by their place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Connections,
    Bytes,
    Swallowed,
    Corrupted,
    Resets,
    Messages,
    Dropped,
    Duplicated,
    Reordered,
}

impl Link {
    pub(super) fn set(&self, faults: Faults) {
        self.wanted.send_modify(|wanted| wanted.faults = faults);
    }

    pub(super) fn faults(&self) -> Faults {
        self.wanted.borrow().faults.clone()
    }

    pub(super) fn reset(&self) {
        self.wanted.send_modify(|wanted| wanted.generation += 1);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// Waits until bytes may pass.
    pub(super) async fn passing(&self) {
        let mut watch = self.watch();
        // The sender lives as long as this link.
        watch.wait_for(|wanted| wanted.faults.flow == Flow::Pass).await.ok();
    }

    pub(super) fn count(&self, what: Count, by: u64) -> u64 {
        self.counts[what as usize].fetch_add(by, Ordering::Relaxed)
    }

    pub(super) fn opened(&self) -> u64 {
        self.count(Count::Connections, 1)
    }

    pub(super) fn counts(&self) -> Counts {
        let [
            connections,
            bytes,
            swallowed,
            corrupted,
            resets,
            messages,
            dropped,
            duplicated,
            reordered,
        ] = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counts {
            connections,
            bytes,
            swallowed,
            corrupted,
            resets,
            messages,
            dropped,
            duplicated,
            reordered,
        }
    }
}
