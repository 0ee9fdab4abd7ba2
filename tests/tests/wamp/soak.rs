//! Sessions, routes and nodes that come and go: afterwards nothing of them is left.
//!
//! The short form takes half a minute; `WEALD_CLUSTER_FULL=1 cargo test -p weald-tests --test wamp -- churn` takes 30 minutes.

use crate::cluster::{Stage, on_cluster};
use crate::net::none;
use crate::nodes::ways;
use crate::run::Run;
use serde_json::json;
use std::time::{Duration, Instant};
use weald_tests::harness::cluster::Options;
use weald_tests::harness::node::flatten;
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::wamp::{Got, PATIENCE, Peer};

/// Nodes, of which the first is never restarted: what it holds is compared.
const NODES: usize = 3;
/// Sessions on each node in a round.
const SESSIONS: usize = 5;
/// Topics of each session alone.
const TOPICS: usize = 20;
/// Procedures of each session; the last one never answers.
const PROCEDURES: usize = 5;
/// Events that each session publishes to all.
const EVENTS: usize = 20;
/// Rounds before what is held is looked at first: buffers, caches and tables have their usual sizes then.
const ROUNDS_BEFORE: usize = 4;
/// Memory may differ by so much: allocators keep pages, and stores grow by what nodes tell of themselves.
const MEMORY_KIB: u64 = 16 << 10;

pub(crate) fn add(run: &mut Run) {
    run.alone(churn_leaves_nothing_behind);
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    rounds: usize,
    sessions: usize,
    events: usize,
    results: usize,
    refusals: usize,
    restarts: usize,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    actors: usize,
    descriptors: usize,
    kib: u64,
}

struct Client {
    peer: Peer,
    subscriptions: Vec<u64>,
    registrations: Vec<u64>,
    /// Invocations that are not answered.
    mute: u64,
    /// Calls without an answer.
    waiting: usize,
}

impl Client {
    fn new(stage: &Stage, node: usize, number: usize, round: usize) -> Self {
        let ways = ways();
        let way = ways[(number + round) % ways.len()];
        let mut peer = stage.peer_by(&format!("n{node}-{number}"), node, way);
        let own = format!("com.soak.r{round}.n{node}.s{number}");
        let mut subscriptions: Vec<u64> =
            (0..TOPICS).map(|n| peer.subscribe_amid_events(&format!("{own}.t{n}"))).collect();
        let registrations: Vec<u64> =
            (0..PROCEDURES).map(|n| peer.register(&format!("{own}.p{n}"), &none())).collect();
        subscriptions.push(peer.subscribe_amid_events("com.soak.all"));
        let mute = *registrations.last().unwrap();
        Self { peer, subscriptions, registrations, mute, waiting: 0 }
    }

    /// Takes what has come, and answers it.
    fn pump(&mut self, done: &mut Done) {
        loop {
            match self.peer.poll(Duration::from_millis(1)) {
                Got::Message(message) => match message[0].as_u64() {
                    Some(36) => done.events += 1,
                    Some(50) => {
                        done.results += 1;
                        self.waiting -= 1;
                    }
                    // Nodes that have just met do not know all procedures of each other.
                    Some(8) => {
                        assert_eq!(message[4], "wamp.error.no_such_procedure", "{message}");
                        done.refusals += 1;
                        self.waiting -= 1;
                    }
                    Some(68) if message[2] == self.mute => {}
                    Some(68) => {
                        let request = message[1].as_u64().unwrap();
                        self.peer.yields(request, &none(), &message[4]);
                    }
                    Some(17) => {}
                    _ => panic!("{message}"),
                },
                Got::Nothing => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Leaves in one of the ways there are.
    fn leave(mut self, how: usize) {
        match how % 3 {
            0 => {
                self.peer.send(&json!([6, {}, "wamp.close.close_realm"]));
                while self.peer.receive()[0] != 6 {}
            }
            1 => {
                let mut answers = 0;
                for id in self.subscriptions {
                    let request = self.peer.next_request();
                    self.peer.send(&json!([34, request, id]));
                    answers += 1;
                }
                for id in self.registrations {
                    let request = self.peer.next_request();
                    self.peer.send(&json!([66, request, id]));
                    answers += 1;
                }
                while answers > 0 {
                    let message = self.peer.receive();
                    answers -= usize::from(message[0] == 35 || message[0] == 67);
                }
            }
            // The connection ends without a word.
            _ => {}
        }
    }
}

fn round(stage: &Stage, done: &mut Done) {
    let round = done.rounds;
    let mut clients = Vec::new();
    for node in stage.cluster.running() {
        clients.extend(
            (0..SESSIONS).map(|number| (node, number, Client::new(stage, node, number, round))),
        );
    }
    let names: Vec<_> = clients
        .iter()
        .map(|(node, number, _)| format!("com.soak.r{round}.n{node}.s{number}"))
        .collect();
    let count = clients.len();
    for (at, (_, _, client)) in clients.iter_mut().enumerate() {
        (0..EVENTS).for_each(|n| client.peer.publish("com.soak.all", &none(), &json!([n])));
        // One on the same node, and one on another.
        for other in [(at + 1) % count, (at + SESSIONS) % count] {
            client.peer.call(
                &format!("{}.p{}", names[other], at % (PROCEDURES - 1)),
                &none(),
                &json!([at]),
            );
            client.waiting += 1;
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        clients.iter_mut().for_each(|(_, _, client)| client.pump(done));
        let waiting: usize = clients.iter().map(|(_, _, client)| client.waiting).sum();
        if waiting == 0 {
            break;
        }
        assert!(Instant::now() < end, "{waiting} calls are not answered");
    }
    // Some go while a call of theirs is being worked at, and some while they work at one.
    for at in (0..count).step_by(2) {
        let procedure = format!("{}.p{}", names[(at + 1) % count], PROCEDURES - 1);
        clients[at].2.peer.call(&procedure, &none(), &json!([]));
    }
    done.rounds += 1;
    done.sessions += count;
    for (at, (_, _, client)) in clients.into_iter().enumerate() {
        client.leave(at + round);
    }
}

/// A node goes with its clients, killed or stopped, and comes back.
fn restart(stage: &mut Stage, done: &mut Done) {
    let node = 1 + done.restarts % (NODES - 1);
    let clients: Vec<_> = (0..SESSIONS).map(|n| Client::new(stage, node, n, done.rounds)).collect();
    done.sessions += clients.len();
    if done.restarts.is_multiple_of(2) {
        stage.cluster.kill(node);
    } else {
        stage.cluster.stop(node);
    }
    drop(clients);
    round(stage, done);
    stage.restart(node);
    done.restarts += 1;
}

/// Waits until no session and no route is left anywhere, and tells what each node holds then.
fn settled(stage: &mut Stage) -> Vec<Held> {
    for node in 0..NODES {
        wait_until(PATIENCE * 2, "sessions to be gone", || {
            let status = stage.cluster.block(stage.cluster.client(node).status()).unwrap();
            let left = status["wamp_sessions"].as_u64().unwrap();
            if left == 0 { Ok(()) } else { Err(format!("n{node} has {left}")) }
        });
    }
    for node in 0..NODES {
        wait_until(PATIENCE, "routes to be gone", || {
            let mut peer = stage.peer(&format!("look-{node}"), node);
            let lists = ["wamp.subscription.list", "wamp.registration.list"]
                .map(|list| peer.ask(list, &json!([]), &none())[0].clone());
            peer.goodbye();
            let nothing = json!({ "exact": [], "prefix": [], "wildcard": [] });
            if lists.iter().all(|list| *list == nothing) {
                Ok(())
            } else {
                Err(format!("n{node}: {lists:?}"))
            }
        });
    }
    // Exchanges come and go: the least of some looks.
    let look = |stage: &mut Stage, node: usize| {
        let tree = stage.cluster.block(stage.cluster.client(node).supervision_tree()).unwrap();
        let pid = stage.cluster.node(node).pid();
        Held {
            actors: flatten(&tree).len(),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            kib: stage.cluster.memory_kib(node),
        }
    };
    let least = |stage: &mut Stage, node| {
        let looks = (0..20).map(|_| {
            pause(Duration::from_millis(100));
            look(stage, node)
        });
        looks.min().unwrap()
    };
    (0..NODES).map(|node| least(stage, node)).collect()
}

fn churn_leaves_nothing_behind(run: &Run) -> String {
    let time = run.form(Duration::from_secs(15), Duration::from_secs(30 * 60));
    let restart_every = run.form(Duration::from_secs(6), Duration::from_secs(60));
    let between = run.form(Duration::ZERO, Duration::from_secs(1));
    on_cluster("soak", Options::new(Wire::Direct, NODES), |stage| {
        let mut done = Done::default();
        (0..ROUNDS_BEFORE).for_each(|_| round(stage, &mut done));
        (1..NODES).for_each(|_| restart(stage, &mut done));
        let before = settled(stage);
        let start = Instant::now();
        let mut next_restart = start + restart_every;
        while start.elapsed() < time {
            round(stage, &mut done);
            pause(between);
            if Instant::now() >= next_restart {
                restart(stage, &mut done);
                next_restart += restart_every;
            }
        }
        let after = settled(stage);
        assert!(done.results > done.refusals, "most calls come through: {done:?}");
        for (node, (before, after)) in before.iter().zip(&after).enumerate() {
            let what = format!("n{node} held {before:?}, then {after:?}; {done:?}");
            assert_eq!(before.actors, after.actors, "{what}");
            assert_eq!(before.descriptors, after.descriptors, "{what}");
            assert!(after.kib <= before.kib + MEMORY_KIB.max(before.kib / 8), "{what}");
        }
        let (first, last) = (before[0], after[0]);
        format!(
            "{} rounds, {} sessions, {} restarts, {} events, {} results, {} too early; then {} actors, {} descriptors as before, memory {} → {} MiB",
            done.rounds,
            done.sessions,
            done.restarts,
            done.events,
            done.results,
            done.refusals,
            last.actors,
            last.descriptors,
            first.kib >> 10,
            last.kib >> 10
        )
    })
}
