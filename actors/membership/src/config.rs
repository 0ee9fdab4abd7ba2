//! Settings of the membership, with their defaults and where these come from.

use serde::{Deserialize, Serialize};

/// Which overlay carries gossip and broadcasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Everybody is connected with everybody.
    #[default]
    FullMesh,
    /// `HyParView`: a few neighbours each.
    P2p,
}

/// Settings of the failure detector. All in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swim {
    /// Members are probed so often.
    pub period_ms: u64,
    /// How many at a time where everybody is connected; one otherwise.
    pub probes: usize,
    /// Shortest wait for an answer before others are asked.
    pub ack_min_ms: u64,
    /// Longest one; between the two it follows the round trip.
    pub ack_max_ms: u64,
    /// How many others are asked to probe.
    pub helpers: usize,
    /// A suspect has so long to refute, in clusters of up to ten; `log10(members)` times that in larger ones.
    pub suspect_ms: u64,
    /// The same when the connection broke, too, and nobody else reaches it.
    pub suspect_hinted_ms: u64,
    /// A member known from the disk only is taken for down after so long.
    pub boot_grace_ms: u64,
}

impl Default for Swim {
    fn default() -> Self {
        Self {
            period_ms: 1_000, // paper (SWIM 4), memberlist LAN
            // DEVIATES (SWIM 4: one): with one, a member of ten may be probed by nobody for 4 s.
            probes: 3,
            ack_min_ms: 300,          // guess
            ack_max_ms: 500,          // memberlist LAN
            helpers: 3,               // paper (SWIM 3.1: k), memberlist
            suspect_ms: 2_500,        // guess: with two periods and an ack it stays below 6 s
            suspect_hinted_ms: 1_000, // guess: with one round of helpers it stays below 2 s
            boot_grace_ms: 5_000,     // guess
        }
    }
}

/// Settings of `HyParView`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HyParView {
    /// Neighbours.
    pub active_max: usize,
    /// Spare addresses.
    pub passive_max: usize,
    /// Hops of a join and of a shuffle.
    pub active_walk: u8,
    /// Hops left of a join at which its node is kept as a spare.
    pub passive_walk: u8,
    /// Neighbours in a shuffle.
    pub shuffle_active: usize,
    /// Spares in a shuffle.
    pub shuffle_passive: usize,
    /// Time between shuffles.
    pub shuffle_period_ms: u64,
    /// Time between attempts to reach a member that is lost.
    pub recontact_period_ms: u64,
    /// Time between contacts with any member, which find those that died together with all their neighbours.
    pub check_period_ms: u64,
    /// Time between changes of one neighbour for any member.
    pub mix_period_ms: u64,
    /// Time between looks at whether the next member by id is a neighbour, and attempts to win it.
    pub ring_period_ms: u64,
}

impl Default for HyParView {
    fn default() -> Self {
        Self {
            active_max: 5,               // paper (HyParView 5.1)
            passive_max: 30,             // paper
            active_walk: 6,              // paper
            passive_walk: 3,             // paper
            shuffle_active: 3,           // paper
            shuffle_passive: 4,          // paper
            shuffle_period_ms: 60_000,   // guess: shuffling more often destabilises broadcast trees
            recontact_period_ms: 10_000, // guess
            check_period_ms: 30_000,     // guess
            mix_period_ms: 120_000,      // guess
            ring_period_ms: 5_000,       // guess: the time of an attempt
        }
    }
}

/// Settings of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The overlay.
    pub strategy: Strategy,
    /// The failure detector.
    pub swim: Swim,
    /// The overlay of [`Strategy::P2p`].
    pub hyparview: HyParView,
    /// How long announcements of records are collected. Shorter than for the store: they are few, and rumours of the same nodes
    /// go as fast.
    pub lazy_tick_ms: u64,
    /// Time between rounds of gossip while there are rumours.
    pub gossip_period_ms: u64,
    /// Neighbours that are told in one round.
    pub gossip_fanout: usize,
    /// Time between comparisons of the whole view with a random neighbour.
    pub sync_period_ms: u64,
    /// A member that is down for longer is fenced; records of the gone are kept at least as long.
    pub max_absence_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strategy: Strategy::FullMesh,
            swim: Swim::default(),
            hyparview: HyParView::default(),
            lazy_tick_ms: 200,              // guess: as the rounds of gossip
            gossip_period_ms: 200,          // memberlist LAN
            gossip_fanout: 3,               // memberlist LAN
            sync_period_ms: 30_000,         // memberlist LAN
            max_absence_ms: 7 * 86_400_000, // guess: a week, as `aae.hashtree_ttl`
        }
    }
}
