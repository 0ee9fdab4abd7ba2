//! Goal: each fault does what it says, on plain connections to an echo server.

use super::*;
use std::io::{Read, Write};
use std::net;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const A: usize = 0;
const B: usize = 1;

/// Echoes each connection; counts those that are open.
fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, open) = (stream.unwrap(), Arc::clone(&counter));
            open.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len) = stream.read(&mut buffer) {
                    if len == 0 || stream.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

fn fabric() -> (Fabric, SocketAddr) {
    let fabric = Fabric::new(7, Arc::new(|_| Some(A)));
    let address = fabric.open(B);
    fabric.set_upstream(B, echo().0);
    (fabric, address)
}

fn dial(address: SocketAddr) -> net::TcpStream {
    let stream = net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn ask(stream: &mut net::TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(bytes)?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether nothing comes for a while.
fn is_silent(stream: &mut net::TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let result = stream.read(&mut [0; 16]);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn bytes_pass_unchanged_and_the_end_is_told() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    let large = vec![3; 300_000];
    let mut writer = stream.try_clone().unwrap();
    let sent = large.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(net::Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    writing.join().unwrap();
    assert!(answer == large);
    assert_eq!(fabric.counts(A, B).bytes, 300_000);
    assert_eq!(fabric.counts(B, A).bytes, 300_000);
    assert_eq!(fabric.counts_all().resets, 0);
}

#[test]
fn stalled_direction_holds_bytes_and_the_other_does_not() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    ask(&mut stream, b"before").unwrap();
    fabric.set(B, A, &Faults::flow(Flow::Stall));
    stream.write_all(b"during").unwrap();
    assert!(is_silent(&mut stream));
    assert_eq!(fabric.counts(A, B).bytes, 12, "the way there is open");
    fabric.heal();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"during");
}

#[test]
fn swallowed_bytes_are_gone_and_the_connection_breaks_after_the_fault() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    ask(&mut stream, b"before").unwrap();
    fabric.set_both(A, B, &Faults::flow(Flow::Swallow));
    stream.write_all(b"during").unwrap();
    assert!(is_silent(&mut stream), "no answer, and no end either");
    assert_eq!(fabric.counts(A, B).swallowed, 6);
    fabric.heal();
    assert!(ask(&mut stream, b"after").is_err());
    assert_eq!(ask(&mut dial(address), b"again").unwrap(), b"again");
}

#[test]
fn reset_ends_connections_and_refuses_new_ones() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    ask(&mut stream, b"before").unwrap();
    fabric.reset(A, B);
    let ended = stream.read(&mut [0; 1]);
    assert!(matches!(&ended, Err(e) if e.kind() == io::ErrorKind::ConnectionReset), "{ended:?}");
    let mut stream = dial(address);
    ask(&mut stream, b"once only").unwrap();
    fabric.set(A, B, &Faults::flow(Flow::Reset));
    assert!(ask(&mut stream, b"x").is_err());
    assert!(ask(&mut dial(address), b"x").is_err());
    fabric.heal();
    assert_eq!(ask(&mut dial(address), b"again").unwrap(), b"again");
}

#[test]
fn delay_and_speed_limit_take_their_time() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    let base = Duration::from_millis(100);
    let delay = Delay { base, jitter: Duration::from_millis(20) };
    fabric.set_both(A, B, &Faults { delay, ..Faults::default() });
    let start = Instant::now();
    assert_eq!(ask(&mut stream, b"slow").unwrap(), b"slow");
    assert!(start.elapsed() >= 2 * base, "{:?}", start.elapsed());
    let slow = Faults { bytes_per_s: Some(20_000), ..Faults::default() };
    fabric.heal();
    fabric.set(A, B, &slow);
    let start = Instant::now();
    let large = vec![9; 6_000];
    assert!(ask(&mut stream, &large).unwrap() == large);
    assert!(start.elapsed() >= Duration::from_millis(240), "{:?}", start.elapsed());
}

#[test]
fn flipped_bits_are_about_as_many_as_asked() {
    let (fabric, address) = fabric();
    let mut stream = dial(address);
    fabric.set(A, B, &Faults { corrupt_every: Some(100), ..Faults::default() });
    let mut bits = 0;
    for _ in 0..20 {
        let answer = ask(&mut stream, &[0; 1000]).unwrap();
        bits += answer.iter().map(|byte| byte.count_ones()).sum::<u32>();
    }
    assert!((120..300).contains(&bits), "{bits} bits");
    assert_eq!(fabric.counts(A, B).corrupted, u64::from(bits));
}

fn bundles(dir: &std::path::Path) -> [Bundle; 2] {
    let authority = weald_link::pki::make_authority("c").unwrap();
    ["a", "b"].map(|name| {
        let issued = weald_link::pki::issue(&authority, "c", name, &[]).unwrap();
        let file = |kind: &str, text: &str| {
            let path = dir.join(format!("{name}-{kind}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        Bundle {
            server_name: format!("{name}.c.weald.internal"),
            authority: file("ca", &authority.cert_pem),
            certificate: file("cert", &issued.cert_pem),
            key: file("key", &issued.key_pem),
        }
    })
}

#[test]
fn messages_inside_tls_are_faulted_and_the_handshake_is_not() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use weald_proto::Frame;
    const SENT: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = bundles(dir.path());
    let fabric = Fabric::new(3, Arc::new(|_| Some(A)));
    let door = fabric.open(B);
    fabric.open_tls(A, a.clone());
    fabric.open_tls(B, b.clone());
    let messages = MessageFaults {
        drop_percent: 10,
        duplicate_percent: 20,
        reorder_percent: 20,
        reorder_window: 10,
        ..MessageFaults::default()
    };
    fabric.set(A, B, &Faults { messages, ..Faults::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let received = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        fabric.set_upstream(B, listener.local_addr().unwrap());
        let listening = b.clone();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = listening.accept(stream).await.unwrap();
            // Whom the node sees is the dialler, not the proxy.
            let seen = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            (weald_link::pki::Identity::of(&seen).unwrap().node, bytes)
        });
        let stream = TcpStream::connect(door).await.unwrap();
        let mut stream = a.connect(stream, &b).await.unwrap();
        stream.write_all(b"WEALD\x01\x00\x03abc").await.unwrap();
        for corr in 0..SENT {
            let message = Frame { kind: 0x1201, corr, body: vec![1; 50] };
            stream.write_all(&frames::encode(5, &[message])).await.unwrap();
        }
        stream.flush().await.unwrap();
        // What is held back is let go a little later.
        tokio::time::sleep(Duration::from_millis(600)).await;
        stream.shutdown().await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap()
    });
    let (node, bytes) = received;
    assert_eq!(node, "a");
    assert!(bytes.starts_with(b"WEALD\x01\x00\x03abc"));
    let mut splitter = frames::Splitter::default();
    splitter.push(&bytes);
    let arrived: usize = splitter
        .map(|unit| match unit {
            frames::Unit::Cast { messages, .. } => messages.len(),
            frames::Unit::Opaque(_) => 0,
        })
        .sum();
    let counts = fabric.counts(A, B);
    assert!(counts.dropped > 5 && counts.duplicated > 10 && counts.reordered > 10, "{counts:?}");
    assert_eq!(arrived as u64, SENT - counts.dropped + counts.duplicated);
}
