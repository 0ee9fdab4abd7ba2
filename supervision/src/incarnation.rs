//! One life of a child: stop it, kill it, wait until nothing of it is left.
//!
//! Guarantees: "gone" means that the actor's task has been dropped with its state and its handler;
//! every wait after a kill is bounded. Refuses: to pretend that a blocked thread was killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::ActorCell;
use ractor::concurrency::JoinHandle;
use tokio::sync::Mutex;

use crate::probe::Probe;
use crate::spec::Shutdown;

#[derive(Debug)]
pub(crate) struct Incarnation {
    /// Position in the start order of the whole scope.
    pub(crate) start_seq: u64,
    pub(crate) path: Arc<str>,
    pub(crate) cell: ActorCell,
    pub(crate) probe: Arc<Probe>,
    pub(crate) started_ms: u64,
    pub(crate) drill: AtomicBool,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It came to its end by itself.
    InOrder,
    /// Killed, as its specification says.
    Brutally,
    /// Killed, since its time was over.
    TimedOut,
    /// Killed, and still there: it blocks its thread.
    Unkillable,
}

impl Incarnation {
    pub(crate) fn new(
        start_seq: u64,
        path: Arc<str>,
        cell: ActorCell,
        join: JoinHandle<()>,
        probe: Arc<Probe>,
        started_ms: u64,
    ) -> Self {
        let join = Mutex::new(Some(join));
        Self { start_seq, path, cell, probe, started_ms, drill: AtomicBool::new(false), join }
    }

    /// Asks for an orderly end; no message is accepted any more.
    pub(crate) fn request_stop(&self) {
        self.probe.close_address();
        self.probe.cancel();
        self.cell.stop(Some("shutdown".to_owned()));
    }

    /// Ends it at its next await.
    pub(crate) fn kill(&self) {
        self.probe.close_address();
        self.cell.kill();
    }

    /// Kills it as a drill.
    pub(crate) fn kill_as_drill(&self) {
        self.drill.store(true, Ordering::Relaxed);
        self.kill();
    }

    /// Waits until it is gone; `false` when it is still there after `limit`.
    pub(crate) async fn gone_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.gone()).await.is_ok()
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&self) {
        let mut join = self.join.lock().await;
        if let Some(handle) = join.as_mut() {
            // An error is a task the runtime cancelled: gone as well.
            handle.await.ok();
            *join = None;
        }
    }

    /// Stops it as told and waits; `kill_wait` bounds the wait after a kill.
    pub(crate) async fn stop(&self, how: Shutdown, kill_wait: Duration) -> Stopped {
        let wanted = match how {
            Shutdown::Brutal => Stopped::Brutally,
            Shutdown::Timeout(limit) => {
                self.request_stop();
                if self.gone_within(limit).await {
                    return Stopped::InOrder;
                }
                Stopped::TimedOut
            }
            Shutdown::Infinity => {
                self.request_stop();
                self.gone().await;
                return Stopped::InOrder;
            }
        };
        self.kill();
        if self.gone_within(kill_wait).await { wanted } else { Stopped::Unkillable }
    }
}
