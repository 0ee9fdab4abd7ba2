//! Hybrid logical clock: stamps that follow the wall clock but never go back.
//!
//! Guarantees: each [`HlcClock::tick`] is greater than every stamp the clock gave or accepted
//! before, whatever the wall clock does; a peer whose clock is wrong moves ours by at most the
//! permitted skew.
//! Refuses: to read the wall clock (callers pass `now_ms`), and to rewrite the stamp of a stored
//! value: replicas that clamped the same value at different times would differ for ever.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks" (2014); the 48/16 packing carries a full
//! logical part into the milliseconds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far ahead of the local wall clock a remote stamp may move the local clock, in ms.
pub const SKEW_MAX_MS: u64 = 500; // guess: ten times the error of a healthy NTP client

const LOGICAL_BITS: u32 = 16;
const MS_MAX: u64 = (1 << (64 - LOGICAL_BITS)) - 1;

/// A stamp: 48 bits of unix milliseconds, then 16 bits that order stamps of one millisecond.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(u64);

impl Hlc {
    /// The smallest stamp.
    pub const ZERO: Self = Self(0);

    /// Builds a stamp; `ms` beyond 48 bits (the year 10889) counts as the last of them.
    #[must_use]
    pub const fn new(ms: u64, logical: u16) -> Self {
        let ms = if ms > MS_MAX { MS_MAX } else { ms };
        Self(ms << LOGICAL_BITS | logical as u64)
    }

    /// Reads the integer form, as it is stored.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// The integer form; its order is the order of the stamps.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Unix time, in ms.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// Position within the millisecond.
    #[must_use]
    pub const fn logical(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.logical())
    }
}

/// What became of an observed stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a clamped stamp means that a clock in the cluster is wrong"]
pub enum Observed {
    /// The next tick will exceed the stamp.
    Accepted,
    /// The stamp was too far in the future: the clock moved only to the permitted skew.
    Clamped {
        /// How far the stamp is ahead of the local wall clock, in ms.
        ahead_ms: u64,
    },
}

/// Issues strictly increasing stamps. Sans-IO: time comes in as an argument.
#[derive(Debug, Clone)]
pub struct HlcClock {
    last: Hlc,
    skew_max_ms: u64,
}

impl Default for HlcClock {
    fn default() -> Self {
        Self::new(SKEW_MAX_MS)
    }
}

impl HlcClock {
    /// A clock that has seen nothing.
    #[must_use]
    pub const fn new(skew_max_ms: u64) -> Self {
        Self { last: Hlc::ZERO, skew_max_ms }
    }

    /// A clock that goes on after `last`, a stamp of an earlier run of this same node. Trusted:
    /// it is not clamped, since going below it would let an old value win over a newer one.
    #[must_use]
    pub const fn resume(last: Hlc, skew_max_ms: u64) -> Self {
        Self { last, skew_max_ms }
    }

    /// The greatest stamp given or accepted so far.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// The next stamp: `now_ms` if that is new, else just above the last one.
    ///
    /// # Limits
    /// Increases strictly until the 64 bits are used up (the year 10889).
    pub fn tick(&mut self, now_ms: u64) -> Hlc {
        self.last = Hlc::new(now_ms, 0).max(Hlc(self.last.0.saturating_add(1)));
        self.last
    }

    /// Takes note of a stamp made elsewhere, so that later ticks exceed it; see [`Observed`].
    pub fn observe(&mut self, remote: Hlc, now_ms: u64) -> Observed {
        let limit = Hlc::new(now_ms.saturating_add(self.skew_max_ms), u16::MAX);
        self.last = self.last.max(remote.min(limit));
        if remote > limit {
            Observed::Clamped { ahead_ms: remote.ms() - now_ms.min(remote.ms()) }
        } else {
            Observed::Accepted
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    #[test]
    fn parts_round_trip_and_saturate() {
        let stamp = Hlc::new(NOW_MS, 7);
        assert_eq!((stamp.ms(), stamp.logical()), (NOW_MS, 7));
        assert_eq!(Hlc::from_u64(stamp.as_u64()), stamp);
        assert_eq!(stamp.as_u64(), NOW_MS << 16 | 7);
        assert_eq!(Hlc::new(u64::MAX, 3), Hlc::new(MS_MAX, 3));
        assert!(Hlc::new(1, u16::MAX) < Hlc::new(2, 0));
        assert_eq!(format!("{stamp:?}"), "1700000000000.7");
    }

    #[test]
    fn tick_follows_the_wall_clock_and_never_goes_back() {
        let mut clock = HlcClock::default();
        assert_eq!(clock.tick(NOW_MS), Hlc::new(NOW_MS, 0));
        assert_eq!(clock.tick(NOW_MS), Hlc::new(NOW_MS, 1));
        assert_eq!(clock.tick(NOW_MS - 60_000), Hlc::new(NOW_MS, 2));
        assert_eq!(clock.tick(NOW_MS + 1), Hlc::new(NOW_MS + 1, 0));
    }

    #[test]
    fn tick_carries_a_full_logical_part_into_the_ms() {
        let mut clock = HlcClock::resume(Hlc::new(NOW_MS, u16::MAX), SKEW_MAX_MS);
        assert_eq!(clock.tick(NOW_MS), Hlc::new(NOW_MS + 1, 0));
    }

    #[test]
    fn resume_goes_on_above_the_last_stamp_however_far_ahead() {
        let last = Hlc::new(NOW_MS + 3_600_000, 4);
        assert_eq!(HlcClock::resume(last, SKEW_MAX_MS).tick(NOW_MS), Hlc::new(last.ms(), 5));
    }

    #[test]
    fn observe_accepts_up_to_the_skew_and_clamps_beyond() {
        for (ahead_ms, expected, next) in [
            (0, Observed::Accepted, Hlc::new(NOW_MS, 4)),
            (500, Observed::Accepted, Hlc::new(NOW_MS + 500, 4)),
            (501, Observed::Clamped { ahead_ms: 501 }, Hlc::new(NOW_MS + 501, 0)),
            (3_600_000, Observed::Clamped { ahead_ms: 3_600_000 }, Hlc::new(NOW_MS + 501, 0)),
        ] {
            let mut clock = HlcClock::default();
            assert_eq!(clock.observe(Hlc::new(NOW_MS + ahead_ms, 3), NOW_MS), expected);
            assert_eq!(clock.tick(NOW_MS), next, "{ahead_ms}");
        }
        let mut clock = HlcClock::default();
        let limit = Hlc::new(NOW_MS + 500, u16::MAX);
        assert_eq!(clock.observe(limit, NOW_MS), Observed::Accepted);
        assert_eq!(clock.last(), limit);
        let mut clock = HlcClock::default();
        clock.tick(NOW_MS);
        let past = Hlc::new(NOW_MS - 3_600_000, 0);
        assert_eq!(clock.observe(past, NOW_MS), Observed::Accepted);
        assert_eq!(clock.tick(NOW_MS), Hlc::new(NOW_MS, 1));
    }

    #[test]
    fn one_wild_peer_moves_the_clock_by_the_skew_at_most() {
        let mut clock = HlcClock::default();
        let wild = Hlc::from_u64(u64::MAX);
        for second in 0..100 {
            let now_ms = NOW_MS + second * 1_000;
            assert!(matches!(clock.observe(wild, now_ms), Observed::Clamped { .. }));
            assert!(clock.tick(now_ms).ms() <= now_ms + SKEW_MAX_MS + 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

        /// Wall clocks that jump to and fro, mixed with stamps of peers.
        #[test]
        fn ticks_increase_strictly(
            steps in prop::collection::vec((any::<bool>(), 0..10_000_u64, any::<u16>()), 1..60),
        ) {
            let mut clock = HlcClock::default();
            let mut last = Hlc::ZERO;
            for (tick, jump_ms, logical) in steps {
                let now_ms = NOW_MS + jump_ms;
                let next = if tick {
                    clock.tick(now_ms)
                } else {
                    let remote = Hlc::new(NOW_MS + u64::from(logical), logical);
                    let accepted = clock.observe(remote, now_ms) == Observed::Accepted;
                    prop_assert_eq!(accepted, remote.ms() <= now_ms + SKEW_MAX_MS);
                    let next = clock.tick(now_ms);
                    prop_assert!(!accepted || next > remote);
                    next
                };
                prop_assert!(next > last);
                prop_assert!(next.ms() >= now_ms);
                prop_assert_eq!(clock.last(), next);
                last = next;
            }
        }
    }
}
