//! What operators ask for: join, leave, forget; and what discovery finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use weald_peers::{Liveness, PeerInfo, Status};
use weald_storage::NodeId;

use super::{DIALS_MAX, DialTicket, Event, Force, Membership, OpError, Output, RequestId};
use crate::messages::{Body, Message};

/// A join tries again after so long. // guess
const RETRY_MS: u64 = 1_000;
/// Most addresses of one join, and of one answer of discovery. // guess
const ADDRESSES_MAX: usize = 64;
/// Most remembered addresses. // guess
const FOUND_MAX: usize = 1_024;

/// A join under way.
#[derive(Debug, Clone)]
pub(super) struct Join {
    addresses: Vec<String>,
    deadline_ms: u64,
    retry_ms: Option<u64>,
    /// Who was found; the view is being compared.
    through: Option<NodeId>,
    last: String,
}

/// A seed that is being dialled.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    addresses: Vec<String>,
    join: Option<RequestId>,
}

/// A leave under way.
#[derive(Debug, Clone)]
pub(super) struct Leave {
    pub(super) request: RequestId,
    phase_ms: u64,
    deadline_ms: u64,
    /// Who has not noted it yet.
    waiting: BTreeSet<NodeId>,
}

impl Join {
    pub(super) fn next_deadline(&self) -> u64 {
        self.retry_ms.map_or(self.deadline_ms, |retry| retry.min(self.deadline_ms))
    }
}

impl Leave {
    pub(super) fn next_deadline(&self) -> u64 {
        if self.waiting.is_empty() { 0 } else { self.phase_ms.min(self.deadline_ms) }
    }
}

impl Membership {
    pub(super) fn on_join(
        &mut self,
        request: RequestId,
        mut addresses: Vec<String>,
        deadline_ms: u64,
        out: &mut Vec<Output>,
    ) {
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return out.push(Output::Reply { request, result: Err(OpError::NoAddresses) });
        }
        if self.leave.is_some() {
            return out.push(Output::Reply { request, result: Err(OpError::Leaving) });
        }
        match self.own().status {
            Status::Joined | Status::Fenced | Status::Leaving => {}
            Status::Left => self.set_own_status(Status::Joined),
            Status::Evicted => {
                let above = self.own().incarnation;
                self.set_own_status(Status::Joined);
                // The handshake knows incarnations only, and refuses the evicted one.
                out.push(Output::RenewIncarnation { above });
            }
        }
        let last = "no answer".to_owned();
        let join = Join { addresses, deadline_ms, retry_ms: None, through: None, last };
        self.joins.insert(request, join);
        self.dial_for(request, out);
    }

    fn dial_for(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(join) = self.joins.get_mut(&request) else { return };
        (join.retry_ms, join.through) = (None, None);
        let addresses = join.addresses.clone();
        self.dial(addresses, Some(request), out);
    }

    fn dial(&mut self, addresses: Vec<String>, join: Option<RequestId>, out: &mut Vec<Output>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.dials.insert(ticket, Dial { addresses: addresses.clone(), join });
        out.push(Output::DialSeed { ticket, addresses });
    }

    pub(super) fn on_dialled(
        &mut self,
        ticket: DialTicket,
        result: Result<Arc<PeerInfo>, String>,
        out: &mut Vec<Output>,
    ) {
        let Some(dial) = self.dials.remove(&ticket) else { return };
        if !self.is_active() {
            return;
        }
        let now_ms = self.clock.now_ms;
        let found = result.as_ref().map(|info| info.node);
        if let (Ok(node), [address]) = (found, dial.addresses.as_slice())
            && self.found_at.len() < FOUND_MAX
        {
            self.found_at.insert(address.clone(), node);
        }
        let join = dial.join.and_then(|request| self.joins.get_mut(&request));
        match (result, join) {
            (Ok(info), join) if info.node != self.id => {
                if let Some(join) = join {
                    join.through = Some(info.node);
                    // The connection may break before the views are compared.
                    join.retry_ms = Some(now_ms + 5 * RETRY_MS);
                    if self.connected.contains(&info.node) {
                        self.start_sync(info.node, out);
                    }
                }
            }
            (Ok(_), Some(join)) => {
                join.last = "only this node itself is there".to_owned();
                join.retry_ms = Some(now_ms + RETRY_MS);
            }
            (Err(why), Some(join)) => {
                join.last = why;
                join.retry_ms = Some(now_ms + RETRY_MS);
            }
            (Ok(_) | Err(_), None) => {}
        }
    }

    /// Whether a join waits for this peer.
    pub(super) fn is_joining_through(&self, node: NodeId) -> bool {
        self.joins.values().any(|join| join.through == Some(node))
    }

    /// The view was compared with this peer's.
    pub(super) fn joined_through(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let done = self.joins.iter().filter(|(_, join)| join.through == Some(node));
        for request in done.map(|(request, _)| *request).collect::<Vec<_>>() {
            self.joins.remove(&request);
            // What was joined is remembered before anybody builds on it.
            (self.stale.file, self.due.saved_ms) = (true, 0);
            out.push(Output::Reply { request, result: Ok(()) });
        }
    }

    pub(super) fn tick_operations(&mut self, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        let late = self.joins.iter().filter(|(_, join)| join.deadline_ms <= now_ms);
        for request in late.map(|(request, _)| *request).collect::<Vec<_>>() {
            let Some(join) = self.joins.remove(&request) else { continue };
            let result = Err(OpError::NotJoined { last: join.last });
            out.push(Output::Reply { request, result });
        }
        let again = self.joins.iter().filter(|(_, j)| j.retry_ms.is_some_and(|at| at <= now_ms));
        for request in again.map(|(request, _)| *request).collect::<Vec<_>>() {
            self.dial_for(request, out);
        }
        self.tick_leave(out);
    }

    pub(super) fn on_leave(&mut self, request: RequestId, deadline_ms: u64, out: &mut Vec<Output>) {
        let status = self.own().status;
        let refusal = match status {
            _ if self.leave.is_some() => Some(Err(OpError::Leaving)),
            Status::Left => Some(Ok(())),
            Status::Evicted => Some(Err(OpError::NoMember { status })),
            Status::Joined | Status::Fenced | Status::Leaving => None,
        };
        if let Some(result) = refusal {
            return out.push(Output::Reply { request, result });
        }
        self.set_own_status(Status::Leaving);
        let waiting = self.announce(out);
        let now_ms = self.clock.now_ms;
        let phase_ms = now_ms + deadline_ms.saturating_sub(now_ms) / 2;
        self.leave = Some(Leave { request, phase_ms, deadline_ms, waiting });
        self.tick_leave(out);
    }

    /// Tells the own record to all neighbours, who are to say that they noted it. Returns them.
    pub(super) fn announce(&mut self, out: &mut Vec<Output>) -> BTreeSet<NodeId> {
        self.fresh.retain(|node| *node != self.id);
        let Some(own) = self.view.record(self.id) else { return BTreeSet::new() };
        for node in &self.neighbours {
            let records = vec![self.entry(own)];
            let message = Message { records, rumours: Vec::new(), body: Body::Announce };
            self.send(*node, message, out);
        }
        self.neighbours.clone()
    }

    /// A peer has announced its record.
    pub(super) fn note_announced(&self, from: NodeId, out: &mut Vec<Output>) {
        if let Some(record) = self.view.record(from) {
            let version = record.version;
            self.send(from, Message::bare(Body::Noted { version }), out);
        }
    }

    /// A peer has noted this node's record.
    pub(super) fn on_noted(&mut self, from: NodeId, version: u64) {
        if version >= self.own().version {
            self.leave_without(from);
        }
    }

    /// A peer is not waited for any more.
    pub(super) fn leave_without(&mut self, node: NodeId) {
        if let Some(leave) = &mut self.leave {
            leave.waiting.remove(&node);
        }
    }

    fn tick_leave(&mut self, out: &mut Vec<Output>) {
        let now_ms = self.clock.now_ms;
        let is_done = |leave: &Leave| {
            leave.waiting.is_empty() || leave.phase_ms <= now_ms || leave.deadline_ms <= now_ms
        };
        if self.own().status != Status::Left && self.leave.as_ref().is_some_and(is_done) {
            self.set_own_status(Status::Left);
            let waiting = self.announce(out);
            if let Some(leave) = &mut self.leave {
                (leave.waiting, leave.phase_ms) = (waiting, leave.deadline_ms);
            }
        }
        if self.own().status == Status::Left && self.leave.as_ref().is_some_and(is_done) {
            self.stop(out);
            let (node, name) = (self.id, self.own().name.clone());
            out.push(Output::Event(Event::Left { node, name }));
        }
    }

    pub(super) fn on_forget(
        &mut self,
        request: RequestId,
        who: &str,
        force: Force,
        out: &mut Vec<Output>,
    ) {
        let result = self.find(who).and_then(|node| {
            let is_up = self.detector.liveness(node) != Liveness::Down;
            let is_member = self.view.is_member(node);
            let name = self.view.record(node).map(|r| r.name.clone()).unwrap_or_default();
            match force {
                _ if node == self.id => Err(OpError::Itself),
                _ if !self.is_active() => Err(OpError::NoMember { status: self.own().status }),
                Force::No if is_member && is_up => Err(OpError::IsUp { name }),
                Force::No | Force::Yes => Ok(node),
            }
        });
        if let Ok(node) = result
            && self.view.record(node).is_some_and(|r| r.status != Status::Evicted)
        {
            self.evict(node, out);
        }
        out.push(Output::Reply { request, result: result.map(|_node| ()) });
    }

    /// The node of this id or name; a name means a member before one that is gone.
    fn find(&self, who: &str) -> Result<NodeId, OpError> {
        if let Ok(node) = who.parse::<NodeId>()
            && self.view.get(node).is_some()
        {
            return Ok(node);
        }
        let named = |is_member: bool| -> Vec<NodeId> {
            let rows = self.view.rows().filter(|(_, row)| row.record.name == who);
            let rows = rows.filter(|(_, row)| row.record.status.is_member() == is_member);
            rows.map(|(node, _)| node).collect()
        };
        let nodes = [named(true), named(false)].into_iter().find(|nodes| !nodes.is_empty());
        match nodes.unwrap_or_default().as_slice() {
            [node] => Ok(*node),
            [] => {
                let members = self.view.members().map(|(_, row)| row.record.name.clone());
                Err(OpError::Unknown { who: who.to_owned(), members: members.collect() })
            }
            ids => Err(OpError::Ambiguous { who: who.to_owned(), ids: ids.to_vec() }),
        }
    }

    pub(super) fn on_discovered(&mut self, mut addresses: Vec<String>, out: &mut Vec<Output>) {
        if !self.own().status.is_member() || self.leave.is_some() {
            return;
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            let is_dialled = self.dials.values().any(|dial| dial.addresses.contains(&address));
            if self.dials.len() < DIALS_MAX && !is_dialled && !self.is_reached(&address) {
                self.dial(vec![address], None, out);
            }
        }
    }

    /// Whether this node, or a member that answers, is at an address.
    fn is_reached(&self, address: &String) -> bool {
        let answers = |node: NodeId| {
            let is_alive =
                self.view.is_member(node) && self.detector.liveness(node) == Liveness::Up;
            node == self.id || is_alive
        };
        let named = self.view.members().find(|(_, row)| row.record.addresses.contains(address));
        named.is_some_and(|(node, _)| answers(node))
            || self.found_at.get(address).is_some_and(|node| answers(*node))
    }
}
