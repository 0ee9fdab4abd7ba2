//! L6: histories against the model of `history`, which checks every state it reaches.

use std::collections::BTreeMap;

use crate::history::{Random, World};

const HISTORIES: u64 = 12_000;

/// Runs the histories of half the seeds, so that two threads share the work.
fn play_half(half: u64) {
    let mut steps: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut siblings_max, mut holes) = (0, 0);
    for seed in (half..HISTORIES).step_by(2) {
        let mut random = Random(seed);
        let words: Vec<u64> = (0..10 + random.word() % 80).map(|_| random.word()).collect();
        let played = std::panic::catch_unwind(|| World::play(&words));
        let world = played.unwrap_or_else(|_| panic!("history of seed {seed} failed, see above"));
        for (name, count) in &world.steps {
            *steps.entry(name).or_default() += count;
        }
        for state in world.states.iter().flatten() {
            siblings_max = siblings_max.max(state.set.live_len());
            let gap = |pair: &[(u64, u64)]| pair[0].0 - pair[1].0 > 1;
            holes += state.set.entries().filter(|(_, e)| e.values().windows(2).any(gap)).count();
        }
    }
    // The histories are only worth something if they do all that they are meant to do.
    for name in ["put", "blind put", "stale put", "read", "merge", "merge old", "restore", "wipe"] {
        assert!(steps.get(name).is_some_and(|count| *count > 1_000), "{name} in {steps:?}");
    }
    assert!(siblings_max >= 8, "{siblings_max}");
    assert!(holes > 10_000, "{holes}");
}

#[test]
fn histories_even_seeds_agree_with_the_model() {
    play_half(0);
}

#[test]
fn histories_odd_seeds_agree_with_the_model() {
    play_half(1);
}
