//! Each option on a link that loses, doubles, reorders and reconnects.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weald_storage::{Actor, NodeId};

use super::{acknowledged, causal, monotonic};

/// Packets under way, with the time of their arrival.
struct Link<P> {
    random: ChaCha8Rng,
    flying: BTreeMap<(u64, u64), P>,
    sent: u64,
    is_lossy: bool,
    lost: u64,
}

impl<P: Clone> Link<P> {
    fn new(seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { random, flying: BTreeMap::new(), sent: 0, is_lossy: true, lost: 0 }
    }

    fn below(&mut self, n: u32) -> u32 {
        self.random.next_u32() % n
    }

    fn send(&mut self, now_ms: u64, packet: &P) {
        let fate = if self.is_lossy { self.below(10) } else { 9 };
        let copies = match fate {
            0..=2 => 0,
            3..=4 => 2,
            _ => 1,
        };
        self.lost += u64::from(copies == 0);
        for _ in 0..copies {
            self.sent += 1;
            let delay_ms = u64::from(self.below(60));
            self.flying.insert((now_ms + delay_ms, self.sent), packet.clone());
        }
    }

    fn arrived(&mut self, now_ms: u64) -> Vec<P> {
        let later = self.flying.split_off(&(now_ms + 1, 0));
        std::mem::replace(&mut self.flying, later).into_values().collect()
    }
}

fn number(body: &[u8]) -> u64 {
    u64::from_be_bytes(body.try_into().expect("8 bytes"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn acknowledged_arrives_exactly_once(seed in any::<u64>(), reconnects in any::<bool>()) {
        let mut sender = acknowledged::Sender::new(7, 400);
        let mut receiver = acknowledged::Receiver::new();
        let (mut there, mut back) = (Link::new(seed), Link::new(!seed));
        let (mut taken, mut refused, mut got) = (0_u64, 0, BTreeSet::new());
        for now_ms in (0..30_000).step_by(10) {
            (there.is_lossy, back.is_lossy) = (now_ms < 20_000, now_ms < 20_000);
            let mut packets = sender.tick(now_ms).packets;
            if reconnects && there.below(50) == 0 {
                there.flying.clear();
                back.flying.clear();
                packets.extend(sender.reconnected(now_ms).packets);
            }
            if now_ms < 3000 {
                match sender.send(now_ms, taken.to_be_bytes().to_vec(), u64::MAX) {
                    Ok(packet) => { taken += 1; packets.push(packet); }
                    Err(full) => { refused += 1; prop_assert!(full.bytes > 392); }
                }
            }
            packets.iter().for_each(|packet| there.send(now_ms, packet));
            for packet in there.arrived(now_ms) {
                let (body, ack) = receiver.receive(packet);
                if let Some(body) = body {
                    prop_assert!(got.insert(number(&body)), "delivered twice");
                }
                ack.iter().for_each(|ack| back.send(now_ms, ack));
            }
            for ack in back.arrived(now_ms) {
                sender.acknowledged(&ack);
            }
        }
        prop_assert!(taken > 50 && there.lost > 0 && (taken + refused == 300));
        prop_assert_eq!(got, (0..taken).collect::<BTreeSet<_>>());
        prop_assert_eq!((sender.unacknowledged_bytes(), sender.next_deadline()), (0, None));
    }

    #[test]
    fn monotonic_never_goes_back(seed in any::<u64>(), keys_max in 1_usize..6) {
        let mut sender = monotonic::Sender::new(1, 4);
        let mut receiver = monotonic::Receiver::new(keys_max);
        let mut link = Link::new(seed);
        let (mut last, mut newest) = (BTreeMap::new(), BTreeMap::new());
        for now_ms in 0..600_u64 {
            // At last the link is sound, and a message of each key is sent once more.
            link.is_lossy = now_ms < 400;
            if now_ms < 300 || (500..504).contains(&now_ms) {
                let key = if now_ms < 300 { link.below(4) } else { u32::try_from(now_ms - 500).unwrap() };
                sender.send(vec![u8::try_from(key).unwrap()], now_ms.to_be_bytes().to_vec());
                newest.insert(vec![u8::try_from(key).unwrap()], now_ms);
            }
            let has_room = now_ms % 3 == 0 || now_ms > 503;
            if let Some(packet) = has_room.then(|| sender.take()).flatten() {
                link.send(now_ms, &packet);
            }
            for packet in link.arrived(now_ms) {
                let key = packet.key.clone();
                if let Some(body) = receiver.receive(packet) {
                    let before = last.insert(key, number(&body));
                    prop_assert!(before < Some(number(&body)), "went back");
                }
            }
        }
        prop_assert!(sender.counts().0 > 0, "nothing was replaced");
        if keys_max >= 4 {
            prop_assert_eq!(last, newest);
        }
    }

    #[test]
    fn causal_never_delivers_before_what_the_sender_had_seen(seed in any::<u64>(), is_lossy in any::<bool>()) {
        const MEMBERS: usize = 4;
        let actor = |n: usize| Actor { node: NodeId([u8::try_from(n).unwrap(); 16]), incarnation: 1 };
        let mut members: Vec<_> = (0..MEMBERS).map(|n| causal::Member::new(actor(n), 200, 64)).collect();
        let mut links: Vec<Link<causal::Packet>> = (0..MEMBERS).map(|n| Link::new(seed ^ n as u64)).collect();
        links.iter_mut().for_each(|link| link.is_lossy = is_lossy);
        // What each has delivered or skipped, by origin, and what a message's sender had when it was sent.
        let mut has = vec![vec![0_u64; MEMBERS]; MEMBERS];
        let mut had: BTreeMap<(usize, u64), Vec<u64>> = BTreeMap::new();
        let (mut messages, mut gaps) = (0, 0);
        for now_ms in 0..1500_u64 {
            for n in 0..MEMBERS {
                if now_ms < 500 && links[n].below(15) == 0 {
                    has[n][n] += 1;
                    had.insert((n, has[n][n]), has[n].clone());
                    let packet = members[n].send(has[n][n].to_be_bytes().to_vec());
                    (0..MEMBERS).filter(|m| *m != n).for_each(|m| links[m].send(now_ms, &packet));
                }
                let packets = links[n].arrived(now_ms);
                let mut out: Vec<_> =
                    packets.into_iter().flat_map(|packet| members[n].receive(now_ms, packet)).collect();
                out.extend(members[n].tick(now_ms));
                for delivered in out {
                    match delivered {
                        causal::Delivered::Message { origin, body } => {
                            let (from, seq) = (usize::from(origin.node.0[0]), number(&body));
                            prop_assert_eq!(seq, has[n][from] + 1, "of one sender out of order");
                            let before = &had[&(from, seq)];
                            for other in (0..MEMBERS).filter(|other| *other != from) {
                                prop_assert!(has[n][other] >= before[other], "an effect before its cause");
                            }
                            has[n][from] = seq;
                            messages += 1;
                        }
                        causal::Delivered::Gap { origin, from, to } => {
                            let origin = usize::from(origin.node.0[0]);
                            prop_assert_eq!(from, has[n][origin] + 1);
                            has[n][origin] = to;
                            gaps += to - from + 1;
                        }
                    }
                }
            }
        }
        prop_assert!(members.iter().all(|member| member.next_deadline().is_none()), "something waits for ever");
        let all = had.len() as u64 * (MEMBERS as u64 - 1);
        if is_lossy {
            // What was lost at the end is not missed by anybody yet.
            prop_assert!(messages + gaps <= all && messages > all / 2, "{messages} and {gaps} gaps of {all}");
        } else {
            prop_assert_eq!((messages, gaps), (all, 0));
        }
    }
}

#[test]
fn acknowledged_gives_up_at_the_deadline_and_goes_on() {
    let mut sender = acknowledged::Sender::new(1, 10);
    let mut receiver = acknowledged::Receiver::new();
    let lost = sender.send(0, vec![1; 8], 500).unwrap();
    assert_eq!(sender.send(0, vec![2; 8], 500), Err(acknowledged::Full { messages: 1, bytes: 8 }));
    assert_eq!(sender.next_deadline(), Some(200));
    assert_eq!(sender.tick(200).packets, [lost]);
    assert_eq!(sender.tick(500).expired, [1]);
    let next = sender.send(500, vec![2; 80], 9000).unwrap();
    assert_eq!((next.first, next.seq), (2, 2));
    let (body, ack) = receiver.receive(next.clone());
    assert_eq!((body.is_some(), ack.as_ref().unwrap().up_to), (true, 2));
    assert_eq!(sender.acknowledged(&ack.unwrap()), [2]);
    // A later epoch begins anew, an earlier one is not heard any more.
    let later = acknowledged::Sender::new(2, 10).send(0, vec![3], 9).unwrap();
    assert_eq!(receiver.receive(later).0, Some(vec![3]));
    assert_eq!(receiver.receive(next), (None, None));
    // Numbers of a peer that counts wrongly do no harm.
    for (first, seq) in [(u64::MAX, u64::MAX), (9, 3), (0, 0), (1, u64::MAX)] {
        receiver.receive(acknowledged::Packet { epoch: 3, first, seq, body: vec![] });
    }
}

#[test]
fn causal_buffer_is_bounded_and_messages_that_need_each_other_end() {
    let actor = |n| Actor { node: NodeId([n; 16]), incarnation: 1 };
    let packet = |n, seq, seen| causal::Packet { origin: actor(n), seq, seen, body: vec![n] };
    let mut member = causal::Member::new(actor(1), 100, 2);
    assert_eq!(member.receive(0, packet(2, 3, vec![])), []);
    assert_eq!(member.receive(1, packet(3, 1, vec![(actor(2), 3)])), []);
    let out = member.receive(2, packet(4, u64::MAX, vec![(actor(5), u64::MAX)]));
    let gap = causal::Delivered::Gap { origin: actor(2), from: 1, to: 2 };
    let message = |n| causal::Delivered::Message { origin: actor(n), body: vec![n] };
    assert_eq!(out, [gap, message(2), message(3)]);
    assert_eq!(member.tick(102).len(), 3);
    assert_eq!(member.receive(103, packet(6, 1, vec![(actor(7), 1)])), []);
    assert_eq!(member.receive(103, packet(7, 1, vec![(actor(6), 1)])), []);
    assert_eq!(member.tick(203).len(), 3);
    assert_eq!(member.next_deadline(), None);
    assert_eq!(member.receive(204, packet(4, u64::MAX, vec![])), []);
}
