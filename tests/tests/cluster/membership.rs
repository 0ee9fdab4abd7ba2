//! Members that leave, move, double, restart together, come in crowds, or speak another version.

use crate::run::{Found, Plan as Line, Run, Stage, within};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weald_client::Error;
use weald_proto::hello::node::{NodeAnswer, NodeHello, VERSIONS};
use weald_proto::hello::{Hello, MAGIC, Refused, Role, VERSION, decode, encode, encode_within};
use weald_proto::limits::NODE_HELLO_BYTES_MAX;
use weald_tests::harness::cluster::{Cluster, Options, Seeds};
use weald_tests::harness::traffic::{Plan, SET, SHARED, Traffic, declare};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::proxy::connect_tls;

const HEAL: Duration = Duration::from_secs(30);
const TABLES: [&str; 2] = [SET, SHARED];

pub(crate) fn run(run: &mut Run) {
    let options = Options::new(Wire::Direct, 3).with("cluster.poll_interval", "\"1s\"");
    let mut stage = Stage::new(run, "members", options);
    stage.scenario(
        &Line {
            id: "I9",
            fault: "all nodes restart at once, and in odd orders",
            target: "≤ 15 s; no order needed",
        },
        all_at_once,
    );
    stage.scenario(
        &Line {
            id: "I12",
            fault: "a node of another version",
            target: "refused, both versions named",
        },
        other_version,
    );
    stage.scenario(
        &Line { id: "I7", fault: "same name, new address", target: "≤ 10 s; one entry a name" },
        moved,
    );
    stage.scenario(
        &Line {
            id: "I6",
            fault: "leave, forget, come back",
            target: "nobody exchanges with the gone; rejoin works",
        },
        leave,
    );
    stage.end();
    run.alone(
        &Line {
            id: "I8",
            fault: "two live nodes of one name",
            target: "the later one is refused by all, refuses clients' writes; both log it",
        },
        twins,
    );
    run.alone(
        &Line { id: "I10", fault: "9 nodes join at once through one seed", target: "≤ 15 s" },
        crowd,
    );
}

fn all_at_once(cluster: &mut Cluster, run: &Run) -> Found {
    let traffic = Traffic::start(cluster, Plan::new("i9", &[0, 1, 2]));
    pause(Duration::from_secs(1));
    let orders: [&[&[usize]]; 3] = [&[&[0, 1, 2]], &[&[2], &[0, 1]], &[&[1], &[2], &[0]]];
    let mut slowest = Duration::ZERO;
    for round in 0..run.form(3, 12) {
        for node in [0, 1, 2] {
            if round % 2 == 0 { cluster.kill(node) } else { cluster.stop(node) }
        }
        let start = Instant::now();
        for nodes in orders[round % 3] {
            cluster.start_nodes(nodes);
        }
        cluster.wait_formed(Duration::from_secs(60));
        slowest = slowest.max(start.elapsed());
    }
    let found = traffic.verify(cluster, Duration::from_secs(60));
    within("to be whole again", slowest, Duration::from_secs(15));
    format!(
        "3 orders, whole ≤ {slowest:.1?}; equal {:.1?} after the last write; {} acked, 0 lost",
        found.converged, found.acked
    )
    .into()
}

fn other_version(cluster: &mut Cluster, _run: &Run) -> Found {
    let theirs = (VERSIONS.1 + 1, VERSIONS.1 + 2);
    let hello = Hello {
        version: VERSION,
        role: Role::Node,
        cluster: Some(cluster.name().to_owned()),
        name: Cluster::node_name(1),
        nonce: [1; 32],
    };
    let node = NodeHello {
        versions: theirs,
        cluster: cluster.name().to_owned(),
        name: Cluster::node_name(1),
        uuid: [7; 16],
        incarnation: 1,
        boot: [7; 16],
        partitions: 4,
        lanes: [1; 3],
        channel: 0,
        lane: 0,
        addresses: Vec::new(),
        capabilities: Vec::new(),
        nonce: [2; 32],
    };
    let (own, other) = (cluster.certificate(1), cluster.certificate(0));
    let address = cluster.wires().listen(0);
    let answer = cluster.block(async {
        let mut stream = connect_tls(address, &own, &other).await?;
        stream.write_all(&MAGIC).await?;
        stream.write_all(&encode(&hello).unwrap()).await?;
        stream.write_all(&encode_within(&node, NODE_HELLO_BYTES_MAX).unwrap()).await?;
        stream.flush().await?;
        let len = usize::from(stream.read_u16().await?);
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        Ok::<_, std::io::Error>(decode::<NodeAnswer>(&body).unwrap())
    });
    let NodeAnswer::Refused(refused) = answer.unwrap() else { panic!("it was let in") };
    assert_eq!(refused, Refused::Versions { ours: VERSIONS, theirs });
    let text = refused.to_string();
    assert!(
        text.contains(&VERSIONS.1.to_string()) && text.contains(&theirs.1.to_string()),
        "{text}"
    );
    cluster.wait_formed(HEAL);
    format!("\"{text}\"").into()
}

fn moved(cluster: &mut Cluster, _run: &Run) -> Found {
    let old = cluster.wires().listen(2);
    let mut new = old;
    new.set_port(old.port() + 1000);
    cluster.stop(2);
    cluster.set_config(2, &[("cluster.listen", &format!("\"{new}\""))]);
    let start = Instant::now();
    cluster.start_node(2);
    for node in [0, 1] {
        cluster.wait_member(node, "n2", HEAL, |m| {
            m.is_some_and(|m| m.liveness == "up" && m.addresses == [new.to_string()])
        });
        let members = cluster.members(node).unwrap().members;
        let entries = members.iter().filter(|m| m.name == "n2" && m.status == "joined").count();
        assert_eq!(entries, 1, "{members:?}");
    }
    let took = start.elapsed();
    cluster.put(2, SHARED, "i7", "x");
    cluster.wait_value(0, SHARED, "i7", "x", HEAL);
    cluster.stop(2);
    cluster.set_config(2, &[]);
    cluster.start_node(2);
    cluster.wait_formed(HEAL);
    within("to move", took, Duration::from_secs(10));
    format!("known at the new address after {took:.1?}, boot included; one entry").into()
}

fn knows_of(cluster: &Cluster, node: usize, name: &str) -> bool {
    let status = cluster.block(cluster.client(node).aae_status()).unwrap();
    let peers = cluster.block(cluster.client(node).cluster_status()).unwrap().peers;
    status.peers.iter().any(|p| p.name == name)
        || peers.iter().any(|p| p.name == name && p.connected)
}

fn leave(cluster: &mut Cluster, _run: &Run) -> Found {
    cluster.put(2, SHARED, "i6-last-word", "x");
    let ended = cluster.cli(2, &["cluster", "leave"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let start = Instant::now();
    for node in [0, 1] {
        cluster.wait_member(node, "n2", HEAL, |m| m.is_some_and(|m| m.status == "left"));
        cluster.wait_value(node, SHARED, "i6-last-word", "x", HEAL);
        wait_until(HEAL, "exchanges with the gone one to end", || {
            if knows_of(cluster, node, "n2") { Err(format!("n{node} knows n2")) } else { Ok(()) }
        });
    }
    let gone = start.elapsed();
    // It comes back when it is told to.
    let seed = cluster.wires().listen(0).to_string();
    let ended = cluster.cli(2, &["cluster", "join", &seed]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let back = cluster.wait_formed(HEAL);
    cluster.wait_converged(&TABLES, HEAL);
    // A dead one is forgotten, and refused when it returns as it was.
    cluster.kill(2);
    let start = Instant::now();
    let forgotten = wait_until(HEAL, "n2 to be forgotten", || {
        let ended = cluster.cli(0, &["cluster", "forget", "n2"]);
        if ended.code == Some(0) { Ok(start.elapsed()) } else { Err(ended.err) }
    });
    cluster.wait_member(1, "n2", HEAL, |m| m.is_some_and(|m| m.status == "evicted"));
    let refused = match cluster.site(2).start_or_end() {
        Err((_status, said)) => said,
        Ok(node) => {
            ghost(cluster, 2, "i6-ghost", "evicted");
            let still = cluster.member(0, "n2");
            assert!(still.is_some_and(|m| m.status == "evicted"), "it is in again");
            let said = node.log();
            node.kill();
            said
        }
    };
    let told = ["removed from this cluster", "evicted from the cluster"];
    assert!(told.iter().any(|text| refused.contains(text)), "it was not told why: {refused}");
    // With a new directory it is a new node under an old name.
    cluster.wipe(2);
    cluster.start_node(2);
    declare(cluster);
    let anew = cluster.wait_formed(Duration::from_secs(60));
    cluster.wait_converged(&TABLES, HEAL);
    format!("left and unknown {gone:.1?}, back {back:.1?}; forgotten {forgotten:.1?}, refused, anew {anew:.1?}").into()
}

fn twins(_run: &Run) -> Found {
    let options = Options::new(Wire::Direct, 4).with("cluster.poll_interval", "\"1s\"");
    let mut cluster = Cluster::prepare("twins", options);
    cluster.start_nodes(&[0, 1, 2]);
    cluster.wait_formed(HEAL);
    declare(&cluster);
    let id = cluster.member(0, "n2").map(|m| m.node);
    cluster.put(2, SHARED, "i8-before", "x");
    cluster.impersonate(3, 2);
    let told = match cluster.site(3).start_or_end() {
        Err((status, said)) => format!("the twin ended: {status}: {}", last_line(&said)),
        Ok(twin) => {
            let said = wait_until(HEAL, "the twin to say why it is alone", || {
                let said = twin.log();
                let line = said.lines().find(|l| l.contains("belongs to another node"));
                line.and_then(reason).ok_or_else(|| said.clone())
            });
            let why = ghost(&cluster, 3, "i8-ghost", "belongs to another node");
            // Reads go on: they show what it has, which is nothing of the cluster's.
            assert!(cluster.get(3, SHARED, "i8-before").is_empty());
            let status = cluster.block(cluster.client(3).cluster_status()).unwrap();
            assert!(status.problems.contains(&why), "{:?}", status.problems);
            twin.kill();
            format!("the twin is refused by all (\"{said}\"), takes no writes, and says why")
        }
    };
    pause(Duration::from_secs(1));
    for node in [0, 1, 2] {
        let member = cluster.member(node, "n2");
        let same =
            member.as_ref().is_some_and(|m| m.status == "joined" && Some(&m.node) == id.as_ref());
        assert!(same, "n{node} sees {member:?}");
    }
    let logged =
        [0, 1, 2].iter().filter(|&&n| cluster.node(n).log().contains("belongs to another")).count();
    assert!(logged > 0, "no member logged the twin");
    cluster.put(2, SHARED, "i8", "x");
    cluster.wait_value(0, SHARED, "i8", "x", HEAL);
    cluster.finish();
    format!("{told}; {logged} members logged it").into()
}

/// Writes on a node that must take no writes, until it refuses them for this reason: what it says. What it took before it knew
/// must not be elsewhere, and once it knows nothing is kept at all.
fn ghost(cluster: &Cluster, node: usize, key: &str, reason: &str) -> String {
    let early = format!("{key}-early");
    let client = cluster.client(node);
    let why = wait_until(HEAL, "writes to be refused", || {
        let put = client.put(SHARED, early.as_str(), "x");
        match cluster.block(async { put.await }) {
            Err(Error::NotServing(why)) if why.contains(reason) => Ok(why),
            other => Err(format!("{other:?}")),
        }
    });
    let late = [
        cluster.block(async { client.put(SHARED, key, "x").await }).err(),
        cluster.block(async { client.delete(SHARED, early.as_str()).await }).err(),
        cluster.block(async { client.session().put(SHARED, key, "x").await }).err(),
    ];
    assert!(late.iter().all(|e| matches!(e, Some(Error::NotServing(_)))), "{late:?}");
    assert!(cluster.get(node, SHARED, key).is_empty(), "a write that was refused is there");
    pause(Duration::from_secs(3));
    for member in cluster.running() {
        for key in [key, early.as_str()] {
            let seen = cluster.get(member, SHARED, key);
            assert!(seen.is_empty(), "a write of the refused node is on n{member}");
        }
    }
    why
}

/// The field `reason` of a line of the log.
fn reason(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line["reason"].as_str()?.to_owned())
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

fn crowd(run: &Run) -> Found {
    const NODES: usize = 10;
    let mut times = Vec::new();
    for _ in 0..run.form(1, 20) {
        let mut options = Options::new(Wire::Direct, NODES);
        options.seeds = Seeds::First;
        let mut cluster = Cluster::prepare("crowd", options);
        cluster.start_nodes(&[0]);
        let start = Instant::now();
        cluster.start_nodes(&(1..NODES).collect::<Vec<_>>());
        cluster.wait_formed(Duration::from_secs(90));
        times.push(start.elapsed());
        let end = NODES - 1;
        declare(&cluster);
        cluster.put(end, SHARED, "i10", "x");
        cluster.wait_value(1, SHARED, "i10", "x", HEAL);
        cluster.finish();
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    // Ten debug builds boot on a few cores here; the figure counts from their start.
    within("to know each other", slowest, Duration::from_secs(15));
    format!("{} runs, all know all ≤ {slowest:.1?}, boots included", times.len()).into()
}
