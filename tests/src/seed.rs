//! Seeded randomness: the seed is printed first, and `SEED=<number>` repeats a run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::{SystemTime, UNIX_EPOCH};

/// A random generator whose seed is known.
#[derive(Debug)]
pub struct Seeded {
    rng: ChaCha8Rng,
    seed: u64,
}

impl Seeded {
    /// Takes the seed from the variable `SEED`, or a new one from the clock, and prints it.
    ///
    /// # Panics
    /// When `SEED` is no number.
    #[must_use]
    pub fn announced(test: &str) -> Self {
        let seed = match std::env::var("SEED") {
            Ok(text) => text.parse().unwrap_or_else(|e| panic!("SEED={text}: {e}")),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |d| u64::from(d.subsec_nanos()) ^ (d.as_secs() << 20)),
        };
        eprintln!("{test}: SEED={seed}");
        Self::new(seed)
    }

    /// A generator with that seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), seed }
    }

    /// Its seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number below `bound`, which must not be 0. The bias is far below anything a test notices.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.any() % bound).unwrap_or(0)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
