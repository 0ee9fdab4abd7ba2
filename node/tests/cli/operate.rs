//! Operating a node: supervision, tables, clients, the log level.

use crate::support::{Node, wait_until};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[test]
fn tree_shows_a_killed_actor_come_back() {
    let node = Node::start();
    let path = "node/storage/partition-1/store";
    let tree = node.run(&["supervision", "tree"]).ok().text();
    assert!(tree.contains("partition-1"), "{tree}");
    node.run(&["put", "t", "k", "1"]).ok();
    node.run(&["supervision", "kill", path]).ok();
    wait_until("the store is not restarted", || {
        let tree = node.run(&["supervision", "tree", path, "--json"]).ok().json().remove(0);
        let back = tree["status"] == "running" && tree["restarts"] == 1;
        if back { Ok(()) } else { Err(tree.to_string()) }
    });
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "1");
    node.run(&["put", "t", "k", "2"]).ok();
    let exits =
        node.run(&["supervision", "log", "--event", "child_exited", "--path", path, "--json"]);
    let exits = exits.ok().json();
    assert_eq!((exits.len(), exits[0]["path"].as_str()), (1, Some(path)));
    node.run(&["supervision", "kill", "node/nonsense"]).exits(1);
    node.run(&["supervision", "tree", "node/nonsense"]).exits(1);
    node.run(&["supervision", "log", "--event", "child_exitd"]).exits(2);
}

#[test]
fn tree_can_be_watched() {
    let node = Node::start();
    let mut child = node
        .command(&["supervision", "tree", "--watch", "--interval", "50ms", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(3) {
        let tree: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(tree["id"], "node");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn log_is_read_from_disk_when_the_node_is_down() {
    let mut node = Node::start();
    // Records reach the disk a moment after the event.
    let up = wait_until("the start is not on record", || {
        let up = node.run(&["supervision", "log", "--json", "--limit", "1000"]).ok();
        if up.text().contains("node_started") { Ok(up) } else { Err(up.text()) }
    });
    assert!(!up.stderr.contains("reading the log in"), "{}", up.stderr);
    node.kill();
    let down = node.run(&["supervision", "log", "--json", "--limit", "1000"]).ok();
    assert!(down.stderr.contains("reading the log in"), "{}", down.stderr);
    assert_eq!(down.json(), up.json());
    let since = node.run(&[
        "supervision",
        "log",
        "--since",
        "1970-01-01T00:00:00Z",
        "--limit",
        "1",
        "--format",
        "json",
    ]);
    assert_eq!(since.ok().json().len(), 1);
    let none = node.run(&["supervision", "log", "--since", "0s"]).ok();
    assert_eq!(none.text(), "");
    let human = node.run(&["supervision", "log"]).ok().text();
    assert!(human.contains("node_started        node"), "{human}");
    Node::stopped().run(&["supervision", "log"]).exits(3);
}

#[test]
fn log_is_followed_over_a_restart() {
    let mut node = Node::start();
    let mut child = node
        .command(&[
            "supervision",
            "log",
            "--follow",
            "--json",
            "--event",
            "node_started",
            "--event",
            "child_exited",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> String {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["event"].as_str().unwrap().to_owned()
    };
    assert_eq!(next(), "node_started");
    node.run(&["supervision", "kill", "node/registry"]).ok();
    assert_eq!(next(), "child_exited");
    node.stop();
    node.start_again();
    assert_eq!(next(), "node_started");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn tables_are_declared_and_listed() {
    let mut node = Node::start();
    node.run(&["table", "declare", "cache", "--kind", "memory", "--ttl", "1h"]).ok();
    node.run(&["put", "plain", "k", "1"]).ok();
    node.run(&["put", "cache", "k", "1"]).ok();
    let listed = node.run(&["table", "list"]).ok().text();
    assert!(listed.contains("cache  memory   lww       1h"), "{listed}");
    assert!(listed.contains("plain  durable  lww       -"), "{listed}");
    let json = node.run(&["table", "list", "--json"]).ok().json();
    assert!(json.iter().any(|table| table["name"] == "cache" && table["kind"] == "memory"));
    let refused = node.run(&["table", "declare", "cache", "--kind", "durable"]);
    assert!(matches!(refused.code, Some(2 | 5)), "{refused:?}");
    node.run(&["table", "declare", "weald.mine"]).exits(2);
    node.run(&["table", "declare", "x", "--resolver", "nonsense"]).exits(2);
    node.stop();
    node.start_again();
    node.run(&["get", "cache", "k"]).exits(1);
    assert_eq!(node.run(&["get", "plain", "k"]).ok().text(), "1");
}

#[test]
fn clients_are_added_used_and_removed() {
    let node = Node::start();
    node.run(&["client", "add", "reports", "--role", "reader", "--output", "reports.key"]).ok();
    let mode = node.file("reports.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    node.run(&["client", "add", "again", "--output", "reports.key"]).exits(2);
    let line = node.run(&["client", "add", "other"]).ok().text();
    assert!(line.starts_with("weald-client:other:"), "{line}");
    let listed = node.run(&["client", "list"]).ok().text();
    let has = |name: &str, role: &str| {
        listed.lines().any(|line| line.split_whitespace().take(2).eq([name, role]))
    };
    assert!(has("reports", "reader") && has("other", "writer"), "{listed}");

    let status = node.status();
    let address = status["listen"]["cluster"].as_str().unwrap();
    let reader = ["--node", address, "--key", "reports.key", "--deadline", "5s"];
    let as_reader = |args: &[&str]| {
        let mut command = crate::support::command(node.dir.path());
        crate::support::Ran::from(command.args(reader).args(args).output().unwrap())
    };
    node.run(&["put", "t", "k", "1"]).ok();
    assert_eq!(as_reader(&["get", "t", "k"]).ok().text(), "1");
    as_reader(&["put", "t", "k", "2"]).exits(4);
    as_reader(&["supervision", "kill", "node/registry"]).exits(4);
    node.run(&["client", "remove", "reports"]).ok();
    as_reader(&["get", "t", "k"]).exits(4);
    node.run(&["client", "remove", "reports"]).exits(1);
}

#[test]
fn log_level_changes_at_run_time() {
    let node = Node::start();
    node.run(&["log-level", "inof"]).exits(2);
    node.run(&["log-level", "off"]).ok();
    let before = node.stderr().len();
    node.run(&["supervision", "kill", "node/registry"]).ok();
    wait_until("the registry is not restarted", || {
        let restarts = node.status()["supervision"]["restarts"].clone();
        if restarts == 1 { Ok(()) } else { Err(restarts.to_string()) }
    });
    assert_eq!(node.stderr().len(), before);
    node.run(&["log-level", "info"]).ok();
    node.run(&["supervision", "kill", "node/registry"]).ok();
    wait_until("nothing is logged", || {
        let text = node.stderr();
        // Not a terminal: each line is JSON.
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(last).map_err(|e| format!("{e}: {last}"))?;
        if text.len() > before { Ok(()) } else { Err(text) }
    });
}

#[test]
fn commands_without_a_node_end_as_unreachable() {
    let node = Node::stopped();
    let ran = node.run(&["status"]).exits(3);
    assert!(ran.stderr.contains("no node answers"), "{}", ran.stderr);
    node.run(&["get", "t", "k"]).exits(3);
    node.run(&["put", "t", "k", "1"]).exits(3);
    node.run(&["supervision", "tree"]).exits(3);
}

#[test]
fn names_of_actors_are_listed() {
    let node = Node::start();
    let none = node.run(&["names"]).ok().text();
    assert!(none.starts_with("NAME") && none.trim().lines().count() == 1, "{none}");
    assert!(node.run(&["names", "pump", "--json"]).ok().json().is_empty());
}
