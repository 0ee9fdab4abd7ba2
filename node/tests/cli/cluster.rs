//! Certificates and configurations of clusters, and the cluster's commands against one node.

use crate::support::{Node, Ran, command, wait_until};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn init(node: &Node, args: &[&str]) -> Ran {
    let mut command = command(node.dir.path());
    command.args(["cluster", "init", "--out", "pki"]).args(args).output().unwrap().into()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn init_makes_an_authority_and_nodes_and_adds_more_later() {
    let node = Node::stopped();
    let shown = init(&node, &["--cluster", "shop", "--node", "a", "--node", "b"]).ok().text();
    assert!(shown.contains("weald start --config pki/a/weald.toml"), "{shown}");
    let pki = node.file("pki");
    assert_eq!(
        (mode(&pki), mode(&pki.join("ca.key")), mode(&pki.join("a/node.key"))),
        (0o700, 0o600, 0o600)
    );
    let authority = std::fs::read(pki.join("ca.pem")).unwrap();
    assert_eq!(std::fs::read(pki.join("a/ca.pem")).unwrap(), authority);
    for name in ["a", "b"] {
        let config = format!("pki/{name}/weald.toml");
        let check = command(node.dir.path()).args(["config", "check", &config]).output().unwrap();
        Ran::from(check).ok();
    }

    let args = ["--cluster", "shop", "--node", "c=10.0.0.3,c.example.org:7", "--json"];
    let added = init(&node, &args).ok().json().remove(0);
    assert_eq!(added["nodes"][0]["addresses"][1], "c.example.org:7");
    assert_eq!(std::fs::read(pki.join("ca.pem")).unwrap(), authority);
    let show = command(node.dir.path())
        .args(["config", "show", "--json", "--config", "pki/c/weald.toml"])
        .output()
        .unwrap();
    let shown = Ran::from(show).ok().json().remove(0);
    let value = |key: &str| {
        let keys = shown["keys"].as_array().unwrap();
        keys.iter().find(|entry| entry["key"] == key).unwrap()["value"].clone()
    };
    assert_eq!(value("cluster.name"), "shop");
    assert_eq!(value("cluster.listen"), "0.0.0.0:7");
    assert_eq!(value("cluster.advertise"), serde_json::json!(["10.0.0.3:7", "c.example.org:7"]));
    assert_eq!(value("cluster.seeds"), serde_json::json!(["127.0.0.1:18086", "127.0.0.1:18186"]));
    assert_eq!(value("cluster.tls_ca"), "pki/c/ca.pem");
}

#[test]
fn init_overwrites_nothing_and_says_what_is_wrong() {
    let node = Node::stopped();
    init(&node, &["--cluster", "shop", "--node", "a"]).ok();
    let key = std::fs::read(node.file("pki/a/node.key")).unwrap();
    let again = init(&node, &["--cluster", "shop", "--node", "b", "--node", "a"]).exits(2);
    assert!(again.stderr.contains("pki/a is there already"), "{}", again.stderr);
    assert_eq!(std::fs::read(node.file("pki/a/node.key")).unwrap(), key);
    assert!(!node.file("pki/b").try_exists().unwrap(), "all or nothing");

    let cases: [(&[&str], &str); 7] = [
        (&["--cluster", "red", "--node", "b"], "--cluster"),
        (&["--cluster", "shop", "--node", "b", "--node", "b"], "twice"),
        (&["--cluster", "shop", "--node", "../b"], "a name is"),
        (&["--cluster", "shop", "--node", "ca.key"], "a name is"),
        (&["--cluster", "shop", "--node", "b=no host"], "HOST:PORT"),
        (&["--cluster", "sh op", "--node", "b"], "--cluster"),
        (&["--cluster", "shop"], "--node"),
    ];
    for (args, hint) in cases {
        let refused = init(&node, args).exits(2);
        assert!(refused.stderr.contains(hint), "{args:?}: {}", refused.stderr);
    }
    assert_eq!(std::fs::read_dir(node.file("pki")).unwrap().count(), 3, "nothing was left");
    std::fs::remove_file(node.file("pki/ca.key")).unwrap();
    let half = init(&node, &["--cluster", "shop", "--node", "b"]).exits(2);
    assert!(half.stderr.contains("ca.key is not there"), "{}", half.stderr);
}

#[test]
fn node_of_a_bundle_starts_and_serves_clients_over_tls() {
    let mut node = Node::stopped();
    init(&node, &["--cluster", "shop", "--node", "a"]).ok();
    node.start_with(&["--config", "pki/a/weald.toml"], &[]);
    let status = node.status();
    assert_eq!(status["node"], "a");
    let address = status["listen"]["cluster"].as_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let mut command = command(node.dir.path());
        command.args(["--node", &address, "--key", "data/client.key"]).args(args);
        Ran::from(command.output().unwrap())
    };
    run(&["--ca", "pki/ca.pem", "put", "t", "k", "v"]).ok();
    assert_eq!(run(&["--ca", "pki/ca.pem", "get", "t", "k"]).ok().text(), "v");
    run(&["--deadline", "1s", "get", "t", "k"]).exits(3);
}

#[test]
fn single_node_is_the_only_member_and_has_nobody_to_exchange_with() {
    let node = Node::start();
    let members = node.run(&["cluster", "members"]).ok().text();
    assert!(members.contains("this node"), "{members}");
    let json = node.run(&["cluster", "members", "--json"]).ok().json().remove(0);
    assert_eq!(json["members"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&json["cluster"], &json["members"][0]["status"]),
        (&"weald".into(), &"joined".into())
    );
    let status = node.run(&["cluster", "status", "--json"]).ok().json().remove(0);
    assert_eq!((&status["members"], &status["up"]), (&1.into(), &1.into()));
    node.run(&["aae", "status"]).ok();
    node.run(&["cluster", "events", "--count", "0"]).ok();
    for args in
        [["aae", "run", "nobody"], ["aae", "diff", "nobody"], ["cluster", "forget", "nobody"]]
    {
        let refused = node.run(&args).exits(1);
        assert!(refused.stderr.contains("nobody"), "{}", refused.stderr);
    }
    let bad = node.run(&["cluster", "join", "10.0.0.1"]).exits(2);
    assert!(bad.stderr.contains("host:port"), "{}", bad.stderr);
    node.run(&["cluster", "join"]).exits(2);
}

#[test]
fn session_is_kept_in_a_file_and_a_concern_of_others_is_not_met_alone() {
    let node = Node::start();
    let session = node.file("s").to_str().unwrap().to_owned();
    node.run(&["get", "t", "k", "--session", &session]).exits(1);
    node.run(&["put", "t", "k", "1", "--session", &session]).ok();
    assert!(std::fs::read_to_string(&session).unwrap().len() > 10);
    assert_eq!(node.run(&["get", "t", "k", "--session", &session]).ok().text(), "1");
    let unmet = node.run(&["put", "t", "k", "2", "--acked-by", "1", "--json"]).exits(10);
    assert!(unmet.stderr.contains("0 of 1 other members"), "{}", unmet.stderr);
    assert!(unmet.json()[0]["context"].is_string(), "the write was made");
    assert_eq!(node.run(&["get", "t", "k"]).ok().text(), "2");
    node.run(&["delete", "t", "k", "--session", &session, "--acked-by", "0"]).ok();
    let broken = node.write("broken", "no hex");
    node.run(&["get", "t", "k", "--session", &broken]).exits(2);
    let foreign = node.write("foreign", "00ff");
    let refused = node.run(&["get", "t", "k", "--session", &foreign]).exits(2);
    assert!(refused.stderr.contains("session token"), "{}", refused.stderr);
}

/// A port such that the next one, 100 higher, is free as well.
fn free_ports() -> u16 {
    wait_until("no two ports are free", || {
        let first = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let port = first.local_addr().map_err(|e| e.to_string())?.port();
        if !(1024..=60_000).contains(&port) {
            return Err(format!("{port} is out of range"));
        }
        TcpListener::bind(("127.0.0.1", port + 100)).map(|_| port).map_err(|e| e.to_string())
    })
}

mod dev {
    use super::*;
    use crate::support::{signal, wait_exit};
    use serde_json::Value;
    use std::io::{BufRead, BufReader, Lines};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, ChildStdout, Command, Stdio};

    struct Dev {
        child: Child,
        lines: Lines<BufReader<ChildStdout>>,
    }

    impl Dev {
        fn start(node: &Node, port: u16) -> Self {
            let mut child = command(node.dir.path())
                .args(["dev", "--json", "--nodes", "2", "--data-dir", "try", "--port"])
                .arg(port.to_string())
                .env("WEALD_STORAGE__PARTITIONS", "2")
                .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
                .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            Self { child, lines }
        }

        /// The next event of that name.
        fn event(&mut self, name: &str) -> Value {
            for line in &mut self.lines {
                let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
                if event["event"] == name {
                    return event;
                }
            }
            panic!("no event {name}");
        }
    }

    impl Drop for Dev {
        fn drop(&mut self) {
            if let Ok(None) = self.child.try_wait() {
                signal(self.child.id(), "TERM");
                wait_exit(&mut self.child);
            }
        }
    }

    fn pid(node: &Node, name: &str) -> String {
        std::fs::read_to_string(node.file(&format!("try/{name}/weald.pid")))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[test]
    fn nodes_run_until_killed_stay_down_and_all_end_together() {
        let node = Node::stopped();
        let port = free_ports();
        let mut dev = Dev::start(&node, port);
        let up = dev.event("up");
        let second = up["nodes"][1].clone();
        assert_eq!(second["address"], format!("127.0.0.1:{}", port + 100));
        assert_eq!(second["pid"].to_string(), pid(&node, "node2"));
        let run = |name: &str, args: &[&str]| {
            let mut command = command(node.dir.path());
            command.arg("--data-dir").arg(format!("try/{name}")).args(args);
            Ran::from(command.output().unwrap())
        };
        run("node1", &["put", "t", "k", "v"]).ok();
        assert_eq!(run("node2", &["status", "--json"]).ok().json()[0]["node"], "node2");
        // A second one on the same directory is refused, and the first one does not notice.
        let again = command(node.dir.path())
            .args(["dev", "--nodes", "2", "--data-dir", "try"])
            .output()
            .unwrap();
        let again = Ran::from(again).exits(75);
        assert!(again.stderr.contains("node1 runs already as process"), "{}", again.stderr);

        signal(pid(&node, "node2").parse().unwrap(), "KILL");
        let ended = dev.event("ended");
        assert_eq!((&ended["name"], &ended["signal"]), (&"node2".into(), &9.into()));
        run("node2", &["status"]).exits(3);
        // By hand, with the command that is printed.
        let mut by_hand = command(node.dir.path())
            .args(["start", "--config", "try/node2/weald.toml"])
            .env("WEALD_STORAGE__PARTITIONS", "2")
            .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
            .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("node2 does not come back", || {
            let ran = run("node2", &["status"]);
            if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
        });
        assert_eq!(pid(&node, "node2"), by_hand.id().to_string());

        // As a terminal does it: to the whole group. The nodes are to be stopped once, and by their parent.
        let group = format!("-{}", dev.child.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        assert_eq!(wait_exit(&mut dev.child).code(), Some(0));
        assert_eq!(wait_exit(&mut by_hand).code(), Some(0), "it belongs to the cluster, too");
        for name in ["node1", "node2"] {
            assert!(!node.file(&format!("try/{name}/weald.pid")).try_exists().unwrap());
            assert!(node.file(&format!("try/{name}/node.log")).is_file());
        }

        // Again on the same directory: it goes on with what is there, ports included.
        let mut dev = Dev::start(&node, free_ports());
        assert_eq!(dev.event("up")["nodes"][1]["address"], second["address"]);
        assert_eq!(run("node1", &["get", "t", "k"]).ok().text(), "v");
    }

    #[test]
    fn taken_port_is_told_before_anything_starts() {
        let node = Node::stopped();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let refused = command(node.dir.path())
            .args(["dev", "--nodes", "1", "--data-dir", "try", "--port", &port])
            .output()
            .unwrap();
        let refused = Ran::from(refused).exits(69);
        assert!(refused.stderr.contains("nothing was started"), "{}", refused.stderr);
        assert!(!node.file("try").try_exists().unwrap());
        let none = command(node.dir.path()).args(["dev", "--nodes", "0"]).output().unwrap();
        Ran::from(none).exits(64);
    }
}
