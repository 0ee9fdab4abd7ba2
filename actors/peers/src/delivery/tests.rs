//! Each option on a link that loses, doubles, reorders and reconnects.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{acknowledged, monotonic};

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
        let mut sender = monotonic::Sender::new(1, 4, usize::MAX);
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
fn monotonic_is_bounded_in_bytes_and_takes_back_what_the_link_did_not_take() {
    let mut sender = monotonic::Sender::new(1, 10, 8);
    sender.send(vec![1], vec![0; 90]);
    assert!(sender.is_waiting(), "one in any case");
    sender.send(vec![2], vec![2; 3]);
    assert_eq!(sender.counts(), (0, 1));
    sender.send(vec![3], vec![3; 3]);
    let two = sender.take().unwrap();
    assert_eq!((two.key.as_slice(), two.version), (&[2][..], 2));
    sender.put_back(two.clone());
    assert_eq!(sender.take(), Some(two.clone()), "it is the next again, under its number");
    sender.send(vec![2], vec![9; 3]);
    sender.put_back(two.clone());
    assert_eq!(sender.counts(), (1, 1), "a newer one has come");
    assert_eq!(sender.take().unwrap().key, [3]);
    let newest = sender.take().unwrap();
    assert_eq!(
        (newest.version, newest.body.as_slice(), sender.is_waiting()),
        (4, &[9, 9, 9][..], false)
    );
    sender.put_back(monotonic::Packet { epoch: 0, ..two });
    assert_eq!((sender.take(), sender.counts()), (None, (1, 2)));
}
