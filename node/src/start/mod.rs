//! `weald start`: a node from its first step to its last.
//!
//! Guarantees: the steps of [`boot::PLAN`] are entered in order and left in reverse, whatever ends the node; the exit code says
//! what did. Refuses: restarting itself; that is for the service manager.

mod banner;
pub(crate) mod check;
mod data_dir;
mod node;
mod notify;
mod pid_file;
mod settings;
mod shelf;
pub(crate) mod signals;
mod status;
mod wamp;

use crate::args::{Global, Start};
use crate::boot::{self, Entry};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::Out;
use node::{End, Node};
use signals::Signals;
use std::pin::pin;
use std::time::Duration;

/// How long threads that still work are waited for after everything has stopped.
const THREADS_STOP: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop.
pub(crate) fn run(args: Start, global: &Global, out: Out) -> Outcome {
    if global.node.is_some() || global.key_file.is_some() {
        let text = "--node and --key are for commands that talk to a node";
        return Err(Failure::new(Exit::StartUsage, text));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Io, format!("cannot start threads: {e}")))?;
    let outcome = runtime.block_on(Box::pin(drive(Node::new(args, global.clone(), out))));
    runtime.shutdown_timeout(THREADS_STOP);
    outcome
}

async fn drive(mut node: Node) -> Outcome {
    let mut signals =
        Signals::take().map_err(|e| Failure::new(Exit::Io, format!("cannot take signals: {e}")))?;
    let phase = node.phase();
    let mut entered: Vec<&'static Entry> = Vec::new();
    let mut asked = None;
    for entry in boot::PLAN {
        let result = {
            let mut step = pin!(node.enter(entry));
            // Biased: a step that is done counts as entered, so that it is left again.
            tokio::select! {
                biased;
                result = &mut step => result,
                name = signals.next() => {
                    phase.stopping();
                    asked = Some(End::Signal(name));
                    // Not dropped half done: its threads would work on while the lock is released. A step that takes long
                    // looks at the phase, and a second signal ends the process.
                    signals.kill_on_next();
                    step.await
                }
            }
        };
        match result {
            Ok(()) => entered.push(entry),
            Err(failure) if asked.is_some() => {
                tracing::info!(event = "boot_ended", reason = %failure, "boot was ended by a signal");
            }
            Err(failure) => {
                leave(&mut node, &entered).await.ok();
                return Err(failure);
            }
        }
        if asked.is_some() {
            break;
        }
    }
    let end = match asked {
        Some(end) => end,
        None => {
            let end = node.wait(&mut signals).await;
            signals.kill_on_next();
            end
        }
    };
    node.begin_stop(&end);
    let stopped = leave(&mut node, &entered).await;
    match end {
        End::GaveUp(report) => {
            Err(Failure::new(Exit::GaveUp, format!("supervision gave up: {report}")))
        }
        End::Signal(_) => stopped.map(|()| Exit::Ok),
    }
}

/// Leaves steps in reverse. Goes on after a failure, and gives the first.
async fn leave(node: &mut Node, entered: &[&'static Entry]) -> Result<(), Failure> {
    let mut result = Ok(());
    for entry in entered.iter().rev() {
        if let Err(failure) = node.leave(entry.step).await {
            tracing::error!(event = "stop_failed", step = entry.name, error = %failure, "step did not stop");
            result = result.and(Err(failure));
        }
    }
    result
}
