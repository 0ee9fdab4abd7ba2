//! The errors of the engine, one type per class of operation.
//!
//! Every variant says whether anything was changed. Errors of a write are cheap to clone, since one
//! failed commit answers a whole batch.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::context::Context;
use crate::ids::{Actor, NodeId};
use crate::key::TableName;

/// Why a store could not be opened. The data was not changed, except as each variant says.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of range.
    #[error("invalid storage setting {setting}: {why}")]
    Config {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The directory was made with another number of partitions.
    #[error("the data directory has {stored} partitions, the configuration asks for {configured}")]
    PartitionsDiffer {
        /// Number in the directory.
        stored: u16,
        /// Number in the configuration.
        configured: u16,
    },
    /// The directory was written by another version.
    #[error("the data of partition {partition:?} has format {found}, this program knows {known}")]
    Format {
        /// The partition, or `None` for the directory itself.
        partition: Option<u16>,
        /// The version found.
        found: u16,
        /// The version this program reads and writes.
        known: u16,
    },
    /// A partition belongs to another node or another place.
    #[error(
        "partition {partition} belongs to node {found} partition {found_partition}, \
         but this directory is node {expected}"
    )]
    Foreign {
        /// The partition's directory.
        partition: u16,
        /// Node the directory belongs to.
        expected: NodeId,
        /// Node found inside.
        found: NodeId,
        /// Partition number found inside.
        found_partition: u16,
    },
    /// A partition is damaged or gone. It was moved to `quarantined_to` if it was there. The store
    /// refuses to open until it is restored, or opened with `OnDamage::Continue`.
    #[error(
        "partition {partition} is damaged ({why}){}; restore it from a backup, or start with \
         on_damage = \"continue\" to begin it afresh and let peers fill it",
        quarantined_to.as_ref().map_or_else(String::new, |to| format!("; it was moved to {}", to.display()))
    )]
    Damaged {
        /// The partition.
        partition: u16,
        /// Where its files were moved.
        quarantined_to: Option<PathBuf>,
        /// What was found.
        why: String,
    },
    /// The check could not be run.
    #[error("cannot check partition {partition}")]
    Check {
        /// The partition.
        partition: u16,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file or directory operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// Its object.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// LMDB refused an environment.
    #[error("cannot open partition {partition}")]
    Lmdb {
        /// The partition.
        partition: u16,
        /// LMDB's answer.
        #[source]
        source: heed::Error,
    },
    /// The declarations of tables could not be read.
    #[error("cannot read the table declarations")]
    Tables(#[source] ReadError),
}

/// Why a store did not close cleanly. It is closed all the same; the next boot sees an unclean stop.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// A partition had stopped accepting writes, so what is on disk is not certain.
    #[error("partition {partition} had stopped writing: {why}")]
    Stopped {
        /// The partition.
        partition: u16,
        /// Why it had stopped.
        why: Arc<str>,
    },
    /// The last sync failed.
    #[error("cannot sync partition {partition}")]
    Sync {
        /// The partition.
        partition: u16,
        /// LMDB's answer.
        #[source]
        source: heed::Error,
    },
    /// The marker of a clean stop could not be written.
    #[error("cannot write the clean-stop marker")]
    Marker(#[source] io::Error),
}

/// Why one write was refused or failed. Nothing was changed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// `PutIf`: the stored object is not the expected one.
    #[error("the key has changed since it was read")]
    Conflict {
        /// Values there now.
        values: Vec<Vec<u8>>,
        /// Context of what is there now.
        context: Context,
    },
    /// The context speaks of an event this node never had.
    #[error("the context claims event {counter} of {actor:?}, the latest is {known}")]
    ForgedContext {
        /// Actor of this node that is spoken for.
        actor: Actor,
        /// Counter claimed.
        counter: u64,
        /// Highest counter there is.
        known: u64,
    },
    /// A peer's object holds an event of this node that this node does not know: its data is older
    /// than what it has told others. A new incarnation is due ([`crate::Store::renew_incarnation`]).
    #[error("a peer knows event {counter} of {actor:?}, this node only {known}")]
    OwnEventUnknown {
        /// Actor of this node.
        actor: Actor,
        /// Counter the peer knows.
        counter: u64,
        /// Highest counter known here.
        known: u64,
    },
    /// A clock was not taken over: while the trees were compared somebody else brought values that the peer may know to be
    /// dead.
    #[error("others brought older values while the trees were compared")]
    Disturbed,
    /// The context belongs to another key.
    #[error("the context belongs to another key")]
    ForeignContext,
    /// A table of the system that was not declared.
    #[error("table {0} is reserved and was not declared")]
    ReservedTable(TableName),
    /// The key does not belong to this partition.
    #[error("the key belongs to partition {belongs_to}, not to {sent_to}")]
    WrongPartition {
        /// Where it was sent.
        sent_to: u16,
        /// Where it belongs.
        belongs_to: u16,
    },
    /// The value is too large.
    #[error("a value of {bytes} bytes is too large, the limit is {bytes_max}")]
    ValueTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The merge function of the table could not resolve the siblings.
    #[error(transparent)]
    Merge(#[from] crate::resolve::MergeFailure),
    /// The stored record is damaged; only a merge from a peer may replace it.
    #[error("the stored record is damaged: {0}")]
    Corrupt(Arc<str>),
    /// There is no space: the disk, a quota or the map limit is full. Reads and deletes go on, and
    /// writes are accepted again as soon as there is space.
    #[error("storage is full: {cause} ({used_bytes} of {map_bytes_max} bytes used)")]
    StorageFull {
        /// Bytes in use in this partition.
        used_bytes: u64,
        /// Largest map allowed.
        map_bytes_max: u64,
        /// Which limit was met.
        cause: Arc<str>,
    },
    /// The batch was rolled back because the writer panicked.
    #[error("the batch was aborted: {0}")]
    Aborted(Arc<str>),
    /// The disk failed while syncing; this partition writes no more until the store is opened anew.
    #[error("this partition has stopped writing: {0}")]
    Stopped(Arc<str>),
    /// LMDB gave an error; the batch was rolled back.
    #[error("storage error: {0}")]
    Storage(Arc<str>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a read failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The stored record is damaged; a peer may have a good one.
    #[error("a stored record is damaged: {0}")]
    Corrupt(Arc<str>),
    /// The page token was not made by this store for this scan.
    #[error("the page token is not valid for this scan")]
    BadPageToken,
    /// LMDB gave an error.
    #[error("storage error: {0}")]
    Storage(Arc<str>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl From<heed::Error> for ReadError {
    fn from(error: heed::Error) -> Self {
        Self::Storage(Arc::from(error.to_string()))
    }
}

/// Why a table was not declared. Nothing was changed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// The name belongs to the system.
    #[error("table names that start with \"weald.\" are reserved: {0}")]
    Reserved(TableName),
    /// The table exists with another kind.
    #[error("table {table} is {existing:?} already; a table never changes its kind")]
    KindDiffers {
        /// The table.
        table: TableName,
        /// What it is.
        existing: crate::table::TableKind,
    },
    /// The resolver names a merge function that is not registered.
    #[error("no merge function named {0:?} is registered")]
    UnknownMerge(String),
    /// The declaration could not be written.
    #[error("cannot write the declaration")]
    Write(#[from] WriteError),
    /// The declaration could not be read back.
    #[error("cannot read the declaration")]
    Read(#[from] ReadError),
}
