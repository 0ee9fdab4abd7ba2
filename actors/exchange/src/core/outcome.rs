//! How a session went.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weald_peers::Malformed;
use weald_storage::{Actor, Bucket, Clock, ReadError, TableName};

/// Why an object was not merged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MergeFailure {
    /// A peer knows events of this node's present life that it does not know itself: its data is older than what it has told
    /// others. A new life is due.
    #[error("a peer knows events of this node that it has forgotten")]
    OwnEventUnknown {
        /// Highest incarnation of this node that the peer knows.
        highest: u32,
    },
    /// There is no space.
    #[error("storage is full")]
    StorageFull,
    /// The partition does not take writes now.
    #[error("the store is not available")]
    Unavailable,
    /// This object cannot be merged; others may.
    #[error("{0}")]
    Other(String),
}

/// Why a session ended before its time. What it had merged until then stays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Failed {
    /// Nothing came for `aae.data_exchange_timeout`.
    #[error("no progress in time")]
    Timeout,
    /// It took longer than a session may.
    #[error("the session took too long")]
    TooLong,
    /// What the peer sent cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What the peer sent does not belong there.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The store could not be read.
    #[error("cannot read the store: {0}")]
    Read(String),
    /// The store could not be written.
    #[error("cannot merge: {0}")]
    Merge(MergeFailure),
    /// This node has to begin a new life first.
    #[error("this node's data is older than what it has told others; it begins a new life")]
    Renewed,
    /// The peer ended it.
    #[error("the peer ended the session: {0}")]
    Aborted(String),
    /// The peer has as many sessions as it takes.
    #[error("the peer is busy with other exchanges")]
    Busy,
    /// The peer cannot be reached, or not any more.
    #[error("the peer is not connected")]
    Disconnected,
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Read(error.to_string())
    }
}

/// What a session has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames sent.
    pub frames_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Objects sent.
    pub objects_out: u64,
    /// Objects received.
    pub objects_in: u64,
    /// Objects received that brought something new.
    pub objects_fresh: u64,
    /// Objects received that could not be merged.
    pub objects_refused: u64,
    /// Shards that differed.
    pub shards_differing: u64,
    /// Shards of which the trees were walked.
    pub walks: u64,
    /// Clocks taken over after a walk.
    pub adopted: u64,
}

impl Counters {
    /// Adds up.
    pub const fn add(&mut self, other: &Self) {
        self.frames_out += other.frames_out;
        self.frames_in += other.frames_in;
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.objects_out += other.objects_out;
        self.objects_in += other.objects_in;
        self.objects_fresh += other.objects_fresh;
        self.objects_refused += other.objects_refused;
        self.shards_differing += other.shards_differing;
        self.walks += other.walks;
        self.adopted += other.adopted;
    }
}

/// What is different between two nodes; nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffReport {
    /// Shards whose clocks or trees differ.
    pub shards: u64,
    /// Events the peer has processed and this node has not.
    pub events_lacking_here: u64,
    /// Events this node has processed and the peer has not.
    pub events_lacking_there: u64,
    /// Keys only the peer holds.
    pub keys_lacking_here: u64,
    /// Keys only this node holds.
    pub keys_lacking_there: u64,
    /// Keys both hold, differently.
    pub keys_differing: u64,
    /// The first of these keys.
    pub first: Vec<DiffKey>,
}

/// Most keys that a [`DiffReport`] names.
pub const DIFF_KEYS_MAX: usize = 20;

/// A key that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffKey {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Vec<u8>,
    /// Where it is.
    pub side: DiffSide,
}

/// Where a different key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffSide {
    /// Only this node holds it.
    Here,
    /// Only the peer holds it.
    There,
    /// Both hold it, differently.
    Both,
}

/// What came of comparing buckets of a shard that were marked as damaged here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The shard.
    pub shard: super::Shard,
    /// The buckets, ascending.
    pub buckets: Vec<(Bucket, Verdict)>,
}

/// What came of comparing a bucket that was marked as damaged here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All that the peer holds was taken. It is sound there, so what lies in this clock and is not held here now is dead.
    Sound(Arc<Clock>),
    /// All that the peer holds was taken. More is lacking there, too.
    Unsound,
    /// Something was left aside: this side takes it for dead, and the peer is behind.
    Left,
}

/// How a session went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Ok(true)`: both sides are equal now, but for what was written meanwhile. `Ok(false)`: it went through, but something
    /// could not be merged or was damaged.
    pub result: Result<bool, Failed>,
    /// What it has moved.
    pub counters: Counters,
    /// What is different, if that was the question.
    pub diff: Option<DiffReport>,
    /// Of the buckets that were marked as damaged here those of which the peer has told.
    pub compared: Vec<Compared>,
    /// Clocks of the peer that were seen: what it has acknowledged, by shard and with its actor.
    pub clocks: Vec<(super::Shard, Actor, Arc<Clock>)>,
}
