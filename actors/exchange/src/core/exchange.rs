//! One shard between two nodes: clocks first, then the trees if the clocks cannot help.
//!
//! What it guarantees: after the streams each side has processed what the other had and could name; after a clean walk each
//! takes over the other's clock as it was when the shard was opened, before any tree was read.

use std::sync::Arc;

use weald_storage::{Clock, Dot, Replicated, Space};

use super::link::{Action, Cx, Link, Rule, lacking, lacking_count};
use super::outcome::{Compared, DiffReport, Failed, MergeFailure};
use super::repairs::Resort;
use super::walk::Walk;
use super::wire::{DELTAS_BYTES, End, Message, Shard, ShardState, WireNode};

/// How often a state is read again until it holds still.
const STATE_READS_MAX: usize = 3;

/// Which side of the session this is, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) initiator: bool,
    pub(crate) look: bool,
}

#[derive(Debug)]
enum Stage {
    /// I: waits for the peer's clock.
    Opening,
    /// Both stream what the other lacks.
    Streaming {
        cursor: Option<Dot>,
        sent: bool,
        mine_needs: bool,
        theirs_needs: bool,
    },
    Walking(Walk),
    /// The clock is being taken over.
    Adopting {
        id: u64,
    },
    /// Whether both sides are equal now.
    Done {
        converged: bool,
    },
}

/// One shard between two nodes.
#[derive(Debug)]
pub(crate) struct Exchange {
    part: Part,
    link: Link,
    their_root: Option<WireNode>,
    stage: Stage,
    diff: Option<DiffReport>,
    compared: bool,
}

/// Reads clock and root of one moment, if the shard holds still for it.
pub(crate) fn read_state(replica: &dyn Replicated) -> Result<ShardState, Failed> {
    let mut clock = replica.clock()?;
    for _ in 0..STATE_READS_MAX {
        let root = replica.tree_root()?;
        let after = replica.clock()?;
        if after == clock {
            return Ok(ShardState { actor: replica.actor(), clock, root: Some(root.into()) });
        }
        clock = after;
    }
    Ok(ShardState { actor: replica.actor(), clock, root: None })
}

impl Exchange {
    /// I: opens a shard.
    pub(crate) fn open(
        part: Part,
        shard: Shard,
        resort: Arc<Resort>,
        cx: &mut Cx<'_>,
    ) -> Result<Self, Failed> {
        let exchange = Self::new(part, shard, resort, cx)?;
        cx.say(Message::Open { shard: shard.number(), state: exchange.link.mine.clone() });
        Ok(exchange)
    }

    fn new(part: Part, shard: Shard, resort: Arc<Resort>, cx: &mut Cx<'_>) -> Result<Self, Failed> {
        // Both before the state: what is damaged or forgotten later was not compared.
        let (damaged, era) = (cx.replica.damaged()?, cx.replica.era());
        let mine = read_state(cx.replica)?;
        Ok(Self {
            part,
            link: Link::new(shard, era, mine, damaged, resort),
            their_root: None,
            stage: Stage::Opening,
            diff: None,
            compared: false,
        })
    }

    /// R: the peer has opened a shard.
    pub(crate) fn opened(
        part: Part,
        shard: Shard,
        theirs: ShardState,
        resort: Arc<Resort>,
        cx: &mut Cx<'_>,
    ) -> Result<Self, Failed> {
        let mut exchange = Self::new(part, shard, resort, cx)?;
        cx.say(Message::Opened { shard: shard.number(), state: exchange.link.mine.clone() });
        exchange.begin(theirs, cx)?;
        exchange.advance(cx)?;
        Ok(exchange)
    }

    pub(crate) const fn converged(&self) -> Option<bool> {
        match self.stage {
            Stage::Done { converged } => Some(converged),
            _ => None,
        }
    }

    pub(crate) const fn diff(&self) -> Option<&DiffReport> {
        self.diff.as_ref()
    }

    /// Once done: what came of the buckets that were damaged here.
    pub(crate) fn compared(&self) -> Option<Compared> {
        let compared = self.compared.then(|| self.link.compared());
        compared.filter(|compared| !compared.buckets.is_empty())
    }

    /// The peer's clock as it was at the beginning.
    pub(crate) fn their_clock(&self) -> Arc<Clock> {
        Arc::clone(&self.link.theirs)
    }

    pub(crate) fn message(&mut self, message: Message, cx: &mut Cx<'_>) -> Result<(), Failed> {
        let rule = match self.stage {
            Stage::Walking(_) => Rule::Walk,
            _ => Rule::Stream,
        };
        match (&mut self.stage, message) {
            (Stage::Opening, Message::Opened { state, .. }) => self.begin(state, cx)?,
            (stage, Message::Deltas { seq, deltas, unsound, end, .. }) => {
                match stage {
                    Stage::Streaming { theirs_needs, .. } => {
                        *theirs_needs |= end.is_some_and(|end| end.needs_walk);
                    }
                    Stage::Walking(_) if !self.part.look => {}
                    _ => return Err(Failed::Protocol("objects out of turn")),
                }
                self.link.receive(cx, rule, seq, &deltas, &unsound, end.is_some())?;
            }
            (
                Stage::Streaming { .. } | Stage::Walking(_),
                Message::Ack { seq, refused, gone, .. },
            ) => {
                self.link.acknowledged(cx, rule, seq, refused, &gone)?;
            }
            (Stage::Walking(walk), message) => walk.message(&mut self.link, cx, message)?,
            _ => return Err(Failed::Protocol("a message of another stage")),
        }
        self.advance(cx)
    }

    /// A merge is done; false when it was none of this shard's.
    pub(crate) fn merged(
        &mut self,
        id: u64,
        results: &[Result<bool, MergeFailure>],
        cx: &mut Cx<'_>,
    ) -> Result<bool, Failed> {
        let known = self.link.merged(cx, id, results)?;
        if known {
            self.advance(cx)?;
        }
        Ok(known)
    }

    /// A clock was taken over, or not; false when it was none of this shard's.
    pub(crate) fn adopted(&mut self, id: u64, ok: bool, cx: &mut Cx<'_>) -> bool {
        let known = matches!(self.stage, Stage::Adopting { id: of } if of == id);
        if known {
            cx.counters.adopted += u64::from(ok);
            self.stage = Stage::Done { converged: ok };
        }
        known
    }

    fn begin(&mut self, theirs: ShardState, cx: &mut Cx<'_>) -> Result<(), Failed> {
        check_own_life(self.link.shard.space, &self.link.mine, &theirs, cx)?;
        self.their_root = theirs.root;
        self.link.set_theirs(theirs.clock);
        self.stage = if self.part.look {
            self.walk(cx)?
        } else {
            Stage::Streaming { cursor: None, sent: false, mine_needs: false, theirs_needs: false }
        };
        Ok(())
    }

    fn walk(&mut self, cx: &mut Cx<'_>) -> Result<Stage, Failed> {
        cx.counters.walks += 1;
        if !self.part.look {
            self.link.watch = Some(cx.replica.watch(&self.link.theirs)?);
        }
        Ok(Stage::Walking(if self.part.initiator {
            Walk::ask(&mut self.link, cx, self.part.look)
        } else {
            Walk::answer(&mut self.link, self.part.look)
        }))
    }

    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<(), Failed> {
        if matches!(self.stage, Stage::Streaming { .. }) {
            self.stream(cx)?;
        }
        if let Stage::Walking(walk) = &mut self.stage {
            walk.advance(&mut self.link, cx)?;
            if let Some(clean) = walk.ended(&self.link) {
                if let Some(report) = walk.look().cloned() {
                    self.diff = Some(self.look_at_clocks(report));
                }
                self.compared = !self.part.look;
                self.stage = self.finish(clean, cx)?;
            }
        }
        Ok(())
    }

    /// Sends what the peer lacks; goes on when both streams are through.
    fn stream(&mut self, cx: &mut Cx<'_>) -> Result<(), Failed> {
        let Stage::Streaming { cursor, sent, mine_needs, theirs_needs } = &mut self.stage else {
            return Ok(());
        };
        while self.link.may_send() {
            let missing = cx.replica.missing(&self.link.theirs, *cursor, DELTAS_BYTES)?;
            *mine_needs |= missing.needs_walk;
            let last = missing.found.last.or(*cursor);
            let more = missing.found.more && last != *cursor;
            *cursor = last;
            *sent |= !missing.found.deltas.is_empty();
            // It lacks events, and none of them can be named: the index of events is damaged. Saying so again and again
            // would never end.
            *mine_needs |= !more && !*sent && !self.link.theirs.descends(&self.link.mine.clock);
            // What may be lacking here shows in a walk.
            let asks = *mine_needs || !self.link.damaged.is_empty();
            let end = (!more).then_some(End { needs_walk: asks });
            self.link.send(cx, &missing.found.deltas, Vec::new(), end);
        }
        if !self.link.is_idle() {
            return Ok(());
        }
        let roots_differ = match (self.link.mine.root, self.their_root) {
            (Some(mine), Some(theirs)) => mine != theirs,
            _ => false,
        };
        let walks = *mine_needs
            || *theirs_needs
            || !self.link.damaged.is_empty()
            || (self.link.clocks_equal() && roots_differ);
        self.link.streamed(*mine_needs, *theirs_needs);
        self.stage =
            if walks { self.walk(cx)? } else { Stage::Done { converged: self.link.clean } };
        Ok(())
    }

    fn look_at_clocks(&self, mut report: DiffReport) -> DiffReport {
        report.shards = 1;
        report.events_lacking_here = lacking_count(&self.link.mine.clock, &self.link.theirs);
        report.events_lacking_there = lacking_count(&self.link.theirs, &self.link.mine.clock);
        report
    }

    /// The walk is over: takes over the peer's clock if all was well.
    fn finish(&self, clean: bool, cx: &mut Cx<'_>) -> Result<Stage, Failed> {
        let now = cx.replica.clock()?;
        let watch = self.link.watch.as_ref().filter(|_| clean && !now.descends(&self.link.theirs));
        let Some(watch) = watch.map(Arc::clone) else {
            return Ok(Stage::Done { converged: clean });
        };
        // Of events that come with a clock and not with their objects the keys are not known here.
        let swept = lacking(&now, &self.link.theirs);
        let id = cx.next_id();
        cx.actions.push(Action::Adopt { id, clock: Arc::clone(&self.link.theirs), swept, watch });
        Ok(Stage::Adopting { id })
    }
}

/// Events of this node that the peer knows and this node does not: its data is older than what it has told others.
fn check_own_life(
    space: Space,
    mine: &ShardState,
    theirs: &ShardState,
    cx: &mut Cx<'_>,
) -> Result<(), Failed> {
    let lives = theirs.clock.iter().filter(|(actor, _)| actor.node == mine.actor.node);
    let now = cx.replica.clock()?;
    let known = now.get(&mine.actor).map_or(0, weald_storage::Seen::highest);
    for (actor, seen) in lives {
        // In memory each boot is a new life; one before it with a higher number (the clock was set back) does no harm.
        let later = space == Space::Durable && actor.incarnation > mine.actor.incarnation;
        let beyond = *actor == mine.actor && seen.highest() > known;
        if (later || beyond) && cx.replica.actor() == mine.actor {
            let highest = theirs.clock.iter().filter(|(a, _)| a.node == mine.actor.node);
            let highest = highest.map(|(a, _)| a.incarnation).max().unwrap_or(0);
            cx.actions.push(Action::Renew { highest });
            return Err(Failed::Renewed);
        }
    }
    Ok(())
}
