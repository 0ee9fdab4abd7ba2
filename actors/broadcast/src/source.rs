//! Where the events of a stream are kept: the store, or whoever has events of its own to spread.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use thiserror::Error;
use weald_peers::{Malformed, WireDelta};
use weald_storage::{Actor, Clock, Delta, Dot, NodeId, ReadError, Replicated, Space};

/// Streams from here on are no partitions of the store; their events are opaque.
pub const OPAQUE_STREAMS: u16 = 0x8000;

/// The stream of a part of the store.
#[must_use]
pub const fn stream_of(partition: u16, space: Space) -> u16 {
    partition * 2
        + match space {
            Space::Durable => 0,
            Space::Memory => 1,
        }
}

/// Why an event of a peer was not merged. It may come again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MergeFailure {
    /// It is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The store did not take it.
    #[error("the store did not take it: {reason}")]
    Refused {
        /// What the store says.
        reason: String,
    },
}

/// What became of merges, in their order: whether each brought something new.
pub type Merging = BoxFuture<'static, Vec<Result<bool, MergeFailure>>>;

/// Takes what comes from peers into the store.
pub trait Sink: Send + Sync + 'static {
    /// Merges objects; those of one call in this order. The future is waited for before more of this partition and space
    /// is handed in. Called on a thread that may block.
    fn merge(&self, partition: u16, space: Space, deltas: Vec<Delta>) -> Merging;
}

/// Is told of peers with which an exchange is due: something that they or this node lack was dropped.
pub trait Behind: Send + Sync + 'static {
    /// Never blocks. May be called often for one peer.
    fn behind(&self, peer: NodeId);
}

/// A stretch of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// As they travel.
    pub events: Vec<WireDelta>,
    /// The counter of the last event that was looked at: where to go on. None when there was none.
    pub last: Option<u64>,
    /// Whether there is more after it.
    pub more: bool,
}

/// The events of one stream. Called on threads that may block.
pub trait Source: Send + Sync + 'static {
    /// The actor that issues the dots of this node.
    fn actor(&self) -> Actor;
    /// What was processed.
    ///
    /// # Errors
    /// As all methods: they cannot be read now.
    fn clock(&self) -> Result<Clock, ReadError>;
    /// Events of `actor` after counter `after`, of at most about `bytes_max` bytes (at least one).
    ///
    /// # Errors
    /// They cannot be read now.
    fn after(&self, actor: &Actor, after: u64, bytes_max: usize) -> Result<Events, ReadError>;
    /// These events, and those of which nothing is known here.
    ///
    /// # Errors
    /// They cannot be read now.
    fn of(&self, dots: &[Dot]) -> Result<(Vec<WireDelta>, Vec<Dot>), ReadError>;
    /// Takes events of peers in, in this order.
    fn merge(&self, events: Vec<WireDelta>) -> Merging;
}

/// A part of the store as a source.
#[derive(Clone)]
pub struct StoreSource {
    /// For reading.
    pub replicated: Arc<dyn Replicated>,
    /// For merging.
    pub sink: Arc<dyn Sink>,
    /// Which partition it is.
    pub partition: u16,
    /// Which space it is.
    pub space: Space,
}

impl fmt::Debug for StoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSource")
            .field("partition", &self.partition)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

impl Source for StoreSource {
    fn actor(&self) -> Actor {
        self.replicated.actor()
    }

    fn clock(&self) -> Result<Clock, ReadError> {
        self.replicated.clock()
    }

    fn after(&self, actor: &Actor, after: u64, bytes_max: usize) -> Result<Events, ReadError> {
        let found = self.replicated.deltas_after(actor, after, bytes_max)?;
        let last = found.last.map(|dot| dot.counter);
        Ok(Events { events: wire(&found.deltas), last, more: found.more })
    }

    fn of(&self, dots: &[Dot]) -> Result<(Vec<WireDelta>, Vec<Dot>), ReadError> {
        let (found, unknown) = self.replicated.deltas_of(dots)?;
        Ok((wire(&found), unknown))
    }

    fn merge(&self, events: Vec<WireDelta>) -> Merging {
        let mut deltas = Vec::with_capacity(events.len());
        let mut failed = Vec::new();
        for (place, event) in events.iter().enumerate() {
            match event.decode() {
                Ok(delta) => deltas.push(delta),
                Err(malformed) => failed.push((place, malformed.into())),
            }
        }
        let merging = self.sink.merge(self.partition, self.space, deltas);
        async move {
            let mut results = merging.await;
            for (place, failure) in failed {
                results.insert(place.min(results.len()), Err(failure));
            }
            results
        }
        .boxed()
    }
}

fn wire(deltas: &[Delta]) -> Vec<WireDelta> {
    deltas.iter().map(WireDelta::from).collect()
}
