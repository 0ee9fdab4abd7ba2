//! Clients of a cluster whose nodes and links die.

use crate::net::{A, B, Doors, REALM, none};
use crate::nodes::{self, Way};
use crate::run::Run;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::wait::pause;
use weald_tests::harness::wires::Wire;
use weald_tests::wamp::{Got, ID, Log, PATIENCE, Peer, Serializer, Transport, details};

/// Time in which calls in flight fail and routes are gone after a death.
pub(crate) const DEATH_WITHIN: Duration = Duration::from_secs(2);
/// Time in which routes of live sessions are equal on all nodes after a cut.
const HEAL_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn add(run: &mut Run) {
    run.alone(events_keep_their_order_through_cuts_and_a_restart);
    run.alone(calls_keep_their_order_through_cuts_and_a_restart);
    run.alone(killed_client_fails_its_calls_and_routes);
    run.alone(killed_node_fails_its_calls_and_routes);
    run.alone(shared_registration_survives_a_killed_node);
    run.alone(single_duplicates_are_resolved_after_a_cut);
    run.alone(forced_registration_holds_after_a_cut);
    run.alone(long_call_returns_across_nodes);
    run.alone(session_with_many_subscriptions_leaves_nothing_behind);
    run.alone(stopping_node_says_goodbye);
    run.alone(restarted_node_knows_the_routes_of_others);
}

/// Nodes, their doors, and a transcript that is shown when a case fails.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    doors: Vec<Doors>,
    log: Log,
}

impl Stage {
    pub(crate) fn peer(&self, name: &str, node: usize) -> Peer {
        self.peer_by(name, node, (Transport::RawSocket, Serializer::MsgPack))
    }

    pub(crate) fn peer_by(&self, name: &str, node: usize, (transport, serializer): Way) -> Peer {
        let at = match transport {
            Transport::RawSocket => &self.doors[node].raw,
            Transport::WebSocket => &self.doors[node].web,
        };
        let mut peer = Peer::connect(name, at, transport, serializer, &self.log);
        peer.join(REALM, &details());
        peer
    }

    fn cut(&self) {
        self.cluster.wires().split(&[A], &[B]);
    }

    fn heal(&self) {
        self.cluster.wires().heal();
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.cluster.start_nodes(&[node]);
        self.doors[node] = nodes::doors(&self.cluster, node);
    }

    /// Publishes until the subscriber of a topic hears of it: what was subscribed before is known there, too.
    fn meet(&self, subscriber: &mut Peer, publisher: &mut Peer, topic: &str) {
        let id = subscriber.subscribe(topic, &none());
        let end = Instant::now() + PATIENCE * 2;
        loop {
            publisher.publish_acked(topic, &none(), &json!(["probe"]));
            match subscriber.poll(Duration::from_millis(20)) {
                Got::Message(event) if event[0] == 36 && event[1] == id => break,
                Got::Nothing => {}
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < end, "nodes do not learn of each other's routes");
        }
        // Late probes come before the answer.
        let request = subscriber.next_request();
        subscriber.send(&json!([34, request, id]));
        while subscriber.receive()[0] != 35 {}
    }
}

/// Runs a case on a cluster of its own.
fn on(name: &str, wire: Wire, nodes: usize, case: impl FnOnce(&mut Stage) -> String) -> String {
    on_cluster(name, Options::new(wire, nodes), case)
}

/// The same, with any options.
pub(crate) fn on_cluster(
    name: &str,
    options: Options,
    case: impl FnOnce(&mut Stage) -> String,
) -> String {
    let (cluster, doors) = nodes::start(name, options);
    let mut stage = Stage { cluster, doors, log: Log::default() };
    let found = catch_unwind(AssertUnwindSafe(|| case(&mut stage)));
    match found {
        Ok(figures) => {
            stage.cluster.finish();
            figures
        }
        Err(panic) => {
            eprintln!("{}", stage.log.text());
            stage.cluster.keep();
            std::panic::resume_unwind(panic)
        }
    }
}

fn within(what: &str, time: Duration, limit: Duration) {
    assert!(time <= limit, "{what} took {time:.1?}, more than {limit:?}");
}

/// What is done to the link and to a third node while numbers pass.
fn disturb(stage: &mut Stage, at: usize, of: usize) {
    let step = |k: usize| at == of * k / 8;
    if step(2) {
        stage.cut();
    } else if step(3) {
        pause(Duration::from_secs(8));
        stage.heal();
    } else if step(5) {
        stage.cluster.kill(2);
    } else if step(6) {
        stage.restart(2);
    }
}

/// Strictly rising: nothing twice, nothing late.
fn rising(numbers: &[u64]) {
    let bad = numbers.windows(2).position(|two| two[0] >= two[1]);
    assert_eq!(bad.map(|at| &numbers[at.saturating_sub(3)..(at + 5).min(numbers.len())]), None);
}

fn events_keep_their_order_through_cuts_and_a_restart(run: &Run) -> String {
    let events = run.form(4_000, 40_000);
    on("order", Wire::Proxy, 3, |stage| {
        let mut publisher = stage.peer("publisher", A);
        let mut near = stage.peer("near", A);
        let mut far = stage.peer("far", B);
        let topic = "com.order.topic";
        near.subscribe(topic, &none());
        far.subscribe(topic, &none());
        stage.meet(&mut far, &mut publisher, "com.order.probe");
        let (mut heard, mut heard_far) = (Vec::new(), Vec::new());
        for k in 0..events {
            publisher.publish(topic, &none(), &json!([k, "x".repeat(200)]));
            if k % 50 == 49 {
                drain(&mut near, &mut heard, Duration::from_millis(1));
                drain(&mut far, &mut heard_far, Duration::from_millis(1));
            }
            disturb(stage, k, events);
        }
        // The link is whole again: an event gets through, and everything before it has been seen or is lost.
        let end = Instant::now() + PATIENCE * 2;
        for number in events.. {
            publisher.publish(topic, &none(), &json!([number]));
            drain(&mut far, &mut heard_far, Duration::from_millis(50));
            if heard_far.last().is_some_and(|last| *last >= events as u64) {
                break;
            }
            assert!(Instant::now() < end, "nothing gets through after the cut");
        }
        drain(&mut near, &mut heard, Duration::from_millis(500));
        rising(&heard);
        rising(&heard_far);
        let here = heard.iter().filter(|number| **number < events as u64).count();
        assert_eq!(here, events, "on one node nothing is lost");
        let there = heard_far.iter().filter(|number| **number < events as u64).count();
        assert!(there > events / 4, "{there} of {events} got through");
        format!("{events} events; {there} to the other node, in order, none twice")
    })
}

fn drain(peer: &mut Peer, numbers: &mut Vec<u64>, time: Duration) {
    loop {
        match peer.poll(time) {
            Got::Message(event) if event[0] == 36 => numbers.push(event[4][0].as_u64().unwrap()),
            Got::Nothing => return,
            other => panic!("{other:?}"),
        }
    }
}

fn calls_keep_their_order_through_cuts_and_a_restart(run: &Run) -> String {
    let calls = run.form(4_000, 40_000);
    on("callorder", Wire::Proxy, 3, |stage| {
        let mut caller = stage.peer("caller", A);
        let mut callee = stage.peer("callee", B);
        let procedure = "com.order.procedure";
        callee.register(procedure, &none());
        stage.meet(&mut callee, &mut caller, "com.order.probe");
        let (mut invoked, mut answers) = (Vec::new(), Answers::default());
        let first = caller.last_request() + 1;
        for k in 0..calls {
            caller.call(procedure, &none(), &json!([k]));
            if k % 20 == 19 {
                serve(&mut callee, &mut invoked, Duration::from_millis(1));
                answers.take(&mut caller, Duration::from_millis(1));
            }
            disturb(stage, k, calls);
        }
        let end = Instant::now() + PATIENCE * 3;
        while answers.requests.len() < calls {
            serve(&mut callee, &mut invoked, Duration::from_millis(20));
            answers.take(&mut caller, Duration::from_millis(20));
            let left = calls - answers.requests.len();
            assert!(Instant::now() < end, "{left} calls were never answered");
        }
        rising(&invoked);
        assert_eq!(answers.requests.len(), calls);
        let all = answers.requests.iter().all(|r| (first..first + calls as u64).contains(r));
        assert!(all, "answers to what was asked only");
        assert!(answers.results <= invoked.len(), "no result without an invocation");
        assert!(answers.results > calls / 4, "{} results of {calls}", answers.results);
        format!("{calls} calls: {} results, {} errors", answers.results, answers.errors)
    })
}

fn serve(callee: &mut Peer, invoked: &mut Vec<u64>, time: Duration) {
    loop {
        match callee.poll(time) {
            Got::Message(call) if call[0] == 68 => {
                invoked.push(call[4][0].as_u64().unwrap());
                callee.yields(call[1].as_u64().unwrap(), &none(), &call[4]);
            }
            // The caller's node was away.
            Got::Message(interrupt) if interrupt[0] == 69 => {}
            Got::Nothing => return,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Default)]
struct Answers {
    requests: BTreeSet<u64>,
    results: usize,
    errors: usize,
}

impl Answers {
    fn take(&mut self, caller: &mut Peer, time: Duration) {
        loop {
            let (request, is_result) = match caller.poll(time) {
                Got::Message(answer) if answer[0] == 50 => (answer[1].clone(), true),
                Got::Message(answer) if answer[0] == 8 => {
                    let fit = [
                        "wamp.error.canceled",
                        "wamp.error.no_such_procedure",
                        "wamp.error.network_failure",
                        "wamp.error.no_eligible_callee",
                    ];
                    assert!(fit.contains(&answer[4].as_str().unwrap()), "{answer}");
                    (answer[2].clone(), false)
                }
                Got::Nothing => return,
                other => panic!("{other:?}"),
            };
            let new = self.requests.insert(request.as_u64().unwrap());
            assert!(new, "{request} was answered twice");
            *if is_result { &mut self.results } else { &mut self.errors } += 1;
        }
    }
}

/// Calls until there is no such procedure any more; how long that took.
fn gone_within(caller: &mut Peer, procedure: &str, limit: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let request = caller.call(procedure, &none(), &json!([]));
        let error = caller.refusal(48, request);
        if error == "wamp.error.no_such_procedure" {
            return start.elapsed();
        }
        within(&format!("the end of the route ({error})"), start.elapsed(), limit);
        pause(Duration::from_millis(10));
    }
}

fn killed_client_fails_its_calls_and_routes(_run: &Run) -> String {
    on("client", Wire::Direct, 2, |stage| {
        let mut caller = stage.peer("caller", B);
        let mut callee = stage.peer("callee", A);
        let procedure = "com.killed.client";
        let id = callee.register(procedure, &none());
        stage.meet(&mut callee, &mut caller, "com.killed.probe");
        let request = caller.call(procedure, &none(), &json!([]));
        callee.invoked(id);
        // The system closes the sockets of a process that is killed.
        let start = Instant::now();
        drop(callee);
        caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
        let failed = start.elapsed();
        within("the call in flight", failed, DEATH_WITHIN);
        let gone = gone_within(&mut caller, procedure, DEATH_WITHIN);
        let id = caller.register(procedure, &none());
        let request = caller.call(procedure, &none(), &json!([]));
        let call = caller.invoked(id);
        caller.yields(call.request, &none(), &json!([]));
        caller.result(request, &json!([]));
        format!("call failed after {failed:.0?}, route gone after {gone:.0?} more")
    })
}

fn killed_node_fails_its_calls_and_routes(_run: &Run) -> String {
    on("node", Wire::Direct, 3, |stage| {
        let mut caller = stage.peer("caller", B);
        let mut callee = stage.peer("callee", A);
        let (procedure, topic) = ("com.killed.node", "com.killed.topic");
        let id = callee.register(procedure, &none());
        callee.subscribe(topic, &none());
        stage.meet(&mut callee, &mut caller, "com.killed.probe");
        let requests: Vec<_> = (0..50)
            .map(|k| {
                let request = caller.call(procedure, &none(), &json!([k]));
                callee.invoked(id);
                request
            })
            .collect();
        let start = Instant::now();
        stage.cluster.kill(A);
        for _ in &requests {
            let error = caller.receive();
            assert_eq!(error[0], 8, "{error}");
            assert_eq!(error[4], "wamp.error.canceled", "{error}");
        }
        let failed = start.elapsed();
        within("calls in flight", failed, DEATH_WITHIN);
        let gone = gone_within(&mut caller, procedure, DEATH_WITHIN);
        caller.register(procedure, &none());
        let left = caller.ask("wamp.subscription.match", &json!([topic]), &none());
        assert!(left[0].is_null() || left[0] == json!([]), "{left}");
        stage.restart(A);
        format!("calls failed after {failed:.0?}, route gone after {gone:.0?} more")
    })
}

fn shared_registration_survives_a_killed_node(_run: &Run) -> String {
    on("shared", Wire::Direct, 3, |stage| {
        let mut caller = stage.peer("caller", 2);
        let mut callees = [stage.peer("a", A), stage.peer("b", B)];
        let procedure = "com.shared.procedure";
        for callee in &mut callees {
            callee.register(procedure, &json!({ "invoke": "roundrobin" }));
        }
        for callee in &mut callees {
            stage.meet(callee, &mut caller, "com.shared.probe");
        }
        let [dead, mut alive] = callees;
        stage.cluster.kill(A);
        drop(dead);
        let (start, mut failed) = (Instant::now(), 0);
        // After two seconds not one call may fail.
        while start.elapsed() < DEATH_WITHIN + Duration::from_secs(1) {
            let request = caller.call(procedure, &none(), &json!([]));
            let end = Instant::now() + PATIENCE;
            loop {
                if let Got::Message(call) = alive.poll(Duration::from_millis(1)) {
                    alive.yields(call[1].as_u64().unwrap(), &none(), &json!([]));
                }
                match caller.poll(Duration::from_millis(1)) {
                    Got::Message(answer) if answer[0] == 50 => break,
                    Got::Message(answer) => {
                        assert_eq!((&answer[0], &answer[2]), (&json!(8), &json!(request)));
                        within("the last failed call", start.elapsed(), DEATH_WITHIN);
                        failed += 1;
                        break;
                    }
                    Got::Nothing => assert!(Instant::now() < end, "a call hangs"),
                    other => panic!("{other:?}"),
                }
            }
        }
        stage.restart(A);
        format!("{failed} calls failed, all right after the kill")
    })
}

fn single_duplicates_are_resolved_after_a_cut(run: &Run) -> String {
    let away = run.form(Duration::from_secs(8), Duration::from_secs(30));
    on("single", Wire::Proxy, 2, |stage| {
        let mut callees = [stage.peer("a", A), stage.peer("b", B)];
        let [a, b] = &mut callees;
        stage.meet(a, b, "com.single.probe");
        let (survivor, procedure) = ("com.single.survivor", "com.single.procedure");
        let kept = a.register(survivor, &none());
        stage.meet(a, b, "com.single.again");
        stage.cut();
        // Until each takes the other for dead, one may be refused what the other has.
        let old = a.register(procedure, &none());
        // Of two that came in the same millisecond the one of the smaller node id wins.
        pause(Duration::from_millis(20));
        let end = Instant::now() + PATIENCE * 2;
        let id = loop {
            let request = b.next_request();
            b.send(&json!([64, request, {}, procedure]));
            let answer = b.receive();
            if answer[0] == 65 {
                break answer[2].clone();
            }
            assert!(Instant::now() < end, "the cut-off side does not serve");
            pause(Duration::from_millis(100));
        };
        pause(away);
        stage.heal();
        let start = Instant::now();
        // The older one wins; the other is told.
        let revoked = b.expect(&json!([67, 0, { "registration": id }]));
        within("the resolution", start.elapsed(), HEAL_WITHIN + Duration::from_secs(10));
        stage.meet(a, b, "com.single.after");
        for (name, id) in [(procedure, old), (survivor, kept)] {
            let request = b.call(name, &none(), &json!([name]));
            let call = a.invoked(id);
            a.yields(call.request, &none(), &call.args);
            b.result(request, &json!([name]));
        }
        format!("loser told {:.1?} after healing: {revoked}", start.elapsed())
    })
}

fn forced_registration_holds_after_a_cut(_run: &Run) -> String {
    on("forced", Wire::Proxy, 3, |stage| {
        let (mut taker, mut owner) = (stage.peer("taker", A), stage.peer("owner", B));
        let mut other = stage.peer("other", 2);
        let (procedure, shared) = ("com.forced.procedure", "com.forced.shared");
        let roundrobin = json!({ "invoke": "roundrobin" });
        let old = owner.register(procedure, &none());
        let old_shared = owner.register(shared, &roundrobin);
        for peer in [&mut taker, &mut other] {
            stage.meet(&mut owner, peer, "com.forced.probe");
        }
        // The owner's node cannot be told, and does not know.
        stage.cut();
        let force = json!({ "force_reregister": true });
        let new = taker.register(procedure, &force);
        let new_shared =
            taker.register(shared, &json!({ "force_reregister": true, "invoke": "roundrobin" }));
        stage.meet(&mut taker, &mut other, "com.forced.again");
        let call = |caller: &mut Peer, taker: &mut Peer| {
            for (procedure, id) in [(procedure, new), (shared, new_shared), (shared, new_shared)] {
                let request = caller.call(procedure, &none(), &json!([procedure]));
                let call = taker.invoked(id);
                taker.yields(call.request, &none(), &call.args);
                caller.result(request, &json!([procedure]));
            }
        };
        // A third node hears both, and knows which holds.
        call(&mut other, &mut taker);
        pause(Duration::from_secs(8));
        stage.heal();
        let start = Instant::now();
        let revoked = [old, old_shared].map(|id| {
            let details = json!({ "registration": id, "reason": "wamp.registration.replaced" });
            json!([67, 0, details])
        });
        owner.expect_all(&revoked);
        let told = start.elapsed();
        within("the revocation", told, HEAL_WITHIN + Duration::from_secs(10));
        stage.meet(&mut taker, &mut owner, "com.forced.after");
        call(&mut owner, &mut taker);
        call(&mut other, &mut taker);
        format!("owner told {told:.1?} after healing")
    })
}

fn long_call_returns_across_nodes(run: &Run) -> String {
    let (takes, timeout_ms) = run.form((6, 60_000), (40, 60_000));
    on("long", Wire::Direct, 2, |stage| {
        let mut caller = stage.peer("caller", A);
        let mut callee = stage.peer("callee", B);
        let procedure = "com.long.procedure";
        let id = callee.register(procedure, &none());
        stage.meet(&mut callee, &mut caller, "com.long.probe");
        let request = caller.call(procedure, &json!({ "timeout": timeout_ms }), &json!([]));
        let call = callee.invoked(id);
        pause(Duration::from_secs(takes));
        callee.yields(call.request, &none(), &json!(["at last"]));
        caller.result(request, &json!(["at last"]));
        format!("a call of {takes} s")
    })
}

fn session_with_many_subscriptions_leaves_nothing_behind(_run: &Run) -> String {
    const TOPICS: usize = 10_000;
    on("many", Wire::Direct, 2, |stage| {
        let mut watcher = stage.peer("watcher", B);
        let mut holder = stage.peer("holder", A);
        for chunk in (0..TOPICS).collect::<Vec<_>>().chunks(500) {
            let messages: Vec<Value> = chunk
                .iter()
                .map(|k| json!([32, holder.next_request(), {}, format!("com.many.t{k}")]))
                .collect();
            holder.send_together(&messages);
            for _ in chunk {
                holder.expect(&json!([33, ID, ID]));
            }
        }
        stage.meet(&mut holder, &mut watcher, "com.many.probe");
        let count = |watcher: &mut Peer| {
            let list = watcher.ask("wamp.subscription.list", &json!([]), &none());
            list[0]["exact"].as_array().map_or(0, Vec::len)
        };
        let before = count(&mut watcher);
        assert!(before >= TOPICS, "{before} subscriptions are known on the other node");
        let start = Instant::now();
        drop(holder);
        loop {
            let left = count(&mut watcher);
            if left <= before - TOPICS {
                break;
            }
            within(&format!("the end of all but {left}"), start.elapsed(), DEATH_WITHIN);
            pause(Duration::from_millis(20));
        }
        format!("{TOPICS} subscriptions gone from the other node after {:.0?}", start.elapsed())
    })
}

fn stopping_node_says_goodbye(_run: &Run) -> String {
    on("stop", Wire::Direct, 2, |stage| {
        let mut caller = stage.peer("caller", B);
        let mut callee = stage.peer("callee", A);
        let procedure = "com.stop.procedure";
        let id = callee.register(procedure, &none());
        stage.meet(&mut callee, &mut caller, "com.stop.probe");
        let request = caller.call(procedure, &none(), &json!([]));
        callee.invoked(id);
        // The node ends although the client says nothing.
        let start = Instant::now();
        stage.cluster.stop(A);
        callee.expect(&json!([6, {}, "wamp.close.system_shutdown"]));
        callee.expect_closed();
        caller.expect(&json!([8, 48, request, {}, "wamp.error.canceled"]));
        let took = start.elapsed();
        gone_within(&mut caller, procedure, DEATH_WITHIN);
        stage.restart(A);
        format!("stopped in {took:.1?}")
    })
}

fn restarted_node_knows_the_routes_of_others(_run: &Run) -> String {
    on("restart", Wire::Direct, 2, |stage| {
        let mut callee = stage.peer("callee", A);
        let procedure = "com.restart.procedure";
        let id = callee.register(procedure, &none());
        for round in 0..3 {
            stage.cluster.kill(B);
            stage.restart(B);
            // A node lets clients in when it has caught up: the first call must find its way.
            let mut caller = stage.peer("caller", B);
            let request = caller.call(procedure, &none(), &json!([round]));
            let call = callee.invoked(id);
            callee.yields(call.request, &none(), &call.args);
            caller.result(request, &json!([round]));
        }
        "3 restarts; the first call of a client found the callee each time".to_owned()
    })
}
