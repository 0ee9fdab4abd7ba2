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
pub use resolve::{Lww, MergeFailure, Resolved, Resolver, Resolvers, lww};
pub use vector::VersionVector;
