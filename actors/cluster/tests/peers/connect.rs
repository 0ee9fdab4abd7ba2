//! Connecting, and what passes over connections.

use crate::support::{Node, Pki, both_up, frame, wait_until};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weald_cluster::transport::Config;
use weald_peers::{Channel, Inbox, Network, PeerEvent, SendError};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_connect_and_frames_keep_their_order_per_lane() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    assert_eq!(
        a.transport.send(b.id, Channel::Data, 0, &frame(0, 1)),
        Err(SendError::NotConnected)
    );
    a.want(&[&b]);
    b.want(&[&a]);
    both_up(&a, &b).await;
    // A dialler's end may be ready first: nothing that it sends may be lost.
    for number in 0..2_000 {
        for channel in Channel::ALL {
            a.send(&b, channel, 7, number);
        }
    }
    b.send(&a, Channel::Relay, 3, 42);
    for channel in Channel::ALL {
        wait_until("all frames", || b.inbox.numbers(channel).len() == 2_000).await;
        assert!(b.inbox.numbers(channel).into_iter().eq(0..2_000), "{channel}");
    }
    wait_until("the answer", || a.inbox.numbers(Channel::Relay) == [42]).await;
    let stats = a.transport.stats();
    assert!(stats.len() == 1 && stats[0].connected && stats[0].wanted, "{stats:?}");
    assert_eq!(stats[0].channels.iter().map(|c| c.links).collect::<Vec<_>>(), [1, 2, 2]);
    assert!(stats[0].channels.iter().all(|c| c.frames_out >= 2_000), "{stats:?}");
    assert_eq!(a.inbox.ups_downs(), (1, 0));
    let up = b.inbox.0.lock().unwrap().events[0].clone();
    let PeerEvent::Up(info) = up else { panic!("{up:?}") };
    assert_eq!((info.name.as_str(), info.incarnation), ("n1", 1));
    assert_eq!(info.addresses, std::slice::from_ref(&a.address));
    wait_until("a round trip", || a.transport.stats()[0].rtt_us.is_some()).await;
    a.stop().await;
    wait_until("down", || b.inbox.ups_downs() == (1, 1)).await;
    assert_eq!(
        b.transport.send(info.node, Channel::Data, 0, &frame(0, 1)),
        Err(SendError::NotConnected)
    );
    b.stop().await;
}

/// Method: only the last end can have seen all frames, as no other service or channel has any.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_each_batch_follows_its_frames() {
    const FRAMES: usize = 500;
    let pki = Pki::new("forest");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    for number in 0..FRAMES as u64 {
        a.send(&b, Channel::Relay, 7, number);
    }
    let last = (a.id, Channel::Relay, FRAMES);
    wait_until("the last batch is over", || b.inbox.0.lock().unwrap().batch_ends.contains(&last))
        .await;
    let ends = b.inbox.0.lock().unwrap().batch_ends.clone();
    assert!(ends.iter().all(|(from, ..)| *from == a.id), "{ends:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_connect_through_a_seed_and_strangers_go_when_unwanted() {
    let pki = Pki::new("blue");
    let (a, b, c) = (pki.node(1).await, pki.node(2).await, pki.node(3).await);
    for joining in [&b, &c] {
        let info = joining.transport.dial_seed(vec![a.address.clone()]).await.unwrap();
        assert_eq!(info.node, a.id);
    }
    wait_until("the seed knows both", || a.transport.peers().len() == 2).await;
    let again = c.transport.dial_seed(vec![a.address.clone()]).await.unwrap();
    assert_eq!(again.node, a.id, "who is connected already is found");
    a.want(&[&b, &c]);
    b.want(&[&a, &c]);
    c.want(&[&a, &b]);
    both_up(&b, &c).await;
    assert!(a.is_up(&b) && a.is_up(&c), "wanting a connected peer touches nothing");
    assert_eq!(a.inbox.ups_downs(), (2, 0));
    a.want(&[&b]);
    c.want(&[&b]);
    wait_until("the unwanted is gone", || !a.is_up(&c) && !c.is_up(&a)).await;
    both_up(&a, &b).await;
    assert_eq!(a.inbox.ups_downs(), (2, 1));
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialling_at_once_leaves_one_connection_for_each_lane() {
    let pki = Pki::new("blue");
    for _ in 0..8 {
        let (a, b) = (pki.node(1).await, pki.node(2).await);
        let (to_b, to_a) = (vec![b.address.clone()], vec![a.address.clone()]);
        let (one, other) = tokio::join!(a.transport.dial_seed(to_b), b.transport.dial_seed(to_a));
        assert_eq!((one.unwrap().node, other.unwrap().node), (b.id, a.id));
        both_up(&a, &b).await;
        wait_until("five connections", || a.links("").len() == 5 && b.links("").len() == 5).await;
        a.send(&b, Channel::Data, 1, 5);
        b.send(&a, Channel::Data, 1, 6);
        wait_until("frames", || {
            a.inbox.numbers(Channel::Data) == [6] && b.inbox.numbers(Channel::Data) == [5]
        })
        .await;
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_other_lanes_use_those_that_both_have() {
    let pki = Pki::new("blue");
    let a = Node::start(Config { lanes: [1, 4, 1], ..pki.config(1) }).await;
    let b = Node::start(Config { lanes: [2, 2, 3], ..pki.config(2) }).await;
    b.want(&[&a]);
    both_up(&a, &b).await;
    for node in [&a, &b] {
        let stats = node.transport.stats();
        assert_eq!(stats[0].channels.iter().map(|c| c.links).collect::<Vec<_>>(), [1, 2, 1]);
    }
    for lane in [3, u64::MAX] {
        a.send(&b, Channel::Data, lane, lane);
    }
    wait_until("frames", || b.inbox.numbers(Channel::Data).len() == 2).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greater_id_dials_when_nobody_else_does() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    let began = Instant::now();
    b.want(&[&a]);
    both_up(&a, &b).await;
    assert!(began.elapsed() >= Duration::from_millis(1_400), "{:?}", began.elapsed());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_does_not_delay_control() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    // The best of some rounds: a loaded machine delays everything now and then, a shared queue always.
    let mut best = (Duration::MAX, Duration::ZERO);
    for round in 1..=6 {
        for number in 0..200 {
            a.transport.send(b.id, Channel::Data, number, &frame(number, 64 << 10)).unwrap();
        }
        let sent = Instant::now();
        a.send(&b, Channel::Control, 0, round);
        wait_until("data", || b.inbox.numbers(Channel::Data).len() == 200).await;
        wait_until("control", || b.inbox.numbers(Channel::Control) == [round]).await;
        let frames = std::mem::take(&mut b.inbox.0.lock().unwrap().frames);
        let last = |of| frames.iter().rfind(|(_, channel, ..)| *channel == of).unwrap().3;
        let took = last(Channel::Control).duration_since(sent);
        best = best.min((took, last(Channel::Data).duration_since(sent)));
    }
    let (control, data) = best;
    assert!(control < Duration::from_millis(50), "control took {control:?}, data {data:?}");
    assert!(control < data / 3, "control took {control:?}, data {data:?}");
    a.stop().await;
    b.stop().await;
}

/// An inbox that answers the first event with a frame: it may use the transport while it is told of a peer.
struct Greeter(weald_cluster::transport::Transport);

impl Inbox for Greeter {
    fn frame(&self, _: weald_storage::NodeId, _: Channel, _: weald_proto::Frame) {}

    fn peer(&self, event: &PeerEvent) {
        if let PeerEvent::Up(info) = event {
            self.0.want(std::iter::once((info.node, info.addresses.clone())).collect());
            self.0.send(info.node, Channel::Control, 0, &frame(99, 1)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_set_late_is_told_of_who_is_there_and_may_send_at_once() {
    let pki = Pki::new("blue");
    let (a, b) = (pki.node(1).await, pki.node(2).await);
    a.want(&[&b]);
    both_up(&a, &b).await;
    let greeter = Greeter(a.transport.clone());
    a.transport.set_inbox(weald_peers::kind::EXCHANGE, Arc::new(greeter));
    wait_until("the greeting", || b.inbox.numbers(Channel::Control) == [99]).await;
    assert_eq!(a.inbox.ups_downs(), (1, 0));
    a.stop().await;
    b.stop().await;
}
