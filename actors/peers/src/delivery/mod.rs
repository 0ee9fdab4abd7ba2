//! How sure a message between two nodes is to arrive, and in which order. Pure: packets in, packets out, time passed in.
//!
//! | option | lost | twice | order | for |
//! |---|---|---|---|---|
//! | best effort | may be | as the link does | as the link does | what is repeated anyway |
//! | [`acknowledged`] | only with the sender or at the deadline, which is told | never | any | requests that change something |
//! | [`monotonic`] | may be | never | of a key never older after newer | states of which the newest counts |
//!
//! Best effort is [`crate::Network::send`] itself. The others are a pair of state machines whose packets go through it.
//!
//! Guarantees hold on a link that loses, doubles and reorders packets and reconnects. "Never" is for the life of the
//! receiver: one that was restarted has forgotten what it had.
//!
//! Refuses: to hold more than its bounds. What does not fit is an error to the sender, or dropped and counted.

pub mod acknowledged;
pub mod monotonic;

#[cfg(test)]
mod tests;
