//! The tasks of one incarnation of their supervisor.
//!
//! Guarantees: a task is in the books from before it runs until its future has been dropped; whoever saw the books closed and
//! empty knows that nothing of it is left. The lock is held for a few instructions, and never while foreign code runs.

use std::any::type_name;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::supervised::Supervised;
use super::{TASKS_LISTED_MAX, TaskCounts, TaskInfo};
use crate::error::StartError;
use crate::record::{Event, Record};
use crate::scope::Scope;
use crate::spec::{Kind, Restart, Strategy};
use crate::task::{BoxError, TaskContext};

#[derive(Debug)]
pub(crate) struct Group {
    scope: Scope,
    path: Arc<str>,
    tasks_max: usize,
    runtime: Handle,
    cancel: Arc<watch::Sender<bool>>,
    books: Mutex<Books>,
    emptied: Notify,
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Books {
    is_closed: bool,
    /// No task lives on, also one that has been admitted and is not spawned yet.
    is_doomed: bool,
    next: u64,
    tasks: BTreeMap<u64, Task>,
}

#[derive(Debug)]
struct Task {
    path: Arc<str>,
    started_ms: u64,
    abort: Option<AbortHandle>,
}

/// What has become of tasks, over all incarnations.
#[derive(Debug, Default)]
pub(super) struct Totals {
    started: AtomicU64,
    ended: AtomicU64,
    crashed: AtomicU64,
    killed: AtomicU64,
}

impl Totals {
    pub(super) fn counts(&self, running: usize) -> TaskCounts {
        TaskCounts {
            running: running as u64,
            started: self.started.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            crashed: self.crashed.load(Ordering::Relaxed),
            killed: self.killed.load(Ordering::Relaxed),
        }
    }
}

/// How a task came to its end.
#[derive(Debug)]
pub(super) enum End {
    Normal,
    Crashed { reason: &'static str, error: String, location: Option<String> },
    Killed,
}

/// A place in the books. Given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    group: Arc<Group>,
    number: u64,
    /// Set once the task has run; a ticket without was never used.
    end: Option<End>,
    type_name: &'static str,
}

impl Group {
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn new(scope: Scope, path: Arc<str>, tasks_max: usize, totals: Arc<Totals>) -> Self {
        Self {
            scope,
            path,
            tasks_max,
            runtime: Handle::current(),
            cancel: Arc::new(watch::Sender::new(false)),
            books: Mutex::default(),
            emptied: Notify::new(),
            totals,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn len(&self) -> usize {
        self.books().tasks.len()
    }

    /// The oldest ones.
    pub(crate) fn list(&self) -> Vec<TaskInfo> {
        let now_ms = self.scope.now_ms();
        let info = |task: &Task| TaskInfo {
            path: Arc::clone(&task.path),
            uptime_ms: now_ms.saturating_sub(task.started_ms),
        };
        self.books().tasks.values().take(TASKS_LISTED_MAX).map(info).collect()
    }

    pub(super) fn admit(self: &Arc<Self>, name: &str) -> Result<(Ticket, TaskContext), StartError> {
        let path: Arc<str> = format!("{}/{name}", self.path).into();
        let started_ms = self.scope.now_ms();
        let mut books = self.books();
        if books.is_closed {
            return Err(StartError::Down);
        }
        if books.tasks.len() >= self.tasks_max {
            return Err(StartError::Full { max: self.tasks_max });
        }
        let number = books.next;
        books.next += 1;
        books.tasks.insert(number, Task { path: Arc::clone(&path), started_ms, abort: None });
        drop(books);
        let group = Arc::clone(self);
        let ticket = Ticket { group, number, end: None, type_name: "" };
        Ok((ticket, TaskContext::with_cancel(path, Arc::clone(&self.cancel))))
    }

    /// Takes no more tasks.
    pub(super) fn close(&self) {
        self.books().is_closed = true;
    }

    /// Ends all at their next await.
    pub(super) fn abort_all(&self) {
        let mut books = self.books();
        books.is_closed = true;
        books.is_doomed = true;
        let aborts: Vec<_> = books.tasks.values().filter_map(|task| task.abort.clone()).collect();
        drop(books);
        for abort in aborts {
            abort.abort();
        }
    }

    /// Asks all to end, and ends those that do not.
    pub(super) async fn stop(&self, limit: Duration) {
        self.close();
        self.cancel.send_replace(true);
        if tokio::time::timeout(limit, self.emptied()).await.is_ok() {
            return;
        }
        let stuck: BTreeMap<u64, Arc<str>> = {
            let books = self.books();
            books.tasks.iter().map(|(number, task)| (*number, Arc::clone(&task.path))).collect()
        };
        self.abort_all();
        self.gone_or_reported(&stuck, "timeout").await;
    }

    /// Waits, no longer than after any kill, until nothing is left; says so, and what would not go.
    pub(super) async fn gone_or_reported(&self, killed: &BTreeMap<u64, Arc<str>>, reason: &str) {
        let all_gone = tokio::time::timeout(self.scope.kill_wait(), self.emptied()).await.is_ok();
        for (number, path) in killed.iter().take(TASKS_LISTED_MAX) {
            let is_left = !all_gone && self.books().tasks.contains_key(number);
            self.scope.killed(path, is_left);
            let mut record = self.record(Event::ChildKilled, path);
            record.reason = Some(if is_left { "unkillable" } else { reason }.to_owned());
            self.scope.emit(record);
        }
        if let Some(more) = killed.len().checked_sub(TASKS_LISTED_MAX).filter(|more| *more > 0) {
            let mut record = Record::new(Event::ChildKilled, &self.path);
            record.reason = Some(reason.to_owned());
            record.siblings = Some(more as u64);
            record.error = Some(format!("{more} more tasks were ended"));
            self.scope.emit(record);
        }
    }

    /// Those that are there, by their numbers.
    pub(super) fn paths(&self) -> BTreeMap<u64, Arc<str>> {
        self.books().tasks.iter().map(|(n, task)| (*n, Arc::clone(&task.path))).collect()
    }

    /// Returns once no task is left.
    async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            let mut notified = std::pin::pin!(notified);
            // Listens before it looks, so that nothing falls between the two.
            notified.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn record(&self, event: Event, path: &str) -> Record {
        let mut record = Record::new(event, path);
        record.child = path.rsplit('/').next().map(str::to_owned);
        record.kind = Some(Kind::Worker.name().to_owned());
        record.restart = Some(Restart::Temporary.name().to_owned());
        record.strategy = Some(Strategy::Dynamic.name().to_owned());
        record.generation = Some(1);
        record.restarts = Some(0);
        record
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing in here panics half-way through a change.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Runs the future.
    pub(super) fn spawn<F>(mut self, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.type_name = type_name::<F>();
        self.end = Some(End::Killed); // Unless it gets to say something else.
        self.group.totals.started.fetch_add(1, Ordering::Relaxed);
        let (group, number) = (Arc::clone(&self.group), self.number);
        let abort = group.runtime.spawn(Supervised::new(Box::pin(future), self)).abort_handle();
        let mut books = group.books();
        let is_doomed = books.is_doomed;
        match books.tasks.get_mut(&number) {
            Some(task) if !is_doomed => task.abort = Some(abort),
            Some(_) | None => {
                drop(books);
                abort.abort();
            }
        }
    }

    /// How it ended; the last word counts.
    pub(super) fn ended(&mut self, end: End) {
        self.end = Some(end);
    }

    fn report(&self, reason: &str, error: &str, location: Option<&str>) {
        let task = self.group.books().tasks.get(&self.number).map(|task| {
            (Arc::clone(&task.path), self.group.scope.now_ms().saturating_sub(task.started_ms))
        });
        let Some((path, uptime_ms)) = task else {
            return;
        };
        let mut record = self.group.record(Event::ChildExited, &path);
        record.reason = Some(reason.to_owned());
        record.error = Some(error.to_owned());
        record.location = location.map(str::to_owned);
        record.actor_type = Some(self.type_name.to_owned());
        record.message_type = Some("future".to_owned());
        record.uptime_ms = Some(uptime_ms);
        self.group.scope.emit(record);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let totals = &self.group.totals;
        match self.end.take() {
            None => {}
            Some(End::Normal) => {
                totals.ended.fetch_add(1, Ordering::Relaxed);
            }
            Some(End::Killed) => {
                totals.killed.fetch_add(1, Ordering::Relaxed);
            }
            Some(End::Crashed { reason, error, location }) => {
                totals.crashed.fetch_add(1, Ordering::Relaxed);
                self.report(reason, &error, location.as_deref());
            }
        }
        let mut books = self.group.books();
        books.tasks.remove(&self.number);
        let is_empty = books.tasks.is_empty();
        drop(books);
        if is_empty {
            self.group.emptied.notify_waiters();
        }
    }
}
