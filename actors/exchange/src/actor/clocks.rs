//! What the scheduler says to members about clocks, and what it makes of what they say.
//!
//! What it guarantees: a connected member hears each change of this node's clocks within `clocks_timer`; what is known of
//! members that are not connected travels from neighbour to neighbour, see [`crate::core::Relay`].
//! What it refuses: to tell a clock that was not read from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_peers::Channel;
use weald_proto::Frame;
use weald_storage::{Clock, NodeId, Stable, VersionVector};
use weald_supervision::ractor::ActorProcessingErr;

use super::{EAGER_MS, State};
use crate::core::{Known, QUESTION_MAX, Shard};
use crate::frames::{ASK_CLOCKS, ASK_RELAYED, CLOCKS, Clocks, Question, RELAYED, Relayed};

impl State {
    pub(super) async fn committed(&mut self) -> Result<(), ActorProcessingErr> {
        let dirty = self.shared.take_dirty();
        if dirty.is_empty() {
            return Ok(());
        }
        self.read_clocks(dirty.clone()).await?;
        let clocks = &self.clocks;
        let bases =
            |shard| clocks.get(&shard).map_or_else(VersionVector::new, |(_, clock)| clock.bases());
        let ended = self.waiters.clocks_changed(bases);
        self.end_waits(ended);
        let now_ms = self.shared.now_ms();
        self.eager.retain(|_, until| *until > now_ms);
        if !self.eager.is_empty() {
            let eager: Vec<NodeId> = self.eager.keys().copied().collect();
            let changed: BTreeSet<Shard> = dirty.into_iter().collect();
            for peer in eager {
                self.tell_one(peer, &changed);
            }
        }
        Ok(())
    }

    /// Whether anybody waits for commits.
    pub(super) fn attend(&self) {
        self.shared.set_attentive(self.waiters.waits_for_clocks() || !self.eager.is_empty());
    }

    /// Reads clocks anew on a blocking thread.
    pub(super) async fn read_clocks(
        &mut self,
        shards: Vec<Shard>,
    ) -> Result<(), ActorProcessingErr> {
        let stores = Arc::clone(&self.shared.deps.stores);
        let read = move || {
            let read = |shard: Shard| {
                let replica = stores.replica(shard);
                replica.clock().map(|clock| (shard, replica.actor(), Arc::new(clock)))
            };
            shards.into_iter().map(read).collect::<Vec<_>>()
        };
        for read in tokio::task::spawn_blocking(read).await? {
            match read {
                Ok((shard, actor, clock)) => {
                    let known = self.clocks.get(&shard);
                    if known.is_none_or(|(of, known)| *of != actor || **known != *clock) {
                        self.untold.insert(shard);
                        self.clocks.insert(shard, (actor, clock));
                    }
                }
                Err(e) => tracing::error!(event = "clock_unreadable", error = %e),
            }
        }
        Ok(())
    }

    /// Tells members the clocks that have changed, and those that have come everything.
    pub(super) fn tell(&mut self) {
        let changed = std::mem::take(&mut self.untold);
        let all: BTreeSet<Shard> = self.clocks.keys().copied().collect();
        let fresh = std::mem::take(&mut self.fresh);
        let members: Vec<NodeId> = self.stability.counting().iter().copied().collect();
        for peer in members {
            if fresh.contains(&peer) {
                self.tell_one(peer, &all);
            } else if !changed.is_empty() {
                self.tell_one(peer, &changed);
            }
        }
        // Connected, and not known as members yet: told once they are.
        let connected = fresh.into_iter().filter(|peer| self.scheduler.is_up(*peer));
        let counting = self.stability.counting();
        let later: Vec<NodeId> = connected.filter(|peer| !counting.contains(peer)).collect();
        self.fresh.extend(later);
    }

    fn tell_one(&mut self, peer: NodeId, shards: &BTreeSet<Shard>) {
        if !self.scheduler.is_up(peer) {
            return;
        }
        let clock = |shard: &Shard| {
            let (actor, clock) = self.clocks.get(shard)?;
            Some((shard.number(), *actor, Arc::clone(clock)))
        };
        let clocks: Vec<_> = shards.iter().filter_map(clock).collect();
        for body in Clocks::bodies(&clocks) {
            let frame = Frame { kind: CLOCKS, corr: 0, body };
            if self.shared.deps.network.send(peer, Channel::Data, 0, &frame).is_err() {
                // It is told everything as soon as there is room.
                self.fresh.insert(peer);
                return;
            }
        }
    }

    /// A member has told clocks.
    pub(super) fn told(&mut self, from: NodeId, body: &[u8]) {
        let clocks = match Clocks::decode(body) {
            Ok(clocks) => clocks,
            Err(e) => {
                tracing::warn!(event = "clocks_malformed", peer = %from, error = %e);
                return;
            }
        };
        let shards = self.shared.deps.stores.partitions() * 2;
        for (number, actor, clock) in clocks.clocks {
            if number < shards {
                let shard = Shard::of_number(number);
                self.stability.acknowledge(from, shard, actor, Arc::new(clock));
            }
        }
        let ended = self.waiters.acked(&self.stability);
        self.end_waits(ended);
    }

    /// A member waits for what this node has.
    pub(super) async fn asked(
        &mut self,
        from: NodeId,
        all: bool,
    ) -> Result<(), ActorProcessingErr> {
        if all {
            self.fresh.insert(from);
            return Ok(());
        }
        self.shared.set_attentive(true);
        self.eager.insert(from, self.shared.now_ms().saturating_add(EAGER_MS));
        let untold = self.untold.clone();
        self.tell_one(from, &untold);
        // And what was committed since this side looked last.
        self.committed().await
    }

    /// Asks members whose clocks are unknown. They have told them, but maybe before this side knew of the connection.
    pub(super) fn ask_unknown(&self) {
        let shards = || Shard::all(self.shared.deps.stores.partitions());
        let unknown: BTreeSet<NodeId> =
            shards().flat_map(|shard| self.stability.unknown(shard)).collect();
        for peer in unknown.into_iter().filter(|peer| self.scheduler.is_up(*peer)) {
            let frame = Frame { kind: ASK_CLOCKS, corr: 0, body: vec![1] };
            drop(self.shared.deps.network.send(peer, Channel::Data, 0, &frame));
        }
    }

    pub(super) fn publish_stable(&self) {
        let stable: BTreeMap<Shard, Stable> = self
            .clocks
            .iter()
            .filter_map(|(shard, (actor, clock))| {
                Some((*shard, self.stability.stable(*shard, *actor, clock)?))
            })
            .collect();
        self.shared.stable.send_replace(Arc::new(stable));
    }

    // Clocks of members that are not connected.

    /// Asks a neighbour about them, if it is time.
    pub(super) fn ask_relayed(&mut self) {
        let connected: BTreeSet<NodeId> = self.scheduler.peers_up().collect();
        let now_ms = self.shared.now_ms();
        let asked = self.relay.question(&self.stability, &connected, now_ms);
        let Some((peer, members)) = asked else { return };
        let frame = Frame { kind: ASK_RELAYED, corr: 0, body: Question { members }.encode() };
        // Another one is asked next time.
        drop(self.shared.deps.network.send(peer, Channel::Data, 0, &frame));
    }

    /// A neighbour asks about members that it is not connected with.
    pub(super) fn asked_relayed(&mut self, from: NodeId, body: &[u8]) {
        let question = match Question::decode(body) {
            Ok(question) if question.members.len() <= QUESTION_MAX => question,
            Ok(_) | Err(_) => {
                tracing::warn!(event = "question_malformed", peer = %from);
                return;
            }
        };
        let network = &self.shared.deps.network;
        if !self.scheduler.is_up(from)
            || !network.has_room(from, Channel::Data)
            || !self.relay.may_answer(from, self.shared.now_ms())
        {
            return;
        }
        let known = self.relay.answer(&self.stability, from, &question.members);
        if known.is_empty() {
            return;
        }
        let clocks = known.into_iter().map(|Known { member, shard, actor, clock }| {
            (member, shard.number(), actor, Clock::clone(&clock))
        });
        let body = Relayed { clocks: clocks.collect() }.encode();
        drop(network.send(from, Channel::Data, 0, &Frame { kind: RELAYED, corr: 0, body }));
    }

    /// A neighbour has told what it knows of others.
    pub(super) fn told_relayed(&mut self, from: NodeId, body: &[u8]) {
        let told = match Relayed::decode(body) {
            Ok(told) => told,
            Err(e) => {
                tracing::warn!(event = "clocks_malformed", peer = %from, error = %e);
                return;
            }
        };
        let shards = self.shared.deps.stores.partitions() * 2;
        for (member, number, actor, clock) in told.clocks {
            // Who is connected speaks for itself.
            if number < shards && !self.scheduler.is_up(member) {
                let shard = Shard::of_number(number);
                self.stability.relayed(member, shard, actor, Arc::new(clock));
                self.relay.told(member);
            }
        }
        let ended = self.waiters.acked(&self.stability);
        self.end_waits(ended);
    }
}
