//! Clients of a cluster in which not every node is connected with every other.

use crate::cluster::{DEATH_WITHIN, Stage, on_cluster};
use crate::net::none;
use crate::run::{MOMENT, Run};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weald_tests::harness::cluster::{Options, Seeds};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::harness::wires::Wire;
use weald_tests::wamp::{Got, PATIENCE, Peer};

/// Nodes of a case.
const NODES: usize = 8;
/// The one that is killed.
const LAST: usize = NODES - 1;
/// Neighbours of each. With fewer, so few nodes may form two parts that do not hear of each other for minutes.
const NEIGHBOURS: &str = "4";
/// Time in which all nodes know each other's routes, and are connected where they have to be.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn add(run: &mut Run) {
    run.alone(calls_and_events_reach_all_nodes_of_a_partial_mesh);
    run.alone(killed_node_is_noticed_by_those_that_are_not_connected);
    run.alone(killed_node_fails_its_calls_in_a_partial_mesh);
}

fn options() -> Options {
    let options = Options { seeds: Seeds::First, ..Options::new(Wire::Direct, NODES) };
    options.with("cluster.strategy", "\"p2p\"").with("cluster.active_view", NEIGHBOURS)
}

/// Of each node that runs, to how many others it is connected.
fn connected(stage: &Stage) -> Vec<usize> {
    let of = |node| {
        let status = stage.cluster.block(stage.cluster.client(node).cluster_status());
        status.map_or(0, |status| status.peers.iter().filter(|peer| peer.connected).count())
    };
    stage.cluster.running().into_iter().map(of).collect()
}

/// Waits until a node is not connected with all others: those that it has met at the start are gone again.
fn thinned_out(stage: &Stage, node: usize) -> Vec<usize> {
    wait_until(KNOWN_WITHIN * 3, "nodes to have a few neighbours only", || {
        let connected = connected(stage);
        if connected[node] < NODES - 1 { Ok(connected) } else { Err(format!("{connected:?}")) }
    })
}

/// Calls until there is such a procedure; what was called before that is over then.
fn found_within(caller: &mut Peer, callee: &mut Peer, procedure: &str, limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let request = caller.call(procedure, &none(), &json!(["probe"]));
        loop {
            if let Got::Message(call) = callee.poll(Duration::from_millis(1)) {
                assert_eq!(call[0], 68, "{call}");
                callee.yields(call[1].as_u64().unwrap(), &none(), &json!([]));
            }
            match caller.poll(Duration::from_millis(1)) {
                Got::Message(answer) if answer[0] == 50 && answer[1] == request => return,
                Got::Message(answer) => {
                    assert_eq!((&answer[0], &answer[2]), (&json!(8), &json!(request)), "{answer}");
                    assert!(Instant::now() < end, "{procedure} is not found: {answer}");
                    break;
                }
                Got::Nothing => assert!(Instant::now() < end, "a call of {procedure} hangs"),
                other => panic!("{other:?}"),
            }
        }
        pause(Duration::from_millis(20));
    }
}

fn procedure(node: usize) -> String {
    format!("com.p2p.procedure{node}")
}

/// A callee and a caller on each node, each of whom reaches each.
fn callees_and_callers(stage: &Stage) -> (Vec<Peer>, Vec<Peer>, Vec<u64>) {
    let mut callees: Vec<_> = (0..NODES).map(|k| stage.peer(&format!("callee{k}"), k)).collect();
    let mut callers: Vec<_> = (0..NODES).map(|k| stage.peer(&format!("caller{k}"), k)).collect();
    let ids = callees.iter_mut().enumerate().map(|(k, c)| c.register(&procedure(k), &none()));
    let ids = ids.collect();
    for caller in &mut callers {
        for (k, callee) in callees.iter_mut().enumerate() {
            found_within(caller, callee, &procedure(k), KNOWN_WITHIN);
        }
    }
    (callees, callers, ids)
}

fn calls_and_events_reach_all_nodes_of_a_partial_mesh(run: &Run) -> String {
    let each: u64 = run.form(40, 400);
    on_cluster("p2p", options(), |stage| {
        let before = thinned_out(stage, LAST);
        let (mut callees, mut callers, _) = callees_and_callers(stage);
        let topic = "com.p2p.topic";
        for callee in &mut callees {
            callee.subscribe(topic, &none());
        }
        // Everybody hears everybody: then what is published from now on is heard by all.
        let (mut heard, end) = (BTreeMap::new(), Instant::now() + KNOWN_WITHIN);
        while heard.len() < NODES * NODES {
            for (k, caller) in callers.iter_mut().enumerate() {
                caller.publish(topic, &none(), &json!([k, 0]));
            }
            for (k, callee) in callees.iter_mut().enumerate() {
                while let Got::Message(event) = callee.poll(Duration::from_millis(20)) {
                    heard.insert((k, event[4][0].as_u64().unwrap()), 0);
                }
            }
            assert!(Instant::now() < end, "heard are {:?}", heard.keys());
        }
        for callee in &mut callees {
            while let Got::Message(_late) = callee.poll(MOMENT) {}
        }
        // From each to each, numbered.
        let mut requests = BTreeMap::new();
        for number in 1..=each {
            for (k, caller) in callers.iter_mut().enumerate() {
                caller.publish(topic, &none(), &json!([k, number]));
                for to in 0..NODES {
                    let request = caller.call(&procedure(to), &none(), &json!([k, number]));
                    requests.insert((k, request), (to, number));
                }
            }
        }
        let calls = requests.len();
        let (mut invoked, end) = (BTreeMap::new(), Instant::now() + PATIENCE * 3);
        let mut events = 0;
        while !requests.is_empty() || events < calls {
            for (to, callee) in callees.iter_mut().enumerate() {
                while let Got::Message(message) = callee.poll(Duration::from_millis(1)) {
                    let args = &message[4];
                    let (from, number) = (args[0].as_u64().unwrap(), args[1].as_u64().unwrap());
                    let last = if message[0] == 68 {
                        callee.yields(message[1].as_u64().unwrap(), &none(), args);
                        invoked.insert((to, from), number)
                    } else {
                        events += 1;
                        heard.insert((to, from), number)
                    };
                    assert_eq!(last.unwrap_or(0) + 1, number, "from {from} to {to}: {message}");
                }
            }
            for (k, caller) in callers.iter_mut().enumerate() {
                while let Got::Message(answer) = caller.poll(Duration::from_millis(1)) {
                    assert_eq!(answer[0], 50, "{answer}");
                    let asked = requests.remove(&(k, answer[1].as_u64().unwrap()));
                    assert_eq!(
                        asked.map(|(_, number)| json!([k, number])),
                        Some(answer[3].clone())
                    );
                }
            }
            assert!(Instant::now() < end, "{} calls and {events} events", requests.len());
        }
        let after = connected(stage);
        format!("{calls} calls and {events} events; peers {before:?}, while calling {after:?}")
    })
}

fn killed_node_is_noticed_by_those_that_are_not_connected(_run: &Run) -> String {
    on_cluster("p2pgone", options(), |stage| {
        let before = thinned_out(stage, LAST);
        let mut callee = stage.peer("callee", LAST);
        callee.register(&procedure(LAST), &none());
        let mut others: Vec<_> = (0..LAST).map(|k| stage.peer(&format!("other{k}"), k)).collect();
        let has_route = |peer: &mut Peer| {
            let found = peer.ask("wamp.registration.match", &json!([procedure(LAST)]), &none());
            !found[0].is_null()
        };
        wait_until(KNOWN_WITHIN, "all nodes to know the route", || {
            let known: Vec<_> = others.iter_mut().map(has_route).collect();
            if known.iter().all(|known| *known) { Ok(()) } else { Err(format!("{known:?}")) }
        });
        let start = Instant::now();
        stage.cluster.kill(LAST);
        let mut gone = vec![None; LAST];
        while gone.iter().any(Option::is_none) {
            for (peer, gone) in others.iter_mut().zip(&mut gone) {
                if gone.is_none() && !has_route(peer) {
                    *gone = Some(start.elapsed());
                }
            }
            // How fast is told; on a busy machine a failure detector is slow.
            assert!(start.elapsed() <= PATIENCE, "routes went after {gone:.1?}");
        }
        let gone: Vec<_> = gone.into_iter().flatten().collect();
        stage.restart(LAST);
        format!("peers {before:?}; routes went after {gone:.1?}")
    })
}

fn killed_node_fails_its_calls_in_a_partial_mesh(_run: &Run) -> String {
    on_cluster("p2pkill", options(), |stage| {
        let (mut callees, mut callers, ids) = callees_and_callers(stage);
        let mut victim = callees.remove(LAST);
        let requests: Vec<_> = callers[..LAST]
            .iter_mut()
            .map(|caller| {
                let request = caller.call(&procedure(LAST), &none(), &json!([]));
                victim.invoked(ids[LAST]);
                request
            })
            .collect();
        let start = Instant::now();
        stage.cluster.kill(LAST);
        for (caller, request) in callers.iter_mut().zip(requests) {
            assert_eq!(caller.refusal(48, request), "wamp.error.canceled");
        }
        let failed = start.elapsed();
        assert!(failed <= DEATH_WITHIN, "calls in flight failed after {failed:.1?}");
        // What is called from now on fails at once, too, first for want of the node, then of the procedure.
        let (mut errors, mut gone, mut slowest) = (BTreeMap::new(), [None; LAST], Duration::ZERO);
        while gone.iter().any(Option::is_none) {
            for (caller, gone) in callers.iter_mut().zip(&mut gone).filter(|(_, g)| g.is_none()) {
                let asked = Instant::now();
                let error = caller.call_fails(&procedure(LAST), &none(), &json!([]));
                slowest = slowest.max(asked.elapsed());
                if error == "wamp.error.no_such_procedure" {
                    *gone = Some(start.elapsed());
                } else {
                    *errors.entry(error).or_insert(0) += 1;
                }
            }
            pause(Duration::from_millis(10));
            // How fast is told; on a busy machine a failure detector is slow.
            assert!(start.elapsed() <= PATIENCE, "routes went after {gone:.1?}: {errors:?}");
        }
        let last = gone.iter().flatten().max().copied().unwrap_or_default();
        let calls = format!("calls meanwhile took up to {slowest:.0?}: {errors:?}");
        stage.restart(LAST);
        format!("calls failed after {failed:.0?}, the last route went after {last:.0?}; {calls}")
    })
}
