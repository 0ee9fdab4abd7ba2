//! Members that are no neighbours: connected when something is to be sent, and no longer than that.

use crate::support::{Map, Node, Pki, both_up, frame, wait_until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use weald_cluster::transport::{Config, Far};
use weald_peers::{Channel, Network, PeerEvent, SendError};

fn config(pki: &Pki, number: u8) -> Config {
    let far = Far { idle: Duration::from_millis(1500), peers_max: 2, ..Far::default() };
    Config { far: Some(far), ..pki.config(number) }
}

/// Nodes that know where the others are, and want none of them.
async fn strangers(pki: &Pki, count: u8) -> Vec<(Node, Arc<Map>)> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        let node = Node::start(config(pki, number)).await;
        let map = Arc::new(Map::default());
        node.transport.set_admission(Arc::<Map>::clone(&map));
        nodes.push((node, map));
    }
    let all: BTreeMap<_, _> =
        nodes.iter().map(|(node, _)| (node.id, vec![node.address.clone()])).collect();
    for (node, map) in &nodes {
        let others = all.iter().filter(|(id, _)| **id != node.id);
        *map.0.lock().unwrap() = others.map(|(id, at)| (*id, at.clone())).collect();
    }
    nodes
}

fn agreed(node: &Node) -> Vec<bool> {
    let seen = node.inbox.0.lock().unwrap();
    let down = |event: &PeerEvent| match event {
        PeerEvent::Down { is_agreed, .. } => Some(*is_agreed),
        PeerEvent::Up(_) => None,
    };
    seen.events.iter().filter_map(down).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_for_a_member_are_dialled_for_and_keep_their_order() {
    let pki = Pki::new("blue");
    let nodes = strangers(&pki, 2).await;
    let [(a, _), (b, _)] = &nodes[..] else { panic!() };
    assert_eq!(
        a.transport.send(b.id, Channel::Data, 0, &frame(0, 1)),
        Err(SendError::NotConnected)
    );
    // Both begin at once; each way keeps its order, before, while and after the connection is made.
    for number in 0..2_000 {
        a.send(b, Channel::Relay, 7, number);
        b.send(a, Channel::Relay, 7, number);
        if number % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for node in [a, b] {
        let arrived = || node.inbox.numbers(Channel::Relay).len() == 2_000;
        wait_until("all frames", arrived).await;
        assert!(node.inbox.numbers(Channel::Relay).into_iter().eq(0..2_000));
        assert_eq!(node.inbox.0.lock().unwrap().unsent, []);
        assert!(!node.transport.stats()[0].wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_connection_is_closed_by_agreement_and_made_again() {
    let pki = Pki::new("blue");
    let nodes = strangers(&pki, 2).await;
    let [(a, _), (b, _)] = &nodes[..] else { panic!() };
    for round in 1..=2_usize {
        a.send(b, Channel::Relay, 0, round as u64);
        both_up(a, b).await;
        let is_closed = || [a, b].iter().all(|node| node.inbox.ups_downs().1 == round);
        wait_until("closed again", is_closed).await;
    }
    for node in [a, b] {
        assert_eq!(agreed(node), [true, true]);
    }
    assert_eq!(b.inbox.numbers(Channel::Relay), [1, 2]);
    // Nothing is lost although it is closed again and again, whoever sends.
    let mut number = 3;
    for pause_ms in [1_300, 1_700, 2_000, 2_300, 2_600] {
        for _ in 0..20 {
            a.send(b, Channel::Relay, 0, number);
            b.send(a, Channel::Relay, 0, number);
            number += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    for (node, first) in [(a, 3), (b, 1)] {
        wait_until("all frames", || {
            node.inbox.numbers(Channel::Relay).last() == Some(&(number - 1))
        })
        .await;
        assert!(node.inbox.numbers(Channel::Relay).into_iter().eq(first..number));
        assert!(agreed(node).into_iter().all(|agreed| agreed), "{:?}", agreed(node));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_that_is_needed_or_wanted_stays() {
    let pki = Pki::new("blue");
    let nodes = strangers(&pki, 2).await;
    let [(a, _), (b, _)] = &nodes[..] else { panic!() };
    // The greater one needs it: it is the other that would ask.
    b.inbox.1.store(true, Ordering::SeqCst);
    a.send(b, Channel::Relay, 0, 1);
    both_up(a, b).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(a.is_up(b) && b.is_up(a));
    // It was shut meanwhile, and open again.
    a.send(b, Channel::Relay, 0, 2);
    wait_until("a frame", || b.inbox.numbers(Channel::Relay) == [1, 2]).await;
    assert_eq!(a.inbox.ups_downs(), (1, 0));
    // One that was wanted, and is not any more, goes when it is not used, not before.
    b.inbox.1.store(false, Ordering::SeqCst);
    a.want(&[b]);
    a.want(&[]);
    assert!(a.is_up(b));
    wait_until("closed", || a.inbox.ups_downs().1 == 1 && b.inbox.ups_downs().1 == 1).await;
    assert_eq!((agreed(a), agreed(b)), (vec![true], vec![true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_for_a_member_that_cannot_be_reached_come_back() {
    let pki = Pki::new("blue");
    let nodes = strangers(&pki, 2).await;
    let [(a, map), (b, _)] = &nodes[..] else { panic!() };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    map.0.lock().unwrap().insert(b.id, vec![nobody.to_string()]);
    // Once the dial has failed nothing is taken for a moment.
    let send = |number| a.transport.send(b.id, Channel::Relay, number, &frame(number, 1));
    let taken: Vec<_> = (1..=3).filter(|number| send(*number).is_ok()).collect();
    assert_eq!(taken.first(), Some(&1));
    let back = || a.inbox.0.lock().unwrap().unsent.clone();
    wait_until("they come back", || back().len() == taken.len()).await;
    assert!(back().into_iter().eq(taken.iter().map(|number| (b.id, *number))), "{:?}", back());
    map.0.lock().unwrap().insert(b.id, vec![b.address.clone()]);
    let taken = || a.transport.send(b.id, Channel::Relay, 0, &frame(5, 1)).is_ok();
    wait_until("it is tried anew", taken).await;
    wait_until("a frame", || b.inbox.numbers(Channel::Relay) == [5]).await;
    // Who is no member is not dialled.
    map.0.lock().unwrap().clear();
    let stranger = weald_storage::NodeId([9; 16]);
    let refused = a.transport.send(stranger, Channel::Relay, 0, &frame(6, 1));
    assert_eq!(refused, Err(SendError::NotConnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn far_peers_are_bounded_and_those_not_used_make_room() {
    let pki = Pki::new("blue");
    let nodes = strangers(&pki, 4).await;
    let (a, _) = &nodes[0];
    a.send(&nodes[1].0, Channel::Relay, 0, 1);
    a.send(&nodes[2].0, Channel::Relay, 0, 1);
    let third = &nodes[3].0;
    let refused = a.transport.send(third.id, Channel::Relay, 0, &frame(1, 1));
    assert_eq!(refused, Err(SendError::NotConnected));
    wait_until("room", || a.transport.send(third.id, Channel::Relay, 0, &frame(2, 1)).is_ok())
        .await;
    wait_until("a frame", || third.inbox.numbers(Channel::Relay) == [2]).await;
    // What is lost without agreement is told so.
    a.transport.disconnect(third.id, "a test");
    wait_until("down", || agreed(third).contains(&false)).await;
}
