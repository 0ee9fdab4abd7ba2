//! The node's scope: what runs where in the tree, and the way into the log.
//!
//! Guarantees: the tree can be read at any time without asking a supervisor (which may be busy
//! starting or stopping a child); nothing here is a process static, so several nodes can live in
//! one process. Refuses: to own actors; supervisors do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

mod trace;
mod tree;

pub use tree::{ChildCounts, ScopeError, Status, TreeNode};

use crate::incarnation::Incarnation;
use crate::log::{SupervisionLog, unix_ms};
use crate::panics;
use crate::record::{Event, Record};
use crate::spec::{Kind, Strategy};
use crate::tasks::{Group, TaskInfo};

/// How long a killed actor is waited for before it is reported as unkillable. A guess: a thread
/// that blocks longer than this will not come back on its own.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// One per node. Clones are the same scope.
#[derive(Debug, Clone)]
pub struct Scope {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: String,
    log: Option<SupervisionLog>,
    epoch: Instant,
    kill_wait: Duration,
    next_start_seq: AtomicU64,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Paths that were killed since the last shutdown began; bounded.
    killed: Mutex<Vec<(String, bool)>>,
}

/// Paths remembered for a shutdown report.
const KILLED_MAX: usize = 1024;

#[derive(Debug)]
struct Entry {
    order: u64,
    kind: Kind,
    strategy: Option<Strategy>,
    status: Status,
    live: Option<Arc<Incarnation>>,
    actor_id: String,
    restarts: u64,
    last_exit: Option<String>,
    /// Of a supervisor of light tasks that is up.
    tasks: Option<Arc<Group>>,
}

/// What is known of a child before it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared {
    pub(crate) order: u64,
    pub(crate) kind: Kind,
    pub(crate) strategy: Option<Strategy>,
}

impl Scope {
    /// The scope of one node. The name goes into every record.
    #[must_use]
    pub fn new(node_name: &str, log: Option<SupervisionLog>) -> Self {
        Self::with_kill_wait(node_name, log, KILL_WAIT)
    }

    /// As [`Self::new`], with another limit for the wait after a kill (default 5 s).
    #[must_use]
    pub fn with_kill_wait(
        node_name: &str,
        log: Option<SupervisionLog>,
        kill_wait: Duration,
    ) -> Self {
        panics::install_hook();
        Self {
            inner: Arc::new(Inner {
                node: node_name.to_owned(),
                log,
                epoch: Instant::now(),
                kill_wait,
                next_start_seq: AtomicU64::new(1),
                entries: Mutex::new(BTreeMap::new()),
                killed: Mutex::new(Vec::new()),
            }),
        }
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// The supervision log, if the node keeps one.
    #[must_use]
    pub fn log(&self) -> Option<&SupervisionLog> {
        self.inner.log.as_ref()
    }

    /// The whole tree. Without a root: an empty, stopped node named after the scope.
    #[must_use]
    pub fn tree(&self) -> TreeNode {
        let now_ms = self.now_ms();
        let entries = self.entries();
        let mut nodes: Vec<(usize, u64, TreeNode)> = entries
            .iter()
            .map(|(path, entry)| (path.matches('/').count(), entry.order, entry.node(path, now_ms)))
            .collect();
        for (path, entry) in entries.iter() {
            let depth = path.matches('/').count() + 1;
            let tasks = entry.tasks.iter().flat_map(|tasks| tasks.list());
            nodes.extend((0..).zip(tasks).map(|(order, task)| (depth, order, task_node(&task))));
        }
        drop(entries);
        // Deepest first, so that each node is complete when it moves into its parent.
        nodes.sort_by_key(|(depth, order, _)| (std::cmp::Reverse(*depth), *order));
        let mut waiting: BTreeMap<String, Vec<TreeNode>> = BTreeMap::new();
        let mut roots = Vec::new();
        for (_, _, mut node) in nodes {
            node.children = waiting.remove(&node.path).unwrap_or_default();
            match node.path.rsplit_once('/') {
                Some((parent, _)) => waiting.entry(parent.to_owned()).or_default().push(node),
                None => roots.push(node),
            }
        }
        roots.into_iter().next().unwrap_or_else(|| TreeNode {
            path: self.inner.node.clone(),
            id: self.inner.node.clone(),
            kind: Kind::Supervisor,
            strategy: None,
            status: Status::Stopped,
            actor_id: String::new(),
            uptime_ms: 0,
            restarts: 0,
            mailbox_depth: 0,
            last_exit: None,
            tasks: None,
            children: Vec::new(),
        })
    }

    /// The node at this path, without what is below it.
    ///
    /// # Errors
    /// [`ScopeError::NotFound`].
    pub fn get(&self, path: &str) -> Result<TreeNode, ScopeError> {
        let now_ms = self.now_ms();
        let entries = self.entries();
        entries.get(path).map(|entry| entry.node(path, now_ms)).ok_or_else(|| not_found(path))
    }

    /// The children of the supervisor at this path, in start order, without grandchildren; of light tasks the oldest
    /// [`crate::TASKS_LISTED_MAX`].
    ///
    /// # Errors
    /// [`ScopeError::NotFound`].
    pub fn which_children(&self, path: &str) -> Result<Vec<TreeNode>, ScopeError> {
        let now_ms = self.now_ms();
        let entries = self.entries();
        if !entries.contains_key(path) {
            return Err(not_found(path));
        }
        let mut children: Vec<(u64, TreeNode)> = below(&entries, path)
            .filter(|(child, _)| !child[path.len() + 1..].contains('/'))
            .map(|(child, entry)| (entry.order, entry.node(child, now_ms)))
            .collect();
        let tasks = entries.get(path).and_then(|entry| entry.tasks.clone());
        drop(entries);
        let tasks = tasks.iter().flat_map(|tasks| tasks.list());
        children.extend((0..).zip(tasks).map(|(order, task)| (order, task_node(&task))));
        children.sort_by_key(|(order, _)| *order);
        Ok(children.into_iter().map(|(_, node)| node).collect())
    }

    /// Counts the children of the supervisor at this path.
    ///
    /// # Errors
    /// [`ScopeError::NotFound`].
    pub fn count_children(&self, path: &str) -> Result<ChildCounts, ScopeError> {
        let mut counts = ChildCounts::default();
        if let Some(tasks) = self.get(path)?.tasks {
            return Ok(ChildCounts { specs: tasks, active: tasks, supervisors: 0, workers: tasks });
        }
        for child in self.which_children(path)? {
            counts.specs += 1;
            counts.active += u64::from(matches!(child.status, Status::Running | Status::Stopping));
            match child.kind {
                Kind::Supervisor => counts.supervisors += 1,
                Kind::Worker => counts.workers += 1,
            }
        }
        Ok(counts)
    }

    /// Kills what runs at this path, worker or supervisor, as a fault would. For drills.
    ///
    /// # Errors
    /// [`ScopeError`] when there is nothing to kill; nothing was done then.
    pub fn kill(&self, path: &str) -> Result<(), ScopeError> {
        let entries = self.entries();
        let entry = entries.get(path).ok_or_else(|| not_found(path))?;
        let live = entry.live.clone();
        drop(entries);
        let live = live.ok_or_else(|| ScopeError::NotRunning { path: path.to_owned() })?;
        live.kill_as_drill();
        Ok(())
    }

    /// Writes a record: to the log, and to `tracing` under the target `supervision`. Node and time
    /// are filled in where they are empty.
    pub fn emit(&self, mut record: Record) {
        if record.node.is_empty() {
            record.node.clone_from(&self.inner.node);
        }
        if record.ts_ms == 0 {
            record.ts_ms = unix_ms();
        }
        trace::trace(&record);
        if let Some(log) = &self.inner.log {
            log.append(record);
        }
    }

    /// Milliseconds since the scope was made.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn kill_wait(&self) -> Duration {
        self.inner.kill_wait
    }

    pub(crate) fn next_start_seq(&self) -> u64 {
        self.inner.next_start_seq.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn declare(&self, path: &str, declared: Declared) {
        let entry = Entry {
            order: declared.order,
            kind: declared.kind,
            strategy: declared.strategy,
            status: Status::Stopped,
            live: None,
            actor_id: String::new(),
            restarts: 0,
            last_exit: None,
            tasks: None,
        };
        self.entries().insert(path.to_owned(), entry);
    }

    pub(crate) fn starting(&self, path: &str, restarts: u64) {
        if let Some(entry) = self.entries().get_mut(path) {
            entry.status = Status::Starting;
            entry.restarts = restarts;
        }
    }

    pub(crate) fn running(&self, path: &str, live: &Arc<Incarnation>) {
        if let Some(entry) = self.entries().get_mut(path) {
            entry.status = Status::Running;
            entry.actor_id = live.cell.get_id().to_string();
            entry.live = Some(Arc::clone(live));
        }
    }

    pub(crate) fn set_tasks(&self, path: &str, tasks: &Arc<Group>) {
        if let Some(entry) = self.entries().get_mut(path) {
            entry.tasks = Some(Arc::clone(tasks));
        }
    }

    pub(crate) fn set_status(&self, path: &str, status: Status) {
        if let Some(entry) = self.entries().get_mut(path) {
            entry.status = status;
        }
    }

    pub(crate) fn ended(&self, path: &str, last_exit: String) {
        if let Some(entry) = self.entries().get_mut(path) {
            entry.status = Status::Stopped;
            entry.live = None;
            entry.tasks = None;
            entry.last_exit = Some(last_exit);
        }
    }

    pub(crate) fn forget(&self, path: &str) {
        self.entries().remove(path);
    }

    /// What runs below this path, in reverse start order.
    pub(crate) fn live_below(&self, path: &str) -> Vec<Arc<Incarnation>> {
        let entries = self.entries();
        let mut live: Vec<_> = below(&entries, path).filter_map(|(_, e)| e.live.clone()).collect();
        live.sort_by_key(|incarnation| std::cmp::Reverse(incarnation.start_seq));
        live
    }

    /// Ends what a dead supervisor left behind below its path, latest first, and forgets its
    /// entries. Takes no longer than the wait after a kill; what is still there then is reported.
    pub(crate) async fn reap(&self, path: &str) {
        let deadline = Instant::now() + self.kill_wait();
        let mut reaped = BTreeSet::new();
        loop {
            let mut leftovers = self.live_below(path);
            // A supervisor that was about to die may have started one more child after the look
            // before this one; once all supervisors below are gone, nobody does.
            leftovers.retain(|leftover| reaped.insert(leftover.start_seq));
            if leftovers.is_empty() {
                break;
            }
            for leftover in &leftovers {
                leftover.kill();
            }
            for leftover in &leftovers {
                let left = deadline.saturating_duration_since(Instant::now());
                let gone = leftover.gone_within(left).await;
                self.report_leftover(leftover, gone);
            }
        }
        let mut entries = self.entries();
        let gone: Vec<String> = below(&entries, path).map(|(child, _)| child.clone()).collect();
        for child in gone {
            entries.remove(&child);
        }
    }

    fn report_leftover(&self, leftover: &Incarnation, gone: bool) {
        self.killed(&leftover.path, !gone);
        let mut record = Record::new(Event::ChildKilled, &leftover.path);
        record.child = leftover.path.rsplit('/').next().map(str::to_owned);
        record.reason = Some(if gone { "leftover" } else { "unkillable" }.to_owned());
        record.actor_id = Some(leftover.cell.get_id().to_string());
        record.actor_type = leftover.probe.actor_type.get().map(|t| (*t).to_owned());
        record.mailbox_depth = Some(leftover.probe.depth());
        record.uptime_ms = Some(self.now_ms().saturating_sub(leftover.started_ms));
        self.emit(record);
    }

    pub(crate) fn killed(&self, path: &str, unkillable: bool) {
        let mut killed = self.inner.killed.lock().unwrap_or_else(PoisonError::into_inner);
        if killed.len() < KILLED_MAX {
            killed.push((path.to_owned(), unkillable));
        }
    }

    pub(crate) fn take_killed(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.inner.killed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing in here panics half-way through a change.
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn node(&self, path: &str, now_ms: u64) -> TreeNode {
        TreeNode {
            path: path.to_owned(),
            id: path.rsplit('/').next().unwrap_or(path).to_owned(),
            kind: self.kind,
            strategy: self.strategy,
            status: self.status,
            actor_id: self.actor_id.clone(),
            uptime_ms: self.live.as_ref().map_or(0, |l| now_ms.saturating_sub(l.started_ms)),
            restarts: self.restarts,
            mailbox_depth: self.live.as_ref().map_or(0, |l| l.probe.depth()),
            last_exit: self.last_exit.clone(),
            tasks: self.tasks.as_ref().map(|tasks| tasks.len() as u64),
            children: Vec::new(),
        }
    }
}

fn task_node(task: &TaskInfo) -> TreeNode {
    TreeNode {
        path: task.path.to_string(),
        id: task.path.rsplit('/').next().unwrap_or_default().to_owned(),
        kind: Kind::Worker,
        strategy: None,
        status: Status::Running,
        actor_id: String::new(),
        uptime_ms: task.uptime_ms,
        restarts: 0,
        mailbox_depth: 0,
        last_exit: None,
        tasks: None,
        children: Vec::new(),
    }
}

fn not_found(path: &str) -> ScopeError {
    ScopeError::NotFound { path: path.to_owned() }
}

fn below<'a>(
    entries: &'a BTreeMap<String, Entry>,
    path: &str,
) -> impl Iterator<Item = (&'a String, &'a Entry)> {
    // '0' is the character after '/'.
    entries.range(format!("{path}/")..format!("{path}0"))
}
