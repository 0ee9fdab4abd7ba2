//! Reading and writing.

use crate::support::{Node, command, wait_until};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn values_are_stored_byte_for_byte() {
    let node = Node::start();
    node.run(&["put", "t", "k", "{\"a\" : 1.50}"]).ok();
    assert_eq!(node.run(&["get", "t", "k"]).ok().stdout, b"{\"a\" : 1.50}");
    let json = node.run(&["get", "t", "k", "--json"]).ok();
    assert!(json.text().contains("\"values\":[{\"a\" : 1.50}]"), "{}", json.text());

    let binary = [0, 255, b'\n', 10, 13];
    node.run_with_stdin(&["put", "t", "bin", "-"], &binary).ok();
    assert_eq!(node.run(&["get", "t", "bin"]).ok().stdout, binary);
    let json = node.run(&["get", "t", "bin", "--json"]).ok().json().remove(0);
    assert_eq!(json["values"][0]["$bytes"], "AP8KCg0=");

    node.run(&["put", "t", "text", "hello"]).ok();
    let json = node.run(&["get", "t", "text", "--json"]).ok().json().remove(0);
    assert_eq!(json["values"][0]["$text"], "hello");

    node.run(&["put", "t", "empty", ""]).ok();
    assert_eq!(node.run(&["get", "t", "empty"]).ok().stdout, b"");
    node.run(&["put", "t", "minus", "-1"]).ok();
    assert_eq!(node.run(&["get", "t", "minus"]).ok().stdout, b"-1");
}

#[test]
fn absent_and_deleted_keys_are_not_found() {
    let node = Node::start();
    let absent = node.run(&["get", "t", "k"]).exits(1);
    assert!(absent.stderr.contains("t has no key k"), "{}", absent.stderr);
    node.run(&["put", "t", "k", "1"]).ok();
    node.run(&["delete", "t", "k"]).ok();
    let json = node.run(&["get", "t", "k", "--json"]).exits(1).json().remove(0);
    assert_eq!(json["values"].as_array().unwrap().len(), 0);
    node.run(&["get", "No Such Name", "k"]).exits(2);
}

#[test]
fn conditions_and_contexts_are_kept() {
    let node = Node::start();
    node.run(&["put", "t", "k", "1", "--if-absent"]).ok();
    node.run(&["put", "t", "k", "2", "--if-absent"]).exits(5);
    let read = node.run(&["get", "t", "k", "--json"]).ok().json().remove(0);
    let context = read["context"].as_str().unwrap();
    node.run(&["put", "t", "k", "3", "--if-context", context]).ok();
    node.run(&["put", "t", "k", "4", "--if-context", context]).exits(5);
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "3");
    node.run(&["put", "t", "k", "4", "--context", "zz"]).exits(2);

    node.run(&["table", "declare", "kept", "--resolver", "siblings"]).ok();
    node.run(&["put", "kept", "k", "1"]).ok();
    let read = node.run(&["get", "kept", "k", "--json"]).ok().json().remove(0);
    let context = read["context"].as_str().unwrap();
    node.run(&["put", "kept", "k", "2", "--context", context]).ok();
    node.run(&["put", "kept", "k", "3", "--context", context]).ok();
    let siblings = node.run(&["get", "kept", "k"]).ok();
    assert_eq!(siblings.text().lines().count(), 2, "{}", siblings.text());
    assert!(siblings.stderr.contains("2 siblings"), "{}", siblings.stderr);
}

#[test]
fn scan_is_ordered_and_bounded() {
    let node = Node::start();
    for key in ["b", "a", "ab", "c", "abc"] {
        node.run(&["put", "t", key, key]).ok();
    }
    assert_eq!(node.run(&["scan", "t"]).ok().text(), "a\ta\nab\tab\nabc\tabc\nb\tb\nc\tc\n");
    assert_eq!(node.run(&["scan", "t", "--prefix", "ab", "--keys-only"]).ok().text(), "ab\nabc\n");
    assert_eq!(
        node.run(&["scan", "t", "--from", "ab", "--to", "c", "--limit", "2"]).ok().text(),
        "ab\tab\nabc\tabc\n"
    );
    assert_eq!(node.run(&["scan", "t", "--json", "--limit", "1"]).ok().json()[0]["key"], "a");
    assert_eq!(node.run(&["scan", "unknown"]).ok().text(), "");
}

#[test]
fn closed_pipe_is_a_quiet_end() {
    let node = Node::start();
    let lines: String = (0..20_000)
        .map(|n| {
            format!("{{\"table\": \"t\", \"key\": \"{n}\", \"value\": \"{}\"}}\n", "x".repeat(50))
        })
        .collect();
    node.run_with_stdin(&["import", "-"], lines.as_bytes()).ok();
    let mut child =
        node.command(&["scan", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn watch_tells_of_changes_and_goes_on_after_a_restart() {
    let mut node = Node::start();
    let mut child = node
        .command(&["watch", "t", "--prefix", "k", "--json", "--count", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let mut note = String::new();
    notes.read_line(&mut note).unwrap();
    assert_eq!(note, "watching t\n");
    node.run(&["put", "t", "k1", "1"]).ok();
    node.run(&["put", "t", "other", "1"]).ok();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first["key"], &first["values"][0]), (&"k1".into(), &1.into()));
    let position = first["position"].as_str().unwrap().to_owned();
    node.stop();
    node.start_again();
    node.run(&["put", "t", "k2", "2"]).ok();
    assert_eq!(next()["key"], "k2");
    node.run(&["delete", "t", "k1"]).ok();
    let third = next();
    assert_eq!((&third["key"], third["values"].as_array().unwrap().len()), (&"k1".into(), 0));
    assert!(child.wait().unwrap().success());
    // From a position on, everything since is told.
    let again = node.run(&["watch", "t", "--prefix", "k", "--position", &position, "--count", "2"]);
    assert_eq!(again.ok().text(), "t\tk2\t2\nt\tk1\n");
}

#[test]
fn node_is_found_by_flag_variable_and_network() {
    let node = Node::start();
    node.run(&["put", "t", "k", "1"]).ok();
    let by_variable = command(node.dir.path())
        .args(["get", "t", "k"])
        .env("WEALD_DATA_DIR", node.data())
        .output()
        .unwrap();
    assert_eq!(by_variable.stdout, b"1");
    let after = command(node.dir.path())
        .args(["get", "t", "k", "--data-dir"])
        .arg(node.data())
        .output()
        .unwrap();
    assert_eq!(after.stdout, b"1");

    let status = node.status();
    let address = status["listen"]["cluster"].as_str().unwrap();
    assert!(!address.ends_with(":0"), "{address}");
    let key = node.data().join("client.key");
    let remote = |args: &[&str]| {
        let mut command = command(node.dir.path());
        command.args(["--node", address, "--key"]).arg(&key).args(args);
        crate::support::Ran::from(command.output().unwrap())
    };
    assert_eq!(remote(&["get", "t", "k"]).ok().text(), "1");
    remote(&["supervision", "kill", "node/registry"]).ok();
    std::fs::write(&key, format!("weald-client:local-program:{}\n", "00".repeat(32))).unwrap();
    remote(&["get", "t", "k", "--deadline", "3s"]).exits(4);
    // The node heals, and the tree shows it.
    wait_until("the registry is not restarted", || {
        let status = node.status();
        let restarts = status["supervision"]["restarts"].as_u64();
        if restarts == Some(1) { Ok(()) } else { Err(status.to_string()) }
    });
}
