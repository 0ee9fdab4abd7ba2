//! A run: nodes, network, faults and clients in virtual time, from a plan to a verdict.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use weald_storage::{Actor, Dot, NodeId, Replicated};

use super::clients::Client;
use super::history::{Dump, History, Place, PlaceDump, Violation};
use super::invariants;
use super::links::LINKS_MS;
use super::net::{Net, Weather};
use super::plan::Plan;
use super::process::{Disk, Identity, Packet, Process, Setting, Times};
use super::queue::Queue;
use super::replicas::{Notes, Replicas, places};
use super::sometimes::Sometimes;
use super::trace::Trace;
use crate::seed::Seeded;

/// Between two snapshots of disks, and how many are kept.
const SNAPSHOT_MS: u64 = 1_000;
const SNAPSHOTS_MAX: usize = 16;
/// Between two looks at what nodes hold, in the midst of faults.
const DUMP_MS: u64 = 5_000;
/// Wall clocks at the start.
pub(super) const WALL_MS: u64 = 1_800_000_000_000;

/// What is to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame arrives, unless its connection is gone.
    Arrive {
        path: (usize, usize),
        connection: u64,
        packet: Packet,
    },
    /// A timer of a node.
    Wake {
        slot: usize,
        life: u64,
    },
    /// Connections are made and broken.
    Links,
    /// Disks are copied.
    Snapshot,
    /// What nodes hold is looked at.
    Look,
    /// The fault of this number begins, or ends.
    Begin(usize),
    End(usize),
    /// One link is cut, or mended.
    Cut(usize, usize),
    Mend(usize, usize),
    /// A node is started, once nothing keeps it down.
    Start(usize),
    /// A client does something.
    Client(usize),
}

/// Where a node may run.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) process: Option<Process>,
    pub(super) disk: Option<Disk>,
    pub(super) snapshots: VecDeque<(u64, Disk)>,
    /// How many faults keep it down.
    pub(super) down: u32,
    /// How many faults keep it from running; what reaches it meanwhile.
    pub(super) paused: u32,
    pub(super) held: Vec<Event>,
    pub(super) full: u32,
    pub(super) wall_offset_ms: i64,
    /// Counts its processes.
    pub(super) life: u64,
    /// When its timer is set.
    pub(super) wake_ms: Option<u64>,
    /// Actors under which it goes on from older data without some of their events, and without knowing: no client is sent
    /// there until it has noticed.
    pub(super) amnesiac: BTreeSet<Actor>,
    pub(super) role: Role,
}

/// Whether a slot's node belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Not yet.
    Future,
    /// Yes.
    Member,
    /// It is on its way out; no client is sent there.
    Leaving,
    /// No longer.
    Gone,
}

/// A connection between two nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    pub(super) number: u64,
    /// When both directions were last open.
    pub(super) whole_ms: u64,
}

/// A run.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) queue: Queue<Event>,
    pub(super) rng: Seeded,
    pub(super) net: Net,
    pub(super) trace: Trace,
    pub(super) history: History,
    pub(super) sometimes: Sometimes,
    pub(super) slots: Vec<Slot>,
    ids: BTreeMap<NodeId, usize>,
    pub(super) links: BTreeMap<(usize, usize), Connection>,
    pub(super) connections: u64,
    pub(super) clients: Vec<Client>,
    violation: Option<Violation>,
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: Trace,
    /// What was gone through.
    pub sometimes: Sometimes,
    /// How long the cluster took to come to rest after the faults.
    pub healed_ms: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Events that went down with all nodes that had them.
    pub lost: usize,
}

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong by plan.
    pub plan: Plan,
    /// What should not have been.
    pub violation: Violation,
    /// When it was found.
    pub at_ms: u64,
    /// What the nodes held then.
    pub nodes: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {} ms: {}", self.plan.seed, self.at_ms, self.violation)?;
        write!(f, "{}{}", self.plan, self.nodes)?;
        write!(
            f,
            "replay: WEALD_SIM_SEED={} cargo test -p weald-tests --test sim -- seeds --nocapture",
            self.plan.seed
        )
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// The first violation of an invariant.
pub fn run(plan: &Plan) -> Result<Report, Box<Failure>> {
    let mut world = World::new(plan.clone());
    let done = world.safety().and_then(|()| world.heal());
    match done {
        Ok(healed_ms) => Ok(Report {
            trace: world.trace,
            sometimes: world.sometimes,
            healed_ms,
            operations: world.history.writes.len() + world.history.reads.len(),
            lost: world.history.lost.len(),
        }),
        Err(violation) => {
            let (at_ms, nodes) = (world.queue.now_ms(), world.describe());
            Err(Box::new(Failure { plan: world.plan, violation, at_ms, nodes }))
        }
    }
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = Seeded::new(plan.seed ^ 0x5eed);
        let slots = (0..plan.slots).map(|slot| Slot::new(slot < plan.nodes)).collect();
        let clients = (0..plan.sessions).map(|n| Client::new(n, rng.any(), plan.nodes)).collect();
        let mut world = Self {
            queue: Queue::default(),
            net: Net::new(plan.weather),
            trace: Trace::default(),
            history: History::default(),
            sometimes: Sometimes::default(),
            slots,
            ids: BTreeMap::new(),
            links: BTreeMap::new(),
            connections: 0,
            clients,
            violation: None,
            rng,
            plan,
        };
        for slot in 0..world.plan.nodes {
            let at_ms = world.rng.any() % 1_000;
            world.queue.at(at_ms, Event::Start(slot));
        }
        for number in 0..world.plan.faults.len() {
            let scheduled = &world.plan.faults[number];
            world.queue.at(scheduled.at_ms, Event::Begin(number));
            if scheduled.for_ms > 0 {
                world.queue.at(scheduled.at_ms + scheduled.for_ms, Event::End(number));
            }
        }
        for client in 0..world.clients.len() {
            world.queue.at(2_000 + client as u64, Event::Client(client));
        }
        world.queue.at(LINKS_MS, Event::Links);
        world.queue.at(SNAPSHOT_MS, Event::Snapshot);
        world.queue.at(DUMP_MS, Event::Look);
        world
    }

    /// Clients and faults at the same time.
    fn safety(&mut self) -> Result<(), Violation> {
        self.run_until(self.plan.safety_ms)?;
        invariants::always(&self.history, &self.dumps(false))
    }

    /// All faults are over: the cluster has to come to rest. How long that took.
    fn heal(&mut self) -> Result<u64, Violation> {
        let begun_ms = self.queue.now_ms();
        self.net.weather = Weather { jitter_ms: self.plan.weather.jitter_ms, ..Weather::FAIR };
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            process.replicas.scrub();
        }
        while self.queue.now_ms() < begun_ms + self.plan.heal_ms {
            self.run_until(self.queue.now_ms() + 500)?;
            if self.is_at_rest() {
                let dumps = self.dumps(true);
                if invariants::p03_convergence::check(&dumps).is_ok() {
                    self.note_departed();
                    invariants::at_rest(&self.history, &dumps)?;
                    return Ok(self.queue.now_ms() - begun_ms);
                }
            }
        }
        self.note_departed();
        let dumps = self.dumps(true);
        invariants::at_rest(&self.history, &dumps)?;
        Err(super::history::violation("P3 convergence", self.unrest()))
    }

    fn run_until(&mut self, until_ms: u64) -> Result<(), Violation> {
        while let Some(event) = self.queue.next(until_ms) {
            self.handle(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { path, connection, packet } => self.arrive(path, connection, packet),
            Event::Wake { slot, life } => self.wake(slot, life),
            Event::Links => self.links(),
            Event::Snapshot => self.snapshot(),
            Event::Look => self.look(),
            Event::Begin(number) => self.begin_fault(number),
            Event::End(number) => self.end_fault(number),
            Event::Cut(a, b) => {
                self.net.cut(a, b);
                self.net.cut(b, a);
            }
            Event::Mend(a, b) => {
                self.net.mend(a, b);
                self.net.mend(b, a);
            }
            Event::Start(slot) => self.start(slot),
            Event::Client(client) => self.client(client),
        }
    }

    /// Does something with a running node, then sends what it wants to send and sets its timer.
    pub(super) fn with<T>(
        &mut self,
        slot: usize,
        step: impl FnOnce(&mut Process, &mut Notes<'_>) -> T,
    ) -> Option<T> {
        let now_ms = self.queue.now_ms();
        let wall_ms = self.wall_ms(slot);
        let place = &mut self.slots[slot];
        let process = place.process.as_mut()?;
        let mut notes = Notes {
            history: &mut self.history,
            sometimes: &mut self.sometimes,
            now_ms,
            wall_ms,
            node: slot,
        };
        let result = step(process, &mut notes);
        let packets = std::mem::take(&mut process.outbox);
        let deadline = process.next_deadline().max(now_ms + 1);
        if place.wake_ms.is_none_or(|set| deadline < set || set <= now_ms) {
            place.wake_ms = Some(deadline);
            let life = place.life;
            self.queue.at(deadline, Event::Wake { slot, life });
        }
        for packet in packets {
            self.send(slot, packet);
        }
        Some(result)
    }

    pub(super) fn wall_ms(&self, slot: usize) -> u64 {
        (WALL_MS + self.queue.now_ms()).saturating_add_signed(self.slots[slot].wall_offset_ms)
    }

    fn send(&mut self, from: usize, packet: Packet) {
        let Some(&to) = self.ids.get(&packet.to) else { return };
        let Some(link) = self.links.get(&pair(from, to)) else { return };
        let connection = link.number;
        let path = (from, to);
        let lane = u8::try_from(packet.channel as usize).unwrap_or_default();
        self.trace.number(packet.kind.into());
        self.trace.bytes(&packet.body);
        let [once, again] = self.net.send(self.queue.now_ms(), path, lane, &mut self.rng);
        if let Some(at_ms) = again {
            let packet = packet.clone();
            self.queue.at(at_ms, Event::Arrive { path, connection, packet });
        }
        if let Some(at_ms) = once {
            self.queue.at(at_ms, Event::Arrive { path, connection, packet });
        }
    }

    fn arrive(&mut self, path: (usize, usize), connection: u64, packet: Packet) {
        let (from, to) = path;
        if self.links.get(&pair(from, to)).is_none_or(|link| link.number != connection)
            || !self.net.passes(from, to)
        {
            return;
        }
        if self.slots[to].paused > 0 {
            self.slots[to].held.push(Event::Arrive { path, connection, packet });
            return;
        }
        let Some(sender) = self.slots[from].process.as_ref().map(|p| p.identity.node) else {
            return;
        };
        self.trace.number(self.queue.now_ms());
        self.trace.number((from * 64 + to) as u64);
        let Packet { kind, body, .. } = packet;
        self.with(to, |process, notes| process.frame(sender, kind, &body, notes));
    }

    fn wake(&mut self, slot: usize, life: u64) {
        let place = &mut self.slots[slot];
        if place.life != life || place.wake_ms.is_none_or(|set| set > self.queue.now_ms()) {
            return;
        }
        place.wake_ms = None;
        if place.paused > 0 {
            place.held.push(Event::Wake { slot, life });
            place.wake_ms = Some(self.queue.now_ms());
            return;
        }
        self.with(slot, Process::wake);
        let has_left = self.slots[slot].process.as_ref().is_some_and(|process| process.has_left);
        if has_left {
            self.gone(slot);
        }
    }

    /// Ends a process without warning; its connections break.
    pub(super) fn stop(&mut self, slot: usize) {
        let Some(process) = self.slots[slot].process.take() else { return };
        self.slots[slot].disk = Some(process.to_disk());
        self.slots[slot].held.clear();
        self.slots[slot].wake_ms = None;
        let broken: Vec<(usize, usize)> =
            self.links.keys().copied().filter(|(a, b)| *a == slot || *b == slot).collect();
        for (a, b) in broken {
            self.disconnect(a, b);
        }
        self.note_lost_memory(slot);
        self.end_promises(slot);
    }

    /// Starts a node on what its disk holds.
    pub(super) fn start(&mut self, slot: usize) {
        if self.slots[slot].down > 0
            || self.slots[slot].process.is_some()
            || self.slots[slot].role == Role::Gone
        {
            return;
        }
        let disk = match self.slots[slot].disk.take() {
            Some(disk) => disk,
            None => self.blank(slot),
        };
        let times = Times {
            exchange_ms: 2_000,
            ack_ms: 1_000,
            idle_ms: 5_000,
            min_age_ms: self.plan.min_age_ms,
            max_absence_ms: self.plan.max_absence_ms,
        };
        let seeds = (0..self.plan.nodes).filter(|seed| *seed != slot).collect();
        let (is_overlay, seed) = (self.plan.is_overlay, self.rng.any());
        self.ids.insert(disk.identity.node, slot);
        let (now_ms, wall_ms) = (self.queue.now_ms(), self.wall_ms(slot));
        let mut notes = Notes {
            history: &mut self.history,
            sometimes: &mut self.sometimes,
            now_ms,
            wall_ms,
            node: slot,
        };
        let setting = Setting { times, is_overlay, seeds, seed };
        let mut process = Process::start(disk, setting, &mut notes);
        let place = &mut self.slots[slot];
        place.life += 1;
        place.wake_ms = None;
        process.is_full = place.full > 0;
        place.amnesiac = places()
            .filter_map(|place| forgetful(&self.history, &process.replicas, place))
            .collect();
        place.process = Some(process);
        self.trace.number(slot as u64);
        self.with(slot, Process::wake);
    }

    /// A disk that was never used, or was wiped.
    fn blank(&mut self, slot: usize) -> Disk {
        let mut id = [0; 16];
        id.copy_from_slice(&self.rng.bytes(16));
        // The slot is to be seen in what is printed.
        id[15] = u8::try_from(slot).unwrap_or(u8::MAX);
        let (node, name) = (NodeId(id), format!("node{slot}"));
        let identity = Identity { slot, node, name, incarnation: 0, memory_incarnation: 0 };
        let replicas = Replicas::new(&identity);
        Disk { replicas, identity, members: None, is_clean: false }
    }

    fn snapshot(&mut self) {
        let now_ms = self.queue.now_ms();
        for slot in &mut self.slots {
            if let Some(process) = &slot.process {
                slot.snapshots.push_back((now_ms, process.to_disk()));
                while slot.snapshots.len() > SNAPSHOTS_MAX {
                    slot.snapshots.pop_front();
                }
            }
        }
        self.queue.after(SNAPSHOT_MS, Event::Snapshot);
    }

    fn look(&mut self) {
        // Scrubs come by in the midst of faults, too.
        for process in self.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            process.replicas.scrub();
        }
        let dumps = self.dumps(false);
        if let Err(violation) = invariants::always(&self.history, &dumps) {
            self.violation = Some(violation);
        }
        self.queue.after(DUMP_MS, Event::Look);
    }

    /// What nodes hold: all that run, or the members only.
    pub(super) fn dumps(&self, members_only: bool) -> Vec<Dump> {
        let mut dumps = Vec::new();
        for (slot, at) in self.slots.iter().enumerate() {
            let Some(process) = &at.process else { continue };
            if members_only && at.role != Role::Member {
                continue;
            }
            let replicas = &process.replicas;
            let dump = |place: Place| PlaceDump {
                actor: replicas.of(place).actor(),
                swept: replicas.of(place).swept().unwrap_or_default(),
                clock: replicas.clock(place),
                objects: replicas.objects(place),
                root: replicas.of(place).tree_root().expect("a replica in memory can be read"),
            };
            let places = places().map(|place| (place, dump(place))).collect();
            dumps.push(Dump { node: slot, at_ms: self.queue.now_ms(), places });
        }
        dumps
    }

    fn is_at_rest(&self) -> bool {
        let members = self.slots.iter().filter(|slot| slot.role == Role::Member);
        let mut first: Option<Vec<_>> = None;
        for slot in members {
            let Some(process) = &slot.process else { return false };
            let sums: Vec<_> = places()
                .map(|place| {
                    let replica = process.replicas.of(place);
                    (process.replicas.clock(place).digest(), replica.tree_root().ok())
                })
                .collect();
            if *first.get_or_insert_with(|| sums.clone()) != sums {
                return false;
            }
        }
        true
    }

    /// What the nodes hold, in a few lines each.
    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (slot, at) in self.slots.iter().enumerate() {
            let Some(process) = &at.process else {
                lines.push(format!("  node {slot} ({:?}) does not run", at.role));
                continue;
            };
            lines.push(format!(
                "  node {slot} ({:?}) {} sees {} peers, {} neighbours",
                at.role,
                process.identity.node,
                process.cluster.peers().count(),
                process.cluster.neighbours.len()
            ));
            for place in places() {
                let replica = process.replicas.of(place);
                lines.push(format!(
                    "    {place:?}: {} objects, {} events, clock {:?}, swept {:?}",
                    replica.objects().count(),
                    replica.events_len(),
                    process.replicas.clock(place),
                    replica.swept().ok()
                ));
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn unrest(&self) -> String {
        let running = self.slots.iter().filter(|slot| slot.process.is_some()).count();
        format!("not at rest after {} ms, {running} nodes run", self.plan.heal_ms)
    }

    /// Events that no other node has processed are lost with this one's copy of them.
    pub(super) fn note_lost(&mut self, slot: usize, had: &BTreeSet<(Place, Dot)>) {
        for (place, dot) in had {
            if !self.is_known_elsewhere(slot, *place, *dot) {
                self.history.lost.insert((*place, *dot));
            }
        }
    }

    pub(super) fn is_known_elsewhere(&self, slot: usize, place: Place, dot: Dot) -> bool {
        self.slots.iter().enumerate().any(|(other, at)| {
            let replicas = match (&at.process, &at.disk) {
                (Some(process), _) => &process.replicas,
                (None, Some(disk)) if !place.is_memory() => &disk.replicas,
                _ => return false,
            };
            other != slot && matches!(at.role, Role::Member) && replicas.clock(place).contains(&dot)
        })
    }

    /// What nodes hold that are on their way out and have not noticed.
    fn note_departed(&mut self) {
        for slot in 0..self.slots.len() {
            let at = &self.slots[slot];
            if at.role == Role::Leaving
                && let Some(process) = &at.process
            {
                let had = self.known_dots(&process.replicas, |_| true);
                self.note_lost(slot, &had);
            }
        }
    }

    fn note_lost_memory(&mut self, slot: usize) {
        let Some(disk) = &self.slots[slot].disk else { return };
        let had = self.known_dots(&disk.replicas, Place::is_memory);
        self.note_lost(slot, &had);
    }

    /// The dots of all writes so far that these replicas have processed.
    pub(super) fn known_dots(
        &self,
        replicas: &Replicas,
        of: impl Fn(Place) -> bool,
    ) -> BTreeSet<(Place, Dot)> {
        let clocks: BTreeMap<Place, _> =
            places().filter(|p| of(*p)).map(|place| (place, replicas.clock(place))).collect();
        let issued = self.history.writes.iter();
        issued
            .filter_map(|write| write.dot.map(|dot| (write.key.place, dot)))
            .filter(|(place, dot)| clocks.get(place).is_some_and(|clock| clock.contains(dot)))
            .collect()
    }
}

impl Slot {
    fn new(is_member: bool) -> Self {
        Self {
            process: None,
            disk: None,
            snapshots: VecDeque::new(),
            down: 0,
            paused: 0,
            held: Vec::new(),
            full: 0,
            wall_offset_ms: 0,
            life: 0,
            wake_ms: None,
            amnesiac: BTreeSet::new(),
            role: if is_member { Role::Member } else { Role::Future },
        }
    }
}

/// The actor of a place, if it has issued more dots than it knows: it would issue them again.
fn forgetful(history: &History, replicas: &Replicas, place: Place) -> Option<Actor> {
    let (actor, clock) = (replicas.of(place).actor(), replicas.clock(place));
    let mut own = history.writes.iter().filter(|write| write.key.place == place);
    let forgot =
        own.any(|write| write.dot.is_some_and(|dot| dot.actor == actor && !clock.contains(&dot)));
    forgot.then_some(actor)
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
