//! Faults as they begin and end.

use std::collections::BTreeSet;

use weald_storage::Dot;

use super::history::Place;
use super::plan::{Fault, Scheduled};
use super::replicas::{key, table};
use super::world::{Event, Role, World};

impl World {
    pub(super) fn begin_fault(&mut self, number: usize) {
        let Scheduled { fault, for_ms, .. } = self.plan.faults[number].clone();
        self.trace.number(number as u64);
        for (from, to) in self.cut_by(&fault) {
            self.net.cut(from, to);
        }
        match fault {
            Fault::Split { .. } | Fault::Partial { .. } | Fault::OneWay { .. } | Fault::Ring => {}
            Fault::Swizzle { links } => self.swizzle(&links, for_ms),
            Fault::Storm(weather) => self.net.weather = weather,
            Fault::Crash { node } => {
                self.slots[node].down += 1;
                self.stop(node);
            }
            Fault::Wipe { node } => {
                self.slots[node].down += 1;
                self.stop(node);
                if let Some(disk) = self.slots[node].disk.take() {
                    self.slots[node].snapshots.clear();
                    let had = self.known_dots(&disk.replicas, |_| true);
                    self.note_lost(node, &had);
                }
            }
            Fault::Restore { node, age_ms, noticed } => self.restore(node, age_ms, noticed),
            Fault::ClockJump { node, by_ms } => self.slots[node].wall_offset_ms += by_ms,
            Fault::DiskFull { node } => self.fill(node, 1),
            Fault::Pause { node } => self.slots[node].paused += 1,
            Fault::LoseRow { node } => self.lose_row(node),
            Fault::Join { node } => {
                self.slots[node].role = Role::Member;
                self.start(node);
            }
            Fault::Leave { node } => self.leave(node),
            Fault::Evict { node } => self.evict(node),
        }
    }

    pub(super) fn end_fault(&mut self, number: usize) {
        let fault = self.plan.faults[number].fault.clone();
        for (from, to) in self.cut_by(&fault) {
            self.net.mend(from, to);
        }
        match fault {
            Fault::Storm(_) => self.net.weather = self.plan.weather,
            Fault::Crash { node } | Fault::Wipe { node } | Fault::Restore { node, .. } => {
                self.slots[node].down -= 1;
                self.start(node);
            }
            Fault::DiskFull { node } => self.fill(node, -1),
            Fault::Pause { node } => {
                self.slots[node].paused -= 1;
                if self.slots[node].paused == 0 {
                    for event in std::mem::take(&mut self.slots[node].held) {
                        self.queue.after(0, event);
                    }
                }
            }
            Fault::Split { .. }
            | Fault::Partial { .. }
            | Fault::OneWay { .. }
            | Fault::Ring
            | Fault::Swizzle { .. }
            | Fault::ClockJump { .. }
            | Fault::LoseRow { .. }
            | Fault::Join { .. }
            | Fault::Leave { .. }
            | Fault::Evict { .. } => {}
        }
    }

    /// The paths that a fault cuts for all of its time.
    fn cut_by(&self, fault: &Fault) -> Vec<(usize, usize)> {
        let all = self.slots.len();
        let pairs = (0..all).flat_map(|from| (0..all).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        match fault {
            Fault::Split { side } => {
                pairs.filter(|(from, to)| side.contains(from) != side.contains(to)).collect()
            }
            Fault::Partial { between: (a, b) } => vec![(*a, *b), (*b, *a)],
            Fault::OneWay { path } => vec![*path],
            Fault::Ring => {
                let near = |a: usize, b: usize| (a + 1) % all == b || (b + 1) % all == a;
                pairs.filter(|(from, to)| !near(*from, *to)).collect()
            }
            Fault::Swizzle { .. }
            | Fault::Storm(_)
            | Fault::Crash { .. }
            | Fault::Wipe { .. }
            | Fault::Restore { .. }
            | Fault::ClockJump { .. }
            | Fault::DiskFull { .. }
            | Fault::Pause { .. }
            | Fault::LoseRow { .. }
            | Fault::Join { .. }
            | Fault::Leave { .. }
            | Fault::Evict { .. } => Vec::new(),
        }
    }

    fn swizzle(&mut self, links: &[(usize, usize, u64)], for_ms: u64) {
        let step_ms = for_ms / 4 / (links.len() as u64 + 1);
        for (number, (a, b, mended)) in (0..).zip(links) {
            let cut_ms = number * step_ms;
            self.queue.after(cut_ms, Event::Cut(*a, *b));
            self.queue.after((for_ms * mended / 1_000).max(cut_ms + 1), Event::Mend(*a, *b));
        }
    }

    /// Puts a node back to what its disk held some time ago.
    fn restore(&mut self, node: usize, age_ms: u64, noticed: bool) {
        self.slots[node].down += 1;
        self.stop(node);
        let wanted_ms = self.queue.now_ms().saturating_sub(age_ms);
        let Some(now) = self.slots[node].disk.clone() else { return };
        let place = &mut self.slots[node];
        let old = place.snapshots.iter().rev().find(|(at_ms, _)| *at_ms <= wanted_ms);
        // A backup of before it was wiped is another node's.
        let Some((_, mut old)) = old.filter(|(_, d)| d.identity.node == now.identity.node).cloned()
        else {
            return;
        };
        let had = self.known_dots(&now.replicas, |place| !place.is_memory());
        let kept = self.known_dots(&old.replicas, |place| !place.is_memory());
        let lost: BTreeSet<_> = had.difference(&kept).copied().collect();
        // Unnoticed, it looks as if it had been stopped cleanly: it goes on as who it was.
        old.is_clean = !noticed;
        self.slots[node].disk = Some(old);
        self.note_lost(node, &lost);
    }

    fn fill(&mut self, node: usize, by: i32) {
        let slot = &mut self.slots[node];
        slot.full = slot.full.saturating_add_signed(by);
        if let Some(process) = &mut slot.process {
            process.is_full = slot.full > 0;
        }
    }

    /// Loses a row of a durable place. What it held may be lost for good.
    fn lose_row(&mut self, node: usize) {
        let place = Place(2 * u16::try_from(self.rng.below(2)).unwrap_or_default());
        let Some(process) = &mut self.slots[node].process else { return };
        let objects: Vec<_> = process.replicas.objects(place).into_iter().collect();
        if objects.is_empty() {
            return;
        }
        let (at, object) = self.rng.pick(&objects).clone();
        process.replicas.of_mut(place).damage_drop_row(&table(), &key(at));
        process.replicas.damaged.push(at);
        let clock = process.replicas.clock(place);
        // The node has processed what it lost, so its next write of the key looks to all as if it had replaced that.
        let lost: Vec<Dot> = object.live_dots().collect();
        self.history.lost.extend(lost.into_iter().map(|dot| (place, dot)));
        let of_key = self.history.writes.iter().filter(|write| write.key == at);
        let here = of_key.filter_map(|write| write.dot).filter(|dot| clock.contains(dot));
        let untold: Vec<Dot> =
            here.filter(|dot| !self.is_known_elsewhere(node, place, *dot)).collect();
        self.history.untold.extend(untold.into_iter().map(|dot| (place, dot)));
    }

    /// A node hands over what it has and leaves.
    fn leave(&mut self, node: usize) {
        if self.slots[node].process.is_some() {
            self.slots[node].role = Role::Leaving;
            self.with(node, super::process::Process::drain);
        }
    }

    /// An operator at another node removes a node.
    fn evict(&mut self, node: usize) {
        let mut others = (0..self.slots.len()).filter(|other| *other != node);
        let is_running = |slot: &usize| {
            self.slots[*slot].process.is_some() && self.slots[*slot].role == Role::Member
        };
        if let Some(by) = others.find(is_running) {
            self.slots[node].role = Role::Leaving;
            let name = format!("node{node}");
            self.with(by, |process, notes| process.forget(&name, notes));
        }
    }

    /// What a node that is gone for good takes with it.
    pub(super) fn gone(&mut self, node: usize) {
        self.stop(node);
        self.slots[node].role = Role::Gone;
        if let Some(disk) = self.slots[node].disk.take() {
            let had = self.known_dots(&disk.replicas, |_| true);
            self.note_lost(node, &had);
        }
        self.slots[node].snapshots.clear();
    }
}
