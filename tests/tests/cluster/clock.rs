//! A wall clock that is wrong.

use crate::run::{Found, Plan as Line, Run};
use std::time::Duration;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::skew::Skew;
use weald_tests::harness::traffic::{Plan, Traffic, declare};
use weald_tests::harness::wait::pause;
use weald_tests::harness::wires::Wire;

pub(crate) fn run(run: &mut Run) {
    run.alone(
        &Line {
            id: "N15",
            fault: "clock of one node +1 h, then −10 min, then twice as fast, with a restart between",
            target: "0 lost, 0 wrong; equal on all",
        },
        skewed,
    );
}

fn skewed(run: &Run) -> Found {
    const WRONG: usize = 1;
    let mut cluster = Cluster::prepare("clock", Options::new(Wire::Direct, 3));
    let skew = match Skew::new(cluster.dir()) {
        Ok(skew) => skew,
        Err(why) => return Found::Skipped(format!("no library for the clock: {why}")),
    };
    cluster.set_env(WRONG, skew.env());
    skew.set(3600, 0).unwrap();
    cluster.start_nodes(&[0, 1, 2]);
    cluster.wait_formed(Duration::from_secs(60));
    declare(&cluster);
    let traffic = Traffic::start(&cluster, Plan::new("n15", &[0, 1, 2]));
    let step = run.form(Duration::from_secs(3), Duration::from_secs(60));
    pause(step);
    skew.set(-600, 0).unwrap();
    pause(step);
    // Its clock is behind that of its own past now.
    let before = cluster.incarnation(WRONG);
    cluster.kill(WRONG);
    cluster.start_node(WRONG);
    let after = cluster.incarnation(WRONG);
    assert!(after > before, "incarnation {before}, then {after}");
    pause(step);
    skew.set(-600, 1000).unwrap();
    pause(step);
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(&cluster, Duration::from_secs(60));
    cluster.finish();
    format!(
        "whole {whole:.1?}, equal {:.1?} after the last write; {} acked, 0 lost",
        found.converged, found.acked
    )
    .into()
}
