//! Keys of `[clients]`: what each client may cost.

use crate::net::{A, B, Net, none};
use crate::nodes::{Own, ways};
use crate::run::{MOMENT, Run};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use weald_tests::harness::wait::{pause, wait_until};
use weald_tests::wamp::{At, Frame, Got, PATIENCE, Peer, Serializer, Stream, Transport, upgrade};

pub(crate) fn add(run: &mut Run) {
    run.alone(connections_have_bounds_for_each_port_and_for_all);
    run.alone(clients_that_do_not_join_in_time_are_sent_away);
    run.alone(clients_that_do_not_answer_pings_are_cut);
    run.alone(messages_have_bounds_of_size_depth_and_values);
    run.alone(slow_client_that_is_left_events_out_stays);
    run.alone(slow_clients_are_cut_by_time_and_by_the_budget);
    run.alone(goodbye_is_waited_for_as_long_as_is_said);
}

fn end() -> Instant {
    Instant::now() + PATIENCE
}

/// The answer to a RawSocket handshake.
fn shaken(own: &Own) -> ([u8; 4], Stream) {
    let mut stream = Stream::connect(&At::Tcp(own.at("rawsocket"))).unwrap();
    stream.write_all(&[0x7f, 0xf2, 0, 0]).unwrap();
    let mut answer = [0; 4];
    assert_eq!(stream.read(&mut answer, end()).unwrap(), Some(4));
    (answer, stream)
}

/// The answer to a request for a WebSocket.
fn upgraded(own: &Own) -> (u16, Stream) {
    let mut stream = Stream::connect(&At::Tcp(own.at("http"))).unwrap();
    let (status, _, _) = upgrade(&mut stream, "/ws", "wamp.2.json", "", end()).unwrap();
    (status, stream)
}

fn connections_have_bounds_for_each_port_and_for_all(_: &Run) -> String {
    let own = Own::start(
        "places",
        &[("clients.connections_max", "3"), ("clients.port_connections_max", "2")],
    );
    const FULL: [u8; 4] = [0x7f, 0x40, 0, 0];
    let (_, first) = shaken(&own);
    let (_, _second) = shaken(&own);
    assert_eq!(shaken(&own).0, FULL, "the port is full");
    let (status, _third) = upgraded(&own);
    assert_eq!(status, 101, "another port has places");
    assert_eq!(upgraded(&own).0, 503, "all together are full");
    drop(first);
    wait_until(PATIENCE, "the place of a client that is gone", || {
        let (answer, _) = shaken(&own);
        if answer == FULL { Err("full") } else { Ok(()) }
    });
    own.finish();
    "2 on a port, 3 in all".to_owned()
}

fn clients_that_do_not_join_in_time_are_sent_away(_: &Run) -> String {
    // Long enough to join on a busy machine; all wait at the same time.
    let own = Own::start("patience", &[("clients.handshake_timeout", "\"3s\"")]);
    let nets: Vec<Net> = ways().into_iter().map(|way| own.net(way)).collect();
    let mut silent: Vec<Stream> = (nets.iter().zip(ways()))
        .map(|(net, way)| Stream::connect(net.doors(A).of(way.0)).unwrap())
        .collect();
    let mut joined: Vec<Peer> = nets.iter().map(|net| net.peer("joined", A)).collect();
    let mut left: Vec<Peer> = nets.iter().map(|net| net.peer("left", A)).collect();
    left.iter_mut().for_each(Peer::goodbye);
    let mut mute: Vec<Peer> = nets.iter().map(|net| net.connect("no hello", A)).collect();
    for peer in mute.iter_mut().chain(&mut left) {
        peer.expect(&json!([3, {}, "wamp.error.authentication_failed"]));
        peer.expect_closed();
    }
    let (mut buffer, end) = ([0; 1024], end());
    for stream in &mut silent {
        // HTTP says something first.
        while stream.read(&mut buffer, end).unwrap() != Some(0) {
            assert!(Instant::now() < end, "a silent client is kept");
        }
    }
    // Who has joined may be silent.
    joined.iter_mut().for_each(Peer::expect_nothing);
    own.finish();
    "3 s".to_owned()
}

/// Whether a session is there.
fn is_there(asker: &mut Peer, session: u64) -> bool {
    let request = asker.call("wamp.session.get", &none(), &json!([session]));
    loop {
        match asker.receive() {
            answer if answer[0] == 50 && answer[1] == request => return true,
            answer if answer[0] == 8 && answer[2] == request => return false,
            other => assert_eq!(other[0], 36, "{other}"),
        }
    }
}

fn clients_that_do_not_answer_pings_are_cut(_: &Run) -> String {
    let mut own = Own::start(
        "pings",
        &[
            ("clients.ping_interval", "\"200ms\""),
            ("clients.ping_timeout", "\"2s\""),
            ("clients.rawsocket_pings", "true"),
        ],
    );
    for way in ways() {
        let net = own.net(way);
        // A peer of a test answers pings while it waits for a message, and only then.
        let (mut asker, mut alive) = net.pair();
        let dead = net.peer("dead", A);
        let end = end();
        while is_there(&mut asker, dead.session) {
            assert_eq!(alive.poll(Duration::from_millis(50)), Got::Nothing);
            assert!(Instant::now() < end, "{way:?}: a dead client is kept");
        }
        alive.expect_nothing();
    }
    // By default WebSocket is pinged alone: there are clients that fail at a ping of RawSocket.
    own.run_with(&[("clients.ping_interval", "\"200ms\"")]);
    for way in ways() {
        let mut peer = own.net(way).peer("idle", A);
        let patience = if way.0 == Transport::WebSocket { PATIENCE } else { MOMENT * 4 };
        let came = peer.wire().receive(Instant::now() + patience).unwrap();
        let is_ping = matches!(came, Some(Frame::Ping(_)));
        assert_eq!(is_ping, way.0 == Transport::WebSocket, "{way:?}: {came:?}");
        assert!(is_ping || came.is_none(), "{way:?}: {came:?}");
        peer.expect_nothing();
    }
    own.run_with(&[
        ("clients.ping_interval", "\"0s\""),
        ("clients.ping_timeout", "\"100ms\""),
        ("clients.rawsocket_pings", "true"),
    ]);
    let (mut asker, quiet) = own.plain().pair();
    pause(Duration::from_secs(1));
    assert!(is_there(&mut asker, quiet.session), "pings are off");
    own.finish();
    "6 ways".to_owned()
}

/// A list in a list, so many levels.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

fn messages_have_bounds_of_size_depth_and_values(_: &Run) -> String {
    let own = Own::start(
        "messages",
        &[
            ("clients.message_size", "\"4KiB\""),
            ("clients.message_depth", "10"),
            ("clients.message_values", "300"),
        ],
    );
    // 2^9 times 2^3.
    assert_eq!(shaken(&own).0, [0x7f, 3 << 4 | 2, 0, 0]);
    let publish = |net: &Net, peer: &mut Peer, args: &Value| {
        peer.publish(&net.uri("topic"), &json!({ "acknowledge": true }), args);
    };
    for way in ways() {
        let net = own.net(way);
        // The message is a level, its arguments are another.
        for (good, bad) in [
            (nested(9), nested(10)),
            (json!(vec![1; 250]), json!(vec![1; 320])),
            (json!(["x".repeat(3_800)]), json!(["x".repeat(4_200)])),
        ] {
            let mut peer = net.peer("a", A);
            publish(&net, &mut peer, &good);
            assert_eq!(peer.receive()[0], 17, "{way:?}");
            publish(&net, &mut peer, &bad);
            match peer.poll(PATIENCE) {
                // Too long for the transport: it says so, or nothing.
                Got::Closed(code) => assert!(matches!(code, None | Some(1009)), "{code:?}"),
                Got::Message(abort) => {
                    assert_eq!(abort[2], "wamp.error.protocol_violation", "{way:?}: {abort}");
                    peer.expect_closed();
                }
                other => panic!("{way:?}: {other:?}"),
            }
        }
    }
    own.finish();
    "6 ways".to_owned()
}

/// Far more than the buffers of two sockets hold.
const FLOOD_EVENTS: usize = 200;

/// Sends events to a subscriber that does not read, until `is_enough`.
fn flood(net: &Net, publisher: &mut Peer, mut is_enough: impl FnMut(&mut Peer, usize) -> bool) {
    let (topic, payload) = (net.uri("flood"), "x".repeat(100_000));
    let end = Instant::now() + PATIENCE * 2;
    for k in 0.. {
        publisher.publish_acked(&topic, &none(), &json!([k, payload]));
        if is_enough(publisher, k) {
            return;
        }
        assert!(Instant::now() < end, "after {k} events");
    }
}

fn slow_client_that_is_left_events_out_stays(_: &Run) -> String {
    let own = Own::start(
        "drop",
        &[
            ("clients.slow", "\"drop\""),
            ("clients.queue_size", "\"64KiB\""),
            ("clients.queue_timeout", "\"300ms\""),
            ("clients.ping_interval", "\"0s\""),
        ],
    );
    let mut missed = 0;
    for way in ways() {
        let net = own.net(way);
        let (mut publisher, mut slow) = net.pair();
        let topic = net.uri("flood");
        let id = slow.subscribe(&topic, &none());
        flood(&net, &mut publisher, |_, k| k == FLOOD_EVENTS);
        assert!(is_there(&mut publisher, slow.session), "{way:?}");
        // What it was sent before, in order, and then the newest again.
        let mut last = -1;
        let end = end();
        loop {
            publisher.publish_acked(&topic, &none(), &json!(["end"]));
            let event = slow.receive();
            assert_eq!((&event[0], &event[1]), (&json!(36), &json!(id)));
            let Some(number) = event[4][0].as_i64() else { break };
            assert!(number > last, "{way:?}: {number} after {last}");
            missed += number - last - 1;
            last = number;
            assert!(Instant::now() < end, "{way:?}");
        }
        missed += i64::try_from(FLOOD_EVENTS).unwrap() - last;
    }
    assert!(missed > 0, "nothing was left out");
    own.finish();
    format!("{missed} events left out of {}", 6 * (FLOOD_EVENTS + 1))
}

fn slow_clients_are_cut_by_time_and_by_the_budget(_: &Run) -> String {
    // One is full, or late, where the other is far from it.
    let by_time = [
        ("clients.queue_size", "\"1GiB\""),
        ("clients.queues_size", "\"1GiB\""),
        ("clients.queue_timeout", "\"300ms\""),
        ("clients.ping_interval", "\"0s\""),
    ];
    let by_budget = [
        ("clients.queue_size", "\"1GiB\""),
        ("clients.queues_size", "\"1MiB\""),
        ("clients.queue_timeout", "\"1h\""),
        ("clients.ping_interval", "\"0s\""),
    ];
    let by_size = [
        ("clients.queue_size", "\"256KiB\""),
        ("clients.queues_size", "\"1GiB\""),
        ("clients.queue_timeout", "\"1h\""),
        ("clients.ping_interval", "\"0s\""),
    ];
    let mut own = Own::prepare("cut");
    for keys in [by_time, by_budget, by_size] {
        own.run_with(&keys);
        for way in
            [(Transport::RawSocket, Serializer::MsgPack), (Transport::WebSocket, Serializer::Json)]
        {
            let net = own.net(way);
            let (mut publisher, mut slow) = net.pair();
            let mut quick = net.peer("quick", B);
            slow.subscribe(&net.uri("flood"), &none());
            quick.subscribe(&net.uri("other"), &none());
            let session = slow.session;
            flood(&net, &mut publisher, |publisher, k| {
                k % 20 == 19 && !is_there(publisher, session)
            });
            assert!(is_there(&mut publisher, quick.session));
        }
    }
    own.finish();
    "time, budget and size".to_owned()
}

fn goodbye_is_waited_for_as_long_as_is_said(_: &Run) -> String {
    let mut own = Own::start(
        "goodbye",
        &[("clients.goodbye_timeout", "\"2m\""), ("node.shutdown_timeout", "\"10m\"")],
    );
    let (mut killer, mut killed) = own.plain().pair();
    let reason = json!({ "reason": "com.example.x" });
    killer.ask("wamp.session.kill", &json!([killed.session]), &reason);
    killed.expect(&json!([6, {}, "com.example.x"]));
    // By default it would have been cut by now.
    assert_eq!(killed.poll(Duration::from_secs(7)), Got::Nothing);
    killed.send(&json!([6, {}, "wamp.close.goodbye_and_out"]));
    killed.expect_closed();
    // It would be waited for, too.
    drop(killer);

    own.run_with(&[("clients.goodbye_timeout", "\"0s\"")]);
    for way in ways() {
        let (mut killer, mut killed) = own.net(way).pair();
        killer.ask("wamp.session.kill", &json!([killed.session]), &none());
        killed.expect(&json!([6, {}, "wamp.close.killed"]));
        killed.expect_closed();
    }
    // Who has no session has nothing to answer.
    let mut strangers: Vec<_> =
        ways().into_iter().map(|way| own.net(way).connect("stranger", A)).collect();
    own.cluster.stop(0);
    for stranger in &mut strangers {
        stranger.expect(&json!([3, {}, "wamp.close.system_shutdown"]));
    }
    // Half of the time to shut down is the most that counts: the stop is a clean one.
    own.run_with(&[("clients.goodbye_timeout", "\"1h\""), ("node.shutdown_timeout", "\"6s\"")]);
    let (mut a, _b) = own.plain().pair();
    own.cluster.stop(0);
    a.expect(&json!([6, {}, "wamp.close.system_shutdown"]));
    own.finish();
    "2m, 0s, and no longer than the node has".to_owned()
}
