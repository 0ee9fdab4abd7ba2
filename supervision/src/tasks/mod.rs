//! Many light tasks below one supervisor.
//!
//! What it is: a child of kind supervisor that owns plain tasks, for what is as numerous as client sessions: an idle actor
//! costs about 11 KiB, a task here some hundred bytes beside its future. [`TasksHandle::start`] starts one from anywhere,
//! without asking the supervisor.
//!
//! What it guarantees: a panic or an `Err` of a task is a crash report as that of an actor is, and touches no other task; its
//! future is dropped before its end is known. The number of tasks has a limit. A stop tells all of them at once, waits as
//! long as the specification says, drops those that are still there at their next await, and reports each. No task
//! outlives its supervisor; after a kill the next incarnation starts when nothing of the one before is left.
//! Tasks that go down with a supervisor that was killed are counted, and reported one by one only where they linger.
//!
//! What it refuses: restarts of tasks, unique names, and records of orderly starts and ends (they are counted:
//! [`TasksHandle::counts`]). A future that never awaits cannot be ended by anybody; it is reported as unkillable.

mod group;
mod owner;
mod supervised;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::child::check_id;
use crate::error::StartError;
use crate::panics;
use crate::task::{BoxError, TaskContext};

pub(crate) use group::Group;
pub(crate) use owner::{Owner, OwnerArgs};

use group::Totals;

/// Most tasks that a listing or the tree names, the oldest ones; and most that a stop reports one by one.
pub const TASKS_LISTED_MAX: usize = 100; // guess: a screen or two

/// Limits of a supervisor of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TasksSpec {
    /// Most tasks at a time.
    pub tasks_max: usize,
    /// How long tasks have to end once they were asked to. After it they are dropped at their next await.
    pub shutdown: Duration,
}

impl Default for TasksSpec {
    /// At most 100,000 tasks; 5 s to stop, as for any worker.
    fn default() -> Self {
        Self { tasks_max: 100_000, shutdown: Duration::from_secs(5) }
    }
}

/// What has become of all tasks of a handle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Tasks at the moment.
    pub running: u64,
    /// Tasks started ever.
    pub started: u64,
    /// Those that ended by themselves, without an error.
    pub ended: u64,
    /// Those that panicked or returned an error.
    pub crashed: u64,
    /// Those that were dropped before their end.
    pub killed: u64,
}

/// A task at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its path in the tree; the name is the last part.
    pub path: Arc<str>,
    /// For how long it has been running, milliseconds.
    pub uptime_ms: u64,
}

/// Starts tasks below one supervisor. Clones are the same handle.
#[derive(Debug, Clone)]
pub struct TasksHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    group: ArcSwapOption<Group>,
    is_up: watch::Sender<bool>,
    totals: Arc<Totals>,
}

impl TasksHandle {
    /// A handle no supervisor listens to yet; give it to [`crate::ChildSpec::tasks`]. The name is for people.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                group: ArcSwapOption::empty(),
                is_up: watch::Sender::new(false),
                totals: Arc::default(),
            }),
        }
    }

    /// Starts a task. `Ok` is a normal end of its future, `Err` and a panic are crashes. It should end soon after its
    /// [`TaskContext`] is cancelled.
    ///
    /// May be called from anywhere, also from outside of the runtime; waits for nothing.
    ///
    /// # Errors
    /// [`StartError::InvalidSpec`]: the name makes no path. [`StartError::Full`]: as many tasks as allowed are there.
    /// [`StartError::Down`]: no supervisor is up, or it is stopping. [`StartError::Failed`]: `make` panicked. Nothing runs then.
    pub fn start<F>(
        &self,
        name: &str,
        make: impl FnOnce(TaskContext) -> F,
    ) -> Result<(), StartError>
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let group = self.inner.group.load_full().ok_or(StartError::Down)?;
        check_id(group.path(), name)?;
        let (ticket, context) = group.admit(name)?;
        let path = context.path_shared();
        match panics::catch_sync(|| make(context)) {
            Ok(future) => {
                ticket.spawn(future);
                Ok(())
            }
            Err(caught) => Err(StartError::Failed {
                path: path.to_string(),
                reason: "panic".to_owned(),
                error: caught.text,
                location: caught.location,
            }),
        }
    }

    /// What has become of all tasks, over restarts of their supervisor.
    #[must_use]
    pub fn counts(&self) -> TaskCounts {
        self.inner.totals.counts(self.count())
    }

    /// Tasks at the moment.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.group.load().as_ref().map_or(0, |group| group.len())
    }

    /// The oldest tasks, in the order they were started; at most [`TASKS_LISTED_MAX`].
    #[must_use]
    pub fn list(&self) -> Vec<TaskInfo> {
        self.inner.group.load().as_ref().map_or_else(Vec::new, |group| group.list())
    }

    /// Whether tasks can be started.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.inner.is_up.borrow()
    }

    /// Waits until tasks can be started; `false` when that took longer than `timeout`.
    pub async fn wait_up(&self, timeout: Duration) -> bool {
        let mut changes = self.inner.is_up.subscribe();
        let up = changes.wait_for(|is_up| *is_up);
        tokio::time::timeout(timeout, up).await.is_ok_and(|up| up.is_ok())
    }

    fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.inner.totals)
    }

    /// Leads to this group from now on; returns the one before.
    fn attach(&self, group: Option<Arc<Group>>) -> Option<Arc<Group>> {
        let is_up = group.is_some();
        let before = self.inner.group.swap(group);
        self.inner.is_up.send_replace(is_up);
        before
    }

    /// Takes no more tasks. Those that are there stay known to [`Self::count`].
    fn down(&self) {
        self.inner.is_up.send_replace(false);
    }
}

impl std::fmt::Display for TasksHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.inner.name)
    }
}
