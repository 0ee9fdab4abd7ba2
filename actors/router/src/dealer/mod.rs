//! RPC: calls and invocations.
//!
//! What is in flight is kept with the sessions it concerns, caller's and callee's, each under a lock of its own that is
//! held for a few instructions and never together with another. So a call costs no shared actor and no global lock, and
//! what a session leaves behind is found with it.

pub mod calls;
pub mod invocations;
