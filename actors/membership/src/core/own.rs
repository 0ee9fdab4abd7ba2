//! This node's own record: nobody else raises its epoch or incarnation.

use std::sync::Arc;

use weald_peers::Status;
use weald_storage::NodeId;

use super::{Event, Membership, Output, Own};
use crate::view::Record;

impl Membership {
    /// Puts the own record in at the start.
    pub(super) fn start_own(&mut self, own: &Own) {
        let fresh = Record {
            node: own.node,
            name: own.name.clone(),
            epoch: 0,
            incarnation: own.incarnation,
            version: 1,
            addresses: own.addresses.clone(),
            status: Status::Joined,
            capabilities: own.capabilities.clone(),
        };
        let record = match self.view.record(self.id) {
            None => fresh,
            Some(old) => {
                let record = Record {
                    epoch: old.epoch,
                    incarnation: old.incarnation.max(own.incarnation),
                    version: old.version,
                    // Whoever crashed while leaving has not left.
                    status: if old.status == Status::Leaving { Status::Joined } else { old.status },
                    ..fresh
                };
                if record == **old {
                    return;
                }
                Record { version: old.version.saturating_add(1), ..record }
            }
        };
        self.set_own(record);
    }

    /// Replaces the own record and tells everybody.
    pub(super) fn set_own(&mut self, record: Record) {
        let record = Arc::new(record);
        self.view.merge(&record, self.clock.moment(), 0);
        self.fresh.push(self.id);
        self.digest = None;
        self.stale.snapshot = true;
        self.stale.peers = true;
    }

    /// The own record with another status. What comes after a fence or an eviction needs a new epoch to count.
    pub(super) fn set_own_status(&mut self, status: Status) {
        let own = self.own();
        let is_return = matches!(own.status, Status::Fenced | Status::Evicted);
        let epoch = own.epoch.saturating_add(u32::from(is_return));
        let record = Record { epoch, ..own.with_status(status) };
        self.set_own(record);
    }

    /// Somebody has a record of this node. Evictions and fences are accepted; anything else that is greater than what this node
    /// says (it has lost its memory, or was restored) is outbid.
    pub(super) fn on_own_record(&mut self, record: &Arc<Record>, out: &mut Vec<Output>) {
        let own = self.own();
        if record.rank() <= own.rank() {
            return;
        }
        match record.status {
            Status::Evicted => self.become_evicted(record, out),
            Status::Fenced if matches!(own.status, Status::Joined | Status::Fenced) => {
                let is_news = own.status == Status::Joined;
                let own = Record { status: Status::Fenced, ..own.clone() };
                self.outbid(&own, record);
                if is_news {
                    out.push(Output::Event(Event::SelfFenced));
                }
            }
            Status::Joined | Status::Fenced | Status::Leaving | Status::Left => {
                let own = own.clone();
                self.outbid(&own, record);
            }
        }
    }

    fn outbid(&mut self, own: &Record, other: &Record) {
        self.set_own(Record {
            epoch: own.epoch.max(other.epoch),
            incarnation: own.incarnation.max(other.incarnation),
            version: own.version.max(other.version).saturating_add(1),
            ..own.clone()
        });
    }

    fn become_evicted(&mut self, record: &Arc<Record>, out: &mut Vec<Output>) {
        self.set_own(Record::clone(record));
        self.stop(out);
        out.push(Output::Event(Event::SelfEvicted));
    }

    /// A member says in the handshake that this node is evicted.
    pub(super) fn on_evicted_says(&mut self, by: NodeId, out: &mut Vec<Output>) {
        if !self.own().status.is_member() || !self.view.is_member(by) || !self.joins.is_empty() {
            return;
        }
        let record = Arc::new(self.own().with_status(Status::Evicted));
        self.become_evicted(&record, out);
    }

    /// Ends all activity in the cluster.
    pub(super) fn stop(&mut self, out: &mut Vec<Output>) {
        let status = self.own().status;
        if let Some(leave) = self.leave.take() {
            let result = if status == Status::Left {
                Ok(())
            } else {
                Err(super::OpError::NoMember { status })
            };
            out.push(Output::Reply { request: leave.request, result });
        }
        for (request, _) in std::mem::take(&mut self.joins) {
            let result = Err(super::OpError::NoMember { status });
            out.push(Output::Reply { request, result });
        }
        self.rumours.clear();
        self.plumtree.clear();
        self.fresh.clear();
        self.dials.clear();
        self.syncs.clear();
        self.contacts.clear();
        self.conflicts.clear();
        if let Some(overlay) = &mut self.overlay {
            *overlay = crate::overlay::HyParView::new(
                self.config.hyparview.clone(),
                self.id,
                self.clock.now_ms,
                &mut self.rng,
            );
        }
        self.stale.snapshot = true;
        self.stale.peers = true;
    }

    /// The node has caught up after it was fenced.
    pub(super) fn on_rejoin_done(&mut self) {
        if self.own().status == Status::Fenced {
            self.set_own_status(Status::Joined);
        }
    }

    /// The store has taken a new incarnation.
    pub(super) fn on_incarnation(&mut self, incarnation: u32) {
        let own = self.own();
        if incarnation > own.incarnation {
            let version = own.version.saturating_add(1);
            self.set_own(Record { incarnation, version, ..own.clone() });
        }
    }
}
