//! Forgetting what every member has: tombstones, contexts and the keys of events.

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Events whose keys were forgotten.
    pub swept: u64,
    /// Objects whose contexts were stripped.
    pub stripped: u64,
    /// Objects that were removed.
    pub reaped: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}
