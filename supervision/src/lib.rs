//! OTP-style supervisors over ractor, and the supervision log.
//!
//! ```
//! use weald_supervision::{Address, ChildSpec, Root, RootExit, Scope, Strategy, SupervisorSpec};
//! use weald_supervision::ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
//! use std::time::Duration;
//!
//! struct Counter;
//! enum Msg { Add(u64), Get(RpcReplyPort<u64>) }
//! impl Message for Msg {}
//! impl Actor for Counter {
//!     type Msg = Msg;
//!     type State = u64;
//!     type Arguments = u64;
//!     async fn pre_start(&self, _: ActorRef<Msg>, first: u64) -> Result<u64, ActorProcessingErr> {
//!         Ok(first)
//!     }
//!     async fn handle(&self, _: ActorRef<Msg>, m: Msg, n: &mut u64) -> Result<(), ActorProcessingErr> {
//!         match m {
//!             Msg::Add(k) => *n += k,
//!             Msg::Get(reply) => reply.send(*n)?,
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let counter = Address::new("counter");
//! let scope = Scope::new("node-1", None);
//! let spec = SupervisorSpec::new(Strategy::OneForOne)
//!     .child(ChildSpec::worker("counter", &counter, || (Counter, 40)));
//! let root = Root::start(&scope, "node", spec).await.unwrap();
//!
//! counter.cast(Msg::Add(2)).unwrap();
//! assert_eq!(counter.call(Msg::Get, Duration::from_secs(1)).await, Ok(42));
//! scope.kill("node/counter").unwrap(); // and the address leads to its successor
//! assert!(counter.wait_up(Duration::from_secs(1)).await);
//! assert!(root.shutdown(Duration::from_secs(5)).await.in_order);
//! assert_eq!(root.wait().await, RootExit::Shutdown);
//! # });
//! ```
//!
//! Guarantees, the log's record schema and the deviations from OTP: see the README of this crate.

pub use ractor;

pub mod core;
mod error;
mod spec;

mod limit;
mod log;
mod record;

mod address;
mod child;
mod dynamic;
mod guard;
mod incarnation;
mod panics;
mod probe;
mod root;
mod scope;
mod supervisor;
mod supervisor_spec;
mod task;
mod tasks;

pub use address::{Address, CallError, MAILBOX_LEN_MAX, Undelivered};
pub use child::ChildSpec;
pub use dynamic::{DynamicHandle, DynamicSpec};
pub use error::{StartError, TerminateError};
pub use limit::LogLimit;
pub use log::{Follow, LogConfig, LogError, ReadStats, SupervisionLog};
pub use record::{Event, Filter, Record, TEXT_BYTES_MAX, UnknownEvent};
pub use root::{Root, RootExit, ShutdownReport};
pub use scope::{ChildCounts, Scope, ScopeError, Status, TreeNode};
pub use spec::{AutoShutdown, Backoff, Intensity, Kind, Restart, Shutdown, Strategy};
pub use supervisor_spec::SupervisorSpec;
pub use task::{BoxError, TaskContext};
pub use tasks::{TASKS_LISTED_MAX, TaskCounts, TaskInfo, TasksHandle, TasksSpec};
