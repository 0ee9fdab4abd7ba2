//! The cores against the model of OTP: same starts, stops, restarts and escalations, same order.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

use crate::cores::Cores;
use crate::otp::Otp;
use crate::tree::{steps, tree, worker_paths};

const CASES: u32 = 20_000;

#[test]
fn random_trees_behave_as_otp_does() {
    let (restarts, escalations, failed_starts, autos) =
        (Cell::new(0u64), Cell::new(0u64), Cell::new(0u64), Cell::new(0u64));
    let mut runner =
        TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(tree(1000), steps(3)), |(root, steps)| {
        let workers = worker_paths(&root);
        let (mut otp, mut cores) = (Otp::boot(&root), Cores::boot(&root));
        for step in &steps {
            otp.step(step, &workers);
            cores.step(step, &workers);
            prop_assert_eq!(&otp.trace, &cores.trace, "after {:?}", step);
            prop_assert_eq!(otp.live_workers(), cores.live_workers());
            prop_assert_eq!(otp.is_up(), cores.is_up());
        }
        otp.shutdown();
        cores.shutdown();
        prop_assert_eq!(&otp.trace, &cores.trace, "after the shutdown");
        prop_assert_eq!(cores.live_workers().len(), 0);
        let count =
            |word: &str| otp.trace.iter().filter(|line| line.starts_with(word)).count() as u64;
        restarts.set(restarts.get() + cores.notes as u64);
        escalations.set(escalations.get() + count("gaveup"));
        failed_starts.set(failed_starts.get() + count("fail"));
        autos.set(autos.get() + count("auto"));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!(
        "{CASES} trees: {} restart decisions, {} escalations, {} failed starts, {} auto-shutdowns",
        restarts.get(),
        escalations.get(),
        failed_starts.get(),
        autos.get()
    );
    // The cases are worth something only if the interesting things happened.
    for seen in [&restarts, &escalations, &failed_starts, &autos] {
        assert!(seen.get() > 1000);
    }
}
