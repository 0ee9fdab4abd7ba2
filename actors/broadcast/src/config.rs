//! Times and bounds of the broadcast.

/// How a node broadcasts.
///
/// # Units
/// `*_ms` are milliseconds; the other bounds are counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long announcements are collected: `cluster.lazy_tick_period`. // Bondy page
    pub lazy_tick_ms: u64,
    /// How long an announced event may be under way before it is asked for; half of it is given to each further announcer.
    /// Adapts upwards for a root whose events come by themselves soon after they were asked for. // iroh-gossip: 80, 40
    pub graft_ms: u64,
    /// Duplicates in a row after which a link is cut out of a tree. // Corrosion: more than one
    pub prune_after: u8,
    /// A shorter path that saves this many hops replaces the current one. // iroh-gossip: 7; paper p.8
    pub optimise_threshold: u16,
    /// How long a peer whose queue was full is only told of events. // guess
    pub demote_ms: u64,
    /// Peers to which a node announces events of others, the next ones by id. Bounds the announcements of a large full mesh;
    /// a partial overlay has fewer neighbours than that. // guess
    pub announce_max: usize,
    /// Roots whose trees are kept; the longest unused one goes first. // guess: twice the members ever expected
    pub roots_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lazy_tick_ms: 1000,
            graft_ms: 80,
            prune_after: 2,
            optimise_threshold: 6,
            demote_ms: 2000,
            announce_max: 16,
            roots_max: 4096,
        }
    }
}

/// Runs of dots that wait to be announced to one peer; more are dropped and the peer is behind. // guess
pub const ANNOUNCED_RUNS_MAX: usize = 8192;
/// Runs of dots that wait for a peer at which they are announced before the tick. // guess
pub const ANNOUNCE_RUNS: usize = 1024;
/// Dots of one root and stream that are waited for; whoever lacks more has lost more than a graft can heal. // guess
pub const WANTED_MAX: u64 = 65_536;
/// Dots in one graft. // guess: about the batch that was lost
pub const GRAFT_DOTS_MAX: u64 = 4096;
/// As [`GRAFT_DOTS_MAX`], to count with.
pub(crate) const GRAFT_DOTS_MAX_USIZE: usize = 4096;
/// Peers remembered that have announced a wanted event. // guess
pub const ANNOUNCERS_MAX: usize = 8;
/// Peers remembered that announce events of a root, to repair its tree with. // guess
pub const CANDIDATES_MAX: usize = 3;
/// Longest time an announced event may be under way before it is asked for.
pub const GRAFT_MS_MAX: u64 = 1280;
/// How long the last announcer has to answer before an exchange with it is asked for. // guess
pub const GIVE_UP_MS: u64 = 1000;
/// How often a graft waits for a merge under way: a stream that is always busy must not keep gaps open. // guess
pub const POSTPONED_MAX: u8 = 4;
