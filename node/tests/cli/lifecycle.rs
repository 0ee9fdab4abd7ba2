//! Starting and stopping.

use crate::support::{Node, command, signal, wait_exit, wait_until};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

#[test]
fn node_without_configuration_starts_in_the_default_directory() {
    let mut node = Node::stopped();
    // The default ports belong to whoever runs on this machine: only the port is given.
    node.spawn(&[], &[("WEALD_DATA_DIR", "./weald-data")]);
    wait_until("no node", || {
        let ran = command(node.dir.path()).args(["status", "--json"]).output().unwrap();
        if ran.status.success() { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let data = node.file("weald-data");
    let mode = |name: &str| data.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("client.key"), 0o600);
    assert_eq!(mode("weald.sock"), 0o600);
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let pid = std::fs::read_to_string(data.join("weald.pid")).unwrap();
    assert_eq!(pid.trim(), node.pid().to_string());
    node.stop();
    assert!(!data.join("weald.pid").try_exists().unwrap());
    assert!(!data.join("weald.sock").try_exists().unwrap());
    assert!(node.stderr().contains("weald-data"), "{}", node.stderr());
}

#[test]
fn clean_restart_keeps_the_incarnation_and_a_kill_takes_a_new_one() {
    let mut node = Node::start();
    node.run(&["put", "t", "k", "1"]).ok();
    let first = node.status();
    let key = std::fs::read(node.data().join("client.key")).unwrap();
    node.stop();
    node.start_again();
    let second = node.status();
    assert_eq!(first["incarnation"], second["incarnation"]);
    assert_eq!(first["node_id"], second["node_id"]);
    node.kill();
    node.start_again();
    let third = node.status();
    assert_eq!(first["node_id"], third["node_id"]);
    assert!(third["incarnation"].as_u64() > first["incarnation"].as_u64());
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "1");
    assert_eq!(std::fs::read(node.data().join("client.key")).unwrap(), key);
    let log = node.run(&["supervision", "log", "--event", "unclean_stop", "--json"]).ok();
    assert_eq!(log.json().len(), 1);
}

#[test]
fn lost_credential_is_made_anew_and_a_removed_one_is_not() {
    let mut node = Node::start();
    let path = node.data().join("client.key");
    let first = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    node.kill();
    node.start_again();
    assert_ne!(std::fs::read(&path).unwrap(), first);
    let line = std::fs::read_to_string(&path).unwrap();
    let name = line.split(':').nth(1).unwrap();
    assert!(name.starts_with("local-program-"), "{line}");
    node.run(&["client", "remove", name]).ok();
    std::fs::remove_file(&path).unwrap();
    node.stop();
    node.start_again();
    assert!(!path.try_exists().unwrap());
}

#[test]
fn second_node_in_a_directory_is_refused_with_the_process_that_holds_it() {
    let node = Node::start();
    let second = command(node.dir.path())
        .args(["start", "--data-dir"])
        .arg(node.data())
        .env("WEALD_CLUSTER__LISTEN", "127.0.0.1:0")
        .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
        .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("process {}", node.pid())), "{text}");
    node.run(&["status"]).ok();
}

#[test]
fn taken_port_and_unusable_directories_have_their_own_codes() {
    let node = Node::stopped();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let start = |args: &[&str], address: &str| {
        let output = command(node.dir.path())
            .arg("start")
            .args(args)
            .env("WEALD_CLUSTER__LISTEN", address)
            .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
            .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = start(&["--data-dir", "data"], &address);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(&address) && text.contains("is taken"), "{text}");
    node.write("file", "");
    let (code, text) = start(&["--data-dir", "file/below"], "127.0.0.1:0");
    assert_eq!(code, Some(73), "{text}");
    let (code, text) = start(&["--data-dir", "data"], "0.0.0.0:0");
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("not a loopback address"), "{text}");
    let (code, text) = start(&["--log-format", "xml"], "127.0.0.1:0");
    assert_eq!(code, Some(64), "{text}");
}

#[test]
fn other_number_of_partitions_is_refused() {
    let mut node = Node::start();
    node.stop();
    node.spawn(&[], &[("WEALD_STORAGE__PARTITIONS", "3")]);
    assert_eq!(node.wait(), Some(78), "{}", node.stderr());
}

#[test]
fn damaged_partition_is_set_aside_and_the_node_refuses_until_told_otherwise() {
    let mut node = Node::start();
    for n in 0..50 {
        node.run(&["put", "t", &n.to_string(), &"x".repeat(500)]).ok();
    }
    node.kill();
    let file = node.data().join("partition-0/data.mdb");
    let len = file.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(len / 2).unwrap();
    for _ in 0..2 {
        node.spawn(&[], &[]);
        assert_eq!(node.wait(), Some(65), "{}", node.stderr());
    }
    assert!(node.stderr().contains("partition 0 is damaged"), "{}", node.stderr());
    assert!(node.data().join("quarantine").try_exists().unwrap());
    let log = node.run(&["supervision", "log", "--event", "quarantined", "--json"]).ok();
    assert_eq!(log.json().len(), 1);
    node.start_with(&[], &[("WEALD_STORAGE__ON_DAMAGE", "continue")]);
    node.run(&["put", "t", "new", "1"]).ok();
}

#[test]
fn signals_stop_in_order_and_are_told_to_the_service_manager() {
    let mut node = Node::stopped();
    let path = node.file("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let pid_free = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    node.start_with(&[], &pid_free);
    let next = || {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    assert!(next().contains("READY=1"));
    for _ in 0..3 {
        assert!(next().contains("WATCHDOG=1"));
    }
    node.signal("INT");
    wait_until("not told", || match next() {
        told if told.contains("STOPPING=1") => Ok(()),
        told => Err(told),
    });
    assert_eq!(node.wait(), Some(0));
    let log = node.run(&["supervision", "log", "--event", "node_stopped", "--json"]).ok();
    assert_eq!(log.json().len(), 1);
}

#[test]
fn signal_during_boot_and_many_restarts_leave_a_usable_directory() {
    let mut node = Node::start();
    node.run(&["put", "t", "k", "1"]).ok();
    node.stop();
    for _ in 0..5 {
        node.spawn(&[], &[]);
        let pid = node.pid();
        std::thread::park_timeout(std::time::Duration::from_millis(15));
        signal(pid, "TERM");
        // Before it has taken its signals, the signal ends it; after, it stops in order.
        let code = node.wait();
        assert!(code == Some(0) || code.is_none(), "{code:?} {}", node.stderr());
    }
    node.start_again();
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "1");
}

#[test]
fn second_signal_ends_the_process_at_once() {
    let mut node = Node::start();
    node.run(&["put", "t", "k", "1"]).ok();
    // Stopped processes collect signals, so that both are there when it goes on.
    node.signal("STOP");
    node.signal("TERM");
    node.signal("INT");
    node.signal("CONT");
    let code = node.wait();
    // The ordered stop may win by a hair; what counts is that the second signal does no harm.
    assert!(code == Some(0) || code.is_none(), "{code:?}");
    node.start_again();
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "1");
}

#[test]
fn supervision_that_gives_up_ends_the_node_with_its_own_code() {
    let mut node = Node::start();
    // More restarts than the root allows in its window.
    for _ in 0..60 {
        let ran = node.run(&["supervision", "kill", "node/registry"]);
        if ran.code == Some(3) {
            break;
        }
    }
    assert_eq!(node.wait(), Some(70), "{}", node.stderr());
    assert!(node.stderr().contains("supervision gave up"), "{}", node.stderr());
    let log = node.run(&["supervision", "log", "--event", "intensity_exceeded", "--json"]).ok();
    assert_eq!(log.json().len(), 1);
    // The data was closed in order, and the next start is a clean one.
    node.start_again();
    let log = node.run(&["supervision", "log", "--event", "unclean_stop", "--json"]).ok();
    assert_eq!(log.json().len(), 0);
}

#[test]
fn start_prints_its_state_as_json() {
    let node = Node::stopped();
    let mut child = node
        .command(&["start", "--json"])
        .env("WEALD_CLUSTER__LISTEN", "127.0.0.1:0")
        .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
        .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let state: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&state["state"], &state["healthy"]), (&"ready".into(), &true.into()));
    assert_eq!(state["pid"], child.id());
    signal(child.id(), "HUP");
    assert!(wait_exit(&mut child).success());
}
