//! The router of a node: who wants what, and where a message goes.
//!
//! What it is: realms with their sessions, registry, broker and dealer, the meta API, and the interest of other nodes.
//! A session's own task routes its messages: it reads an immutable snapshot of the registry and writes straight into the
//! outboxes of the targets; nothing on that path waits for another task.
//!
//! What it guarantees: what one session sends to another arrives in order; ids have the scopes of the WAMP specification;
//! a session that is gone leaves nothing behind.
//!
//! What it refuses: sockets and framing (transports), encodings (the codec), and durable state (storage).

pub mod auth;
pub mod broker;
pub mod clock;
pub mod dealer;
pub mod error;
pub mod interest;
pub mod listen;
mod meta;
pub mod realm;
pub mod registry;
pub mod relay;
pub mod router;
pub mod session;

pub use realm::Realm;
pub use router::Router;
