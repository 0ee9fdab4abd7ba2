//! Typed actor messages from a Rust program to a Weald node.
//!
//! ```
//! use weald_client::{Client, Credential, NamedActor, WatchEvent};
//! # use weald_client_testing::FakeNode;
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = FakeNode::start().await;
//! # let (address, key_file) = (node.address().to_string(), node.key_file("app"));
//! // let (address, key_file) = ("127.0.0.1:18086", "weald-data/client.key");
//! let client = Client::connect(address, Credential::read(key_file)?).await?;
//!
//! let mut watch = client.watch("colours").await?;
//! let seen = client.put("colours", "sky", "blue").await?;
//! client.put("colours", "sky", "grey").context(&seen).await?;
//! assert_eq!(client.get("colours", "sky").await?.value(), Some(&b"grey"[..]));
//! let WatchEvent::Change(change) = watch.next().await? else { return Err("lagged".into()) };
//! assert_eq!(change.key, b"sky");
//!
//! let _name = client.serve("double", |n: u64| async move { n * 2 }).await?;
//! let double: NamedActor<u64, u64> = client.actor("double");
//! assert_eq!(double.call(&21, client.deadline()).await?, 42);
//!
//! for child in client.supervision_tree().await?.children {
//!     println!("{} is {}", child.path, child.status);
//! }
//! # node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! What it is: a [`Client`] that connects to a node through `ractor_cluster` (or its control socket), reads, writes and
//! watches the store, finds, registers and calls named actors on any node, with a choice of [`Delivery`], reads the supervision tree and log, and looks after the cluster.
//! A [`Session`] carries what a program has seen from node to node.
//!
//! What it guarantees: it reconnects by itself; every call has a deadline; errors are typed and say what is known about a
//! write ([`Error`]); a write that was sent is never sent twice; what is in flight is bounded.
//!
//! What it refuses: to hold the cluster's secret (a client has a key of its own and reaches the client gate only), to
//! cache, to hide that an outcome is unknown.

mod client;
mod cluster;
mod credential;
mod delivery;
mod dial;
mod error;
mod inbox;
mod names;
mod operate;
mod scan;
mod session;
mod store;
mod tls;
mod watch;
mod wire;

pub use client::{Builder, Client, DEADLINE};
pub use cluster::{MembershipEvent, MembershipEvents};
pub use credential::{Credential, CredentialError};
pub use delivery::{Delivery, Sending};
pub use error::Error;
pub use names::{Ended, NamedActor, Registration};
pub use operate::{Follow, LogFilter};
pub use scan::{Item, Scan};
pub use session::{Concern, Session, Token};
pub use store::{Context, Delete, Got, Put, PutIf, table};
pub use watch::{Change, Position, Watch, WatchBuilder, WatchEvent};

pub use ractor;
pub use weald_proto::cluster::{
    AaeDiff, AaePeer, AaeReport, AaeStatus, ClusterEvent, ClusterStatus, KeyDiff, Member, Members,
    PeerStatus,
};
pub use weald_proto::error::{Current, ErrorCode};
pub use weald_proto::hello::Refused;
pub use weald_proto::request::{ClientInfo, ClientRole, Named, Op, Table, TableKind};
pub use weald_proto::supervision::{LogRecord, TreeNode};
