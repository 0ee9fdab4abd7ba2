//! The registry of one realm: subscriptions and registrations, of this node's sessions and of other nodes.
//!
//! What it is: a pure state machine with one writer ([`Tables`]), and immutable snapshots of it ([`Snapshot`]) that routing
//! reads without locks.
//!
//! What it guarantees: a snapshot never changes; each change tells as data what it did, to clients (meta events) and to
//! other nodes (interest).
//!
//! What it refuses: clocks, randomness, sockets and mail: they are passed in, or somebody else's.

pub mod choice;
pub mod effect;
pub mod id;
pub mod members;
pub mod pattern;
pub mod remote;
pub mod row;
pub mod snapshot;
pub mod table;

pub use choice::{Choice, Excluded, Procedure};
pub use effect::{
    Conflict, Details, Effects, Interest, InterestChange, InterestKey, MetaChange, MetaEvent,
    iso8601,
};
pub use id::{Kind, RowId};
pub use members::Members;
pub use pattern::{MatchPolicy, PatternTooLong, Uri};
pub use row::{Callee, CalleeOptions, Registration, Subscriber, Subscription};
pub use snapshot::{Ids, Matches, MemberIds, Snapshot};
pub use table::{
    NoSuchRegistration, NoSuchSubscription, Register, RegisterError, Registered, Subscribed, Tables,
};

#[cfg(test)]
mod tests;
