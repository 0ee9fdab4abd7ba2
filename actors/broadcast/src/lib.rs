//! Broadcast trees of a Weald cluster.
