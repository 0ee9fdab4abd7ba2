//! The `mail` process: messages to named actors at other nodes, and from there to actors here.
//!
//! What it is: a pure state machine ([`core`]) in an actor. Messages go over the relay channel in frames of their own, with
//! numbers that come back with the outcome; nodes of a partial mesh are connected on demand for them.
//!
//! | delivery | how | lost | twice | answer |
//! |---|---|---|---|---|
//! | best effort | sent once | with the link | never | the actor's mailbox has it; or, of a call, what the actor says |
//! | acknowledged | sent until acknowledged, at the latest until the deadline | only with an error | never | the mailbox has it |
//! | monotonic | the newest of each key, while others wait for the node | may be, counted | never, and never older after newer | it is on its way or waits |
//! | causal | acknowledged, and handed over when the node has caught up with the sender's session | only with an error | never | the mailbox has it |
//!
//! What it guarantees: an error says whether the actor may have the message; "never" holds across restarts of either node;
//! what waits for one node is bounded and holds up no other; a crash of the actor loses what is in flight, with an error to
//! those who wait.
//!
//! What it refuses: an order between messages of different senders. That a message comes after other messages which its
//! sender had seen would need every node to hear of every message: causal refers to the data of the cluster, which every
//! node does hear of, and not to other messages.

mod actor;
pub mod core;
mod handle;
mod peer;
pub mod wire;

#[cfg(test)]
mod core_test;

pub use actor::MailActor;
pub use core::{How, Letter, Stats};
pub use handle::{Delivering, MailHandle, Parts};
