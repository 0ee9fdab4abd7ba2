//! Data directories that are lost, or old; members that were away too long; deletions that are forgotten.

use crate::run::{Found, Plan as Line, Run, Stage, within};
use std::collections::BTreeSet;
use std::time::Duration;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::traffic::{Plan, SET, SHARED, Traffic, declare};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;

const HEAL: Duration = Duration::from_secs(30);
const TABLES: [&str; 2] = [SET, SHARED];
/// Time after which a member is fenced, and age at which a deletion may be forgotten, in these scenarios.
const MAX_ABSENCE: Duration = Duration::from_secs(6);

pub(crate) fn run(run: &mut Run) {
    let options = Options::new(Wire::Namespaces, 3).with("cluster.poll_interval", "\"1s\"");
    let mut stage = Stage::new(run, "identity", options);
    stage.scenario(
        &Line {
            id: "I1",
            fault: "data directory lost, same name (kv679)",
            target: "0 acknowledged writes lost",
        },
        lost_directory,
    );
    stage.scenario(
        &Line {
            id: "I2",
            fault: "restored from an old backup",
            target: "0 lost, no rollback of peers; new incarnation",
        },
        old_backup,
    );
    stage.scenario(
        &Line {
            id: "I3",
            fault: "all nodes restored from one backup",
            target: "contents as in the backup; one cluster",
        },
        disaster,
    );
    stage.end();
    let options = Options::new(Wire::Namespaces, 3)
        .with("cluster.poll_interval", "\"1s\"")
        .with("cluster.max_absence", &format!("\"{}s\"", MAX_ABSENCE.as_secs()))
        .with("aae.tombstone_min_age", "\"1s\"")
        .with("aae.exchange_timer", "\"1s\"");
    let mut stage = Stage::new(run, "absence", options);
    stage.scenario(
        &Line {
            id: "I4",
            fault: "absent longer than deletions are remembered",
            target: "0 keys return",
        },
        too_long,
    );
    stage.scenario(
        &Line {
            id: "I5",
            fault: "deleted, forgotten, written again (doomstone)",
            target: "0 lost",
        },
        doomstone,
    );
    stage.end();
}

fn blind_put(cluster: &Cluster, node: usize, key: &str, value: &str) {
    cluster.put(node, SHARED, key, value);
}

fn delete(cluster: &Cluster, node: usize, key: &str) {
    cluster.delete(node, SHARED, key);
}

/// One way to lose a directory.
#[derive(Debug, Clone, Copy)]
struct Variation {
    /// The second node is down meanwhile.
    one_down: bool,
    /// The node writes before it has heard of anybody.
    alone: bool,
    /// Its directory is lost twice in a row.
    twice: bool,
}

fn lost_directory(cluster: &mut Cluster, run: &Run) -> Found {
    let variations: Vec<Variation> = (0..run.form(4, 24))
        .map(|n| Variation { one_down: n % 2 == 1, alone: n % 4 >= 2, twice: n % 8 >= 3 })
        .collect();
    let (mut keys, mut slowest) = (0, Duration::ZERO);
    for (round, variation) in variations.iter().enumerate() {
        let key = |j: usize| format!("i1/{round}/{j}");
        // Different pasts: one to four versions, some deleted, some as siblings of another node's.
        let past: Vec<Option<String>> = (0..12)
            .map(|j| {
                (0..=j % 4).for_each(|v| blind_put(cluster, 0, &key(j), &format!("old-{v}")));
                if j % 5 == 4 {
                    delete(cluster, 0, &key(j));
                    return None;
                }
                Some(format!("old-{}", j % 4))
            })
            .collect();
        cluster.wait_converged(&TABLES, HEAL);
        if variation.one_down {
            cluster.stop(1);
        }
        for _ in 0..if variation.twice { 2 } else { 1 } {
            cluster.kill(0);
            cluster.wipe(0);
            if variation.alone {
                cluster.wires().split(&[0], &[1, 2]);
            }
            cluster.start_node(0);
            declare(cluster);
        }
        for j in 0..past.len() {
            blind_put(cluster, 0, &key(j), &format!("new-{j}"));
        }
        cluster.wires().heal();
        if variation.one_down {
            cluster.start_node(1);
        }
        let whole = cluster.wait_formed(Duration::from_secs(60));
        slowest = slowest.max(whole + cluster.wait_converged(&TABLES, Duration::from_secs(60)));
        for (j, old) in past.iter().enumerate() {
            let new = format!("new-{j}");
            let found = cluster.get(2, SHARED, &key(j));
            let either: BTreeSet<String> = old.iter().cloned().chain([new.clone()]).collect();
            let good = found.contains(&new) && found.is_subset(&either);
            // Alone it cannot have seen what was there, so both must be.
            let good = good && (!variation.alone || found == either);
            assert!(good, "{variation:?}, key {j}: {found:?}, expected {new} and perhaps {old:?}");
            keys += 1;
        }
    }
    format!(
        "{keys} keys in {} variations; whole and equal ≤ {slowest:.1?}; 0 lost, 0 returned",
        variations.len()
    )
    .into()
}

fn old_backup(cluster: &mut Cluster, run: &Run) -> Found {
    let all = [0, 1, 2];
    // The clients of the node that loses its disk are below: what it acknowledged last is lost with its disk.
    let mut plan = Plan::new("i2", &[1, 2]);
    plan.sharers = 0;
    let traffic = Traffic::start(cluster, plan);
    pause(Duration::from_secs(2));
    cluster.stop(0);
    let backup = cluster.backup(0, "i2");
    cluster.start_node(0);
    pause(run.form(Duration::from_secs(4), Duration::from_secs(600)));
    let before = cluster.incarnation(0);
    let since: Vec<String> = (0..200).map(|n| format!("i2-since/{n}")).collect();
    since.iter().for_each(|key| blind_put(cluster, 0, key, "x"));
    for key in &since {
        cluster.wait_value(1, SHARED, key, "x", HEAL);
    }
    pause(Duration::from_secs(2));
    cluster.kill(0);
    cluster.restore(0, &backup);
    // It writes before it has heard of anybody, from counters on that its peers know from before.
    cluster.wires().split(&[0], &[1, 2]);
    cluster.start_node(0);
    let early: Vec<String> = (0..100).map(|n| format!("i2-early/{n}")).collect();
    early.iter().for_each(|key| blind_put(cluster, 0, key, "x"));
    let after = cluster.incarnation(0);
    cluster.wires().heal();
    let whole = cluster.wait_formed(Duration::from_secs(60));
    pause(Duration::from_secs(2));
    let found = traffic.verify(cluster, Duration::from_secs(120));
    for node in all {
        let there = cluster.content(node, SHARED, "i2-early/").unwrap().len();
        assert_eq!(there, early.len(), "n{node} lacks writes that were made after the restore");
        let there = cluster.content(node, SHARED, "i2-since/").unwrap().len();
        assert_eq!(
            there,
            since.len(),
            "n{node} lacks writes that its peers had before the restore"
        );
    }
    assert!(after > before, "incarnation {before}, then {after}");
    format!(
        "whole {whole:.1?}, equal {:.1?} after the last write; {} acked, 0 lost; incarnation +{}",
        found.converged,
        found.acked,
        after - before
    )
    .into()
}

fn disaster(cluster: &mut Cluster, _run: &Run) -> Found {
    for n in 0..200 {
        cluster.put(n % 3, SET, &format!("i3/{n}"), "kept");
    }
    for n in 0..50 {
        let delete = cluster.client(1).delete(SET, format!("i3/{n}"));
        cluster.wait_value(1, SET, &format!("i3/{n}"), "kept", HEAL);
        cluster.block(async { delete.await }).unwrap();
    }
    cluster.wait_converged(&TABLES, HEAL);
    let before = cluster.content(0, SET, "i3/").unwrap();
    cluster.stop(0);
    let backup = cluster.backup(0, "i3");
    cluster.start_node(0);
    for n in 0..200 {
        cluster.put(n % 3, SET, &format!("i3/{n}"), "spoilt");
    }
    // The drill: stop all, one gets the backup, the others begin with nothing.
    [0, 1, 2].into_iter().for_each(|node| cluster.stop(node));
    cluster.restore(0, &backup);
    cluster.wipe(1);
    cluster.wipe(2);
    let start = std::time::Instant::now();
    cluster.start_nodes(&[0, 1, 2]);
    cluster.wait_formed(Duration::from_secs(60));
    cluster.wait_converged(&TABLES, Duration::from_secs(60));
    let took = start.elapsed();
    for node in [0, 1, 2] {
        assert_eq!(cluster.content(node, SET, "i3/").unwrap(), before, "n{node}");
    }
    let live = cluster.members(0).unwrap().members;
    let joined: Vec<_> = live.iter().filter(|m| m.status == "joined").map(|m| &m.name).collect();
    assert_eq!(joined.len(), 3, "{live:?}");
    within("the drill", took, Duration::from_secs(600));
    format!("{} keys as in the backup on all 3, 50 deletions kept, in {took:.1?}", before.len())
        .into()
}

/// Until another node takes this one for fenced.
fn wait_fenced(cluster: &Cluster, node: usize, other: usize) {
    let name = Cluster::node_name(other);
    cluster.wait_member(node, &name, Duration::from_secs(60), |m| {
        m.is_some_and(|m| m.status == "fenced")
    });
}

fn too_long(cluster: &mut Cluster, run: &Run) -> Found {
    let keys: Vec<String> = (0..run.form(200, 1000)).map(|n| format!("i4/{n}")).collect();
    keys.iter().for_each(|key| blind_put(cluster, 0, key, "old"));
    cluster.put(2, SHARED, "i4-stays", "x");
    cluster.wait_converged(&TABLES, HEAL);
    cluster.stop(2);
    keys.iter().for_each(|key| delete(cluster, 0, key));
    cluster.put(0, SHARED, "i4-meanwhile", "x");
    wait_fenced(cluster, 0, 2);
    wait_fenced(cluster, 1, 2);
    // Exchanges and sweeps of some rounds: nothing is left of the deletions then.
    pause(Duration::from_secs(5));
    cluster.start_node(2);
    let back = cluster.wait_formed(Duration::from_secs(60));
    let converged = cluster.wait_converged(&TABLES, Duration::from_secs(60));
    pause(Duration::from_secs(3));
    for node in [0, 1, 2] {
        let left = cluster.content(node, SHARED, "i4/").unwrap();
        assert!(left.is_empty(), "{} of {} keys are back on n{node}", left.len(), keys.len());
        for key in ["i4-stays", "i4-meanwhile"] {
            assert_eq!(cluster.get(node, SHARED, key).len(), 1, "{key} on n{node}");
        }
    }
    format!(
        "{} deleted, 0 returned; fenced, back {back:.1?}, equal {converged:.1?} later",
        keys.len()
    )
    .into()
}

fn doomstone(cluster: &mut Cluster, run: &Run) -> Found {
    let keys: Vec<String> = (0..run.form(200, 200)).map(|n| format!("i5/{n}")).collect();
    let mut rounds = 0;
    for round in 0..run.form(1, 5) {
        keys.iter().for_each(|key| blind_put(cluster, 0, key, "old"));
        cluster.wait_converged(&TABLES, HEAL);
        // Some are deleted while a node is down, and all are swept only where nobody misses them.
        let (first, second) = keys.split_at(keys.len() / 2);
        first.iter().for_each(|key| delete(cluster, 1, key));
        pause(Duration::from_secs(4));
        cluster.stop(2);
        second.iter().for_each(|key| delete(cluster, 0, key));
        keys.iter()
            .enumerate()
            .for_each(|(n, key)| blind_put(cluster, n % 2, key, &format!("new-{round}")));
        cluster.start_node(2);
        cluster.wait_formed(Duration::from_secs(60));
        cluster.wait_converged(&TABLES, Duration::from_secs(60));
        wait_until(Duration::from_secs(5), "all new values", || {
            let wrong: Vec<_> = keys
                .iter()
                .filter(|key| {
                    cluster.get(2, SHARED, key) != BTreeSet::from([format!("new-{round}")])
                })
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
        });
        rounds += 1;
    }
    format!("{} keys, {rounds} rounds, 0 lost, 0 old ones back", keys.len()).into()
}
