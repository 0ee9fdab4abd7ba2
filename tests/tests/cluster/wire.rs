//! Connections that lie: half-open, lossy, doubling, reordering, damaging. Through the proxy.

use crate::run::{Found, Plan as Line, Run, Stage, within};
use std::time::{Duration, Instant};
use weald_peers::kind;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::traffic::{Plan, Traffic};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::proxy::{Fabric, Faults, Flow, MessageFaults};

const ALL: [usize; 3] = [0, 1, 2];

pub(crate) fn run(run: &mut Run) {
    let mut stage = Stage::new(run, "bytes", Options::new(Wire::Proxy, 3));
    stage.scenario(
        &Line {
            id: "N8",
            fault: "half-open peer: everything swallowed, no FIN",
            target: "closed ≤ 15 s",
        },
        half_open,
    );
    stage.scenario(
        &Line {
            id: "N12",
            fault: "flipped bits, about 1 % of frames",
            target: "links reset; 0 panics, 0 wrong values",
        },
        corrupt,
    );
    stage.end();
    let mut options = Options::new(Wire::Proxy, 3);
    options.messages = true;
    let mut stage = Stage::new(run, "messages", options);
    stage.scenario(
        &Line {
            id: "N11",
            fault: "broadcast: 20 % doubled, reordered in a window of 50, 5 % dropped",
            target: "0 lost, 0 phantoms; holes filled ≤ 30 s",
        },
        lossy,
    );
    stage.end();
}

fn proxy(cluster: &Cluster) -> &Fabric {
    cluster.wires().proxy().expect("a proxy was asked for")
}

fn on_all(cluster: &Cluster, faults: &Faults) {
    for (a, b) in ALL.iter().flat_map(|&a| ALL.map(|b| (a, b))).filter(|(a, b)| a != b) {
        proxy(cluster).set(a, b, faults);
    }
}

fn half_open(cluster: &mut Cluster, _run: &Run) -> Found {
    let traffic = Traffic::start(cluster, Plan::new("n8", &ALL));
    pause(Duration::from_secs(1));
    let start = Instant::now();
    proxy(cluster).set_both(0, 1, &Faults::flow(Flow::Swallow));
    let connected = |node: usize, other: usize| {
        let status = cluster.block(cluster.client(node).cluster_status()).unwrap();
        status.peers.iter().any(|p| p.name == Cluster::node_name(other) && p.connected)
    };
    let closed = wait_until(Duration::from_secs(60), "both ends to close", || {
        let open = (connected(0, 1), connected(1, 0));
        if open == (false, false) { Ok(start.elapsed()) } else { Err(format!("{open:?}")) }
    });
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(30));
    within("to close", closed, Duration::from_secs(15));
    let swallowed = proxy(cluster).counts_all().swallowed;
    assert!(swallowed > 0, "the fault did not happen");
    format!(
        "closed after {closed:.1?}, {swallowed} bytes swallowed; whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost",
        found.converged, found.acked
    )
    .into()
}

fn corrupt(cluster: &mut Cluster, run: &Run) -> Found {
    let before = proxy(cluster).counts_all();
    let traffic = Traffic::start(cluster, Plan::new("n12", &ALL));
    // A frame has some hundred bytes, and a connection does not outlive its first one.
    on_all(cluster, &Faults { corrupt_every: Some(8_000), ..Faults::default() });
    pause(run.form(Duration::from_secs(8), Duration::from_secs(60)));
    let after = proxy(cluster).counts_all();
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    let flipped = after.corrupted - before.corrupted;
    assert!(flipped > 0, "the fault did not happen");
    format!(
        "{flipped} bits flipped, {} connections made anew; whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost, 0 phantoms",
        after.connections - before.connections, found.converged, found.acked
    )
    .into()
}

fn lossy(cluster: &mut Cluster, run: &Run) -> Found {
    let before = proxy(cluster).counts_all();
    let messages = MessageFaults {
        services: vec![kind::BROADCAST],
        drop_percent: 5,
        duplicate_percent: 20,
        reorder_percent: 50,
        reorder_window: 50,
        ..MessageFaults::default()
    };
    on_all(cluster, &Faults { messages, ..Faults::default() });
    let traffic = Traffic::start(cluster, Plan::new("n11", &ALL));
    pause(run.form(Duration::from_secs(10), Duration::from_secs(60)));
    // The holes are to be filled while the fault goes on.
    let found = traffic.verify(cluster, Duration::from_secs(60));
    let after = proxy(cluster).counts_all();
    let [dropped, doubled, reordered, passed] = [
        after.dropped - before.dropped,
        after.duplicated - before.duplicated,
        after.reordered - before.reordered,
        after.messages - before.messages,
    ];
    let figures = format!(
        "{passed} messages, {dropped} dropped, {doubled} doubled, {reordered} reordered; equal {:.1?} after the last write; {} acked, 0 lost",
        found.converged, found.acked
    );
    assert!(dropped > 0 && doubled > 0 && reordered > 0, "the fault did not happen: {figures}");
    within("to fill the holes", found.converged, Duration::from_secs(30));
    figures.into()
}
