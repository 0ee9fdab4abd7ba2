//! Connections that are lost, stand still, or are not taken from.

use crate::refuse::tls;
use crate::support::{Pki, both_up, frame, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weald_cluster::transport::Config;
use weald_peers::{Channel, Network, SendError};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_takes_the_peer_down_and_everything_is_dialled_anew() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    b.want(&[&a]);
    both_up(&a, &b).await;
    for round in 1..=3 {
        let victim = a.links(["control", "data", "relay"][round - 1]).pop().unwrap();
        a.scope.kill(&victim).unwrap();
        let is_done = || a.inbox.ups_downs() == (round + 1, round) && b.is_up(&a);
        wait_until("down and up again on both sides", is_done).await;
        wait_until("no connection is left over", || {
            a.links("").len() == 5 && b.links("").len() == 5
        })
        .await;
    }
    assert_eq!(b.inbox.ups_downs(), (4, 3));
    assert_eq!(a.transport.stats()[0].connects, 4);
    a.send(&b, Channel::Data, 0, 9);
    wait_until("a frame", || b.inbox.numbers(Channel::Data) == [9]).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_dialers_keeper_and_listener_come_back() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    a.scope.kill(&format!("node/transport/peers/dial-{}", b.id)).unwrap();
    a.scope.kill("node/transport/keeper").unwrap();
    b.scope.kill("node/transport/listener").unwrap();
    a.transport.disconnect(b.id, "a test");
    wait_until("up again", || a.inbox.ups_downs() == (2, 1) && b.is_up(&a)).await;
    a.scope.kill("node/transport/peers").unwrap();
    wait_until("up once more", || a.inbox.ups_downs() == (3, 2) && b.is_up(&a)).await;
    a.stop().await;
    b.stop().await;
}

/// A wire between two nodes that can stop forwarding without closing anything.
struct Wire {
    address: String,
    is_frozen: Arc<AtomicBool>,
}

impl Wire {
    async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_frozen, target) = (Arc::new(AtomicBool::new(false)), target.to_owned());
        let frozen = Arc::clone(&is_frozen);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(near_read, far_write, Arc::clone(&frozen)));
                tokio::spawn(pass(far_read, near_write, Arc::clone(&frozen)));
            }
        });
        Self { address, is_frozen }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_frozen: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes).await {
        while is_frozen.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_peer_is_cut_and_a_full_queue_is_counted() {
    let pki = Pki::new("blue");
    let limits = |config| Config { peer_outbound_bytes_max: 1 << 20, ..config };
    let a = crate::support::Node::start(limits(pki.config(1))).await;
    let b = crate::support::Node::start(limits(pki.config(2))).await;
    let wire = Wire::to(&b.address).await;
    a.want_at(b.id, &wire.address);
    both_up(&a, &b).await;
    wire.is_frozen.store(true, Ordering::Relaxed);
    let frozen = Instant::now();
    let mut full = 0;
    for number in 0..400 {
        match a.transport.send(b.id, Channel::Data, 0, &frame(number, 64 << 10)) {
            Ok(()) => {}
            Err(SendError::Full { waiting }) => {
                assert!(waiting <= 2 << 20, "{waiting}");
                full += 1;
            }
            Err(e) => panic!("{e}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(full > 0 && !a.transport.has_room(b.id, Channel::Data));
    assert!(a.transport.has_room(b.id, Channel::Control), "other channels are not touched");
    let stats = a.transport.stats();
    assert_eq!(stats[0].channels[1].overflow, full);
    assert!(stats[0].channels[1].waiting_bytes > 0);
    wait_until("both have noticed", || !a.is_up(&b) && !b.is_up(&a)).await;
    assert!(frozen.elapsed() < Duration::from_secs(15), "{:?}", frozen.elapsed());
    assert_eq!(
        a.transport.send(b.id, Channel::Data, 0, &frame(0, 1)),
        Err(SendError::NotConnected)
    );
    wire.is_frozen.store(false, Ordering::Relaxed);
    both_up(&a, &b).await;
    assert_eq!((a.inbox.ups_downs(), b.inbox.ups_downs()), ((2, 1), (2, 1)));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_without_cutting_anything() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    let files = pki.config(1).tls.unwrap();
    // Broken files: the node goes on with those before, also for new handshakes.
    std::fs::write(&files.cert, "not a certificate").unwrap();
    assert!(a.transport.reload().unwrap_err().contains("n1.pem"));
    let other = Pki::new("blue");
    let of_another = other.files("n1");
    std::fs::copy(&of_another.cert, &files.cert).unwrap();
    std::fs::copy(&of_another.key, &files.key).unwrap();
    let why = a.transport.reload().unwrap_err();
    assert!(why.contains("n1.pem"), "an authority of the same name is another: {why}");
    a.transport.disconnect(b.id, "a test");
    wait_until("up again", || a.inbox.ups_downs() == (2, 1) && b.is_up(&a)).await;
    // New files: links stand, and new handshakes use them. They are found without being told.
    let trusts_both = [&pki.authority.cert_pem[..], &other.authority.cert_pem[..]].concat();
    std::fs::write(files.ca.as_ref().unwrap(), &trusts_both).unwrap();
    std::fs::write(pki.config(2).tls.unwrap().ca.unwrap(), &trusts_both).unwrap();
    std::fs::copy(&of_another.cert, &files.cert).unwrap();
    std::fs::copy(&of_another.key, &files.key).unwrap();
    b.transport.reload().unwrap();
    a.transport.reload().unwrap();
    assert_eq!((a.inbox.ups_downs(), b.inbox.ups_downs()), ((2, 1), (2, 1)));
    a.transport.disconnect(b.id, "a test");
    wait_until("up again", || a.inbox.ups_downs() == (3, 2) && b.is_up(&a)).await;
    // Clients see the new certificate, too.
    assert!(tls(&a, &of_another.ca.clone().unwrap(), None).await.is_ok());
    assert!(tls(&b, &of_another.ca.clone().unwrap(), None).await.is_err());
    // B no longer trusts the authority of A's new certificate, and finds that out by itself.
    std::fs::write(pki.config(2).tls.unwrap().ca.unwrap(), &pki.authority.cert_pem).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(a.is_up(&b), "links stand");
    a.transport.disconnect(b.id, "a test");
    wait_until("refused", || a.failure(b.id).contains("received fatal alert")).await;
    a.stop().await;
    b.stop().await;
}
