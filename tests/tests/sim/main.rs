//! Simulated clusters: many seeds, each a run with faults and a verdict.
//!
//! - All seeds of CI: `cargo test -p weald-tests --test sim`
//! - One seed, with its plan: `WEALD_SIM_SEED=17 cargo test -p weald-tests --test sim -- seeds --nocapture`
//! - The long form: `WEALD_SIM_SEEDS=20000 cargo test -p weald-tests --test sim -- seeds --nocapture`; `WEALD_SIM_FIRST`
//!   begins with another seed than 0
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use weald_tests::sim::{Plan, Sometimes, run};

/// Seeds of a run in CI.
const SEEDS: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// Runs seeds from 0 on, or from `WEALD_SIM_FIRST`; on all cores, since each is a world of its own.
#[test]
fn seeds_keep_all_invariants_and_heal() {
    if let Some(seed) = number("WEALD_SIM_SEED") {
        let plan = Plan::draw(seed);
        eprint!("{plan}");
        match run(&plan) {
            Ok(report) => return eprintln!("{report:?}\n{}", report.sometimes),
            Err(failure) => panic!("{failure}"),
        }
    }
    let seeds = number("WEALD_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("WEALD_SIM_FIRST").unwrap_or(0);
    let (next, total, failures) = (AtomicU64::new(first), Mutex::default(), Mutex::new(Vec::new()));
    let (begun, slowest) = (Instant::now(), AtomicU64::new(0));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= seeds {
                return;
            }
            match run(&Plan::draw(seed)) {
                Ok(report) => {
                    slowest.fetch_max(report.healed_ms, Ordering::Relaxed);
                    let mut total: std::sync::MutexGuard<'_, Sometimes> = total.lock().unwrap();
                    total.merge(&report.sometimes);
                }
                Err(failure) => failures.lock().unwrap().push((seed, failure.to_string())),
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(worker);
        }
    });
    let total = total.into_inner().unwrap();
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let slowest = slowest.into_inner();
    eprintln!(
        "{seeds} seeds from {first} in {:?}, slowest heal {slowest} ms\n{total}",
        begun.elapsed()
    );
    let texts: Vec<String> = failures.into_iter().map(|(_, text)| text).collect();
    assert!(texts.is_empty(), "{} of {seeds} seeds failed:\n\n{}", texts.len(), texts.join("\n\n"));
    assert!(seeds < SEEDS || total.never().is_empty(), "never happened: {:?}", total.never());
}

/// Two runs of one seed agree in every frame, timer and answer.
#[test]
fn seed_runs_the_same_twice() {
    for seed in 0..5 {
        let plan = Plan::draw(seed);
        let traces = [run(&plan), run(&plan)].map(|run| match run {
            Ok(report) => report.trace.to_string(),
            Err(failure) => failure.to_string(),
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
