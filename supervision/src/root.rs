//! The top of a tree.
//!
//! Guarantees: an orderly shutdown in reverse start order; after the deadline the rest is killed,
//! latest first; the call returns within the deadline plus the waits after kills, whatever a child
//! does; however the root ends, nothing below it is left running (or it is reported).
//! Refuses: to restart itself. When it gives up, the process is to end (non-zero) and be restarted
//! by who runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::child::{StartCx, check_id, start_supervisor};
use crate::error::StartError;
use crate::incarnation::Incarnation;
use crate::probe::Probe;
use crate::scope::{Declared, Scope, Status};
use crate::spec::Kind;
use crate::supervisor::Plan;
use crate::supervisor_spec::SupervisorSpec;

/// Why the tree is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "exit")]
pub enum RootExit {
    /// It was told to stop, or ended with its significant children.
    Shutdown,
    /// It exhausted its restarts, or failed itself.
    GaveUp {
        /// What happened, in a sentence.
        report: String,
    },
    /// It was killed.
    Killed,
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReport {
    /// Whether everything stopped in order: nothing had to be killed.
    pub in_order: bool,
    /// What had to be killed (brutal shutdowns included), in that order.
    pub killed: Vec<String>,
    /// What could not be killed and is still there.
    pub unkillable: Vec<String>,
    /// Whether the deadline passed.
    pub deadline_passed: bool,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
}

/// A running tree. Dropping the handle leaves the tree running.
#[derive(Debug, Clone)]
pub struct Root {
    scope: Scope,
    live: Arc<Incarnation>,
    exit: watch::Receiver<Option<RootExit>>,
    asked: Arc<AtomicBool>,
}

impl Root {
    /// Starts the tree; returns once every child is up.
    ///
    /// # Errors
    /// [`StartError::InvalidSpec`] before anything was started; otherwise the error of the child
    /// that failed, after those before it were stopped again in reverse order.
    pub async fn start(scope: &Scope, id: &str, spec: SupervisorSpec) -> Result<Self, StartError> {
        check_id("", id)?;
        spec.validate(id)?;
        let path: Arc<str> = id.into();
        let declared = Declared { order: 0, kind: Kind::Supervisor, strategy: Some(spec.strategy) };
        scope.declare(&path, declared);
        scope.starting(&path, 0);
        let probe = Arc::new(Probe::default());
        let cx = StartCx {
            scope: scope.clone(),
            path: Arc::clone(&path),
            parent: None,
            probe: Arc::clone(&probe),
        };
        let started = start_supervisor(cx, &Arc::new(Plan::fixed(&spec)), None).await;
        let (cell, join) = match started {
            Ok(started) => started,
            Err(error) => {
                scope.reap(&path).await;
                scope.ended(&path, error.to_string());
                return Err(error);
            }
        };
        let (seq, now_ms) = (scope.next_start_seq(), scope.now_ms());
        let live = Arc::new(Incarnation::new(seq, Arc::clone(&path), cell, join, probe, now_ms));
        scope.running(&path, &live);
        let (tell, exit) = watch::channel(None);
        let watched = (scope.clone(), Arc::clone(&live));
        tokio::spawn(async move {
            let (scope, live) = watched;
            live.gone().await;
            live.probe.close_address();
            // Whatever ended the root, nothing below it stays.
            scope.reap(&live.path).await;
            let end = live.probe.exit(None, false);
            scope.ended(&live.path, end.describe());
            tell.send_replace(Some(match end.reason {
                "normal" | "shutdown" => RootExit::Shutdown,
                "killed" | "cancelled" => RootExit::Killed,
                _ => RootExit::GaveUp { report: end.describe() },
            }));
        });
        Ok(Self { scope: scope.clone(), live, exit, asked: Arc::new(AtomicBool::new(false)) })
    }

    /// Stops the tree in reverse start order, each child within its own time; whatever is left at
    /// the deadline is killed. A second call waits for the same end.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let begun = Instant::now();
        if !self.asked.swap(true, Ordering::AcqRel) {
            self.scope.take_killed();
            self.scope.set_status(&self.live.path, Status::Stopping);
            self.live.request_stop();
        }
        let deadline_passed = !self.ended_within(deadline).await;
        if deadline_passed {
            for below in self.scope.live_below(&self.live.path) {
                self.scope.killed(&below.path, false);
                below.kill();
            }
            self.live.kill();
            // The root itself, and then what it left: two bounded waits.
            self.ended_within(self.scope.kill_wait().saturating_mul(2)).await;
        }
        let mut report = ShutdownReport {
            deadline_passed,
            elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..ShutdownReport::default()
        };
        for (path, unkillable) in self.scope.take_killed() {
            let list = if unkillable { &mut report.unkillable } else { &mut report.killed };
            if !list.contains(&path) {
                list.push(path);
            }
        }
        report.killed.retain(|path| !report.unkillable.contains(path));
        report.in_order =
            !deadline_passed && report.killed.is_empty() && report.unkillable.is_empty();
        report
    }

    /// Waits until the tree is gone, and says why. May be called any number of times.
    pub async fn wait(&self) -> RootExit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(RootExit::Killed),
            // The runtime dropped the watcher: it is being shut down.
            Err(_closed) => RootExit::Killed,
        }
    }

    /// The scope the tree lives in.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn ended_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.wait()).await.is_ok()
    }
}
