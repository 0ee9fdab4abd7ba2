//! Connections between simulated nodes: who is connected follows from who wants it, who admits it, and what is cut.

use weald_storage::NodeId;

use super::net::BREAKS_AFTER_MS;
use super::world::{Connection, Event, Slot, World};

/// Between two looks at the connections.
pub(super) const LINKS_MS: u64 = 250;

impl World {
    /// Makes the connections that are wanted, and breaks those that were cut for too long.
    pub(super) fn links(&mut self) {
        let now_ms = self.queue.now_ms();
        for a in 0..self.slots.len() {
            for b in a + 1..self.slots.len() {
                let is_whole = self.net.is_whole(a, b);
                let is_wanted = self.wants(a, b) || self.wants(b, a);
                match self.links.get_mut(&(a, b)) {
                    Some(link) if is_whole && link.whole_ms < now_ms => link.whole_ms = now_ms,
                    Some(link) if now_ms - link.whole_ms > BREAKS_AFTER_MS => self.disconnect(a, b),
                    Some(_) if is_wanted => {}
                    Some(_) => self.disconnect(a, b),
                    None if is_whole && is_wanted => self.connect(a, b),
                    None => {}
                }
            }
        }
        self.queue.after(LINKS_MS, Event::Links);
    }

    fn wants(&self, a: usize, b: usize) -> bool {
        let (Some(x), Some(y)) = (&self.slots[a].process, &self.slots[b].process) else {
            return false;
        };
        x.wants(y.identity.node, b)
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.slots[a].paused > 0 || self.slots[b].paused > 0 {
            return;
        }
        let (Some(x), Some(y)) = (&self.slots[a].process, &self.slots[b].process) else { return };
        let (x, y) = (x.info(), y.info());
        let admits = |slot: usize, info: &_| match &self.slots[slot].process {
            Some(process) => process.admits(info),
            None => Ok(()),
        };
        let (by_a, by_b) = (admits(a, &y), admits(b, &x));
        if let Err(refusal) = &by_a {
            self.with(b, |process, notes| process.refused(x.node, refusal, notes));
        }
        if let Err(refusal) = &by_b {
            self.with(a, |process, notes| process.refused(y.node, refusal, notes));
        }
        if by_a.is_err() || by_b.is_err() {
            return;
        }
        self.connections += 1;
        let link = Connection { number: self.connections, whole_ms: self.queue.now_ms() };
        self.links.insert((a, b), link);
        self.net.connected(a, b);
        self.with(a, |process, notes| process.peer_up(&y, b, notes));
        self.with(b, |process, notes| process.peer_up(&x, a, notes));
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        self.links.remove(&(a, b));
        let id = |slot: &Slot| slot.process.as_ref().map(|p| p.identity.node);
        let (x, y) = (id(&self.slots[a]), id(&self.slots[b]));
        // Whoever has ended meanwhile is found by the id it had.
        let (x, y) = (x.or_else(|| self.last_id(a)), y.or_else(|| self.last_id(b)));
        if let Some(y) = y {
            self.with(a, |process, notes| process.peer_down(y, notes));
        }
        if let Some(x) = x {
            self.with(b, |process, notes| process.peer_down(x, notes));
        }
    }

    fn last_id(&self, slot: usize) -> Option<NodeId> {
        self.slots[slot].disk.as_ref().map(|disk| disk.identity.node)
    }
}
