//! The writer thread of a partition.
//!
//! It takes one batch at a time: memory writes first (they are answered at once), then the durable
//! ones in one transaction. A transaction that meets a full map is redone in a larger one; without
//! space only deletes go on. After a failed sync nothing is written any more: what the disk holds
//! is not known, and only opening the store anew (with a new incarnation) can tell.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::clock::Clock;
use crate::digest::Bucket;
use crate::error::WriteError;
use crate::identity::EnvIdentity;
use crate::key::partition_of;
use crate::lmdb::{Failure, Lmdb, classify};
use crate::memory::MemoryState;
use crate::partition::batch::Outcomes;
use crate::partition::damage::Damaged;
use crate::partition::durable::{self, Committed, Done, Limits, TxnError};
use crate::partition::ops::{Rules, WriteOp, Written};
use crate::partition::space::{grown, reserve_bytes};
use crate::partition::sweep::{self, SweepPlan, SweepReport};
use crate::partition::{BatchReport, Completion, Partition, Reply, Space, Write};
use crate::table::{TABLES_TABLE, TableKind};
use crate::vector::VersionVector;
use crate::watch::{Held, Watch};

/// What the writer is asked to do.
pub(crate) enum Command {
    Batch(Batch),
    RepairTree(Bucket, SyncSender<Result<(), WriteError>>),
    Renew { durable: u32, memory: u32, reply: SyncSender<Result<(), WriteError>> },
    Sweep(Space, SweepPlan, SyncSender<Result<SweepReport, WriteError>>),
    Adopt(Space, Adopted, SyncSender<Result<(), WriteError>>),
    Compared(Space, Damaged, SyncSender<Result<(), WriteError>>),
    Stop,
}

/// What a peer has processed and swept.
pub(crate) struct Adopted {
    pub(crate) clock: Clock,
    pub(crate) swept: VersionVector,
    pub(crate) watch: Option<Arc<Watch>>,
}

/// A batch that owes its replies: dropped unanswered, it answers `Closed`.
pub(crate) struct Batch {
    writes: Vec<Write>,
    done: Option<Completion>,
}

impl Batch {
    pub(crate) fn new(writes: Vec<Write>, done: Completion) -> Self {
        Self { writes, done: Some(done) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        let Some(done) = self.done.take() else { return };
        let report = BatchReport { writes: writes.len(), failed: writes.len(), took_us: 0 };
        for write in writes {
            answer(write.reply, Err(WriteError::Closed));
        }
        guarded(|| done(report));
    }
}

/// Calls foreign code; its panic must not end the writer.
fn guarded(call: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
        tracing::error!(event = "store_callback_panicked", reason = panic_text(&*panic));
    }
}

fn answer(reply: Reply, outcome: Result<Written, WriteError>) {
    guarded(|| reply(outcome));
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

enum Fault {
    Panic(Arc<str>),
    Closed,
    Store(Failure),
}

type Ops<'o> = Vec<(usize, &'o WriteOp)>;

pub(crate) struct Writer {
    partition: Arc<Partition>,
    committed: Committed,
}

impl Writer {
    pub(crate) fn new(partition: Arc<Partition>, committed: Committed) -> Self {
        Self { partition, committed }
    }

    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Batch(batch) => self.batch(batch),
                Command::RepairTree(bucket, reply) => {
                    let repaired = self
                        .alone(|lmdb, committed| durable::rebuild_bucket(lmdb, committed, bucket));
                    drop(reply.send(repaired));
                }
                Command::Renew { durable, memory, reply } => {
                    drop(reply.send(self.renew(durable, memory)));
                }
                Command::Sweep(space, plan, reply) => drop(reply.send(self.sweep(space, &plan))),
                Command::Adopt(space, adopted, reply) => {
                    drop(reply.send(self.adopt(space, &adopted)));
                }
                Command::Compared(space, buckets, reply) => {
                    drop(reply.send(self.compared(space, &buckets)));
                }
                Command::Stop => return,
            }
        }
    }

    fn batch(&mut self, mut batch: Batch) {
        let started = Instant::now();
        let writes = std::mem::take(&mut batch.writes);
        let mut report = BatchReport { writes: writes.len(), failed: 0, took_us: 0 };
        let (ops, replies): (Vec<WriteOp>, Vec<Reply>) =
            writes.into_iter().map(|write| (write.op, write.reply)).unzip();
        let mut replies: Vec<Option<Reply>> = replies.into_iter().map(Some).collect();
        let (mut outcomes, memory, durable) = self.sort_out(&ops);
        if !memory.is_empty() {
            outcomes.append(&mut self.memory(&memory));
        }
        self.reply(&ops, std::mem::take(&mut outcomes), &mut replies, &mut report);
        if !durable.is_empty() {
            self.durable(durable, &mut outcomes);
            self.reply(&ops, outcomes, &mut replies, &mut report);
        }
        debug_assert!(replies.iter().all(Option::is_none), "every write was answered");
        report.took_us = micros(started);
        if let Some(done) = batch.done.take() {
            guarded(|| done(report));
        }
    }

    /// Refuses what is at the wrong place and tells memory writes from durable ones.
    fn sort_out<'o>(&self, ops: &'o [WriteOp]) -> (Outcomes, Ops<'o>, Ops<'o>) {
        let (mut refused, mut memory, mut durable) = (Outcomes::new(), Ops::new(), Ops::new());
        let shared = &self.partition.shared;
        for (place, op) in ops.iter().enumerate() {
            let (table, key) = op.target();
            let belongs_to = partition_of(table, key, shared.config.partitions);
            if belongs_to != self.partition.index {
                let sent_to = self.partition.index;
                refused.insert(place, Err(WriteError::WrongPartition { sent_to, belongs_to }));
            } else if shared.tables.kind(table) == TableKind::Memory {
                memory.push((place, op));
            } else {
                durable.push((place, op));
            }
        }
        (refused, memory, durable)
    }

    fn reply(
        &self,
        ops: &[WriteOp],
        outcomes: Outcomes,
        replies: &mut [Option<Reply>],
        report: &mut BatchReport,
    ) {
        let changed = |outcome: &Result<Written, WriteError>| {
            outcome.as_ref().is_ok_and(|written| written.seq.is_some())
        };
        for (place, _) in outcomes.iter().filter(|(_, outcome)| changed(outcome)) {
            self.note_table(&ops[*place]);
        }
        let mut committed = [false; 2];
        for (place, outcome) in outcomes {
            match &outcome {
                Ok(written) => committed[written.space as usize] |= written.fresh,
                Err(_) => report.failed += 1,
            }
            if let Some(reply) = replies[place].take() {
                answer(reply, outcome);
            }
        }
        for space in [Space::Durable, Space::Memory] {
            if committed[space as usize] {
                self.call_hook(space);
            }
        }
    }

    fn call_hook(&self, space: Space) {
        let hook = self.partition.shared.hook.load();
        let Some(hook) = hook.as_ref() else { return };
        guarded(|| hook(self.partition.index, space, self.partition.last_seq(space)));
    }

    /// Keeps the list of tables up to date with what was just committed.
    fn note_table(&self, op: &WriteOp) {
        let (table, key) = op.target();
        let tables = &self.partition.shared.tables;
        if table.as_str() == TABLES_TABLE {
            self.partition.load_declaration(key);
        } else {
            tables.seen(table);
        }
    }

    fn rules<'a>(&'a self, space: Space, watches: &'a Held<'a>) -> Rules<'a> {
        let shared = &self.partition.shared;
        Rules {
            actor: self.partition.actor(space),
            now_ms: shared.config.clock.now_ms(),
            tables: &shared.tables,
            resolvers: &shared.resolvers,
            watches,
        }
    }

    fn memory(&self, ops: &[(usize, &WriteOp)]) -> Outcomes {
        let retained = self.partition.shared.config.changes_retained;
        let before = self.partition.memory();
        let watches = self.partition.watches(Space::Memory).hold();
        let rules = self.rules(Space::Memory, &watches);
        match catch_unwind(AssertUnwindSafe(|| before.write(&rules, ops, retained))) {
            Ok((state, outcomes)) => {
                self.publish(state);
                outcomes
            }
            Err(panic) => all(ops, &self.aborted(&*panic)),
        }
    }

    fn aborted(&self, panic: &(dyn Any + Send)) -> WriteError {
        let why: Arc<str> = panic_text(panic).into();
        tracing::error!(
            event = "store_writer_panicked",
            partition = self.partition.index,
            reason = &*why,
            "a batch was rolled back"
        );
        WriteError::Aborted(why)
    }

    fn durable(&mut self, ops: Ops<'_>, outcomes: &mut Outcomes) {
        if let Some(why) = self.partition.gauges.stopped() {
            return outcomes.append(&mut all(&ops, &WriteError::Stopped(why)));
        }
        if self.is_short() {
            return self.squeeze(ops, &"the reserve for deletes was reached", outcomes);
        }
        self.attempt(ops, false, outcomes);
    }

    /// Commits `ops`, growing the map as needed.
    fn attempt(&mut self, ops: Ops<'_>, short: bool, outcomes: &mut Outcomes) {
        loop {
            self.grow(0);
            let failure = match self.transaction(&ops, short) {
                Ok(mut done) => {
                    outcomes.append(&mut done.outcomes);
                    return;
                }
                Err(Fault::Panic(why)) => {
                    return outcomes.append(&mut all(&ops, &WriteError::Aborted(why)));
                }
                Err(Fault::Closed) => return outcomes.append(&mut all(&ops, &WriteError::Closed)),
                Err(Fault::Store(failure)) => failure,
            };
            match failure {
                Failure::MapFull if self.grow(u64::MAX) => {}
                Failure::MapFull if short => {
                    return self.halve(ops, &"the memory map is full", outcomes);
                }
                Failure::MapFull => {
                    return self.squeeze(ops, &"the memory map is full", outcomes);
                }
                Failure::NoSpace(error) if short => return self.halve(ops, &error, outcomes),
                Failure::NoSpace(error) => return self.squeeze(ops, &error, outcomes),
                Failure::Fatal(error) => {
                    let why = self.stop(&error);
                    return outcomes.append(&mut all(&ops, &WriteError::Stopped(why)));
                }
                Failure::Other(error) => {
                    let error = WriteError::Storage(error.to_string().into());
                    return outcomes.append(&mut all(&ops, &error));
                }
            }
        }
    }

    /// Without space: lets through what gives some, refuses the rest.
    fn squeeze(&mut self, ops: Ops<'_>, cause: &dyn std::fmt::Display, outcomes: &mut Outcomes) {
        self.set_full(cause);
        let (giving, taking): (Ops<'_>, Ops<'_>) =
            ops.into_iter().partition(|(_, op)| op.gives_space());
        outcomes.append(&mut all(&taking, &self.full_error(cause)));
        if !giving.is_empty() {
            self.attempt(giving, true, outcomes);
        }
    }

    /// A batch of deletes did not fit: tries each half alone.
    fn halve(&mut self, mut ops: Ops<'_>, cause: &dyn std::fmt::Display, outcomes: &mut Outcomes) {
        if ops.len() < 2 {
            self.set_full(cause);
            return outcomes.append(&mut all(&ops, &self.full_error(cause)));
        }
        // The writes of one key stay in order: the first half is committed first.
        let second = ops.split_off(ops.len() / 2);
        self.attempt(ops, true, outcomes);
        self.attempt(second, true, outcomes);
    }

    fn transaction(&mut self, ops: &[(usize, &WriteOp)], short: bool) -> Result<Done, Fault> {
        let partition = Arc::clone(&self.partition);
        let limits = Limits {
            changes_retained: partition.shared.config.changes_retained,
            shrink_log: short,
        };
        let started = Instant::now();
        let watches = partition.watches(Space::Durable).hold();
        let env = partition.env.read().unwrap_or_else(PoisonError::into_inner);
        let lmdb = env.as_ref().ok_or(Fault::Closed)?;
        let rules = self.rules(Space::Durable, &watches);
        let run = || durable::commit(lmdb, &self.committed, &rules, ops, limits);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(done)) => {
                drop(env);
                self.accept(&done, started);
                Ok(done)
            }
            Ok(Err(TxnError { error, committing })) => {
                Err(Fault::Store(classify(error, committing, &partition.dir)))
            }
            Err(panic) => match self.aborted(&*panic) {
                WriteError::Aborted(why) => Err(Fault::Panic(why)),
                _ => Err(Fault::Closed),
            },
        }
    }

    fn accept(&mut self, done: &Done, started: Instant) {
        let gauges = &self.partition.gauges;
        let writes = done.committed.head.last_seq - self.committed.head.last_seq;
        self.committed = done.committed.clone();
        let head = &self.committed.head;
        self.partition.last_seq[Space::Durable as usize].store(head.last_seq, Ordering::Release);
        gauges.used_bytes.store(done.used_bytes, Ordering::Relaxed);
        gauges.rows.store(head.root.count, Ordering::Relaxed);
        gauges.clock_skews.fetch_add(done.clamped, Ordering::Relaxed);
        if writes > 0 {
            gauges.commits.fetch_add(1, Ordering::Relaxed);
            gauges.writes.fetch_add(writes, Ordering::Relaxed);
            gauges.last_batch.store(writes, Ordering::Relaxed);
            gauges.last_commit_us.store(micros(started), Ordering::Relaxed);
            let short = self.is_short();
            if self.partition.gauges.full.swap(short, Ordering::Relaxed) && !short {
                let partition = self.partition.index;
                tracing::info!(event = "storage_has_space", partition, "writes are accepted again");
            }
        }
    }

    /// Makes the map larger when it is due, or in any case when `high_water_bytes` says so; whether
    /// it became larger.
    fn grow(&self, high_water_bytes: u64) -> bool {
        let partition = &self.partition;
        let map_bytes_max = partition.shared.config.map_size_max;
        let target = {
            let env = partition.env.read().unwrap_or_else(PoisonError::into_inner);
            let Some(lmdb) = env.as_ref() else { return false };
            let map_bytes = lmdb.map_bytes();
            let forced = (high_water_bytes > 0 && map_bytes < map_bytes_max)
                .then(|| map_bytes.saturating_mul(2).min(map_bytes_max));
            forced.or_else(|| grown(map_bytes, lmdb.high_water_bytes(), map_bytes_max))
        };
        let Some(target) = target else { return false };
        let started = Instant::now();
        let mut env = partition.env.write().unwrap_or_else(PoisonError::into_inner);
        let Some(lmdb) = env.as_mut() else { return false };
        let before = lmdb.map_bytes();
        if let Err(error) = lmdb.grow(target) {
            // LMDB unmaps before it maps: without a map the environment cannot be used any more.
            drop(env.take());
            drop(env);
            self.stop(&error);
            return false;
        }
        let now = lmdb.map_bytes();
        drop(env);
        partition.gauges.map_bytes.store(now, Ordering::Relaxed);
        partition.gauges.resizes.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            event = "map_grown",
            partition = partition.index,
            map_bytes = now,
            took_us = micros(started),
            "the memory map was made larger"
        );
        now > before
    }

    fn is_short(&self) -> bool {
        let (gauges, config) = (&self.partition.gauges, &self.partition.shared.config);
        let limit = config.map_size_max.saturating_sub(reserve_bytes(config.map_size_max));
        gauges.map_bytes.load(Ordering::Relaxed) >= config.map_size_max
            && gauges.used_bytes.load(Ordering::Relaxed) > limit
    }

    fn set_full(&self, cause: &dyn std::fmt::Display) {
        if !self.partition.gauges.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                event = "storage_full",
                partition = self.partition.index,
                %cause,
                "writes are refused until there is space"
            );
        }
    }

    fn full_error(&self, cause: &dyn std::fmt::Display) -> WriteError {
        WriteError::StorageFull {
            used_bytes: self.partition.gauges.used_bytes.load(Ordering::Relaxed),
            map_bytes_max: self.partition.shared.config.map_size_max,
            cause: cause.to_string().into(),
        }
    }

    fn stop(&self, error: &heed::Error) -> Arc<str> {
        let why: Arc<str> = error.to_string().into();
        self.partition.gauges.stop(&why);
        tracing::error!(
            event = "storage_stopped",
            partition = self.partition.index,
            reason = &*why,
            "nothing more is written until the store is opened anew"
        );
        why
    }

    fn renew(&mut self, incarnation: u32, memory_incarnation: u32) -> Result<(), WriteError> {
        let old = self.partition.actor(Space::Durable);
        let identity = EnvIdentity { incarnation, memory_incarnation, ..self.partition.identity };
        self.alone(|lmdb, committed| durable::adopt(lmdb, committed, Some(old), &identity))?;
        self.partition.incarnation.store(incarnation, Ordering::Release);
        let old = self.partition.actor(Space::Memory);
        // The state first: who reads the new actor must not count the dots of the old one as its own.
        self.publish(self.partition.memory().renew(old));
        self.partition.memory_incarnation.store(memory_incarnation, Ordering::Release);
        Ok(())
    }

    fn sweep(&mut self, space: Space, plan: &SweepPlan) -> Result<SweepReport, WriteError> {
        let own = self.partition.actor(space);
        let retained = self.partition.shared.config.changes_retained;
        if space == Space::Memory {
            let before = self.partition.memory();
            let run = || before.sweep(own, plan);
            let (state, report) =
                catch_unwind(AssertUnwindSafe(run)).map_err(|panic| self.aborted(&*panic))?;
            self.publish(state);
            self.note_forgotten(space, &report);
            return Ok(report);
        }
        let (mut report, mut used_bytes) = (SweepReport::default(), 0);
        self.alone(|lmdb, before| {
            let (after, swept, used) = durable::sweep(lmdb, before, own, plan, retained)?;
            (report, used_bytes) = (swept, used);
            Ok(after)
        })?;
        let gauges = &self.partition.gauges;
        gauges.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.note_forgotten(space, &report);
        Ok(report)
    }

    /// Ends the era if need be, and says that a sweep has moved the clock.
    fn note_forgotten(&self, space: Space, report: &SweepReport) {
        if report.has_forgotten() {
            self.partition.watches(space).forgot();
        }
        if report.lost == 0 {
            return;
        }
        tracing::info!(
            event = "events_given_up",
            partition = self.partition.index,
            lost = report.lost,
            "events are known by name only, and no member can send them any more"
        );
        self.call_hook(space);
    }

    fn adopt(&mut self, space: Space, theirs: &Adopted) -> Result<(), WriteError> {
        let own = self.partition.actor(space);
        if theirs.watch.as_ref().is_some_and(|watch| watch.is_disturbed()) {
            return Err(WriteError::Disturbed);
        }
        if space == Space::Memory {
            let state = self.partition.memory().adopt(own, &theirs.clock, &theirs.swept)?;
            self.publish(state);
        } else {
            let (mut clock, mut swept) =
                (self.committed.clock.clone(), self.committed.swept.clone());
            let counter = self.committed.head.counter;
            let changed =
                sweep::adopt(&mut clock, &mut swept, own, counter, &theirs.clock, &theirs.swept)?;
            if changed.is_empty() && swept == self.committed.swept {
                return Ok(());
            }
            self.alone(|lmdb, before| {
                durable::join(lmdb, before, clock.clone(), swept.clone(), &changed)
            })?;
        }
        self.partition.watches(space).forgot();
        self.call_hook(space);
        Ok(())
    }

    fn compared(&mut self, space: Space, buckets: &Damaged) -> Result<(), WriteError> {
        if space == Space::Memory {
            let state = self.partition.memory().compared(buckets);
            self.publish(state);
            return Ok(());
        }
        if self.committed.damaged.is_disjoint(buckets) {
            return Ok(());
        }
        self.alone(|lmdb, before| durable::compared(lmdb, before, buckets))
    }

    /// Makes a state of the memory tables the current one.
    fn publish(&self, state: MemoryState) {
        self.partition.gauges.memory_rows.store(state.root().count, Ordering::Relaxed);
        let last_seq = state.last_seq();
        self.partition.memory.store(Arc::new(state));
        self.partition.last_seq[Space::Memory as usize].store(last_seq, Ordering::Release);
    }

    /// Runs a transaction that is not a batch; once more with a larger map when it did not fit.
    fn alone(
        &mut self,
        mut run: impl FnMut(&Lmdb, &Committed) -> Result<Committed, TxnError>,
    ) -> Result<(), WriteError> {
        self.grow(0);
        loop {
            match self.alone_once(&mut run) {
                Err(WriteError::StorageFull { .. }) if self.grow(u64::MAX) => {}
                outcome => return outcome,
            }
        }
    }

    fn alone_once(
        &mut self,
        run: &mut impl FnMut(&Lmdb, &Committed) -> Result<Committed, TxnError>,
    ) -> Result<(), WriteError> {
        if let Some(why) = self.partition.gauges.stopped() {
            return Err(WriteError::Stopped(why));
        }
        let env = self.partition.env.read().unwrap_or_else(PoisonError::into_inner);
        let lmdb = env.as_ref().ok_or(WriteError::Closed)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| run(lmdb, &self.committed)));
        drop(env);
        match outcome {
            Ok(Ok(committed)) => {
                self.committed = committed;
                Ok(())
            }
            Ok(Err(TxnError { error, committing })) => {
                match classify(error, committing, &self.partition.dir) {
                    Failure::MapFull => Err(self.full_error(&"the memory map is full")),
                    Failure::NoSpace(error) => Err(self.full_error(&error)),
                    Failure::Fatal(error) => Err(WriteError::Stopped(self.stop(&error))),
                    Failure::Other(error) => Err(WriteError::Storage(error.to_string().into())),
                }
            }
            Err(panic) => Err(self.aborted(&*panic)),
        }
    }
}

fn all(ops: &[(usize, &WriteOp)], error: &WriteError) -> Outcomes {
    ops.iter().map(|(place, _)| (*place, Err(error.clone()))).collect()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
