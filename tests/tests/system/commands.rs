//! Goal: commands are safe to use beside each other, and to shoot.

use std::collections::BTreeMap;
use std::time::Duration;
use weald_tests::dataset;
use weald_tests::harness::artefacts::Artefacts;
use weald_tests::harness::load::Load;
use weald_tests::harness::node::Site;
use weald_tests::harness::wait::wait_until;

/// Exit code of a node whose directory is held by another; see `weald --help`.
const EXIT_LOCKED: i32 = 75;

#[test]
fn second_node_on_a_directory_is_refused() {
    let kept = Artefacts::new("second");
    let site = Site::new(kept.dir(), "[storage]\npartitions = 2\n");
    let first = site.start();
    let (status, log) = site.start_and_end();
    assert_eq!(status.code(), Some(EXIT_LOCKED), "{log}");
    assert!(log.contains(&first.pid().to_string()), "does not name the holder: {log}");
    // The first one did not notice.
    first.client().put("t", "k", b"v").unwrap();
    assert_eq!(site.run_ok(&["get", "t", "k"]), "v");
    first.stop();
}

#[test]
fn export_under_load_holds_everything_acknowledged_before_it() {
    let kept = Artefacts::new("export");
    let site = Site::new(kept.dir(), "[storage]\npartitions = 4\n");
    let node = site.start();
    let remote = node.client();
    let set = dataset::of_this_machine().unwrap();
    let input = kept.dir().join("packages.jsonl");
    std::fs::write(&input, &set.jsonl).unwrap();
    site.run_ok(&["import", input.to_str().unwrap()]);
    let mut sorted: Vec<_> = set.jsonl.lines().collect();
    sorted.sort_unstable();
    let load = Load::start(&remote, 4);
    for _ in 0..3 {
        let acked = load.acked();
        wait_until(Duration::from_secs(20), "some writes", || {
            if load.acked() > acked + 50 { Ok(()) } else { Err(load.acked()) }
        });
        let table = site.run_ok(&["export", "--table", dataset::TABLE]);
        let mut exported: Vec<_> = table.lines().collect();
        exported.sort_unstable();
        assert!(exported == sorted, "a table nobody writes to differs from what was imported");
        let moving = site.run_ok(&["export", "--table", "load"]);
        let mut keys = BTreeMap::new();
        for line in moving.lines() {
            let record = dataset::parse_line(line).unwrap();
            let again = keys.insert(record.key.clone(), record.value);
            assert!(again.is_none(), "{} is there twice", record.key);
        }
        assert!(!keys.is_empty());
    }
    load.stop(&remote).verify(&remote);
    node.stop();
}

#[test]
fn importer_that_is_shot_goes_on_where_it_was() {
    let kept = Artefacts::new("import");
    let site = Site::new(kept.dir(), "[storage]\npartitions = 4\n");
    let node = site.start();
    let set = dataset::of_this_machine().unwrap();
    let [input, acks, checkpoint] =
        ["packages.jsonl", "acks", "checkpoint"].map(|name| kept.dir().join(name));
    // Several times over and line by line, so that the import lasts longer than the time to its first checkpoint.
    let one = format!("\"table\": \"{}\"", dataset::TABLE);
    let jsonl: String = (0..6)
        .map(|n| set.jsonl.replace(&one, &format!("\"table\": \"{}-{n}\"", dataset::TABLE)))
        .collect();
    std::fs::write(&input, &jsonl).unwrap();
    let [input, acks_arg, checkpoint_arg] =
        [&input, &acks, &checkpoint].map(|path| path.to_str().unwrap());
    let args = ["--json", "import", input, "--ack-file", acks_arg, "--resume", checkpoint_arg];
    let slowly = [&args[..], &["--batch", "1", "--in-flight", "1"]].concat();
    let importer = site.command(&slowly);
    let lines = || std::fs::read_to_string(&acks).unwrap_or_default().lines().count();
    wait_until(Duration::from_secs(60), "a checkpoint and some acknowledged lines", || {
        let there = checkpoint.is_file() && lines() > 20;
        if there { Ok(()) } else { Err(format!("{} lines", lines())) }
    });
    importer.kill();
    let total = jsonl.lines().count();
    let before = lines();
    assert!(before < total, "the import was over before it could be shot");
    let summary = site.run_ok(&args);
    let summary: serde_json::Value = serde_json::from_str(summary.trim()).unwrap();
    assert!(summary["resumed_after"].as_u64().unwrap() > 0, "{summary}");
    let exported = site.run_ok(&["export"]);
    let sort = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sort(&exported) == sort(&jsonl), "the export differs from the input");
    eprintln!("importer: shot after {before} of {total} lines, went on after {summary}");
    node.stop();
}
