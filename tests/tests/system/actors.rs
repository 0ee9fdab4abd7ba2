//! Goal: a killed actor is restarted, with those its supervisor's strategy names and no others, and nothing acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use weald_client::{Error, TreeNode};
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::load::Load;
use weald_tests::harness::node::{Remote, Site, flatten};
use weald_tests::harness::wait::{pause, wait_until};

/// Exit code of a node whose supervision gave up; see `weald --help`.
const EXIT_GAVE_UP: i32 = 70;
/// Restarts of the node's supervisors that are tolerated within 5 s.
const INTENSITY: usize = 20;

fn extra(node: &TreeNode, field: &str) -> String {
    let value = node.extra.get(field);
    value.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Which incarnation runs at each path; none when something does not run.
fn incarnations(tree: &TreeNode) -> Option<BTreeMap<String, String>> {
    fn collect(node: &TreeNode, all: &mut BTreeMap<String, String>) -> Option<()> {
        if node.status != "running" {
            return None;
        }
        all.insert(node.path.clone(), extra(node, "actor_id"));
        // Children of dynamic supervisors come and go with clients.
        if extra(node, "strategy") != "dynamic" {
            for child in &node.children {
                collect(child, all)?;
            }
        }
        Some(())
    }
    let mut all = BTreeMap::new();
    collect(tree, &mut all).map(|()| all)
}

/// Waits until everything runs.
fn settled(remote: &Remote) -> BTreeMap<String, String> {
    wait_until(Duration::from_secs(20), "everything to run", || {
        let tree = remote.tree().map_err(|e| e.to_string())?;
        incarnations(&tree).ok_or_else(|| format!("{tree:?}"))
    })
}

/// The paths that restart when `victim` dies.
fn expected(tree: &TreeNode, victim: &str) -> BTreeSet<String> {
    let nodes = flatten(tree);
    let parent = nodes.iter().find(|node| node.children.iter().any(|c| c.path == victim)).unwrap();
    let place = parent.children.iter().position(|child| child.path == victim).unwrap();
    let hit = match extra(parent, "strategy").as_str() {
        "one_for_one" => &parent.children[place..=place],
        "rest_for_one" => &parent.children[place..],
        "one_for_all" => &parent.children[..],
        other => panic!("strategy {other:?} of {}", parent.path),
    };
    let static_below = |node: &TreeNode| incarnations(node).unwrap().into_keys();
    hit.iter().flat_map(static_below).collect()
}

#[test]
fn each_actor_restarts_with_its_strategy_under_load() {
    let kept = Artefacts::new("each");
    let site = Site::new(kept.dir(), "");
    let node = site.start();
    let remote = node.client();
    let load = Load::start(&remote, 8);
    let victims: Vec<_> = settled(&remote).into_keys().filter(|path| path != "node").collect();
    assert!(victims.len() >= 8 * 3, "a small tree: {victims:?}");
    for victim in &victims {
        let before = settled(&remote);
        let tree = remote.tree().unwrap();
        let expected = expected(&tree, victim);
        match remote.kill(victim) {
            // Some carry the answer themselves.
            Ok(()) | Err(Error::TimedOut(_)) => {}
            Err(e) => panic!("kill {victim}: {e}"),
        }
        wait_until(Duration::from_secs(20), &format!("{victim} to be restarted"), || {
            let now = remote.tree().map_err(|e| e.to_string())?;
            let now = incarnations(&now).ok_or("something is down")?;
            if now[victim] == before[victim] { Err("still the same".to_owned()) } else { Ok(()) }
        });
        let after = settled(&remote);
        let restarted: BTreeSet<_> =
            before.keys().filter(|path| before[*path] != after[*path]).cloned().collect();
        assert_eq!(restarted, expected, "restarted with {victim}");
        let (acked, since) = (load.acked(), Instant::now());
        wait_until(Duration::from_secs(20), &format!("writes after the kill of {victim}"), || {
            let now = load.acked();
            if now > acked + 8 { Ok(()) } else { Err(format!("{now} after {:?}", since.elapsed())) }
        });
    }
    let outcome = load.stop(&remote);
    outcome.verify(&remote);
    eprintln!(
        "each actor: {} killed, {} writes acknowledged, {} unknown, {} refused",
        victims.len(),
        outcome.acked,
        outcome.unknown,
        outcome.refused.len()
    );
    node.stop();
}

#[test]
fn a_thousand_kills_of_named_actors_leave_no_trace() {
    const KILLS: usize = 1000;
    const PARTITIONS: usize = 32;
    let kept = Artefacts::new("thousand");
    let config = format!("[storage]\npartitions = {PARTITIONS}\nmap_size = \"4MiB\"\n");
    let site = Site::new(kept.dir(), &config);
    let node = site.start();
    let remote = node.client();
    let load = Load::start(&remote, 4);
    let started = Instant::now();
    for kill in 0..KILLS {
        let path = format!("node/storage/partition-{}/store", kill % PARTITIONS);
        // Under each supervisor at most as many kills in 5 s as it tolerates.
        let round = u32::try_from(kill / PARTITIONS).unwrap();
        let due = Duration::from_millis(270) * round;
        pause(due.saturating_sub(started.elapsed()));
        wait_until(Duration::from_secs(20), &format!("{path} to be up for kill {kill}"), || {
            remote.kill(&path)
        });
    }
    let after = settled(&remote);
    assert_eq!(after.len(), after.values().collect::<BTreeSet<_>>().len(), "one actor each");
    let acked = load.acked();
    wait_until(Duration::from_secs(20), "writes after the kills", || {
        let now = load.acked();
        if now > acked + 20 { Ok(()) } else { Err(now) }
    });
    let outcome = load.stop(&remote);
    outcome.verify(&remote);
    let tree = remote.tree().unwrap();
    let restarts: u64 = flatten(&tree).iter().map(|node| node.restarts).sum();
    // Each store takes its hashtree with it, and nothing else.
    assert_eq!(restarts, 2 * KILLS as u64, "restarts for {KILLS} kills");
    let gave_up = site.supervision_log(&["--event", "intensity_exceeded"]);
    assert!(gave_up.is_empty(), "{gave_up:?}");
    eprintln!(
        "a thousand kills: {:?}, {restarts} restarts, {} writes acknowledged, {} unknown, {} refused",
        started.elapsed(),
        outcome.acked,
        outcome.unknown,
        outcome.refused.len()
    );
    node.stop();
}

#[test]
fn a_child_that_fails_too_often_ends_its_supervisor_and_at_last_the_node() {
    let kept = Artefacts::new("escalate");
    let site = Site::new(kept.dir(), "[storage]\npartitions = 2\nmap_size = \"4MiB\"\n");
    let mut node = site.start();
    let remote = node.client();
    remote.put("t", "k", b"before").unwrap();

    // One level up: the partition gives up, its supervisor restarts it, the node goes on.
    let before = settled(&remote);
    let mut kills = 0;
    wait_until(Duration::from_secs(20), "the partition to give up", || {
        // Down for a moment: the next look tells.
        kills += usize::from(remote.kill("node/storage/partition-0/store").is_ok());
        let tree = remote.tree().map_err(|e| e.to_string())?;
        let now = flatten(&tree).into_iter().find(|node| node.path == "node/storage/partition-0");
        let is_new = now.is_some_and(|now| extra(now, "actor_id") != before[&now.path]);
        if is_new { Ok(()) } else { Err(format!("{kills} kills")) }
    });
    assert!(kills > INTENSITY, "gave up after {kills} kills");
    let after = settled(&remote);
    let log = site.supervision_log(&["--event", "intensity_exceeded"]);
    assert!(log.iter().any(|record| record["path"] == "node/storage/partition-0"), "{log:?}");
    assert_eq!(before["node/storage/partition-1/store"], after["node/storage/partition-1/store"]);
    assert_eq!(remote.get("t", "k").unwrap(), [b"before".to_vec()]);

    // Up to the root: the process ends, with the code that says so.
    let end = Instant::now() + Duration::from_secs(10);
    while node.is_running() && Instant::now() < end {
        // Down for a moment, or gone with the node: the next look tells.
        remote.kill("node/registry").ok();
    }
    let status = node.wait_end();
    assert_eq!(status.code(), Some(EXIT_GAVE_UP), "{}", node.log_tail());
    let log = site.supervision_log(&["--event", "intensity_exceeded"]);
    assert!(log.iter().any(|record| record["path"] == "node"), "{log:?}");

    let node = site.start();
    assert_eq!(node.client().get("t", "k").unwrap(), [b"before".to_vec()]);
    node.stop();
}
