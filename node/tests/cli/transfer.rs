//! Import and export.

use crate::support::{Node, wait_exit, wait_until};
use std::collections::BTreeSet;
use std::process::Stdio;

fn lines(range: std::ops::Range<u32>) -> String {
    range
        .map(|n| {
            format!("{{\"table\": \"packages\", \"key\": \"p{n:06}\", \"value\": {{\"n\" : {n}, \"s\":[1.50,\"\\u00e9\"]}}}}\n")
        })
        .collect()
}

#[test]
fn export_gives_an_import_back_byte_for_byte() {
    let mut node = Node::start();
    let mut text = lines(0..3000);
    text.push_str("{\"table\": \"raw\", \"key\": {\"$bytes\": \"/w==\"}, \"value\": {\"$bytes\": \"AP8=\"}}\n");
    text.push_str("{\"table\": \"raw\", \"key\": \"a\\\"b\", \"value\": null}\n");
    let file = node.write("in.jsonl", &text);
    let imported = node.run(&["import", &file]).ok();
    assert!(imported.stderr.contains("imported 3002 lines"), "{}", imported.stderr);
    let exported = node.run(&["export"]).ok().text();
    let mut expected: Vec<&str> = text.lines().collect();
    // Sorted by table, then key: the byte ff comes after the letter a.
    let end = expected.len();
    expected.swap(end - 1, end - 2);
    assert_eq!(exported.lines().collect::<Vec<_>>(), expected);
    assert_eq!(node.run(&["get", "raw", "a\"b"]).ok().text(), "null");

    let out = node.file("out.jsonl");
    let out = out.to_str().unwrap();
    node.run(&["export", "--table", "packages", "--prefix", "p00000", "--output", out]).ok();
    assert_eq!(std::fs::read_to_string(out).unwrap(), lines(0..10));

    // Also after a restart, and again: a second import changes nothing.
    node.stop();
    node.start_again();
    let again = node.run(&["import", &file, "--json"]).ok().json().remove(0);
    assert_eq!((again["imported"].as_u64(), again["bad"].as_u64()), (Some(3002), Some(0)));
    assert_eq!(node.run(&["export"]).ok().text(), exported);
}

#[test]
fn bad_lines_are_reported_and_skipped_or_fatal() {
    let node = Node::start();
    let text = format!(
        "{}not json\n\n{{\"table\": \"packages\", \"key\": \"x\"}}\n{{\"table\": \"BAD\", \"key\": \"x\", \"value\": 1}}\n{}",
        lines(0..5),
        lines(5..7)
    );
    let file = node.write("in.jsonl", &text);
    let skipped = node.run(&["import", &file]).exits(1);
    for number in [6, 8, 9] {
        assert!(skipped.stderr.contains(&format!("line {number}: ")), "{}", skipped.stderr);
    }
    assert!(skipped.stderr.contains("imported 7 lines"), "{}", skipped.stderr);
    assert_eq!(node.run(&["scan", "packages", "--keys-only"]).ok().text().lines().count(), 7);
    let fatal = node.run(&["import", &file, "--on-bad", "fail"]).exits(1);
    assert!(fatal.stderr.contains("line 6: "), "{}", fatal.stderr);
    assert!(!fatal.stderr.contains("line 8: "), "{}", fatal.stderr);
    node.run(&["import", "absent.jsonl"]).exits(74);
    node.run(&["import", "."]).exits(2);
}

#[test]
fn import_goes_on_from_its_checkpoint() {
    let node = Node::start();
    let file = node.write("in.jsonl", lines(0..100));
    node.run(&["import", &file, "--resume", "mark", "--ack-file", "acks"]).ok();
    let file = node.write("in.jsonl", lines(0..150));
    let resumed = node.run(&["import", &file, "--resume", "mark", "--ack-file", "acks", "--json"]);
    let resumed = resumed.ok().json().remove(0);
    assert_eq!(
        (resumed["imported"].as_u64(), resumed["resumed_after"].as_u64()),
        (Some(50), Some(100))
    );
    let acks = std::fs::read_to_string(node.file("acks")).unwrap();
    let acks: BTreeSet<u32> = acks.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(acks, (1..=150).collect());
    let file = node.write("in.jsonl", lines(7..150));
    let other = node.run(&["import", &file, "--resume", "mark"]).exits(2);
    assert!(other.stderr.contains("belongs to another input"), "{}", other.stderr);
}

#[test]
fn import_survives_kills_of_the_node_and_loses_no_acknowledged_line() {
    const LINES: u32 = 60_000;
    let mut node = Node::start();
    let file = node.write("in.jsonl", lines(0..LINES));
    let acks_path = node.file("acks");
    let mut import = node
        .command(&["import", &file, "--ack-file", "acks", "--batch", "64", "--in-flight", "4"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let acked = || {
        let text = std::fs::read_to_string(&acks_path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    for round in 1..=2 {
        let goal = usize::try_from(LINES / 5 * round).unwrap();
        wait_until("the import does not come on", || {
            let count = acked().len();
            if count >= goal { Ok(()) } else { Err(format!("{count} lines")) }
        });
        node.kill();
        let before = acked();
        node.start_again();
        for number in before.iter().rev().take(50) {
            let key = format!("p{:06}", number - 1);
            let value = node.run(&["get", "packages", &key]).ok().text();
            assert!(value.contains(&format!("\"n\" : {},", number - 1)), "{key}: {value}");
        }
    }
    assert!(wait_exit(&mut import).success(), "import failed");
    let numbers: BTreeSet<u32> = acked().into_iter().collect();
    assert_eq!(numbers.len(), usize::try_from(LINES).unwrap());
    assert_eq!(node.run(&["export"]).ok().text(), lines(0..LINES));
}

#[test]
fn import_and_export_without_a_node_end_as_unreachable() {
    let node = Node::stopped();
    let file = node.write("in.jsonl", lines(0..1));
    let import = node.run(&["import", &file, "--retry-for", "200ms"]).exits(3);
    assert!(import.stderr.contains("no node answers"), "{}", import.stderr);
    let export =
        node.run(&["export", "--retry-for", "200ms", "--output", "out", "--json"]).exits(3);
    let error: serde_json::Value = serde_json::from_str(&export.stderr).unwrap();
    assert_eq!((error["exit"].as_u64(), &error["class"]), (Some(3), &"unreachable".into()));
    assert!(!node.file("out").try_exists().unwrap());
}

#[test]
fn full_storage_ends_an_import_and_reads_go_on() {
    let mut node = Node::stopped();
    node.start_with(
        &[],
        &[("WEALD_STORAGE__MAP_SIZE", "4MiB"), ("WEALD_STORAGE__MAP_SIZE_MAX", "4MiB")],
    );
    let file = node.write("in.jsonl", lines(0..60_000));
    let full = node.run(&["import", &file, "--resume", "mark", "--ack-file", "acks"]).exits(7);
    assert!(full.stderr.contains("acknowledged without a gap up to line"), "{}", full.stderr);
    let acks = std::fs::read_to_string(node.file("acks")).unwrap().lines().count();
    assert!(acks > 0);
    assert!(node.run(&["get", "packages", "p000000"]).ok().text().contains("\"n\" : 0"));
    // With room, the import goes on where it stopped.
    node.stop();
    node.start_with(&[], &[]);
    node.run(&["import", &file, "--resume", "mark", "--ack-file", "acks"]).ok();
    assert_eq!(node.run(&["export"]).ok().text(), lines(0..60_000));
}

#[test]
fn killed_import_goes_on_from_its_checkpoint() {
    const LINES: u32 = 100_000;
    let node = Node::start();
    let file = node.write("in.jsonl", lines(0..LINES));
    let args = ["import", &file, "--resume", "mark", "--ack-file", "acks", "--batch", "16"];
    let mut import = node.command(&args).stderr(Stdio::null()).spawn().unwrap();
    wait_until("no checkpoint", || match std::fs::read_to_string(node.file("mark")) {
        Ok(mark) => Ok(mark),
        Err(e) => Err(e.to_string()),
    });
    import.kill().unwrap();
    import.wait().unwrap();
    let resumed = node.run(&["--json", "import", &file, "--resume", "mark", "--ack-file", "acks"]);
    let resumed = resumed.ok().json().remove(0);
    assert!(resumed["resumed_after"].as_u64() > Some(0), "{resumed}");
    let acks = std::fs::read_to_string(node.file("acks")).unwrap();
    let acks: BTreeSet<u32> = acks.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(acks.len(), usize::try_from(LINES).unwrap());
    assert_eq!(node.run(&["export"]).ok().text(), lines(0..LINES));
}
