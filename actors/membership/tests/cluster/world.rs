//! Many cores in one place: a seeded scheduler with links that can be cut.
//!
//! Connections follow what the cores want, as the transport would make them: dialled every half second, refused by
//! admission, gone when neither side wants them. A cut link with `breaks` ends its connection; otherwise messages vanish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_membership::admission::admit;
use weald_membership::config::{Config, Strategy};
use weald_membership::core::{Event, Force, Input, Membership, OpError, Output, Own};
use weald_membership::messages::Message;
use weald_membership::rng::Rng;
use weald_membership::saved::Saved;
use weald_peers::{Liveness, PeerInfo, Status};
use weald_storage::NodeId;

pub(crate) const TICK_MS: u64 = 100;
const DIAL_MS: u64 = 500;

pub(crate) type Replies = BTreeMap<u64, Result<(), OpError>>;

pub(crate) struct Node {
    pub(crate) core: Membership,
    pub(crate) own: Own,
    pub(crate) is_running: bool,
    pub(crate) wanted: BTreeMap<NodeId, Vec<String>>,
    pub(crate) connected: BTreeSet<NodeId>,
    pub(crate) saved: Option<Vec<u8>>,
    pub(crate) replies: Replies,
    pub(crate) events: Vec<(u64, Event)>,
    dials: Vec<(u64, Vec<String>)>,
    /// Peers that came by a dialled seed stay for a while.
    held: BTreeMap<NodeId, u64>,
}

enum What {
    Message(Message),
    Up(Arc<PeerInfo>),
    Down,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) sent: u64,
    pub(crate) bytes_max: usize,
    /// Records that were sent, each time it is sent.
    pub(crate) copies: u64,
    /// Percent of messages that vanish.
    pub(crate) loss: usize,
    config: Config,
    rng: Rng,
    /// By time and number: to whom, from whom, what.
    queue: BTreeMap<(u64, u64), (NodeId, NodeId, What)>,
    next: u64,
    /// Directed links over which nothing passes; `true` if the connection breaks, too.
    cut: BTreeMap<(NodeId, NodeId), bool>,
    next_request: u64,
    next_dial_ms: u64,
}

pub(crate) fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

pub(crate) fn address(number: u8) -> String {
    format!("10.0.0.{number}:18086")
}

pub(crate) fn own(number: u8) -> Own {
    Own {
        node: id(number),
        name: format!("node-{number}"),
        incarnation: 1,
        addresses: vec![address(number)],
        capabilities: vec!["x".into()],
    }
}

impl World {
    pub(crate) fn new(seed: u64, strategy: Strategy) -> Self {
        Self::with(seed, Config { strategy, ..Config::default() })
    }

    pub(crate) fn with(seed: u64, config: Config) -> Self {
        Self {
            now_ms: 10_000,
            nodes: BTreeMap::new(),
            sent: 0,
            bytes_max: 0,
            copies: 0,
            loss: 0,
            config,
            rng: Rng::new(seed),
            queue: BTreeMap::new(),
            next: 0,
            cut: BTreeMap::new(),
            next_request: 1,
            next_dial_ms: 0,
        }
    }

    /// A world of nodes 1 to `count` that were joined one after the other through node 1.
    pub(crate) fn cluster(seed: u64, strategy: Strategy, count: u8) -> Self {
        let mut world = Self::new(seed, strategy);
        for number in 1..=count {
            world.start(&own(number));
            if number > 1 {
                world.join(number, &[1]);
            }
        }
        world.run_until(30_000, |world| world.is_whole(count.into()));
        world
    }

    pub(crate) fn start(&mut self, own: &Own) {
        let saved = self.nodes.get(&own.node).and_then(|node| node.saved.clone());
        let saved = saved.map(|bytes| Saved::decode(&bytes).unwrap());
        let seed = self.rng.number();
        let wall_ms = self.wall_ms();
        let (core, outputs) =
            Membership::new(self.config.clone(), own, saved, seed, self.now_ms, wall_ms);
        let node = Node {
            core,
            own: own.clone(),
            is_running: true,
            wanted: BTreeMap::new(),
            connected: BTreeSet::new(),
            saved: self.nodes.get(&own.node).and_then(|node| node.saved.clone()),
            replies: Replies::new(),
            events: Vec::new(),
            dials: Vec::new(),
            held: BTreeMap::new(),
        };
        let id = own.node;
        self.nodes.insert(id, node);
        self.carry_out(id, outputs);
    }

    /// Starts a stopped node again, with a new incarnation.
    pub(crate) fn restart(&mut self, number: u8) {
        let node = self.nodes.get_mut(&id(number)).unwrap();
        node.own.incarnation += 1;
        let own = node.own.clone();
        self.start(&own);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, number: u8) {
        self.kill_id(id(number));
    }

    pub(crate) fn kill_id(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).unwrap().is_running = false;
        let peers: Vec<NodeId> = self.nodes.get(&node).unwrap().connected.iter().copied().collect();
        for peer in peers {
            self.disconnect(node, peer);
        }
    }

    /// The process stops without its connections breaking.
    pub(crate) fn freeze(&mut self, number: u8) {
        self.nodes.get_mut(&id(number)).unwrap().is_running = false;
    }

    /// It goes on.
    pub(crate) fn thaw(&mut self, number: u8) {
        self.nodes.get_mut(&id(number)).unwrap().is_running = true;
    }

    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId, breaks: bool) {
        self.cut.insert((a, b), breaks);
        self.cut.insert((b, a), breaks);
        if breaks && self.nodes.get(&a).is_some_and(|node| node.connected.contains(&b)) {
            self.disconnect(a, b);
        }
    }

    /// Cuts every link between two sides.
    pub(crate) fn split(&mut self, is_left: impl Fn(NodeId) -> bool, breaks: bool) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for a in ids.iter().copied().filter(|a| is_left(*a)) {
            for b in ids.iter().copied().filter(|b| !is_left(*b)) {
                self.cut(a, b, breaks);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn join(&mut self, number: u8, through: &[u8]) -> u64 {
        let request = self.take_request();
        let addresses = through.iter().map(|n| address(*n)).collect();
        let deadline_ms = self.now_ms + 30_000;
        self.input(id(number), Input::Join { request, addresses, deadline_ms });
        request
    }

    pub(crate) fn leave(&mut self, number: u8) -> u64 {
        let request = self.take_request();
        let deadline_ms = self.now_ms + 5_000;
        self.input(id(number), Input::Leave { request, deadline_ms });
        request
    }

    pub(crate) fn forget(&mut self, number: u8, who: &str, force: Force) -> Result<(), OpError> {
        let request = self.take_request();
        self.input(id(number), Input::Forget { request, who: who.to_owned(), force });
        self.reply(number, request).unwrap()
    }

    pub(crate) fn reply(&self, number: u8, request: u64) -> Option<Result<(), OpError>> {
        self.node(number).replies.get(&request).cloned()
    }

    fn take_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    pub(crate) fn node(&self, number: u8) -> &Node {
        &self.nodes[&id(number)]
    }

    pub(crate) fn input(&mut self, node: NodeId, input: Input) {
        let wall_ms = self.wall_ms();
        let now_ms = self.now_ms;
        let outputs = match self.nodes.get_mut(&node) {
            Some(node) if node.is_running => node.core.handle(now_ms, wall_ms, input),
            _ => return,
        };
        self.carry_out(node, outputs);
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.now_ms
    }

    fn carry_out(&mut self, id: NodeId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => self.send(id, to, message),
                Output::Connect(wanted) => self.want(id, wanted),
                Output::DialSeed { ticket, addresses } => {
                    self.nodes.get_mut(&id).unwrap().dials.push((ticket, addresses));
                }
                Output::Changed => {}
                Output::Persist(bytes) => self.nodes.get_mut(&id).unwrap().saved = Some(bytes),
                Output::Event(event) => {
                    let now_ms = self.now_ms;
                    self.nodes.get_mut(&id).unwrap().events.push((now_ms, event));
                }
                Output::Reply { request, result } => {
                    self.nodes.get_mut(&id).unwrap().replies.insert(request, result);
                }
                Output::RenewIncarnation { above } => {
                    self.nodes.get_mut(&id).unwrap().own.incarnation = above + 1;
                    self.input(id, Input::Incarnation(above + 1));
                }
            }
        }
    }

    /// Who was wanted and is not any more goes at once.
    fn want(&mut self, id: NodeId, wanted: BTreeMap<NodeId, Vec<String>>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let before = std::mem::replace(&mut node.wanted, wanted);
        let gone = before.into_keys().filter(|peer| !node.wanted.contains_key(peer));
        for peer in gone.collect::<Vec<_>>() {
            self.disconnect(id, peer);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.sent += 1;
        self.copies += message.records.len() as u64;
        // Large ones always, of the others some: it takes most of the time.
        if self.sent.is_multiple_of(16) || !message.records.is_empty() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "messages stay in bounds");
            self.bytes_max = self.bytes_max.max(bytes.len());
        }
        if self.rng.below(100) < self.loss {
            return;
        }
        let is_connected = self.nodes[&from].connected.contains(&to);
        if is_connected && !self.cut.contains_key(&(from, to)) {
            self.post(to, from, What::Message(message));
        }
    }

    fn post(&mut self, to: NodeId, from: NodeId, what: What) {
        self.post_late(0, to, from, what);
    }

    fn post_late(&mut self, late_ms: u64, to: NodeId, from: NodeId, what: What) {
        self.next += 1;
        // Same delay for everything on a link keeps its order.
        let delay_ms = late_ms + 1 + u64::from(to.0[0] ^ from.0[0]) % 4;
        self.queue.insert((self.now_ms + delay_ms, self.next), (to, from, what));
    }

    fn info(&self, node: NodeId) -> Arc<PeerInfo> {
        let own = &self.nodes[&node].own;
        Arc::new(PeerInfo {
            node,
            name: own.name.clone(),
            incarnation: own.incarnation,
            addresses: own.addresses.clone(),
            capabilities: own.capabilities.clone(),
        })
    }

    fn connect(&mut self, a: NodeId, b: NodeId) -> Result<(), String> {
        let is_cut = |a, b| self.cut.contains_key(&(a, b));
        if a == b {
            return Err("itself".into());
        }
        if !self.nodes[&b].is_running || is_cut(a, b) || is_cut(b, a) {
            return Err("unreachable".into());
        }
        if self.nodes[&a].connected.contains(&b) {
            return Ok(());
        }
        let cluster = |node: NodeId| self.nodes[&node].core.cluster();
        admit(&cluster(b), &self.info(a)).map_err(|e| e.to_string())?;
        admit(&cluster(a), &self.info(b)).map_err(|e| e.to_string())?;
        for (one, other) in [(a, b), (b, a)] {
            self.nodes.get_mut(&one).unwrap().connected.insert(other);
            let info = self.info(other);
            // The greater id is told a little later, after the first messages of the other.
            let late_ms = if one > other { 30 } else { 0 };
            self.post_late(late_ms, one, other, What::Up(info));
        }
        Ok(())
    }

    fn disconnect(&mut self, a: NodeId, b: NodeId) {
        for (one, other) in [(a, b), (b, a)] {
            if self.nodes.get_mut(&one).unwrap().connected.remove(&other) {
                self.post(one, other, What::Down);
            }
        }
    }

    fn dial(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for from in ids {
            if !self.nodes[&from].is_running {
                continue;
            }
            for (ticket, addresses) in std::mem::take(&mut self.nodes.get_mut(&from).unwrap().dials)
            {
                let result = self.dial_seed(from, &addresses);
                self.input(from, Input::Dialled { ticket, result });
            }
            let wanted: Vec<(NodeId, Vec<String>)> =
                self.nodes[&from].wanted.iter().map(|(n, a)| (*n, a.clone())).collect();
            for (to, addresses) in wanted {
                let is_there = self
                    .nodes
                    .get(&to)
                    .is_some_and(|n| n.own.addresses.iter().any(|a| addresses.contains(a)));
                if is_there && !self.nodes[&from].connected.contains(&to) {
                    let _refused_or_not = self.connect(from, to);
                }
            }
            let now_ms = self.now_ms;
            let node = self.nodes.get_mut(&from).unwrap();
            node.held.retain(|_, until| *until > now_ms);
        }
        self.drop_unwanted();
    }

    fn drop_unwanted(&mut self) {
        let mut unwanted = Vec::new();
        for (from, node) in self.nodes.iter().filter(|(_, node)| node.is_running) {
            for to in &node.connected {
                let other = &self.nodes[to];
                let held = node.held.contains_key(to) || other.held.contains_key(from);
                let is_wanted = |node: &Node, to| node.wanted.contains_key(to);
                if !is_wanted(node, to) && !is_wanted(other, from) && !held {
                    unwanted.push((*from, *to));
                }
            }
        }
        for (a, b) in unwanted {
            self.disconnect(a, b);
        }
    }

    fn dial_seed(&mut self, from: NodeId, addresses: &[String]) -> Result<Arc<PeerInfo>, String> {
        let mut last = "nobody there".to_owned();
        for address in addresses {
            let there =
                self.nodes.iter().find(|(_, n)| n.is_running && n.own.addresses.contains(address));
            let Some(to) = there.map(|(node, _)| *node) else { continue };
            match self.connect(from, to) {
                Ok(()) => {
                    let until_ms = self.now_ms + 30_000;
                    self.nodes.get_mut(&from).unwrap().held.insert(to, until_ms);
                    return Ok(self.info(to));
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// One tick of time.
    pub(crate) fn step(&mut self) {
        let until_ms = self.now_ms + TICK_MS;
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > until_ms {
                break;
            }
            let (to, from, what) = self.queue.remove(&(at, number)).unwrap();
            self.now_ms = self.now_ms.max(at);
            let input = match what {
                What::Message(message) => Input::Message { from, message },
                What::Up(info) => Input::PeerUp(info),
                What::Down => Input::PeerDown(from),
            };
            self.input(to, input);
        }
        self.now_ms = until_ms;
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.input(id, Input::Tick);
        }
        if self.next_dial_ms <= self.now_ms {
            self.next_dial_ms = self.now_ms + DIAL_MS;
            self.dial();
        } else if self.nodes.values().any(|node| !node.dials.is_empty()) {
            self.dial();
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.step();
        }
    }

    /// Runs until something holds; returns how long it took.
    #[track_caller]
    pub(crate) fn run_until(&mut self, within_ms: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        let began_ms = self.now_ms;
        while !holds(self) {
            if self.now_ms - began_ms > within_ms {
                panic!("not within {within_ms} ms:\n{}", self.describe());
            }
            self.step();
        }
        self.now_ms - began_ms
    }

    /// What everybody thinks of everybody, for failures.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in &self.nodes {
            text +=
                &format!("{} {} running={}", &id.to_string()[..2], node.own.name, node.is_running);
            for (other, row) in node.core.view().rows() {
                let liveness = node.core.liveness(other);
                let tag = &other.to_string()[..2];
                let is_connected = if node.connected.contains(&other) { "+" } else { "" };
                text += &format!(" {tag}{is_connected}:{}/{liveness}", row.record.status);
            }
            text += "\n";
        }
        text
    }

    pub(crate) fn thinks(&self, number: u8, of: u8) -> (Option<Status>, Liveness) {
        let core = &self.node(number).core;
        (core.view().record(id(of)).map(|r| r.status), core.liveness(id(of)))
    }

    /// Whether all running nodes have the same view with `count` joined members, all up.
    pub(crate) fn is_whole(&self, count: usize) -> bool {
        let running = || self.nodes.values().filter(|node| node.is_running);
        let digests: BTreeSet<u64> = running().map(|node| node.core.view().digest()).collect();
        running().count() == count
            && digests.len() == 1
            && running().all(|node| {
                let members: Vec<NodeId> = node.core.view().members().map(|(n, _)| n).collect();
                members.len() == count
                    && members.iter().all(|n| node.core.liveness(*n) == Liveness::Up)
            })
    }

    /// Whether the neighbours make one graph over all running nodes.
    pub(crate) fn is_connected_overlay(&self) -> bool {
        let running: BTreeSet<NodeId> =
            self.nodes.iter().filter(|(_, n)| n.is_running).map(|(id, _)| *id).collect();
        let Some(first) = running.first() else { return true };
        let (mut seen, mut next) = (BTreeSet::from([*first]), vec![*first]);
        while let Some(node) = next.pop() {
            for other in self.nodes[&node].core.neighbours() {
                let mutual = self.nodes[other].core.neighbours().contains(&node);
                if mutual && running.contains(other) && seen.insert(*other) {
                    next.push(*other);
                }
            }
        }
        seen == running
    }

    pub(crate) fn events(&self, number: u8, name: &str) -> Vec<Event> {
        let events = self.node(number).events.iter().map(|(_, event)| event);
        events.filter(|event| event.name() == name).cloned().collect()
    }
}
