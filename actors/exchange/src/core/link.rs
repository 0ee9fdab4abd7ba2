//! What both sides of a shard's exchange have: streams of objects in numbered messages, acknowledged once merged.
//!
//! What it guarantees: at most [`WINDOW`] messages of a stream are unacknowledged, on either side; a message is
//! acknowledged only after everything in it was merged or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_peers::WireDelta;
use weald_storage::{
    Bucket, Clock, Delta, Dot, Era, Evidence, Key, KeyHash, Object, ReadError, Replicated, Seen,
    TableName, VersionVector, Watch,
};

use super::outcome::{Compared, Counters, Failed, MergeFailure, Verdict};
use super::repairs::Resort;
use super::wire::{DELTAS_BYTES, End, Message, Shard, ShardState};

/// Messages with objects in flight for one shard and direction. // guess: one is merged while the next one travels
pub const WINDOW: usize = 2;
/// What the machines below a session are given, and what they answer.
pub(crate) struct Cx<'a> {
    pub(crate) replica: &'a dyn Replicated,
    pub(crate) ids: &'a mut u64,
    pub(crate) counters: &'a mut Counters,
    pub(crate) actions: Vec<Action>,
}

/// What is to be done, in order.
#[derive(Debug)]
pub(crate) enum Action {
    Say(Message),
    Merge { id: u64, items: Vec<(Delta, Evidence)> },
    Adopt { id: u64, clock: Arc<Clock>, swept: VersionVector, watch: Arc<Watch> },
    Renew { highest: u32 },
}

impl Cx<'_> {
    pub(crate) fn say(&mut self, message: Message) {
        self.actions.push(Action::Say(message));
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        *self.ids += 1;
        *self.ids
    }
}

/// A merge that runs.
#[derive(Debug)]
enum Merging {
    /// Of a message, which is acknowledged afterwards; keys whose fate the sender may have to be told.
    Message { seq: u32, suspects: Vec<(TableName, Key, Vec<Dot>)> },
    /// Of what came with an acknowledgement.
    Gone,
}

/// By what right the objects of the peer are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Ordinary traffic.
    Stream,
    /// A walk: soundness of buckets counts.
    Walk,
}

/// One shard between two nodes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) shard: Shard,
    /// Of this side, when the shard was opened: asked for before its clock.
    era: Era,
    pub(crate) mine: ShardState,
    pub(crate) theirs: Arc<Clock>,
    /// Whether this side has processed all that the peer had when the shard was opened, and the other way round. After the
    /// streams also what came with them.
    mine_descends: bool,
    theirs_descends: bool,
    /// Nothing was refused, nothing was unsound.
    pub(crate) clean: bool,
    /// Buckets that were marked as damaged here when the shard was opened.
    pub(crate) damaged: Vec<Bucket>,
    /// What may be taken into them from a peer that is behind.
    resort: Arc<Resort>,
    /// Of these buckets those in which something of the peer was left aside: it may be dead.
    left: BTreeSet<Bucket>,
    /// Whether all else was taken that the peer holds and that differs.
    took_all: bool,
    sound: BTreeMap<Bucket, bool>,
    /// What the peer has said of its buckets, for those that are marked here.
    their_sound: BTreeMap<Bucket, bool>,
    /// Of the walk, if there is one that merges.
    pub(crate) watch: Option<Arc<Watch>>,
    /// Keys, by their hashes, that the peer is sent in the swap at hand, whatever it says of them.
    offered: BTreeSet<u128>,
    seq_out: u32,
    unacked: BTreeSet<u32>,
    pub(crate) ended_out: bool,
    seq_in: u32,
    pub(crate) ended_in: bool,
    merging: BTreeMap<u64, Merging>,
    /// Whether anything was taken that this side takes for dead.
    takes_held: bool,
}

impl Link {
    pub(crate) fn new(
        shard: Shard,
        era: Era,
        mine: ShardState,
        damaged: Vec<Bucket>,
        resort: Arc<Resort>,
    ) -> Self {
        Self {
            shard,
            era,
            mine,
            theirs: Arc::default(),
            mine_descends: false,
            theirs_descends: false,
            clean: true,
            damaged,
            resort,
            left: BTreeSet::new(),
            took_all: true,
            sound: BTreeMap::new(),
            their_sound: BTreeMap::new(),
            watch: None,
            offered: BTreeSet::new(),
            seq_out: 0,
            unacked: BTreeSet::new(),
            ended_out: false,
            seq_in: 0,
            ended_in: false,
            merging: BTreeMap::new(),
            takes_held: false,
        }
    }

    pub(crate) fn set_theirs(&mut self, clock: Clock) {
        self.mine_descends = self.mine.clock.descends(&clock);
        self.theirs_descends = clock.descends(&self.mine.clock);
        self.theirs = Arc::new(clock);
    }

    /// Both had processed the same when the shard was opened.
    pub(crate) const fn clocks_equal(&self) -> bool {
        self.mine_descends && self.theirs_descends
    }

    /// The streams are through: a side whose peer could name everything that it lacked has it now.
    pub(crate) const fn streamed(&mut self, mine_forgot: bool, theirs_forgot: bool) {
        // Unless something was refused: then only the clocks can tell.
        if self.clean {
            self.mine_descends |= !theirs_forgot;
            self.theirs_descends |= !mine_forgot;
        }
    }

    pub(crate) const fn number(&self) -> u16 {
        self.shard.number()
    }

    /// Both streams have ended, and everything in them is merged and acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.ended_out && self.ended_in && self.unacked.is_empty() && self.merging.is_empty()
    }

    /// All merges are done.
    pub(crate) fn is_merged(&self) -> bool {
        self.merging.is_empty()
    }

    /// New streams begin.
    pub(crate) const fn restart(&mut self) {
        self.ended_out = false;
        self.ended_in = false;
    }

    /// A batch of buckets is begun: nothing is offered yet.
    pub(crate) fn begin_swap(&mut self) {
        self.offered.clear();
        if let Some(watch) = &self.watch {
            watch.begin_batch();
        }
    }

    /// The object of this key is going to be sent.
    pub(crate) fn offer(&mut self, key_hash: u128) {
        self.offered.insert(key_hash);
    }

    pub(crate) fn may_send(&self) -> bool {
        !self.ended_out && self.unacked.len() < WINDOW
    }

    pub(crate) fn send(
        &mut self,
        cx: &mut Cx<'_>,
        deltas: &[Delta],
        unsound: Vec<u16>,
        end: Option<End>,
    ) {
        let seq = self.seq_out;
        self.seq_out = self.seq_out.wrapping_add(1);
        self.unacked.insert(seq);
        self.ended_out = end.is_some();
        cx.counters.objects_out += deltas.len() as u64;
        let deltas = deltas.iter().map(WireDelta::from).collect();
        cx.say(Message::Deltas { shard: self.number(), seq, deltas, unsound, end });
    }

    /// Sends what it can of `queue`, and the end of the stream after the last of it.
    pub(crate) fn send_objects(
        &mut self,
        cx: &mut Cx<'_>,
        queue: &mut std::collections::VecDeque<(TableName, Key)>,
    ) -> Result<(), Failed> {
        while self.may_send() {
            let mut deltas = Vec::new();
            let mut unsound = BTreeSet::new();
            let mut bytes = 0;
            while bytes < DELTAS_BYTES
                && let Some((table, key)) = queue.pop_front()
            {
                let bucket = Bucket::of(&table, &key);
                if !self.is_sound(cx.replica, bucket)? {
                    unsound.insert(bucket.number());
                }
                // A record that cannot be read makes its bucket unsound; it is not sent.
                let object = match cx.replica.object(&table, &key) {
                    Ok(object) => object.unwrap_or_default(),
                    Err(ReadError::Corrupt(_)) => continue,
                    Err(e) => return Err(e.into()),
                };
                bytes += 96 + key.as_bytes().len() + object_bytes(&object);
                deltas.push(Delta { table, key, object, dots: Vec::new() });
            }
            let end = queue.is_empty().then_some(End { needs_walk: false });
            self.send(cx, &deltas, unsound.into_iter().collect(), end);
        }
        Ok(())
    }

    /// Whether this side's objects of a bucket add up, as seen for the first time in this walk.
    pub(crate) fn is_sound(
        &mut self,
        replica: &dyn Replicated,
        bucket: Bucket,
    ) -> Result<bool, Failed> {
        if let Some(sound) = self.sound.get(&bucket) {
            return Ok(*sound);
        }
        let sound = replica.bucket(bucket)?.sound;
        Ok(self.note_sound(bucket, sound))
    }

    pub(crate) fn note_sound(&mut self, bucket: Bucket, sound: bool) -> bool {
        self.clean &= sound;
        self.sound.insert(bucket, sound);
        sound
    }

    /// Whether a bucket is marked here.
    pub(crate) fn is_marked(&self, bucket: Bucket) -> bool {
        self.damaged.binary_search(&bucket).is_ok()
    }

    /// The peer has said whether its objects of a bucket add up.
    pub(crate) fn note_their_sound(&mut self, bucket: Bucket, sound: bool) {
        if self.is_marked(bucket) {
            *self.their_sound.entry(bucket).or_insert(true) &= sound;
        }
    }

    /// Whether the peer is to be asked about a bucket even if it does not differ.
    pub(crate) fn is_wanted(&self, bucket: Bucket) -> bool {
        self.is_marked(bucket) && !self.resort.is_done(self.shard, bucket)
    }

    /// Once the walk is over: what came of the buckets that are marked here.
    pub(crate) fn compared(&self) -> Compared {
        let told = self.their_sound.iter().filter(|_| self.took_all);
        let verdict = |(bucket, sound): (&Bucket, &bool)| match sound {
            _ if self.left.contains(bucket) => (*bucket, Verdict::Left),
            true => (*bucket, Verdict::Sound(Arc::clone(&self.theirs))),
            false => (*bucket, Verdict::Unsound),
        };
        Compared { shard: self.shard, buckets: told.map(verdict).collect() }
    }

    /// Takes a message with objects: they are merged, then it is acknowledged.
    pub(crate) fn receive(
        &mut self,
        cx: &mut Cx<'_>,
        rule: Rule,
        seq: u32,
        deltas: &[WireDelta],
        unsound: &[u16],
        ends: bool,
    ) -> Result<(), Failed> {
        if seq != self.seq_in || self.ended_in || self.merging.len() > 2 * WINDOW {
            return Err(Failed::Protocol("objects out of turn"));
        }
        self.seq_in = self.seq_in.wrapping_add(1);
        self.ended_in = ends;
        self.clean &= unsound.is_empty();
        let (items, suspects) = self.judge(cx, rule, deltas, unsound)?;
        if items.is_empty() {
            cx.say(Message::Ack { shard: self.number(), seq, refused: false, gone: Vec::new() });
            return Ok(());
        }
        let id = cx.next_id();
        self.merging.insert(id, Merging::Message { seq, suspects });
        cx.actions.push(Action::Merge { id, items });
        Ok(())
    }

    /// Takes an acknowledgement, and what came with it.
    pub(crate) fn acknowledged(
        &mut self,
        cx: &mut Cx<'_>,
        rule: Rule,
        seq: u32,
        refused: bool,
        gone: &[WireDelta],
    ) -> Result<(), Failed> {
        if !self.unacked.remove(&seq) {
            return Err(Failed::Protocol("an acknowledgement of nothing"));
        }
        self.clean &= !refused;
        if gone.is_empty() {
            return Ok(());
        }
        if rule == Rule::Stream {
            return Err(Failed::Protocol("absence outside a walk"));
        }
        let (items, _suspects) = self.judge(cx, rule, gone, &[])?;
        let id = cx.next_id();
        self.merging.insert(id, Merging::Gone);
        cx.actions.push(Action::Merge { id, items });
        Ok(())
    }

    /// A merge is done. False when it was none of this shard's.
    pub(crate) fn merged(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        results: &[Result<bool, MergeFailure>],
    ) -> Result<bool, Failed> {
        let Some(merging) = self.merging.remove(&id) else {
            return Ok(false);
        };
        let mut refused = false;
        for result in results {
            match result {
                Ok(fresh) => cx.counters.objects_fresh += u64::from(*fresh),
                Err(MergeFailure::Other(_)) => {
                    cx.counters.objects_refused += 1;
                    refused = true;
                }
                Err(MergeFailure::OwnEventUnknown { highest }) => {
                    cx.actions.push(Action::Renew { highest: *highest });
                    return Err(Failed::Renewed);
                }
                Err(failure @ (MergeFailure::StorageFull | MergeFailure::Unavailable)) => {
                    return Err(Failed::Merge(failure.clone()));
                }
            }
        }
        // What was to be taken in an era that is over was not.
        refused |= self.takes_held && cx.replica.era() != self.era;
        self.clean &= !refused;
        self.took_all &= !refused;
        if let Merging::Message { seq, suspects } = merging {
            let gone = self.gone(cx.replica, suspects)?;
            cx.counters.objects_out += gone.len() as u64;
            cx.say(Message::Ack { shard: self.number(), seq, refused, gone });
        }
        Ok(true)
    }

    /// Decodes objects and says by what right each is merged; and which of them the peer may have to be told are gone.
    #[expect(clippy::type_complexity, reason = "two lists that are taken apart at once")]
    fn judge(
        &mut self,
        cx: &mut Cx<'_>,
        rule: Rule,
        deltas: &[WireDelta],
        unsound: &[u16],
    ) -> Result<(Vec<(Delta, Evidence)>, Vec<(TableName, Key, Vec<Dot>)>), Failed> {
        cx.counters.objects_in += deltas.len() as u64;
        let (mut items, mut suspects) = (Vec::with_capacity(deltas.len()), Vec::new());
        for wire in deltas {
            let delta = wire.decode()?;
            if rule == Rule::Stream {
                items.push((delta, Evidence::Own));
                continue;
            }
            if let Some(watch) = &self.watch {
                watch.confirm(delta.object.live_dots());
            }
            let bucket = Bucket::of(&delta.table, &delta.key);
            let sound = self.is_sound(cx.replica, bucket)?;
            let theirs_sound = !unsound.contains(&bucket.number());
            self.note_their_sound(bucket, theirs_sound);
            if sound && !self.theirs_descends {
                let dots = dead_here(cx.replica, &self.mine.clock, &delta)?;
                if !dots.is_empty() {
                    suspects.push((delta.table.clone(), delta.key.clone(), dots));
                }
            }
            let evidence = if sound {
                self.evidence(theirs_sound)
            } else {
                let Some(evidence) = self.repair(cx.replica, bucket, &delta)? else { continue };
                evidence
            };
            self.takes_held |= matches!(evidence, Evidence::Held(_));
            items.push((delta, evidence));
        }
        Ok((items, suspects))
    }

    /// What is dead when an object of the peer is merged into a bucket that is sound here.
    ///
    /// A value that a side has processed and does not hold is dead there if the event that killed it may be unknown to the
    /// other side: if that lacks events whose keys were forgotten here. When the other side has processed everything that this
    /// one has, and still holds the value, nothing killed it: it was lost, or dropped on the word of somebody whose clock was
    /// not taken over since.
    fn evidence(&self, theirs_sound: bool) -> Evidence {
        let peer_kills = theirs_sound && !self.mine_descends;
        match (!self.theirs_descends, peer_kills) {
            (_, true) => Evidence::Both(Arc::clone(&self.theirs)),
            (true, false) => Evidence::Own,
            (false, false) => Evidence::Held(self.era.clone()),
        }
    }

    /// What is dead when an object of the peer is merged into a bucket that does not add up here, or is marked; `None` if it
    /// must not be merged.
    ///
    /// What the bucket lacks was lost if the peer has processed everything that this side has. If it is behind, nothing tells
    /// what was lost from what the peer should have dropped: that is left to others who know, see [`super::Repairs`].
    fn repair(
        &mut self,
        replica: &dyn Replicated,
        bucket: Bucket,
        delta: &Delta,
    ) -> Result<Option<Evidence>, Failed> {
        if self.theirs_descends {
            return Ok(Some(Evidence::Held(self.era.clone())));
        }
        if let Some(known) = self.resort.known(self.shard, bucket) {
            return Ok(Some(Evidence::Beyond(known)));
        }
        if dead_here(replica, &replica.clock()?, delta)?.is_empty() {
            return Ok(Some(Evidence::Own));
        }
        // Not even its context may be merged: it would say that the value is dead.
        self.left.insert(bucket);
        self.clean = false;
        Ok(None)
    }

    /// Of the suspects those that the peer would not hear of otherwise, as they are here. Who holds values of a key when the
    /// digests are compared sends them anyway; not so who had deleted it then, even if it was written anew since.
    fn gone(
        &mut self,
        replica: &dyn Replicated,
        suspects: Vec<(TableName, Key, Vec<Dot>)>,
    ) -> Result<Vec<WireDelta>, Failed> {
        let (mut gone, mut bytes) = (Vec::new(), 0);
        for (table, key, dots) in suspects {
            let object = replica.object(&table, &key)?.unwrap_or_default();
            let is_dead = dots.iter().any(|dot| object.value_at(dot).is_none());
            if !is_dead
                || (!object.is_deleted() && self.offered.contains(&short_hash(&table, &key)))
            {
                continue;
            }
            bytes += object_bytes(&object);
            if bytes > DELTAS_BYTES && !gone.is_empty() {
                // The peer keeps what is dead here, so neither clock may be taken over: the next session goes on.
                self.clean = false;
                break;
            }
            gone.push(WireDelta::from(&Delta { table, key, object, dots: Vec::new() }));
        }
        Ok(gone)
    }
}

/// Live dots of a peer's object that lie in the clock of this side and that it does not hold.
fn dead_here(replica: &dyn Replicated, clock: &Clock, delta: &Delta) -> Result<Vec<Dot>, Failed> {
    let known: Vec<Dot> = delta.object.live_dots().filter(|dot| clock.contains(dot)).collect();
    if known.is_empty() {
        return Ok(known);
    }
    let held = match replica.object(&delta.table, &delta.key) {
        Ok(object) => object.unwrap_or_default(),
        // Nothing of it counts as held.
        Err(ReadError::Corrupt(_)) => Object::default(),
        Err(e) => return Err(e.into()),
    };
    Ok(known.into_iter().filter(|dot| held.value_at(dot).is_none()).collect())
}

/// What a key is called in questions about buckets.
pub(crate) fn short_hash(table: &TableName, key: &Key) -> u128 {
    u128::from_be_bytes(KeyHash::of(table, key).prefix())
}

fn object_bytes(object: &Object) -> usize {
    let values = object.values().map(|v| 32 + v.payload.as_ref().map_or(0, Vec::len));
    object.entries().len() * 32 + values.sum::<usize>()
}

/// Per actor the highest event of `theirs` that `mine` lacks.
pub(crate) fn lacking(mine: &Clock, theirs: &Clock) -> VersionVector {
    let highest = |actor, seen| mine.get(actor).cloned().unwrap_or_default().merge(seen);
    theirs
        .iter()
        .filter_map(|(actor, seen)| highest(actor, seen).map(|counter| (*actor, counter)))
        .collect()
}

/// How many events of `theirs` are lacking in `mine`; saturating, since a peer may claim anything.
pub(crate) fn lacking_count(mine: &Clock, theirs: &Clock) -> u64 {
    let nothing = Seen::default();
    let mut count = 0_u64;
    for (actor, seen) in theirs.iter() {
        let mine = mine.get(actor).unwrap_or(&nothing);
        let runs = (seen.base() > 0).then_some((1, seen.base()));
        for (from, to) in runs.into_iter().chain(seen.runs().iter().copied()) {
            for gap in mine.gaps(to).filter(|gap| gap.1 >= from) {
                count = count.saturating_add(gap.1 - gap.0.max(from)).saturating_add(1);
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use weald_storage::{Actor, NodeId};

    use super::*;

    fn clock(counters: &BTreeSet<u64>) -> Clock {
        let actor = Actor { node: NodeId([1; 16]), incarnation: 1 };
        let mut clock = Clock::default();
        for counter in counters {
            clock.insert(Dot { actor, counter: *counter });
        }
        clock
    }

    proptest! {
        #[test]
        fn lacking_is_set_difference(
            mine in prop::collection::btree_set(1_u64..30, 0..30),
            theirs in prop::collection::btree_set(1_u64..30, 0..30),
        ) {
            let difference: BTreeSet<u64> = theirs.difference(&mine).copied().collect();
            let highest = lacking(&clock(&mine), &clock(&theirs)).iter().next().map(|(_, n)| n);
            prop_assert_eq!(highest, difference.last().copied());
            prop_assert_eq!(lacking_count(&clock(&mine), &clock(&theirs)), difference.len() as u64);
        }
    }
}
