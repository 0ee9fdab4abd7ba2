//! Weald.
