//! Peers that mean ill: strangers, and clients with a credential that do what they may not.

use crate::raw::{Raw, control, field, frame};
use crate::support::{SECOND, credential, eventually, logs, over_cluster};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use weald_client::ractor::{self, Actor, ActorProcessingErr, ActorRef};
use weald_client::{Client, Credential, Error};
use weald_client_testing::FakeNode;
use weald_cluster::transport;
use weald_proto::frame::Frame;
use weald_proto::hello::{Answer, Hello, MAGIC, Refused, Role, VERSION, decode, encode};
use weald_proto::request::{Get, Put, request_frame};

/// Resident memory of this process, in MiB.
fn rss_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn is_cut(stream: &mut TcpStream, within: Duration) -> bool {
    let mut rest = Vec::new();
    timeout(within, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_cut_and_learn_nothing() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    let hello =
        |role, version| Hello { version, role, cluster: None, name: "app".into(), nonce: [1; 32] };
    let greeting = |hello: &Hello| [&MAGIC[..], &encode(hello).unwrap()].concat();
    let huge = [&MAGIC[..], &[0xFF, 0xFF], &[0; 100]].concat();
    let ractor_itself = frame(&field(0x0A, &field(0x0A, &field(0x0A, b"node"))));
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 1 << 20], huge, ractor_itself, vec![0xFF; 64]]
    {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        // The node may close before all is written.
        stream.write_all(&bytes).await.ok();
        let mut answer = Vec::new();
        timeout(2 * SECOND, stream.read_to_end(&mut answer)).await.unwrap().ok();
        assert!(answer.is_empty(), "{answer:?}");
    }
    for (hello, wanted) in [
        (hello(Role::Node, VERSION), Refused::Role),
        (hello(Role::Client, 99), Refused::Version { ours: VERSION, theirs: 99 }),
    ] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(&greeting(&hello)).await.unwrap();
        let mut answer = Vec::new();
        timeout(2 * SECOND, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(decode::<Answer>(&answer[2..]), Ok(Answer::Refused(wanted)));
    }
    client.get("t", "k").await.unwrap();
    assert_eq!(node.sessions.count(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_strangers_block_nobody_and_are_cut_in_time() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    let before = rss_mib();
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(node.address()).await.unwrap());
    }
    // One that dribbles: a byte now and then does not buy time.
    let mut dribble = TcpStream::connect(node.address()).await.unwrap();
    let dribbled = Instant::now();
    let other = credential(&node, "other");
    for _ in 0..20 {
        let start = Instant::now();
        let other = Client::connect(node.address().to_string(), other.clone()).await.unwrap();
        other.put("t", "k", "v").await.unwrap();
        client.get("t", "k").await.unwrap();
        assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
        dribble.write_all(&MAGIC[..1]).await.ok();
    }
    let grown = rss_mib().saturating_sub(before);
    assert!(grown < 40, "{grown} MiB for 400 silent connections");
    for mut stream in silent {
        assert!(is_cut(&mut stream, 8 * SECOND).await);
    }
    assert!(is_cut(&mut dribble, 8 * SECOND).await && dribbled.elapsed() < 8 * SECOND);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_handshake_is_of_no_use() {
    let node = FakeNode::start().await;
    let app = credential(&node, "app");
    // A wire that records what the client says.
    let tap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tapped, target) = (tap.local_addr().unwrap(), node.address());
    let recording = tokio::spawn(async move {
        let (mut client, _) = tap.accept().await.unwrap();
        let mut node = TcpStream::connect(target).await.unwrap();
        let (mut recorded, mut from_client, mut from_node) = (Vec::new(), [0; 4096], [0; 4096]);
        while recorded.len() < 4096 {
            tokio::select! {
                n = client.read(&mut from_client) => match n.unwrap() {
                    0 => break,
                    n => {
                        recorded.extend_from_slice(&from_client[..n]);
                        node.write_all(&from_client[..n]).await.unwrap();
                    }
                },
                n = node.read(&mut from_node) => {
                    let n = n.unwrap();
                    client.write_all(&from_node[..n]).await.unwrap();
                }
            }
        }
        recorded
    });
    let client = Client::connect(tapped.to_string(), app).await.unwrap();
    client.put("t", "k", "v").await.unwrap();
    drop(client);
    let recorded = timeout(5 * SECOND, recording).await.unwrap().unwrap();
    eventually("the session is over", || node.sessions.count() == 0).await;

    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(&recorded).await.unwrap();
    let mut answer = Vec::new();
    timeout(5 * SECOND, stream.read_to_end(&mut answer)).await.unwrap().ok();
    let calls = node.service.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((node.sessions.count(), calls), (0, 1));
    node.stop().await;
}

struct Secret;

impl Actor for Secret {
    type Msg = String;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<String>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<String>,
        said: String,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        panic!("a client reached it: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_beyond_its_link_is_cut_and_is_told_of_nothing() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    let (secret, secret_task) =
        Actor::spawn(Some("secret-actor".into()), Secret, ()).await.unwrap();
    ractor::pg::join("secret-group".into(), vec![secret.get_cell()]);
    let evil = credential(&node, "evil");
    let before = rss_mib();
    let pid = secret.get_id().pid();
    let many: Vec<u8> = (0..200_000_u64).flat_map(|_| field(0x0A, &[8, 1])).collect();
    let group =
        [field(0x0A, b"secret-group"), field(0x12, &[8, 5]), field(0x1A, b"__default_scope__")]
            .concat();
    type Attack = Box<dyn Fn(&Raw) -> Vec<u8>>;
    let attacks: Vec<(&str, Attack)> = vec![
        ("spawn of 200,000", Box::new(move |_| control(0x0A, &many))),
        ("second spawn", Box::new(|_| control(0x0A, &field(0x0A, &[8, 9])))),
        ("join of a group", Box::new(move |_| control(0x2A, &group))),
        ("enumerate", Box::new(|_| control(0x3A, &field(0x0A, b"evil")))),
        ("cast to a secret actor", Box::new(move |_| Raw::cast(pid, b"hello"))),
        (
            "call of its own link",
            Box::new(|raw| {
                let call =
                    [vec![8], Raw::varint(raw.link), field(0x12, b"x"), vec![0x18, 1]].concat();
                frame(&field(0x12, &field(0x12, &call)))
            }),
        ),
        ("garbage", Box::new(|_| vec![0xAB; 5000])),
        ("a frame of 16 MiB", Box::new(|_| (16_u64 << 20).to_be_bytes().to_vec())),
        ("a batch that is no frames", Box::new(|raw| Raw::cast(raw.link, &[0xFF; 40]))),
        ("half a frame in a batch", Box::new(|raw| Raw::cast(raw.link, &[0; 15]))),
        ("pings without end", Box::new(|_| control(0x1A, &field(0x0A, b"")).repeat(10_000))),
        ("end of its link", Box::new(|_| control(0x12, &field(0x0A, &[5])))),
    ];
    for (what, attack) in attacks {
        let mut raw = Raw::open(&node, &evil).await;
        assert!(raw.told_of_own_link_only(), "{what}: told too much before");
        let bytes = attack(&raw);
        raw.stream.write_all(&bytes).await.ok();
        assert!(raw.is_cut(3 * SECOND).await, "{what}: not cut");
        assert!(raw.told_of_own_link_only(), "{what}: told too much");
        client.put("t", "k", what).await.unwrap();
    }
    assert!(!secret_task.is_finished(), "a client reached it");
    eventually("only the good client is left", || node.sessions.count() == 1).await;
    let grown = rss_mib().saturating_sub(before);
    assert!(grown < 60, "{grown} MiB");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_bounded_and_cut() {
    let config = transport::Config {
        outbound_bytes_max: 8 << 20,
        idle_timeout: 10 * SECOND,
        ..transport::Config::default()
    };
    let node = FakeNode::with(config).await;
    let client = over_cluster(&node, "app").await;
    let mut raw = Raw::open(&node, &credential(&node, "evil")).await;
    let before = rss_mib();
    let get = Get { table: "big".into(), key: b"1000000".to_vec() };
    let start = Instant::now();
    let mut peak = 0;
    for corr in 0..1_000_000_u64 {
        let mut batch = Vec::new();
        request_frame(corr, &get).encode(&mut batch).unwrap();
        let batch = batch.repeat(1000);
        let sent = timeout(SECOND, raw.stream.write_all(&Raw::cast(raw.link, &batch))).await;
        peak = peak.max(rss_mib().saturating_sub(before));
        if matches!(sent, Ok(Err(_))) || start.elapsed() > 20 * SECOND {
            break;
        }
    }
    assert!(start.elapsed() < 20 * SECOND, "not cut");
    // Queue and sockets; the client's own side is in this process, too.
    assert!(peak < 100, "{peak} MiB");
    client.get("t", "k").await.unwrap();
    eventually("it is gone", || node.sessions.connections("evil") == 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_too_much_in_flight_is_told_and_served_on() {
    let node = FakeNode::start().await;
    let mut raw = Raw::open(&node, &credential(&node, "greedy")).await;
    let never = Put {
        table: "never".into(),
        key: vec![1],
        value: vec![0; 1000],
        context: None,
        ttl_ms: None,
    };
    for corr in 0..3_000 {
        let mut batch = Vec::new();
        request_frame(corr, &never).encode(&mut batch).unwrap();
        raw.stream.write_all(&Raw::cast(raw.link, &batch)).await.unwrap();
    }
    let refused: Vec<Frame> = raw.frames(3_000 - 1024).await;
    assert!(refused.iter().all(|frame| frame.kind == 0xFFFF && frame.corr >= 1024));
    let calls = node.service.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(calls, 1024, "no more than that was handed in");
    drop(raw);
    eventually("what was in flight is dropped", || node.sessions.count() == 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_cut_and_a_living_one_is_not() {
    let config = transport::Config { idle_timeout: 7 * SECOND, ..transport::Config::default() };
    let node = FakeNode::with(config).await;
    let living = over_cluster(&node, "living").await;
    let session = node.sessions.list().first().unwrap().session;
    let mut silent = Raw::open(&node, &credential(&node, "silent")).await;
    let start = Instant::now();
    assert!(silent.is_cut(12 * SECOND).await && start.elapsed() > 5 * SECOND);
    // No call was made meanwhile: the pings of ractor_cluster keep it.
    tokio::time::sleep(2 * SECOND).await;
    living.get("t", "k").await.unwrap();
    assert_eq!(node.sessions.list().first().unwrap().session, session);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_beyond_the_limit_are_refused_until_one_leaves() {
    let config = transport::Config { clients_max: 2, ..transport::Config::default() };
    let node = FakeNode::with(config).await;
    let one = over_cluster(&node, "one").await;
    let _two = over_cluster(&node, "two").await;
    let third = Client::builder()
        .address(node.address().to_string())
        .credential(credential(&node, "three"))
        .deadline(Duration::from_millis(500));
    let busy = third.clone().connect().await.unwrap_err();
    assert_eq!(busy, Error::Refused(Refused::Busy));
    drop(one);
    third.deadline(10 * SECOND).connect().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_nothing_is_unreachable() {
    logs();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::builder()
        .address(silent.local_addr().unwrap().to_string())
        .credential(Credential::generate("app").unwrap())
        .deadline(Duration::from_millis(300));
    let start = Instant::now();
    assert!(matches!(client.connect().await, Err(Error::Unreachable { .. })));
    assert!(start.elapsed() < SECOND);
}
