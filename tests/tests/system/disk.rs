//! Goal: a full disk is an error that passes, and a damaged file is never served.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;
use weald_client::Error;
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::damage::{Harm, copy, damage};
use weald_tests::harness::node::{Remote, Site};
use weald_tests::harness::tmpfs::Tmpfs;
use weald_tests::harness::wait::wait_until;
use weald_tests::seed::Seeded;

/// Exit codes; see `weald --help`.
const EXIT_STORAGE_FULL: i32 = 7;
const EXIT_DAMAGED: i32 = 65;

#[test]
fn full_disk_refuses_writes_serves_reads_and_recovers_without_a_restart() {
    const BALLAST: usize = 6 << 20;
    let kept = Artefacts::new("full");
    let at = kept.dir().join("small");
    let _mounted = match Tmpfs::mount(&at, 24) {
        Ok(mounted) => mounted,
        Err(why) => return eprintln!("SKIPPED: full disk: {why}"),
    };
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let config = "[storage]\npartitions = 2\nmap_size = \"4MiB\"\n";
    let site = Site::with_data(kept.dir(), &at.join("data"), config);
    let node = site.start();
    let remote = node.client();
    let mut rng = Seeded::new(1);
    let mut stored = BTreeMap::new();
    let value = rng.bytes(48 << 10);
    let full = (0..2000).find_map(|number| {
        let key = format!("key-{number}");
        match remote.put("t", &key, &value) {
            Ok(()) => {
                stored.insert(key, value.clone());
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(full, Some(Error::StorageFull(_))), "{full:?}\n{}", node.log_tail());

    // The command says so, too.
    let text = "x".repeat(100 << 10);
    let at_command = (0..20)
        .map(|n| site.run(&["put", "t", &format!("more-{n}"), &text]))
        .find(|ended| ended.code == Some(EXIT_STORAGE_FULL));
    let said = at_command.unwrap_or_else(|| panic!("no put ended with {EXIT_STORAGE_FULL}")).err;
    assert!(said.contains("full"), "{said}");
    let verify = |remote: &Remote| {
        for (key, value) in &stored {
            let found = remote.get("t", key).unwrap();
            assert!(found == [value.clone()], "{key} is not what was stored");
        }
    };
    verify(&remote);
    let refused = (0..5).filter(|n| remote.put("t", &format!("no-{n}"), &value).is_err()).count();
    assert!(refused > 0, "everything goes in although the disk is full");

    std::fs::remove_file(&ballast).unwrap();
    wait_until(Duration::from_secs(10), "writes to work again", || {
        remote.put("t", "after", &value)
    });
    for number in 0..20 {
        remote.put("t", &format!("after-{number}"), &value).unwrap();
    }
    verify(&remote);
    let restarts: u64 = {
        let tree = remote.tree().unwrap();
        weald_tests::harness::node::flatten(&tree).iter().map(|node| node.restarts).sum()
    };
    let events: Vec<_> = site
        .supervision_log(&["--event", "storage_full", "--event", "storage_recovered"])
        .iter()
        .map(|record| record["event"].as_str().unwrap_or_default().to_owned())
        .collect();
    eprintln!(
        "full disk: {} values before it was full, {restarts} restarts, {events:?}",
        stored.len()
    );
    assert_eq!(restarts, 0, "an actor restarted over a full disk");
    // The log lies on the disk that was full, and tells of it nevertheless.
    for told in ["storage_full", "storage_recovered"] {
        assert!(events.iter().any(|event| event == told), "no {told} in {events:?}");
    }
    node.stop();
    // What was stored is there after a restart, too.
    let node = site.start();
    verify(&node.client());
    node.stop();
}

/// A directory with data, left by a node that was shot.
fn populated(dir: &Path) -> BTreeMap<String, String> {
    let site = Site::new(dir, CONFIG);
    let node = site.start();
    let remote = node.client();
    let mut stored = BTreeMap::new();
    for number in 0..400 {
        let (key, value) = (format!("key-{number:04}"), format!("{number}-").repeat(40));
        stored.insert(key, value);
    }
    let jsonl: String = stored
        .iter()
        .map(|(key, value)| {
            format!("{{\"table\": \"t\", \"key\": \"{key}\", \"value\": \"{value}\"}}\n")
        })
        .collect();
    let input = dir.join("input.jsonl");
    std::fs::write(&input, jsonl).unwrap();
    site.run_ok(&["import", input.to_str().unwrap()]);
    // Overwritten once, so that the file has free pages and old versions.
    site.run_ok(&["import", input.to_str().unwrap()]);
    drop(remote);
    node.kill();
    stored
}

const CONFIG: &str = "[storage]\npartitions = 2\nmap_size = \"4MiB\"\n";

/// Whether every key is either right or, with `may_miss`, absent.
fn assert_true(
    remote: &Remote,
    stored: &BTreeMap<String, String>,
    may_miss: bool,
    what: &str,
) -> usize {
    let mut missing = 0;
    for (key, value) in stored {
        match remote.get("t", key).unwrap_or_else(|e| panic!("{what}: {key}: {e}")).as_slice() {
            [] if may_miss => missing += 1,
            [found] if *found == format!("\"{value}\"").into_bytes() => {}
            other => panic!("{what}: {key} is served as {other:?}"),
        }
    }
    missing
}

#[test]
fn damaged_file_is_never_served_and_the_node_says_so() {
    let mut rng = Seeded::announced("damage");
    let kept = Artefacts::new("damage");
    let base = kept.dir().join("base");
    std::fs::create_dir(&base).unwrap();
    let stored = populated(&base);
    let (mut found, mut harmless) = (0, 0);
    let cases = [Harm::Cut, Harm::Page, Harm::Bits, Harm::Page, Harm::Bits, Harm::Bits];
    for (number, how) in cases.iter().enumerate() {
        let what = format!("case {number}, {how:?}");
        let dir = kept.dir().join(format!("case-{number}"));
        std::fs::create_dir(&dir).unwrap();
        copy(&base.join("data"), &dir.join("data"));
        damage(&dir.join("data/partition-0/data.mdb"), *how, &mut rng);
        let site = Site::new(&dir, CONFIG);
        let (status, log) = match site.start_or_end() {
            Ok(node) => {
                // In a page that nothing refers to.
                assert_true(&node.client(), &stored, false, &what);
                harmless += 1;
                continue;
            }
            Err(end) => end,
        };
        found += 1;
        assert_eq!(status.signal(), None, "{what}: the node died of a signal\n{log}");
        assert_eq!(status.code(), Some(EXIT_DAMAGED), "{what}: {log}");
        let quarantine = dir.join("data/quarantine");
        let moved: Vec<_> = std::fs::read_dir(&quarantine).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(moved.len(), 1, "{what}");
        assert!(moved[0].path().join("REPORT.json").is_file(), "{what}: no report");
        // It does not come up empty by being started again.
        let (status, log) = site.start_and_end();
        assert_eq!(status.code(), Some(EXIT_DAMAGED), "{what}, again: {log}");
        let quarantined = site.supervision_log(&["--event", "quarantined"]);
        assert!(!quarantined.is_empty(), "{what}: nothing in the supervision log");
        // When told to, it goes on with the sound partition.
        let site = Site::new(&dir, &format!("{CONFIG}on_damage = \"continue\"\n"));
        let node = site.start();
        let missing = assert_true(&node.client(), &stored, true, &what);
        assert!(missing > 0 && missing < stored.len(), "{what}: {missing} keys are missing");
        node.stop();
    }
    assert!(found >= 3, "only {found} of {} did harm", cases.len());
    eprintln!("damage: {found} found, {harmless} harmless, none served");
}
