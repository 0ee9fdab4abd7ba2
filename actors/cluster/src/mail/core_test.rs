//! Two mails over a link that loses, doubles, reorders and is cut, while either node restarts; and tables.

use super::core::{How, Input, Letter, Limits, Mail, Output, Ticket};
use super::wire::{Item, Message};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use weald_peers::delivery::{acknowledged, monotonic};
use weald_proto::{ErrorCode, Reply};
use weald_storage::NodeId;

const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

fn letter(payload: u64, timeout_ms: u64, how: How) -> Letter {
    let payload = payload.to_be_bytes().to_vec();
    Letter { node: "b".into(), name: "pump".into(), payload, timeout_ms, how }
}

fn told(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload.try_into().unwrap())
}

/// One mail, by hand.
struct Desk {
    mail: Mail,
    now_ms: u64,
    has_room: bool,
}

impl Desk {
    fn new(life: u64, limits: Limits) -> Self {
        Self { mail: Mail::new(life, limits), now_ms: 0, has_room: true }
    }

    fn take(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let has_room = self.has_room;
        self.mail.handle(self.now_ms, input, &|_| has_room, &mut out);
        out
    }

    fn send(&mut self, id: u64, how: How) -> Vec<Output> {
        self.take(Input::Send { id, to: B, letter: letter(id, 1000, how) })
    }

    fn said(&mut self, message: Message) -> Vec<Output> {
        self.take(Input::Said { from: B, message })
    }
}

fn sent(outputs: &[Output]) -> Vec<&Message> {
    let message = |output: &'_ Output| matches!(output, Output::Send { .. });
    let sends = outputs.iter().filter(|o| message(o));
    sends
        .filter_map(|o| if let Output::Send { message, .. } = o { Some(message) } else { None })
        .collect()
}

/// How a message ended.
fn ends(outputs: &[Output]) -> Vec<(u64, Result<(), ErrorCode>)> {
    let end = |output: &Output| match output {
        Output::Done { id, result } => Some((*id, result.as_ref().map(|_| ()).map_err(|e| e.code))),
        _ => None,
    };
    outputs.iter().filter_map(end).collect()
}

const ONCE: How = How::Once { reply: true };
const ACKED: How = How::Acknowledged { token: None };

#[test]
fn message_sent_once_ends_with_what_is_known_of_it() {
    let answer = |corr| Message::Answer { corr, result: Ok(vec![9]) };
    let down = |is_agreed| Input::Down { node: B, is_agreed };
    let mut desk = Desk::new(1, Limits::default());
    desk.take(Input::Up(B));
    let out = desk.send(1, ONCE);
    let [ask @ Message::Ask { corr: 1, reply: true, .. }] = sent(&out)[..] else {
        panic!("{out:?}")
    };
    assert_eq!(desk.said(answer(1)), [Output::Done { id: 1, result: Ok(vec![9]) }]);
    assert_eq!(desk.said(answer(1)), [], "too late, or twice");
    desk.send(2, ONCE);
    let out = desk.take(Input::Unsent { to: B, message: ask.clone() });
    assert_eq!(ends(&out), [], "of a message that has ended");
    let Message::Ask { name, payload, reply, timeout_ms, .. } = ask.clone() else { panic!() };
    let second = Message::Ask { corr: 2, name, payload, reply, timeout_ms };
    let out = desk.take(Input::Unsent { to: B, message: second });
    assert_eq!(ends(&out), [(2, Err(ErrorCode::Unavailable))]);
    desk.send(3, ONCE);
    assert_eq!(ends(&desk.take(down(true))), [], "nothing is lost when both agree");
    assert_eq!(ends(&desk.take(down(false))), [(3, Err(ErrorCode::Unknown))]);
    desk.send(4, ONCE);
    desk.now_ms = 1000;
    assert!(desk.mail.is_busy() && desk.mail.needed() == BTreeSet::from([B]));
    assert_eq!(ends(&desk.take(Input::Tick)), [(4, Err(ErrorCode::TimedOut))]);
    desk.send(5, ONCE);
    assert_eq!(ends(&desk.take(Input::Members(BTreeSet::new()))), [(5, Err(ErrorCode::Unknown))]);
    assert!(!desk.mail.is_busy() && desk.mail.needed().is_empty());
}

#[test]
fn acknowledged_message_waits_for_the_life_it_is_for() {
    let mut desk = Desk::new(7, Limits::default());
    let out = desk.send(1, ACKED);
    assert_eq!(sent(&out), [&Message::Hello { life: 7, knows: None, asks: true }]);
    assert_eq!(sent(&desk.send(2, ACKED)), Vec::<&Message>::new(), "asked a moment ago");
    let out = desk.said(Message::Hello { life: 30, knows: Some(7), asks: false });
    let packets = sent(&out);
    let [Message::Packet { to_life: 30, packet }, Message::Packet { .. }] = packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!((packet.epoch, packet.seq), (7, 1));
    // One is acknowledged and told, the other is not when the node restarts.
    let ack = acknowledged::Ack { epoch: 7, up_to: 1, runs: vec![] };
    desk.said(Message::Ack { from_life: 30, ack: ack.clone() });
    let body = Item::Told { corr: 1, result: Ok(()) }.encode();
    let packet = acknowledged::Packet { epoch: 30, first: 1, seq: 1, body };
    let out = desk.said(Message::Packet { to_life: 7, packet: packet.clone() });
    assert_eq!(ends(&out), [(1, Ok(()))]);
    assert!(matches!(sent(&out)[..], [Message::Ack { from_life: 7, .. }]));
    assert_eq!(ends(&desk.said(Message::Packet { to_life: 7, packet })), [], "the same again");
    let out = desk.said(Message::Hello { life: 31, knows: None, asks: true });
    assert_eq!(ends(&out), [(2, Err(ErrorCode::Unknown))]);
    assert_eq!(sent(&out), [&Message::Hello { life: 7, knows: Some(31), asks: false }]);
    // Numbers begin anew: what the former life acknowledges does not count for the new one.
    let out = desk.send(3, ACKED);
    assert!(matches!(sent(&out)[..], [Message::Packet { to_life: 31, packet }] if packet.seq == 1));
    desk.said(Message::Ack { from_life: 30, ack });
    desk.now_ms = 300;
    let out = desk.take(Input::Tick);
    assert!(matches!(sent(&out)[..], [Message::Packet { to_life: 31, .. }]), "{out:?}");
    let out = desk.said(Message::Hello { life: 30, knows: None, asks: true });
    assert_eq!(sent(&out), [&Message::Hello { life: 7, knows: Some(31), asks: true }]);
}

#[test]
fn acknowledged_message_that_never_left_is_known_not_to_have_arrived() {
    let mut desk = Desk::new(7, Limits::default());
    desk.said(Message::Hello { life: 30, knows: None, asks: false });
    let out = desk.send(1, ACKED);
    let first = sent(&out)[0].clone();
    desk.take(Input::Unsent { to: B, message: first.clone() });
    desk.now_ms = 250;
    let out = desk.take(Input::Tick);
    assert_eq!(sent(&out), [&first]);
    desk.take(Input::Unsent { to: B, message: first });
    desk.send(2, ACKED);
    desk.now_ms = 1250;
    let out = desk.take(Input::Tick);
    assert_eq!(ends(&out), [(1, Err(ErrorCode::Unavailable)), (2, Err(ErrorCode::TimedOut))]);
    assert_eq!(desk.mail.stats().repeated, 1);
}

#[test]
fn packets_for_another_life_are_not_taken_and_answered_with_the_own_one() {
    let mut desk = Desk::new(7, Limits::default());
    let item =
        Item::Tell { corr: 1, name: "pump".into(), payload: vec![1], token: None, timeout_ms: 9 };
    let packet = acknowledged::Packet { epoch: 30, first: 1, seq: 1, body: item.encode() };
    let to = |to_life| Message::Packet { to_life, packet: packet.clone() };
    let hello = |life, knows, asks| Output::Send {
        to: B,
        lane: 0,
        message: Message::Hello { life, knows, asks },
    };
    assert_eq!(desk.said(to(6)), [hello(7, None, false)]);
    // Whoever knows a later life is right: the clock of this one was set back.
    assert_eq!(desk.said(to(9)), []);
    assert_eq!(desk.mail.life(), 10);
    desk.take(Input::Up(B));
    assert_eq!(
        desk.said(Message::Hello { life: 30, knows: Some(12), asks: true }),
        [hello(13, Some(30), true)]
    );
    let out = desk.said(to(13));
    assert!(matches!(out[..], [Output::Send { .. }, Output::Deliver { .. }]), "{out:?}");
    let bad = acknowledged::Packet { seq: 2, body: vec![77], ..packet.clone() };
    let out = desk.said(Message::Packet { to_life: 13, packet: bad });
    assert!(matches!(sent(&out)[..], [Message::Ack { .. }]));
    assert_eq!((out.len(), desk.mail.stats().malformed), (1, 1));
}

#[test]
fn limits_of_a_node_are_kept_in_both_directions() {
    let limits = Limits { in_flight_max: 3, bytes_max: 30, serving_max: 2, ..Limits::default() };
    let mut desk = Desk::new(7, limits);
    desk.take(Input::Up(B));
    for (id, how) in [(1, ONCE), (2, ACKED)] {
        assert_eq!(ends(&desk.send(id, how)), []);
    }
    assert_eq!(ends(&desk.send(3, ONCE)), [(3, Err(ErrorCode::Overloaded))], "bytes");
    desk.said(Message::Answer { corr: 1, result: Ok(vec![]) });
    assert_eq!(ends(&desk.send(4, ONCE)), []);
    assert_eq!(desk.mail.stats().refused, 1);

    let ask = |corr| Message::Ask {
        corr,
        name: "pump".into(),
        payload: vec![],
        reply: false,
        timeout_ms: 1,
    };
    let tickets: Vec<Ticket> = [1, 2]
        .into_iter()
        .flat_map(|corr| desk.said(ask(corr)))
        .map(|o| match o {
            Output::Deliver { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    let out = desk.said(ask(3));
    let [Message::Answer { corr: 3, result: Err(busy) }] = sent(&out)[..] else {
        panic!("{out:?}")
    };
    assert_eq!(busy.code, ErrorCode::Overloaded);
    let out = desk.take(Input::Delivered { ticket: tickets[0], result: Ok(vec![5]) });
    assert_eq!(sent(&out), [&Message::Answer { corr: 1, result: Ok(vec![5]) }]);
    assert!(matches!(desk.said(ask(4))[..], [Output::Deliver { .. }]));
}

#[test]
fn newest_message_of_a_key_waits_for_room_and_replaces_older_ones() {
    let newest = |key: u8| How::Newest { key: vec![key] };
    let limits = Limits { newest_max: 2, ..Limits::default() };
    let mut desk = Desk::new(7, limits);
    let out = desk.send(1, newest(1));
    assert_eq!(ends(&out), [(1, Ok(()))]);
    assert!(matches!(sent(&out)[..], [Message::Hello { .. }]), "somebody has to connect");
    desk.has_room = false;
    desk.take(Input::Up(B));
    desk.send(2, newest(1));
    desk.send(3, newest(2));
    assert!(desk.mail.is_busy());
    desk.has_room = true;
    let out = desk.take(Input::Tick);
    let payloads = |out: &[Output]| {
        sent(out)
            .into_iter()
            .map(|m| match m {
                Message::Newest { packet } => told(&packet.body),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(payloads(&out), [2, 3]);
    assert_eq!(desk.mail.stats().replaced, 1);
    // The link did not take them; of the first there is a newer one by then.
    let back: Vec<Message> = sent(&out).into_iter().cloned().collect();
    desk.has_room = false;
    desk.send(4, newest(1));
    for message in back {
        desk.take(Input::Unsent { to: B, message });
    }
    desk.has_room = true;
    assert_eq!(payloads(&desk.take(Input::Tick)), [3, 4]);
    assert!(!desk.mail.is_busy());
    desk.has_room = false;
    for (id, key) in [(5, 1), (6, 2), (7, 3)] {
        desk.send(id, newest(key));
    }
    assert_eq!((desk.mail.stats().replaced, desk.mail.stats().dropped), (2, 1));
    // This node goes on as another life: what waits goes with it.
    desk.said(Message::Hello { life: 30, knows: Some(70), asks: false });
    desk.has_room = true;
    let out = desk.take(Input::Tick);
    assert_eq!(payloads(&out), [6, 7]);
    assert!(
        sent(&out).iter().all(|m| matches!(m, Message::Newest { packet } if packet.epoch == 71))
    );
}

#[test]
fn older_message_of_a_key_is_not_delivered_after_a_newer_one() {
    let mut desk = Desk::new(7, Limits::default());
    let key = super::wire::Subject { name: "pump".into(), key: vec![1] };
    let key = postcard::to_stdvec(&key).unwrap();
    let packet = |version| Message::Newest {
        packet: monotonic::Packet { epoch: 30, version, key: key.clone(), body: vec![] },
    };
    assert_eq!([2, 1, 2, 3].map(|version| desk.said(packet(version)).len()), [1, 0, 0, 1]);
    let bad = monotonic::Packet { epoch: 30, version: 9, key: vec![255], body: vec![] };
    assert_eq!(desk.said(Message::Newest { packet: bad }), []);
    assert_eq!(desk.mail.stats().malformed, 1);
}

/// Two nodes, their link, and the actors at both, which outlive their nodes.
struct World {
    desks: [Option<Mail>; 2],
    lives: [u64; 2],
    is_up: bool,
    flying: Vec<(u64, usize, Message)>,
    delivering: Vec<(u64, usize, Ticket)>,
    /// How often actors got each message, and what its sender was told.
    got: BTreeMap<u64, u32>,
    ended: BTreeMap<u64, Result<(), ErrorCode>>,
    kinds: BTreeMap<u64, (usize, How)>,
    newest: BTreeMap<(usize, Vec<u8>), u64>,
    now_ms: u64,
    seed: u64,
    is_lossy: bool,
    faults: [u32; 4],
}

impl World {
    fn below(&mut self, n: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % n
    }

    fn input(&mut self, at: usize, input: Input) {
        let mut out = Vec::new();
        let (is_up, now_ms) = (self.is_up, self.now_ms);
        let Some(mail) = &mut self.desks[at] else { return };
        mail.handle(now_ms, input, &|_| is_up, &mut out);
        self.lives[at] = self.lives[at].max(mail.life());
        for output in out {
            self.perform(at, output);
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        match output {
            Output::Send { to, message, .. } if !self.is_up => {
                self.input(at, Input::Unsent { to, message })
            }
            Output::Send { message, .. } => {
                // A connection does not lose or double; a bound that is hit on the way loses what comes again.
                let repeats = matches!(
                    message,
                    Message::Packet { .. } | Message::Ack { .. } | Message::Hello { .. }
                );
                let copies = match self.below(10) {
                    0..=1 if repeats && self.is_lossy => 0,
                    2 if repeats && self.is_lossy => 2,
                    _ => 1,
                };
                self.faults[0] += u32::from(copies == 0);
                for _ in 0..copies {
                    // Messages of which the newest counts keep their order on a connection; not here.
                    let at_ms = self.now_ms + self.below(40);
                    self.flying.push((at_ms, 1 - at, message.clone()));
                }
            }
            Output::Done { id, result } => {
                let before = self.ended.insert(id, result.map(drop).map_err(|e| e.code));
                assert!(before.is_none(), "{id} has ended twice");
            }
            Output::Deliver { ticket, payload, .. } => {
                let id = told(&payload);
                *self.got.entry(id).or_default() += 1;
                if let Some((_, How::Newest { key })) = self.kinds.get(&id) {
                    let last = self.newest.insert((at, key.clone()), id);
                    assert!(last < Some(id), "{id} after {last:?}");
                }
                let at_ms = self.now_ms + self.below(100);
                self.delivering.push((at_ms, at, ticket));
            }
        }
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.is_up) {
            self.flying.clear();
            self.faults[1] += 1;
            self.input(0, Input::Down { node: B, is_agreed: false });
            self.input(1, Input::Down { node: A, is_agreed: false });
        }
    }

    fn connect(&mut self) {
        if !std::mem::replace(&mut self.is_up, true) {
            self.input(0, Input::Up(B));
            self.input(1, Input::Up(A));
        }
    }

    fn restart(&mut self, at: usize) {
        self.cut();
        self.faults[2] += 1;
        self.delivering.retain(|(_, node, _)| *node != at);
        // Its clock may have been set back.
        let back = self.below(3) * 2;
        let tick = (self.lives[at] / 1000 + 1).saturating_sub(back).max(1);
        // No two processes draw the same number.
        let life = tick * 1000 + u64::from(self.faults[2]);
        self.faults[3] += u32::from(life <= self.lives[at]);
        self.desks[at] = Some(Mail::new(life, Limits::default()));
        // Whoever waited hears that the outcome is unknown.
        for (id, (from, _)) in &self.kinds {
            if *from == at {
                self.ended.entry(*id).or_insert(Err(ErrorCode::Unknown));
            }
        }
    }

    fn step(&mut self) {
        self.now_ms += 10;
        let due = |list: &mut Vec<_>,
                   now: u64,
                   time: fn(&(u64, usize, Message)) -> u64|
         -> Vec<(u64, usize, Message)> {
            let (due, rest) = std::mem::take(list).into_iter().partition(|item| time(item) <= now);
            *list = rest;
            due
        };
        for (_, at, message) in due(&mut self.flying, self.now_ms, |item| item.0) {
            let from = [B, A][at];
            self.input(at, Input::Said { from, message });
        }
        let now = self.now_ms;
        let (done, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.delivering).into_iter().partition(|(time, ..)| *time <= now);
        self.delivering = rest;
        for (_, at, ticket) in done {
            let result: Reply<Vec<u8>> = Ok(Vec::new());
            self.input(at, Input::Delivered { ticket, result });
        }
        if self.now_ms.is_multiple_of(50) {
            self.input(0, Input::Tick);
            self.input(1, Input::Tick);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_message_ends_once_and_is_delivered_as_its_end_says(seed in any::<u64>(), restarts in any::<bool>()) {
        let mut world = World {
            desks: [Some(Mail::new(5000, Limits::default())), Some(Mail::new(5000, Limits::default()))],
            lives: [5000, 5000],
            is_up: false,
            flying: Vec::new(),
            delivering: Vec::new(),
            got: BTreeMap::new(),
            ended: BTreeMap::new(),
            kinds: BTreeMap::new(),
            newest: BTreeMap::new(),
            now_ms: 0,
            seed,
            is_lossy: true,
            faults: [0; 4],
        };
        let mut id = 0;
        for round in 0..3000_u64 {
            let is_calm = round >= 1200;
            world.is_lossy = !is_calm;
            match world.below(100) {
                0..=2 if !is_calm => world.cut(),
                3 if restarts && !is_calm => {
                    let at = usize::try_from(world.below(2)).unwrap();
                    world.restart(at);
                }
                4..=12 => world.connect(),
                _ => {}
            }
            if round < 1000 && round % 3 == 0 {
                id += 1;
                let how = match world.below(4) {
                    0 => ONCE,
                    1 => How::Newest { key: vec![u8::try_from(id % 3).unwrap()] },
                    _ => ACKED,
                };
                let at = usize::try_from(world.below(2)).unwrap();
                let timeout_ms = 200 + world.below(6000);
                world.kinds.insert(id, (at, how.clone()));
                let to = [B, A][at];
                world.input(at, Input::Send { id, to, letter: letter(id, timeout_ms, how) });
            }
            world.step();
        }
        let mut oks = 0;
        for (id, (_, how)) in &world.kinds {
            let got = world.got.get(id).copied().unwrap_or(0);
            let end = world.ended.get(id);
            prop_assert!(got <= 1, "{} was delivered {} times", id, got);
            match (end, how) {
                (None, _) => prop_assert!(false, "{} never ended", id),
                (Some(Ok(())), How::Newest { .. }) => {}
                (Some(Ok(())), _) => { oks += 1; prop_assert_eq!(got, 1, "{} was acknowledged", id); }
                (Some(Err(ErrorCode::Unknown | ErrorCode::TimedOut)), _) => {}
                (Some(Err(code)), _) => prop_assert_eq!(got, 0, "{} ended as {:?}", id, code),
            }
        }
        prop_assert!(oks > 50 && world.faults[0] > 0 && world.faults[1] > 0, "{} {:?}", oks, world.faults);
        for desk in world.desks.iter().flatten() {
            prop_assert!(!desk.is_busy() && desk.needed().is_empty(), "something is under way for ever");
        }
    }
}
