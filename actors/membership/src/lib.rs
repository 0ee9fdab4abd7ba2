//! Membership of a Weald cluster: who belongs to it, and who is alive.
