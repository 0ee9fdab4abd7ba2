//! Nodes that cannot reach each other, or only slowly.

use crate::run::{Found, Plan as Line, Run, Stage, within};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weald_tests::checkers::set_full::Quantiles;
use weald_tests::harness::cluster::{Cluster, Options, Seeds};
use weald_tests::harness::traffic::{Plan, SET, SHARED, Traffic};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::seed::Seeded;

const ALL: [usize; 5] = [0, 1, 2, 3, 4];
const DETECT: Duration = Duration::from_secs(6);
const HEAL: Duration = Duration::from_secs(30);

pub(crate) fn run(run: &mut Run) {
    let mut options = Options::new(Wire::Namespaces, 5);
    options.seeds = Seeds::First;
    let mut stage = Stage::new(run, "split", options);
    stage.scenario(
        &Line {
            id: "N1",
            fault: "clean split 2|3",
            target: "noticed ≤ 6 s; equal ≤ 30 s after healing; p99 of writes ≤ 2 × base, or 300 ms",
        },
        clean_split,
    );
    stage.scenario(
        &Line {
            id: "N2",
            fault: "one node isolated, deletes meanwhile",
            target: "0 keys return; equal ≤ 30 s",
        },
        isolated,
    );
    stage.scenario(
        &Line {
            id: "N3",
            fault: "A–B cut, both see the others",
            target: "flaps ≤ 1/min a pair; data A→B ≤ 30 s",
        },
        |cluster, run| partial(cluster, run, "n3", &[(0, 1), (1, 0)]),
    );
    stage.scenario(
        &Line {
            id: "N4",
            fault: "A→B lost, B→A fine",
            target: "flaps ≤ 1/min a pair; data A→B ≤ 30 s",
        },
        |cluster, run| partial(cluster, run, "n4", &[(0, 1)]),
    );
    stage.scenario(
        &Line {
            id: "N5", fault: "majorities-ring of 5", target: "equal during the fault, ≤ 60 s"
        },
        ring,
    );
    stage.scenario(
        &Line { id: "N6", fault: "swizzle-clog", target: "0 violations; memory ≤ base + 20 %" },
        swizzle,
    );
    stage.scenario(
        &Line {
            id: "N9",
            fault: "one node at 64 kbit/s",
            target: "others' p99 ≤ 1.2 × base + 200 ms; equal after",
        },
        slow,
    );
    stage.end();
    let mut options = Options::new(Wire::Namespaces, 5).with("cluster.strategy", "\"p2p\"");
    options.seeds = Seeds::First;
    let mut stage = Stage::new(run, "remerge", options);
    stage.scenario(
        &Line {
            id: "N13",
            fault: "overlay split 2|3 beyond all time-outs (p2p)",
            target: "whole again ≤ 60 s",
        },
        remerge,
    );
    stage.end();
}

/// Whether a node does not see another as up.
fn misses(cluster: &Cluster, node: usize, other: usize) -> bool {
    let member = cluster.member(node, &Cluster::node_name(other));
    member.is_none_or(|m| m.liveness != "up")
}

fn clean_split(cluster: &mut Cluster, run: &Run) -> Found {
    let traffic = Traffic::start(cluster, Plan::new("n1", &ALL));
    pause(Duration::from_secs(4));
    let (split_at, started) = (traffic.now(), Instant::now());
    cluster.wires().split(&[0, 1], &[2, 3, 4]);
    let detected = wait_until(Duration::from_secs(30), "both sides to notice", || {
        let blind: Vec<_> = [(0, 4), (1, 3), (2, 0), (4, 1)]
            .into_iter()
            .filter(|&(node, other)| !misses(cluster, node, other))
            .collect();
        if blind.is_empty() { Ok(started.elapsed()) } else { Err(format!("{blind:?}")) }
    });
    let rest = run.form(Duration::from_secs(8), Duration::from_secs(60));
    pause(rest.saturating_sub(started.elapsed()));
    let healed_at = traffic.now();
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    let base = found.latency(&ALL, 500_000, split_at).p99;
    let during = found.latency(&ALL, split_at, healed_at).p99;
    let figures = format!(
        "noticed {detected:.1?}; whole {whole:.1?}, equal {:.1?} later; p99 {} → {} ms; {} acked, 0 lost; {}",
        found.converged,
        base / 1000,
        during / 1000,
        found.acked,
        cluster.wires().name()
    );
    within("to notice", detected, DETECT);
    within("to converge", whole + found.converged, HEAL);
    // Other programs use the disk, too.
    assert!(during <= (2 * base).max(300_000), "writes got slower: {figures}");
    figures.into()
}

fn isolated(cluster: &mut Cluster, run: &Run) -> Found {
    let keys: Vec<String> = (0..200).map(|n| format!("n2/{n}")).collect();
    keys.iter().for_each(|key| cluster.put(0, SHARED, key, "old"));
    cluster.wait_converged(&[SHARED], HEAL);
    cluster.wires().split(&[4], &[0, 1, 2, 3]);
    let traffic = Traffic::start(cluster, Plan::new("n2t", &ALL));
    for (n, key) in keys.iter().enumerate() {
        let client = cluster.client(n % 4);
        let context = cluster.block(client.get(SHARED, key.as_str())).unwrap().context;
        let delete = client.delete(SHARED, key.as_str()).context(&context);
        cluster.block(async { delete.await }).unwrap();
    }
    // Nodes deleted for different reasons: some keys are written again on the side that deleted them.
    cluster.put(0, SHARED, "n2/0", "new");
    pause(run.form(Duration::from_secs(10), Duration::from_secs(600)));
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    for node in ALL {
        let left = cluster.content(node, SHARED, "n2/").unwrap();
        let values: Vec<_> = left.values().flatten().collect();
        assert!(left.len() == 1 && values == [b"new"], "n{node} has {left:?}");
    }
    within("to converge", whole + found.converged, HEAL);
    format!(
        "{} deleted keys, 0 back; whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost",
        keys.len() - 1,
        found.converged,
        found.acked
    )
    .into()
}

/// Counts how often each node changes its mind about each other.
#[derive(Default)]
struct Flaps {
    last: BTreeMap<(usize, String), bool>,
    counts: BTreeMap<(usize, String), u32>,
}

impl Flaps {
    fn look(&mut self, cluster: &Cluster) {
        for node in ALL {
            let Ok(members) = cluster.members(node) else { continue };
            for member in members.members.into_iter().filter(|m| m.status == "joined") {
                let (pair, down) = ((node, member.name), member.liveness == "down");
                // A flap is to be taken for dead and to come back.
                if self.last.insert(pair.clone(), down) == Some(true) && !down {
                    *self.counts.entry(pair).or_default() += 1;
                }
            }
        }
    }
}

fn partial(cluster: &mut Cluster, run: &Run, prefix: &str, cuts: &[(usize, usize)]) -> Found {
    let traffic = Traffic::start(cluster, Plan::new(prefix, &ALL));
    cuts.iter().for_each(|&(from, to)| cluster.wires().cut(from, to));
    let (start, time) =
        (Instant::now(), run.form(Duration::from_secs(12), Duration::from_secs(60)));
    let (mut flaps, mut worst, mut round) = (Flaps::default(), Duration::ZERO, 0);
    while start.elapsed() < time {
        let key = format!("{prefix}-way/{round}");
        for (from, to) in [(0, 1), (1, 0)] {
            cluster.put(from, SHARED, &format!("{key}-{from}"), "x");
            worst = worst.max(cluster.wait_value(to, SHARED, &format!("{key}-{from}"), "x", HEAL));
        }
        flaps.look(cluster);
        round += 1;
        pause(Duration::from_millis(200));
    }
    let minutes = u32::try_from(start.elapsed().as_secs() / 60 + 1).unwrap();
    let most = flaps.counts.values().max().copied().unwrap_or_default();
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, HEAL);
    assert!(most <= minutes, "{:?} flaps in {:.0?}", flaps.counts, start.elapsed());
    format!(
        "{round} writes each way, A→B ≤ {worst:.1?}; flaps {most}; whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost",
        found.converged, found.acked
    )
    .into()
}

fn ring(cluster: &mut Cluster, run: &Run) -> Found {
    for node in ALL {
        let opposite = [(node + 2) % 5, (node + 3) % 5];
        cluster.wires().split(&[node], &opposite);
    }
    let traffic = Traffic::start(cluster, Plan::new("n5", &ALL));
    pause(run.form(Duration::from_secs(8), Duration::from_secs(30)));
    let acked = traffic.acked();
    // Equal while the ring is all there is.
    for node in ALL {
        cluster.put(node, SHARED, &format!("n5-ring/{node}"), "x");
    }
    let mut ring = Duration::ZERO;
    for (node, from) in ALL.iter().flat_map(|&node| ALL.map(|from| (node, from))) {
        let key = format!("n5-ring/{from}");
        ring += cluster.wait_value(node, SHARED, &key, "x", Duration::from_secs(60));
    }
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, HEAL);
    within("to reach all around the ring", ring, Duration::from_secs(60));
    format!(
        "around the ring {ring:.1?}, {acked} acked meanwhile; whole {whole:.1?}, equal {:.1?} later; 0 lost",
        found.converged
    )
    .into()
}

fn swizzle(cluster: &mut Cluster, run: &Run) -> Found {
    let mut rng = Seeded::announced("swizzle");
    let memory =
        |cluster: &mut Cluster| ALL.map(|node| cluster.memory_kib(node)).iter().sum::<u64>();
    let before = memory(cluster);
    let traffic = Traffic::start(cluster, Plan::new("n6", &ALL));
    let rounds = run.form(2, 20);
    let step = run.form(Duration::from_millis(300), Duration::from_millis(1000));
    for _ in 0..rounds {
        let mut links: Vec<(usize, usize)> =
            ALL.iter().flat_map(|&a| ALL.map(|b| (a, b))).filter(|(a, b)| a < b).collect();
        for heal in [false, true] {
            // A random order, each time another.
            for at in (1..links.len()).rev() {
                links.swap(at, rng.below(at + 1));
            }
            for &(a, b) in &links {
                for (from, to) in [(a, b), (b, a)] {
                    if heal {
                        cluster.wires().heal_one(from, to)
                    } else {
                        cluster.wires().cut(from, to)
                    }
                }
                pause(step);
            }
        }
    }
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    let after = memory(cluster);
    assert!(after <= before * 12 / 10, "memory {before} → {after} KiB");
    format!(
        "{rounds} rounds; whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost; memory {} → {} MiB",
        found.converged, found.acked, before >> 10, after >> 10
    )
    .into()
}

/// Times from a write on one node until it is seen on another.
fn visible(cluster: &Cluster, prefix: &str, count: usize) -> Quantiles {
    let times = (0..count).map(|n| {
        let key = format!("{prefix}/{n}");
        cluster.put(0, SHARED, &key, "x");
        cluster.wait_value(1, SHARED, &key, "x", HEAL)
    });
    Quantiles::of(times.map(|t| u64::try_from(t.as_micros()).unwrap()).collect())
}

fn slow(cluster: &mut Cluster, run: &Run) -> Found {
    let count = run.form(60, 400);
    let mut plan = Plan::new("n9", &[0, 1, 2, 3]);
    plan.pause = Duration::from_millis(20);
    let traffic = Traffic::start(cluster, plan);
    // The same load before and during the fault, and far more than the slow node can take.
    let large = "x".repeat(20_000);
    let load = |part: &str| {
        for n in 0..run.form(60, 600) {
            cluster.put(n % 4, SET, &format!("n9-bulk/{part}/{n}"), &large);
        }
        visible(cluster, &format!("n9-{part}"), count)
    };
    let base = load("base");
    cluster.wires().limit(4, 64);
    let during = load("during");
    let status = cluster.block(cluster.client(0).cluster_status()).unwrap();
    let overflow: u64 = status.peers.iter().map(|p| p.overflow).sum();
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(90));
    let figures = format!(
        "visible p50/p99 {}/{} → {}/{} ms; overflow {overflow}; whole {whole:.1?}, equal {:.1?} later; 0 lost",
        base.p50 / 1000,
        base.p99 / 1000,
        during.p50 / 1000,
        during.p99 / 1000,
        found.converged
    );
    // A queue behind the slow node would cost seconds; other programs cost some hundred ms now and then.
    let noise_us = 200_000;
    assert!(during.p50 <= base.p50 * 12 / 10 + noise_us / 4, "{figures}");
    assert!(during.p99 <= base.p99 * 12 / 10 + noise_us, "{figures}");
    figures.into()
}

fn remerge(cluster: &mut Cluster, run: &Run) -> Found {
    let traffic = Traffic::start(cluster, Plan::new("n13", &ALL));
    cluster.wires().split(&[0, 1], &[2, 3, 4]);
    wait_until(Duration::from_secs(60), "both sides to drop each other", || {
        let pairs = [(0, 2), (0, 3), (0, 4), (1, 2), (2, 0), (3, 1), (4, 0)];
        let seen: Vec<_> = pairs.into_iter().filter(|&(a, b)| !misses(cluster, a, b)).collect();
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // Beyond the idle time-out of connections, so that nothing of them is left.
    pause(run.form(Duration::from_secs(22), Duration::from_secs(120)));
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(90));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    within("to be whole again", whole, Duration::from_secs(60));
    format!("whole {whole:.1?}, equal {:.1?} later; {} acked, 0 lost", found.converged, found.acked)
        .into()
}
