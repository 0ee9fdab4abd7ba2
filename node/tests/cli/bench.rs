//! `weald bench wamp` against a node, and against routers that refuse or lose something.

use crate::support::{Node, Ran, command};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A router of RawSocket and JSON that knows one topic; it forgets the events of these numbers.
struct Router {
    url: String,
}

impl Router {
    fn start(welcome: &'static str, forgotten: &'static [u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let subscriber = Arc::new(Mutex::new(None));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let subscriber = Arc::clone(&subscriber);
                // A client that goes away ends its thread.
                thread::spawn(move || serve(stream.unwrap(), welcome, forgotten, &subscriber).ok());
            }
        });
        Self { url }
    }

    fn bench(&self, more: &[&str]) -> Ran {
        bench(&[&["--url", &self.url, "--serializer", "json"], more].concat())
    }
}

fn bench(args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    command(dir.path()).args(["bench", "wamp"]).args(args).output().unwrap().into()
}

fn serve(
    mut stream: TcpStream,
    welcome: &str,
    forgotten: &[u64],
    subscriber: &Mutex<Option<TcpStream>>,
) -> std::io::Result<()> {
    let mut handshake = [0; 4];
    stream.read_exact(&mut handshake)?;
    assert_eq!(handshake, [0x7F, 0xF1, 0, 0]);
    stream.write_all(&handshake)?;
    let mut events = 0;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let mut message = vec![0; usize::try_from(u32::from_be_bytes(head)).unwrap()];
        stream.read_exact(&mut message)?;
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        match message[0].as_u64() {
            Some(1) => send(&mut stream, welcome)?,
            Some(32) => {
                *subscriber.lock().unwrap() = Some(stream.try_clone()?);
                send(&mut stream, &format!("[33,{},7]", message[1]))?;
            }
            Some(16) => {
                if message[4][0] != "probe" {
                    events += 1;
                }
                if message[4][0] == "probe" || !forgotten.contains(&events) {
                    let event = format!("[36,7,{},{{}},{}]", message[1], message[4]);
                    send(subscriber.lock().unwrap().as_mut().unwrap(), &event)?;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn send(stream: &mut TcpStream, message: &str) -> std::io::Result<()> {
    let mut frame = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(message.as_bytes());
    stream.write_all(&frame)
}

const WELCOME: &str = "[2,1,{\"roles\":{\"broker\":{}}}]";
const SHORT: [&str; 5] = ["pubsub", "--warmup", "0s", "--duration", "300ms"];

#[test]
fn events_are_counted_and_none_is_lost() {
    let router = Router::start(WELCOME, &[]);
    let own = std::process::id().to_string();
    let ran = router.bench(&[&SHORT[..], &["--format", "json", "--pid", &own]].concat()).ok();
    let told = ran.json().remove(0);
    assert!(told["events"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["lost"], 0, "{told}");
    assert!(told["p50_us"].as_f64().unwrap() > 0.0, "{told}");
    assert!(told["p99_us"].as_f64() >= told["p50_us"].as_f64(), "{told}");
    assert!(told["rss_bytes"].as_u64().unwrap() > 0, "{told}");
    let human = router.bench(&SHORT).ok().text();
    assert!(human.contains("events  ") && human.contains("latency  p50 "), "{human}");
}

#[test]
fn lost_events_are_told() {
    let router = Router::start(WELCOME, &[1, 20, 21]);
    let ran = router.bench(&[&SHORT[..], &["--json"]].concat()).exits(1);
    assert_eq!(ran.json()[0]["lost"], 3);
}

#[test]
fn refused_session_says_why() {
    let abort = "[3,{\"message\":\"no such thing\"},\"wamp.error.no_such_realm\"]";
    let router = Router::start(abort, &[]);
    let ran = router.bench(&["--realm", "attic", "idle"]).exits(4);
    assert!(
        ran.stderr.contains("realm attic: wamp.error.no_such_realm (no such thing)"),
        "{ran:?}"
    );
    let challenge = Router::start("[4,\"ticket\",{}]", &[]);
    let ran = challenge.bench(&["idle"]).exits(4);
    assert!(ran.stderr.contains("wants ticket"), "{ran:?}");
}

#[test]
fn router_that_is_not_there_or_is_none_says_so() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = bench(&["rpc", "--url", &format!("ws://127.0.0.1:{port}/ws")]).exits(3);
    assert!(ran.stderr.contains("does a router listen there?"), "{ran:?}");
    let router = Router::start("[70]", &[]);
    let ran = router.bench(&["rpc"]).exits(3);
    assert!(ran.stderr.contains("decode a message"), "{ran:?}");
    let ran = bench(&["rpc", "--url", "http://x"]).exits(2);
    assert!(ran.stderr.contains("ws://HOST:PORT/PATH"), "{ran:?}");
}

#[test]
fn node_is_loaded_in_every_shape() {
    let node = Node::start();
    let listen = &node.status()["listen"];
    let web = format!("ws://{}/ws", listen["http"].as_str().unwrap());
    let raw = format!("tcp://{}", listen["rawsocket"].as_str().unwrap());
    let pid = node.pid().to_string();
    let run = |serializer: &str, url: &str, to: &str, more: &[&str]| {
        let common = ["--serializer", serializer, "--url", url, "--to", to, "--pid", &pid];
        let short = ["--warmup", "50ms", "--duration", "200ms", "--json"];
        bench(&[&common[..], &short, more].concat()).ok().json().remove(0)
    };
    for (serializer, url, to) in
        [("json", &web, &raw), ("msgpack", &raw, &web), ("cbor", &web, &web)]
    {
        let pubsub = ["pubsub", "--publishers", "2", "--subscribers", "3", "--payload", "100"];
        let told = run(serializer, url, to, &pubsub);
        assert!(told["events"].as_u64().unwrap() > 0, "{told}");
        assert_eq!(told["lost"], 0, "{told}");
        let rpc = ["rpc", "--callers", "2", "--callees", "3", "--depth", "4", "--payload", "0"];
        let told = run(serializer, url, to, &rpc);
        assert!(told["calls"].as_u64().unwrap() > 0, "{told}");
    }
    let told = run("cbor", &raw, &raw, &["idle", "--sessions", "20"]);
    assert_eq!(told["sessions"], 20, "{told}");
}
