//! Storage of a Weald node: causal objects, their encodings, and the partitions that hold them.
//!
//! Guarantees: no write that was acknowledged is lost, and no value disappears unless a write that
//! knew of it replaced it; see the modules for the part that each of them has in this.
//! Refuses: networking and async. The API is synchronous, and time is passed in.

// Pure part: values in, values out; no clocks, no files.
pub mod codec;
pub mod context;
pub mod digest;
pub mod dvvset;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod object;
pub mod replica;
pub mod resolve;
mod union;
pub mod vector;
mod wire;

pub use codec::{
    Record, RecordError, RecordView, decode_object, decode_record, encode_object, encode_record,
};
pub use context::{Context, ContextError};
pub use digest::{Bucket, EntryDigest, NodeDelta, TreeDelta, TreeNode, TreePath};
pub use dvvset::{Dvvset, Entry};
pub use hlc::{Hlc, HlcClock, Observed};
pub use ids::{Actor, Dot, NodeId};
pub use key::{
    Key, KeyError, KeyHash, RowKey, TableName, TableNameError, parse_row, partition_of, row_key,
    table_range,
};
pub use object::{Object, Value, ValueRef};
pub use replica::{BucketContent, Delta, Deltas, Era, Evidence, Missing, Replicated};
pub use resolve::{Lww, MergeFailure, Resolved, Resolver, Resolvers, lww};
pub use vector::VersionVector;

// Engine: files, threads and time.
pub mod boot;
pub mod check;
pub mod clock;
pub mod error;
pub mod identity;
mod lmdb;
pub mod lock;
mod memory;
mod partition;
mod sim_replica;
pub mod store;
pub mod table;
pub mod watch;

pub use boot::{BootEvent, NewLife, QUARANTINE_DIR};
pub use check::{CheckVerdict, check_env};
pub use clock::{Clock, Seen};
pub use error::{CloseError, DeclareError, OpenError, ReadError, WriteError};
#[doc(hidden)]
pub use lmdb::open_raw;
pub use lock::{DataDirLock, LockError};
pub use partition::changes::{Change, Changes};
pub use partition::ops::{ChangeKind, VALUE_BYTES_MAX, WriteOp, Written};
pub use partition::read::Got;
pub use partition::replicated::PartitionSpace;
pub use partition::scan::{Item, Page, PageToken, Scan};
pub use partition::space::PartitionStats;
pub use partition::sweep::{Others, Stable, SweepReport, stable};
pub use partition::tree::{BucketEntry, BucketPage, ScrubReport};
pub use partition::{BatchReport, CommitHook, Completion, Partition, Reply, Space, Write};
pub use sim_replica::Replica;
pub use store::{CheckFn, Durability, OnDamage, Store, StoreConfig, StoreStats, WallClock};
pub use table::{TABLES_TABLE, Table, TableKind, TableSpec};
pub use watch::Watch;
