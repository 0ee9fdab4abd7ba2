//! The wire types that nodes, clients and the command line share.
//!
//! What it is: frames ([`frame`]), the requests a client may send and their replies ([`request`]), the errors that travel
//! ([`error`]), the handshake that comes before everything else on a cluster port ([`hello`]), and what clients see of the
//! supervision tree and log ([`supervision`]) and of the cluster ([`cluster`]).
//!
//! What it guarantees: decoding never panics, never allocates more than a small multiple of its input, and says what was
//! wrong; kinds are numbers in one file and are never reused, so that a node and a client of different releases keep talking.
//!
//! What it refuses: I/O, async, actor references. Keys, values and contexts are opaque bytes here.

pub mod cluster;
pub mod error;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod request;
pub mod supervision;

pub use error::{ErrorCode, WireError};
pub use frame::{Frame, FrameError};
pub use request::{Reply, Request};
