//! The randomness of the cores: seeded, so that a run can be repeated.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// A generator that yields the same for the same seed, for ever.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, or 0 when that is 0. The bias is below 2^-32 for the bounds in use.
    pub fn below(&mut self, bound: usize) -> usize {
        let Ok(wide) = u64::try_from(bound) else { return 0 };
        if wide == 0 { 0 } else { usize::try_from(self.0.next_u64() % wide).unwrap_or(0) }
    }

    /// `base` give or take `percent` of it.
    pub fn jitter(&mut self, base: u64, percent: u64) -> u64 {
        let spread = base.saturating_mul(percent) / 100;
        let width = spread.saturating_mul(2).saturating_add(1);
        base.saturating_sub(spread).saturating_add(self.0.next_u64() % width)
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    /// Any order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }

    /// At most `count` of them, in any order.
    pub fn sample<T: Copy>(&mut self, from: impl Iterator<Item = T>, count: usize) -> Vec<T> {
        let mut items: Vec<T> = from.collect();
        self.shuffle(&mut items);
        items.truncate(count);
        items
    }
}
