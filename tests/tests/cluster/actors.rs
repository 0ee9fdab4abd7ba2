//! Named actors of programs at several nodes: what is sent to them while links are cut and nodes die, and names that two
//! sides of a split both have.

use crate::run::{Found, Plan as Line, Run, Stage};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weald_client::{Client, Delivery, Ended, Error, NamedActor, Registration};
use weald_tests::harness::cluster::{Cluster, Options, Seeds};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::seed::Seeded;

#[path = "../../../actors/client/examples/two_nodes.rs"]
mod two_nodes;

const ALL: [usize; 3] = [0, 1, 2];
/// Time for what must work once the network is whole.
const HEALED: Duration = Duration::from_secs(60);
/// Nodes of the partial mesh, and neighbours of each.
const MESH: usize = 8;
const NEIGHBOURS: &str = "4";

pub(crate) fn run(run: &mut Run) {
    let mut stage = Stage::new(run, "actors", Options::new(Wire::Namespaces, 3));
    stage.scenario(
        &Line {
            id: "A1",
            fault: "messages to actors at other nodes, links cut at random",
            target: "acknowledged: once; known as not sent: never; none twice",
        },
        cuts,
    );
    stage.scenario(
        &Line {
            id: "A2",
            fault: "the actors' node shot, or stopped, while they are sent to, and restarted",
            target: "as A1, over its lives; the name is back",
        },
        shot,
    );
    stage.scenario(
        &Line {
            id: "A3",
            fault: "one name registered on both sides of a split",
            target: "the older stays on every node, the other is told",
        },
        both_sides,
    );
    stage.end();
    let mut options = Options::new(Wire::Direct, MESH).with("cluster.strategy", "\"p2p\"");
    options = options.with("cluster.active_view", NEIGHBOURS);
    options.seeds = Seeds::First;
    let mut stage = Stage::new(run, "mesh", options);
    stage.scenario(
        &Line {
            id: "A4",
            fault: "8 nodes of which each has 4 neighbours",
            target: "every node reaches the actors of every other",
        },
        mesh,
    );
    stage.end();
}

/// How often an actor got each message.
type Got = Arc<Mutex<BTreeMap<String, u32>>>;

/// An actor under a name that keeps what it gets.
fn keeper(cluster: &Cluster, node: usize, name: &str) -> (Got, Registration) {
    let got = Got::default();
    let kept = Arc::clone(&got);
    let client = cluster.client(node);
    // The name may be held by a client that has just ended.
    let held = wait_until(HEALED, "the name to be free", || {
        let kept = Arc::clone(&kept);
        let serving = client.serve(name, move |message: String| {
            *kept.lock().unwrap().entry(message).or_default() += 1;
            std::future::ready(())
        });
        cluster.block(serving).map_err(|e| e.to_string())
    });
    (got, held)
}

/// Waits until a node finds a name at another.
fn wait_found(cluster: &Cluster, node: usize, name: &str, at: usize) -> Duration {
    let client = cluster.client(node);
    let start = Instant::now();
    wait_until(HEALED, &format!("n{node} to find {name} at n{at}"), || {
        let found = cluster.block(client.whereis(name)).map_err(|e| e.to_string())?;
        let node_name = found.map(|named| named.node).unwrap_or_default();
        if node_name == Cluster::node_name(at) { Ok(start.elapsed()) } else { Err(node_name) }
    })
}

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Acknowledged,
    NotSent,
    Unknown,
}

/// Messages that were sent, and how each ended.
type Sent = Vec<(String, End)>;

/// Sends numbered messages until told to stop; how each ended.
async fn sender(
    client: Client,
    name: String,
    label: String,
    delivery: Delivery,
    stop: Arc<AtomicBool>,
) -> Sent {
    let actor: NamedActor<String> = client.actor(&name);
    let mut ends = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let message = format!("{label}/{}", ends.len());
        let sending = actor.send(&message).delivery(delivery.clone());
        let end = match sending.deadline(Duration::from_secs(4)).await {
            Ok(()) => End::Acknowledged,
            Err(Error::Unknown(_) | Error::TimedOut(_) | Error::Internal(_)) => End::Unknown,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                End::NotSent
            }
        };
        ends.push((message, end));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    ends
}

/// Messages under way, to be compared with what came.
struct Traffic {
    stop: Arc<AtomicBool>,
    senders: Vec<(usize, tokio::task::JoinHandle<Sent>)>,
}

impl Traffic {
    /// Sends from nodes to actors, each with its number.
    fn start(cluster: &Cluster, prefix: &str, ways: &[(usize, usize)]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut senders = Vec::new();
        for (from, to) in ways {
            for delivery in [Delivery::Acknowledged, Delivery::BestEffort] {
                let label = format!("{from}-{to}/{delivery:?}");
                let name = format!("{prefix}/{to}");
                let client = cluster.client(*from);
                let sent = sender(client, name, label, delivery, Arc::clone(&stop));
                senders.push((*to, cluster.runtime().spawn(sent)));
            }
        }
        Self { stop, senders }
    }

    /// Ends it, and compares; how many were acknowledged, not sent, and of unknown outcome, of which so many came.
    fn verify(self, cluster: &Cluster, got: &BTreeMap<usize, Got>) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acked, mut not_sent, mut unknown, mut came) = (0_u64, 0_u64, 0_u64, 0_u64);
        for (to, sender) in self.senders {
            let sent = cluster.block(async { tokio::time::timeout(HEALED, sender).await });
            let sent = sent.expect("a message ends by its deadline").unwrap();
            assert!(sent.iter().any(|(_, end)| *end == End::Acknowledged), "nothing came through");
            let got = got[&to].lock().unwrap().clone();
            for (message, end) in sent {
                let times = got.get(&message).copied().unwrap_or(0);
                match end {
                    End::Acknowledged => assert_eq!(times, 1, "{message} was acknowledged"),
                    End::NotSent => assert_eq!(times, 0, "{message} was not sent"),
                    End::Unknown => assert!(times <= 1, "{message} came {times} times"),
                }
                match end {
                    End::Acknowledged => acked += 1,
                    End::NotSent => not_sent += 1,
                    End::Unknown => (unknown, came) = (unknown + 1, came + u64::from(times)),
                }
            }
        }
        format!(
            "{acked} acked, {not_sent} not sent, {unknown} unknown of which {came} came; none twice"
        )
    }
}

fn actors(
    cluster: &Cluster,
    prefix: &str,
    at: &[usize],
) -> (BTreeMap<usize, Got>, Vec<Registration>) {
    let (mut got, mut held) = (BTreeMap::new(), Vec::new());
    for &node in at {
        let (messages, registration) = keeper(cluster, node, &format!("{prefix}/{node}"));
        got.insert(node, messages);
        held.push(registration);
    }
    for (&node, &to) in ALL.iter().flat_map(|node| at.iter().map(move |to| (node, to))) {
        wait_found(cluster, node, &format!("{prefix}/{to}"), to);
    }
    (got, held)
}

fn cuts(cluster: &mut Cluster, run: &Run) -> Found {
    let (got, _held) = actors(cluster, "a1", &ALL);
    let ways: Vec<_> = ALL.iter().flat_map(|&a| ALL.map(|b| (a, b))).collect();
    let traffic = Traffic::start(cluster, "a1", &ways);
    let mut rng = Seeded::announced("a1");
    for _ in 0..run.form(4, 30) {
        pause(Duration::from_millis(500));
        let (a, b) = (rng.below(3), rng.below(3));
        if a == b {
            continue;
        }
        cluster.wires().cut(a, b);
        if rng.chance(50) {
            cluster.wires().cut(b, a);
        }
        pause(Duration::from_millis(rng.below(3500) as u64));
        cluster.wires().heal();
    }
    // Long enough for both ends to give the connections up.
    cluster.wires().split(&[0], &[1, 2]);
    pause(Duration::from_secs(12));
    cluster.wires().heal();
    cluster.wait_formed(HEALED);
    pause(Duration::from_secs(2));
    let figures = traffic.verify(cluster, &got);
    let repeated = ALL.map(|node| mail(cluster, node, "repeated")).iter().sum::<u64>();
    assert!(repeated > 0, "no message had to be sent again: {figures}");
    format!("{figures}; {repeated} sent again").into()
}

/// A figure of a node about messages to actors.
fn mail(cluster: &Cluster, node: usize, figure: &str) -> u64 {
    let status = cluster.block(cluster.client(node).status()).unwrap();
    status["mail"][figure].as_u64().unwrap()
}

fn shot(cluster: &mut Cluster, run: &Run) -> Found {
    let (got, _held) = actors(cluster, "a2", &[1]);
    let traffic = Traffic::start(cluster, "a2", &[(0, 1), (2, 1)]);
    let mut back = Duration::ZERO;
    for round in 0..run.form(3, 12) {
        pause(Duration::from_secs(1));
        let is_stopped = round % 3 == 1;
        if is_stopped {
            // In order: the name is given back, and the same incarnation goes on.
            cluster.stop(1);
        } else {
            cluster.kill(1);
        }
        // It is not used while it is away, and the error says where it is.
        let actor: NamedActor<String> = cluster.client(0).actor("a2/1");
        wait_until(HEALED, "the name to be refused", || {
            let sent = cluster.block(async { actor.send(&"probe".to_owned()).await });
            match sent {
                Err(Error::Unavailable(why)) if why.contains("n1") => Ok(()),
                Err(Error::NotFound(_)) if is_stopped => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        cluster.start_node(1);
        let start = Instant::now();
        cluster.wait_formed(HEALED);
        for node in [0, 2] {
            wait_until(HEALED, "the actor to be reached again", || {
                let actor: NamedActor<String> = cluster.client(node).actor("a2/1");
                cluster
                    .block(async { actor.send(&"probe".to_owned()).await })
                    .map_err(|e| e.to_string())
            });
        }
        back = back.max(start.elapsed());
    }
    let figures = traffic.verify(cluster, &got);
    format!("{figures}; reached {back:.1?} after the start").into()
}

fn both_sides(cluster: &mut Cluster, _run: &Run) -> Found {
    cluster.wires().split(&[0], &[1, 2]);
    let (older_got, mut older) = keeper(cluster, 0, "a3");
    pause(Duration::from_millis(50));
    let (_younger_got, mut younger) = keeper(cluster, 1, "a3");
    wait_found(cluster, 2, "a3", 1);
    wait_found(cluster, 0, "a3", 0);
    pause(Duration::from_secs(1));
    cluster.wires().heal();
    let start = Instant::now();
    cluster.wait_formed(HEALED);
    let lost = cluster.block(async { tokio::time::timeout(HEALED, younger.ended()).await });
    match lost.expect("the younger is told") {
        Ended::Lost { node, .. } => assert_eq!(node, "n0"),
        other => panic!("{other:?}"),
    }
    let told = start.elapsed();
    for node in ALL {
        wait_found(cluster, node, "a3", 0);
        let actor: NamedActor<String> = cluster.client(node).actor("a3");
        let sent =
            async { actor.send(&format!("from {node}")).delivery(Delivery::Acknowledged).await };
        cluster.block(sent).unwrap();
        let shown = cluster.cli(node, &["names", "a3", "--json"]);
        let line: serde_json::Value = serde_json::from_str(shown.out.trim()).unwrap();
        assert!(line["node"] == "n0" && line["state"] != "down", "{shown:?}");
    }
    assert_eq!(older_got.lock().unwrap().len(), ALL.len());
    let still =
        cluster.block(async { tokio::time::timeout(Duration::from_secs(1), older.ended()).await });
    assert!(still.is_err(), "{still:?}");
    // With the registration the name goes, everywhere; whoever is first has it then.
    drop(older);
    let (_got, _third) = keeper(cluster, 2, "a3");
    for node in ALL {
        wait_found(cluster, node, "a3", 2);
    }
    let taken = cluster.block(cluster.client(1).serve("a3", |_: String| std::future::ready(())));
    assert!(matches!(&taken, Err(Error::Taken(why)) if why.contains("n2")), "{taken:?}");
    format!("the younger was told {told:.1?} after healing, all nodes agree").into()
}

fn mesh(cluster: &mut Cluster, _run: &Run) -> Found {
    let nodes: Vec<usize> = (0..MESH).collect();
    let held: Vec<Registration> = nodes
        .iter()
        .map(|&node| {
            let answer = move |n: u64| std::future::ready((node as u64, n));
            cluster.block(cluster.client(node).serve(&format!("a4/{node}"), answer)).unwrap()
        })
        .collect();
    let peers = |node: usize| {
        let status = cluster.block(cluster.client(node).cluster_status());
        status.map_or(MESH, |status| status.peers.iter().filter(|peer| peer.connected).count())
    };
    let before = wait_until(3 * HEALED, "nodes to have a few neighbours only", || {
        let connected: Vec<usize> = nodes.iter().map(|&node| peers(node)).collect();
        if connected.iter().any(|count| *count < MESH - 1) {
            Ok(connected)
        } else {
            Err(format!("{connected:?}"))
        }
    });
    for (&node, &to) in nodes.iter().flat_map(|node| nodes.iter().map(move |to| (node, to))) {
        wait_found(cluster, node, &format!("a4/{to}"), to);
        let actor: NamedActor<u64, (u64, u64)> = cluster.client(node).actor(&format!("a4/{to}"));
        let answer = cluster.block(actor.call(&7, HEALED / 3)).unwrap();
        assert_eq!(answer, (to as u64, 7), "n{node} calls n{to}");
        let sent =
            async { actor.send(&8).delivery(Delivery::Acknowledged).deadline(HEALED / 3).await };
        cluster.block(sent).unwrap_or_else(|e| panic!("n{node} sends to n{to}: {e}"));
        let newest = async { actor.send(&9).delivery(Delivery::monotonic("k")).await };
        cluster.block(newest).unwrap();
    }
    drop(held);
    let at = |node: usize| cluster.node_dir(node).join("data/weald.sock");
    let example = cluster
        .block(async { tokio::time::timeout(HEALED, two_nodes::run(at(0), at(MESH - 1))).await });
    example.expect("the example ends").unwrap();
    format!("{} ways, neighbours before {before:?}", MESH * MESH).into()
}
