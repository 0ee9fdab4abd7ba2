//! Method: two tables that dial each other over streams that deliver in any order, then in order until nothing moves.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use weald_peers::PeerEvent;

const NAMES: [&str; 2] = ["n1", "n2"];
const LANES: [u8; CHANNELS] = [1, 2, 1];

fn hello(side: usize, lane: Lane) -> NodeHello {
    NodeHello {
        versions: (1, 1),
        cluster: "blue".into(),
        name: NAMES[side].into(),
        uuid: [u8::try_from(side).unwrap() + 1; 16],
        incarnation: 1,
        boot: [9; 16],
        partitions: 8,
        lanes: LANES,
        channel: channel_number(lane.0),
        lane: lane.1,
        addresses: vec![],
        capabilities: vec![],
        nonce: [0; 32],
    }
}

fn id(side: usize) -> NodeId {
    NodeId(hello(side, (Channel::Control, 0)).uuid)
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Hello,
    Welcome,
    Refused,
    Up,
    Closed,
}

/// One dial: who dialled what, and what is on its way to either side.
#[derive(Debug)]
struct Dial {
    by: usize,
    lane: Lane,
    to: [VecDeque<Message>; 2],
}

struct World {
    tables: [Table; 2],
    /// By side and dial.
    links: [BTreeMap<usize, Arc<Link>>; 2],
    /// Those that are closed, too: their actors may still have something to say.
    ever: [BTreeMap<usize, Arc<Link>>; 2],
    dials: Vec<Dial>,
    events: [Vec<PeerEvent>; 2],
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            tables: [0, 1].map(|side| {
                let mut table = Table::new(id(side), LANES);
                table.wanted.insert(id(1 - side), vec![]);
                table
            }),
            links: Default::default(),
            ever: Default::default(),
            dials: Vec::new(),
            events: Default::default(),
            now: Instant::now(),
        }
    }

    /// Dials what a side lacks, if its dialer may. Whether it did.
    fn dial(&mut self, by: usize) -> bool {
        let table = &mut self.tables[by];
        let Todo::Dial(lane, _) = table.todo(id(1 - by)) else { return false };
        if !table.dialling(NAMES[1 - by], lane) {
            return false;
        }
        let mut to = [VecDeque::new(), VecDeque::new()];
        to[1 - by].push_back(Message::Hello);
        self.dials.push(Dial { by, lane, to });
        true
    }

    fn apply(&mut self, side: usize, effects: Effects) {
        for (closed, _) in effects.close {
            let dial = self.links[side].iter().find(|(_, link)| link.id == closed.id);
            let dial = *dial.unwrap().0;
            self.links[side].remove(&dial);
            self.dials[dial].to[1 - side].push_back(Message::Closed);
            // Its actor is still getting ready, and then ends: neither means anything to the table.
            let mut none = Effects::default();
            self.tables[side].link_up(&closed, self.now, &mut none);
            self.tables[side].link_closed(&closed, "closed here", &mut none);
            assert!(none.close.is_empty() && none.events.is_empty(), "{none:?}");
        }
        self.events[side].extend(effects.events);
    }

    fn reserve(&mut self, side: usize, dial: usize) -> bool {
        let Dial { by, lane, .. } = self.dials[dial];
        let hello = hello(1 - side, lane);
        let claim = Claim { hello: &hello, by_smaller: by == 0, is_own: by == side };
        let mut effects = Effects::default();
        let reserved = self.tables[side].reserve(&claim, self.now, &mut effects);
        self.apply(side, effects);
        if let Ok(link) = &reserved {
            self.links[side].insert(dial, Arc::clone(link));
            self.ever[side].insert(dial, Arc::clone(link));
        }
        reserved.is_ok()
    }

    /// Delivers the next message of a dial to a side. Whether there was one.
    fn deliver(&mut self, dial: usize, side: usize) -> bool {
        let Some(message) = self.dials[dial].to[side].pop_front() else { return false };
        let lane = self.dials[dial].lane;
        let mut effects = Effects::default();
        let mut answer = |to: usize, message| self.dials[dial].to[to].push_back(message);
        match message {
            Message::Hello => {
                let answered =
                    if self.reserve(side, dial) { Message::Welcome } else { Message::Refused };
                self.dials[dial].to[1 - side].push_back(answered);
            }
            Message::Refused => self.tables[side].dialled(NAMES[1 - side], lane),
            Message::Welcome => {
                self.tables[side].dialled(NAMES[1 - side], lane);
                if self.reserve(side, dial) {
                    self.dials[dial].to[0].push_back(Message::Up);
                    self.dials[dial].to[1].push_back(Message::Up);
                } else {
                    self.dials[dial].to[1 - side].push_back(Message::Closed);
                }
            }
            Message::Up => {
                if let Some(link) = self.ever[side].get(&dial) {
                    self.tables[side].link_up(link, self.now, &mut effects);
                }
            }
            Message::Closed => {
                if let Some(link) = self.links[side].remove(&dial) {
                    self.tables[side].link_closed(&link, "closed", &mut effects);
                    answer(1 - side, Message::Closed);
                }
            }
        }
        self.apply(side, effects);
        true
    }

    /// Loses one of a side's connections.
    fn lose(&mut self, side: usize, which: usize) {
        let dial = self.links[side].keys().nth(which % 8).copied();
        if let Some(dial) = dial {
            let link = self.links[side].remove(&dial).unwrap();
            let mut effects = Effects::default();
            self.tables[side].link_closed(&link, "lost", &mut effects);
            self.dials[dial].to[1 - side].push_back(Message::Closed);
            self.apply(side, effects);
        }
    }

    /// Delivers and dials until nothing moves.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut has_moved = false;
            for dial in 0..self.dials.len() {
                for side in [0, 1] {
                    while self.deliver(dial, side) {
                        has_moved = true;
                    }
                }
            }
            has_moved |= !has_moved && (self.dial(0) || self.dial(1));
            if !has_moved {
                return;
            }
        }
        panic!("never at rest");
    }

    fn check(&self) {
        let all: Vec<_> = all_lanes(LANES).collect();
        for side in [0, 1] {
            let peer = self.tables[side].peer(id(1 - side)).unwrap();
            assert!(peer.up_since.is_some());
            assert_eq!(peer.slots.keys().copied().collect::<Vec<_>>(), all);
            let mut is_up = false;
            for event in &self.events[side] {
                let comes_up = matches!(event, PeerEvent::Up(_));
                assert_ne!(comes_up, is_up, "{:?}", self.events[side]);
                is_up = comes_up;
            }
            assert!(is_up);
        }
        let dials = |side: usize| self.links[side].keys().copied().collect::<Vec<_>>();
        assert_eq!(dials(0), dials(1), "both hold the same connections");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever crosses whatever, both sides come to rest with the same connections, one for each lane.
    #[test]
    fn both_sides_agree_after_any_crossing(steps in prop::collection::vec((0..8_u8, 0..16_usize), 0..80)) {
        let mut world = World::new();
        for (what, which) in steps {
            match what {
                0 | 1 => { world.dial(usize::from(what)); }
                2 => world.lose(which % 2, which / 2),
                _ => if !world.dials.is_empty() {
                    // Mostly the newest: those are what cross.
                    let dial = world.dials.len() - 1 - (which / 2) % world.dials.len();
                    world.deliver(dial, which % 2);
                },
            }
        }
        world.settle();
        world.check();
    }
}

#[test]
fn crossing_dials_leave_the_one_of_the_smaller_id() {
    let mut world = World::new();
    // Both hellos are on their way before either arrives, and the dialers have not noted each other.
    assert!(world.dial(0) && world.dial(1));
    world.tables[0].dialled(NAMES[1], (Channel::Control, 0));
    for (dial, side) in [(1, 0), (0, 1), (1, 1), (0, 0)] {
        assert!(world.deliver(dial, side));
    }
    assert_eq!(world.links[0].keys().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(world.links[1].keys().copied().collect::<Vec<_>>(), [0]);
    world.settle();
    world.check();
}

#[test]
fn a_connection_that_was_replaced_does_not_bring_its_peer_up() {
    let mut table = Table::new(id(1), [1, 1, 1]);
    let now = Instant::now();
    let mut effects = Effects::default();
    let mut reserve = |channel, effects: &mut Effects| {
        let hello = NodeHello { lanes: [1, 1, 1], ..hello(0, (channel, 0)) };
        let claim = Claim { hello: &hello, by_smaller: true, is_own: false };
        table.reserve(&claim, now, effects).unwrap()
    };
    let [control, data, old] = Channel::ALL.map(|channel| reserve(channel, &mut effects));
    let new = reserve(Channel::Relay, &mut effects);
    assert_eq!(effects.close.iter().map(|(link, _)| link.id).collect::<Vec<_>>(), [old.id]);
    for link in [&control, &data, &old] {
        table.link_up(link, now, &mut effects);
    }
    assert!(effects.events.is_empty());
    table.link_up(&new, now, &mut effects);
    assert!(matches!(&effects.events[..], [PeerEvent::Up(_)]) && effects.publish);
}

#[test]
fn a_second_process_and_a_namesake_are_refused_while_the_first_is_there() {
    let mut world = World::new();
    world.settle();
    let claim = |hello: &NodeHello, table: &mut Table| {
        let claim = Claim { hello, by_smaller: false, is_own: false };
        table.reserve(&claim, Instant::now(), &mut Effects::default()).map(|_| ())
    };
    let clone = NodeHello { boot: [8; 16], ..hello(1, (Channel::Control, 0)) };
    let namesake = NodeHello { uuid: [7; 16], ..clone.clone() };
    let table = &mut world.tables[0];
    assert_eq!(claim(&clone, table), Err(Refused::Clone(id(1).to_string())));
    assert_eq!(claim(&namesake, table), Err(Refused::NameTaken("n2".into())));
    let mut effects = Effects::default();
    table.take_down(id(1), "gone", &mut effects);
    assert_eq!(effects.close.len(), 4);
    assert_eq!(claim(&namesake, table), Ok(()));
}

#[test]
fn peers_that_nobody_wants_go_after_a_while_and_those_no_longer_wanted_at_once() {
    let mut world = World::new();
    world.settle();
    let (table, now) = (&mut world.tables[0], world.now);
    let mut effects = Effects::default();
    table.wanted.clear();
    assert!(table.overdue(now).next().is_none());
    table.reap(now + GRACE / 2, |_| false, &mut effects);
    assert!(effects.close.is_empty());
    table.keep(id(1), now + GRACE / 2);
    table.reap(now + GRACE, |_| false, &mut effects);
    assert!(effects.close.is_empty(), "kept a while longer");
    table.want(BTreeMap::from([(id(1), vec![]), (id(0), vec![])]), |_| false, &mut effects);
    assert_eq!(table.wanted.len(), 1, "never itself");
    table.reap(now + GRACE * 9, |_| false, &mut effects);
    assert!(effects.close.is_empty());
    table.want(BTreeMap::new(), |_| false, &mut effects);
    assert!(effects.close.len() == 4 && table.peer(id(1)).is_none());
}

#[test]
fn lanes_are_those_that_both_sides_have() {
    assert_eq!(effective([1, 2, 4], [2, 1, 3]), [1, 1, 3]);
    assert_eq!(all_lanes([1, 2, 1]).count(), 4);
}
