//! Typed actor messages from a Rust program to a Weald node.
//!
//! What it is: a [`Client`] that connects to a node through `ractor_cluster` (or its control socket), reads, writes and
//! watches the store, finds, registers and calls named actors, and reads the supervision tree and log.
//!
//! What it guarantees: it reconnects by itself; every call has a deadline; errors are typed and say what is known about a
//! write ([`Error`]); a write that was sent is never sent twice; what is in flight is bounded.
//!
//! What it refuses: to hold the cluster's secret (a client has a key of its own and reaches the client gate only), to
//! cache, to hide that an outcome is unknown.

mod client;
mod credential;
mod dial;
mod error;
mod inbox;
mod names;
mod operate;
mod scan;
mod store;
mod tls;
mod watch;
mod wire;

pub use client::{Builder, Client, DEADLINE};
pub use credential::{Credential, CredentialError};
pub use error::Error;
pub use names::{NamedActor, Registration};
pub use operate::{Follow, LogFilter};
pub use scan::{Item, Scan};
pub use store::{Context, Delete, Got, Put, PutIf, table};
pub use watch::{Change, Position, Watch, WatchBuilder, WatchEvent};

pub use ractor;
pub use weald_proto::error::{Current, ErrorCode};
pub use weald_proto::hello::Refused;
pub use weald_proto::request::{ClientInfo, ClientRole, Named, Op, Table, TableKind};
pub use weald_proto::supervision::{LogRecord, TreeNode};
