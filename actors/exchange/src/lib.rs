//! Anti-entropy of a Weald cluster.
