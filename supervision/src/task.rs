//! Supervised futures.
//!
//! Guarantees: a task is an actor with a single message, so it has the same reports, the same stop
//! and the same place in the tree; its future is dropped before its end is known.
//! Refuses: to stop a future that neither ends on cancellation nor awaits (nobody can).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use tokio::sync::watch;

/// The error of a task.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

type RunFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
pub(crate) type Run = Box<dyn Fn(TaskContext) -> RunFuture + Send + Sync>;

/// What a supervised future is told.
#[derive(Debug, Clone)]
pub struct TaskContext {
    path: Arc<str>,
    cancel: Arc<watch::Sender<bool>>,
}

/// Cancels a task.
#[derive(Debug)]
pub(crate) struct Canceller(Arc<watch::Sender<bool>>);

impl Canceller {
    pub(crate) fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl TaskContext {
    pub(crate) fn new(path: Arc<str>) -> Self {
        Self::with_cancel(path, Arc::new(watch::Sender::new(false)))
    }

    /// Of a task that is cancelled together with others.
    pub(crate) fn with_cancel(path: Arc<str>, cancel: Arc<watch::Sender<bool>>) -> Self {
        Self { path, cancel }
    }

    pub(crate) fn path_shared(&self) -> Arc<str> {
        Arc::clone(&self.path)
    }

    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.cancel))
    }

    /// The task's path in the tree.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the task was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Returns once the task is asked to end. Safe to drop and to call again.
    pub async fn cancelled(&self) {
        let mut cancel = self.cancel.subscribe();
        // The sender lives in `self`.
        cancel.wait_for(|cancelled| *cancelled).await.ok();
    }
}

pub(crate) struct TaskActor {
    run: Run,
    context: TaskContext,
}

impl TaskActor {
    pub(crate) fn new(run: Run, context: TaskContext) -> Self {
        Self { run, context }
    }
}

/// The one message: run.
pub(crate) struct Go;

impl Message for Go {}

impl Actor for TaskActor {
    type Msg = Go;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Go>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.send_message(Go)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Go>,
        _: Go,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        (self.run)(self.context.clone()).await?;
        myself.stop(None);
        Ok(())
    }
}
