//! Nodes that die, and disks that fail.

use crate::run::{Found, Plan as Line, Run, Stage, within};
use std::time::{Duration, Instant};
use weald_client::Error;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::damage::{Harm, damage};
use weald_tests::harness::tmpfs::Tmpfs;
use weald_tests::harness::traffic::{Plan, SET, SHARED, Traffic, declare};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::powerloss::record::Recorder;
use weald_tests::seed::Seeded;

const HEAL: Duration = Duration::from_secs(30);
const EXIT_GAVE_UP: i32 = 70;

pub(crate) fn run(run: &mut Run) {
    let mut options = Options::new(Wire::Direct, run.form(3, 5));
    options.config.push(("storage.map_size".to_owned(), "\"4MiB\"".to_owned()));
    let mut stage = Stage::new(run, "crash", options);
    stage.scenario(
        &Line {
            id: "S1",
            fault: "kill -9 of a random node again and again while all write",
            target: "0 lost; incarnation rises; boot ≤ 5 s; equal ≤ 30 s",
        },
        kills,
    );
    stage.scenario(
        &Line {
            id: "S6",
            fault: "flipped bits in the files of one node",
            target: "0 wrong reads; contents whole again ≤ 30 s; peers unchanged",
        },
        |cluster, run| damaged(cluster, &vec![Harm::Bits; run.form(3, 60)], "s6"),
    );
    stage.scenario(
        &Line {
            id: "S7",
            fault: "zeroed page, file cut to half",
            target: "never served; contents whole again ≤ 30 s",
        },
        |cluster, run| damaged(cluster, &[Harm::Page, Harm::Cut].repeat(run.form(1, 30)), "s7"),
    );
    stage.end();
    run.alone(
        &Line {
            id: "S4",
            fault: "disk of one node full",
            target: "reads go on, peers unaffected; alarm ≤ 2 s; writes ≤ 10 s after space, equal ≤ 30 s, no restart",
        },
        full_disk,
    );
    run.alone(
        &Line {
            id: "S9",
            fault: "a sync fails on one node",
            target: "no acknowledgement after it; the node ends; 0 lost after its restart",
        },
        failed_sync,
    );
}

fn kills(cluster: &mut Cluster, run: &Run) -> Found {
    let mut rng = Seeded::announced("kills");
    let all: Vec<usize> = (0..cluster.len()).collect();
    let traffic = Traffic::start(cluster, Plan::new("s1", &all));
    pause(Duration::from_secs(1));
    let (count, mut slowest) = (run.form(8, 200), Duration::ZERO);
    for _ in 0..count {
        let node = *rng.pick(&all);
        let before = cluster.incarnation(node);
        cluster.kill(node);
        let boot = cluster.start_node(node);
        slowest = slowest.max(boot);
        let after = cluster.incarnation(node);
        assert!(
            after > before,
            "n{node} was killed, and its incarnation is {before}, then {after}"
        );
        pause(Duration::from_millis(run.form(600, 2000)));
    }
    cluster.wait_formed(Duration::from_secs(60));
    let found = traffic.verify(cluster, Duration::from_secs(60));
    let figures = format!(
        "{count} kills; boot ≤ {slowest:.1?}; {} acked, 0 lost; seen everywhere (0/50/95/99/100 %) {}; equal {:.1?} after the last write",
        found.acked, found.set.stable_latency, found.converged
    );
    within("to boot", slowest, Duration::from_secs(5));
    within("to converge", found.converged, HEAL);
    figures.into()
}

/// Damages files of the last node in many ways; each time it must come back whole.
fn damaged(cluster: &mut Cluster, harms: &[Harm], prefix: &str) -> Found {
    let mut rng = Seeded::announced(prefix);
    let victim = cluster.len() - 1;
    for n in 0..300 {
        let (key, value) = (format!("{prefix}/{n}"), format!("{n}-").repeat(60));
        cluster.put(n % cluster.len(), SET, &key, &value);
    }
    cluster.wait_converged(&[SET, SHARED], HEAL);
    let contents =
        |cluster: &Cluster, node| [SET, SHARED].map(|t| cluster.content(node, t, "").unwrap());
    let before = contents(cluster, 0);
    cluster.set_config(victim, &[("storage.on_damage", "\"continue\"")]);
    let (mut slowest, mut noticed) = (Duration::ZERO, 0);
    for (number, &harm) in harms.iter().enumerate() {
        // After a clean stop nothing is checked at boot; after a kill everything is.
        if number % 3 == 2 {
            cluster.stop(victim)
        } else {
            cluster.kill(victim)
        }
        let partition = rng.below(4);
        let file = cluster.site(victim).data().join(format!("partition-{partition}/data.mdb"));
        damage(&file, harm, &mut rng);
        cluster.start_node(victim);
        let start = Instant::now();
        cluster.wait_formed(Duration::from_secs(60));
        // Nothing that is not true is served at any time; things may be missing for a while.
        let served = cluster.content(victim, SET, &format!("{prefix}/"));
        for (key, values) in served.into_iter().flatten() {
            assert_eq!(Some(&values), before[0].get(&key), "{harm:?}, trial {number}");
        }
        cluster.wait_converged(&[SET, SHARED], Duration::from_secs(60));
        slowest = slowest.max(start.elapsed());
        let after = [contents(cluster, 0), contents(cluster, victim)];
        assert!(
            after.iter().all(|now| *now == before),
            "{harm:?}, trial {number}: contents changed"
        );
        let quarantine = cluster.site(victim).data().join("quarantine");
        let moved = std::fs::read_dir(quarantine).map_or(0, Iterator::count);
        noticed = noticed.max(moved);
    }
    cluster.set_config(victim, &[]);
    let figures = format!(
        "{} trials, {noticed} partitions set aside, the rest harmless or mended; whole ≤ {slowest:.1?}; 0 wrong, 0 lost",
        harms.len()
    );
    within("to be whole again", slowest, HEAL);
    figures.into()
}

fn full_disk(_run: &Run) -> Found {
    const VICTIM: usize = 2;
    let options = Options::new(Wire::Direct, 3).with("storage.map_size", "\"4MiB\"");
    let mut cluster = Cluster::prepare("full", options);
    let at = cluster.site(VICTIM).data().to_owned();
    let mounted = match Tmpfs::mount(&at, 48) {
        Ok(mounted) => mounted,
        Err(why) => return Found::Skipped(why),
    };
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    cluster.start_nodes(&[0, 1, VICTIM]);
    cluster.wait_formed(Duration::from_secs(40));
    declare(&cluster);
    let mut rng = Seeded::new(4);
    let value: String = rng.bytes(24 << 10).iter().map(|b| char::from(b'a' + b % 26)).collect();
    let is_full = |cluster: &Cluster| {
        let log = cluster.site(VICTIM).supervision_log(&["--event", "storage_full"]);
        !log.is_empty()
    };
    let (mut written, mut alarm) = (0, None);
    // The disk holds a few hundred of them; how soon it is full depends on how much is written again meanwhile.
    for n in 0..2000 {
        cluster.put(n % 2, SET, &format!("s4/{n}"), &value);
        written += 1;
        if alarm.is_none() && n % 10 == 9 && is_full(&cluster) {
            alarm = Some(n);
        }
        if alarm.is_some_and(|at| n >= at + 20) {
            break;
        }
    }
    assert!(alarm.is_some(), "no alarm after {written} values");
    // Reads go on, writes are refused as what they are, and the others do not care.
    assert_eq!(cluster.get(VICTIM, SET, "s4/0").len(), 1);
    let client = cluster.client(VICTIM);
    let refused = (0..20).find_map(|n| {
        let put = client.put(SET, format!("s4-own/{n}"), value.clone());
        cluster.block(async { put.await }).err()
    });
    assert!(matches!(refused, Some(Error::StorageFull(_))), "{refused:?}");
    let restarts = |cluster: &Cluster| -> u64 {
        let tree = cluster.block(cluster.client(VICTIM).supervision_tree()).unwrap();
        weald_tests::harness::node::flatten(&tree).iter().map(|node| node.restarts).sum()
    };
    std::fs::remove_file(&ballast).unwrap();
    let start = Instant::now();
    wait_until(Duration::from_secs(10), "writes to work again", || {
        let put = client.put(SET, "s4-own/after", value.clone());
        cluster.block(async { put.await })
    });
    let recovered = start.elapsed();
    let converged = cluster.wait_converged(&[SET], Duration::from_secs(60));
    let restarts = restarts(&cluster);
    assert_eq!(restarts, 0, "an actor restarted over a full disk");
    let figures = format!(
        "{written} values, alarm seen; writes again after {recovered:.1?}, equal {converged:.1?} later; 0 restarts"
    );
    within("to converge", converged, HEAL);
    (0..3).for_each(|node| cluster.stop(node));
    // Before its directory goes.
    drop(mounted);
    cluster.finish();
    figures.into()
}

fn failed_sync(run: &Run) -> Found {
    const VICTIM: usize = 2;
    let mut cluster = Cluster::prepare("sync", Options::new(Wire::Direct, 3));
    let recorder = match Recorder::compile(cluster.dir()) {
        Ok(recorder) => recorder,
        Err(why) => return Found::Skipped(why.to_string()),
    };
    let data = cluster.site(VICTIM).data().to_owned();
    std::fs::create_dir_all(&data).unwrap();
    let log = cluster.dir().join("recorded");
    cluster.set_env(VICTIM, recorder.failing_sync(&data, &log, run.form(400, 4000)));
    cluster.start_nodes(&[0, 1, VICTIM]);
    cluster.wait_formed(Duration::from_secs(40));
    declare(&cluster);
    let traffic = Traffic::start(&cluster, Plan::new("s9", &[0, 1, VICTIM]));
    wait_until(Duration::from_secs(120), "the node to end", || {
        if cluster.node(VICTIM).is_running() { Err("it runs") } else { Ok(()) }
    });
    let (status, said) = cluster.ended(VICTIM);
    assert_eq!(status.code(), Some(EXIT_GAVE_UP), "{said}");
    pause(Duration::from_secs(1));
    cluster.set_env(VICTIM, Vec::new());
    let boot = cluster.start_node(VICTIM);
    let whole = cluster.wait_formed(Duration::from_secs(60));
    pause(Duration::from_secs(1));
    let found = traffic.verify(&cluster, Duration::from_secs(60));
    let figures = format!(
        "ended with {EXIT_GAVE_UP}; boot {boot:.1?}, whole {whole:.1?}, equal {:.1?} after the last write; {} acked, 0 lost",
        found.converged, found.acked
    );
    cluster.finish();
    figures.into()
}
