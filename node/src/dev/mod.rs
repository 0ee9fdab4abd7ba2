//! `weald dev`: a cluster of real processes on this machine, for a person to try.
//!
//! # Shape
//! `DIR/pki` as `weald cluster init` makes it; `DIR/node<k>` is the data directory of node k, with its `weald.toml` and its
//! output in `node.log`.
//!
//! Guarantees: nothing starts when a port is taken; files that are there are used as they are; a node that ends stays down;
//! at the end no process of it is left, but for a node that somebody else started and that does not stop. Refuses: restarting
//! nodes, and being a way to run a cluster that matters.

mod children;
mod layout;
mod text;

use crate::args::{Dev, Global};
use crate::exit::{Exit, Failure, Outcome};
use crate::out::{self, Out};
use crate::start::signals::Signals;
use children::{Children, Stop};
use layout::DevNode;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the nodes are when nothing is said.
const DEFAULT_DIR: &str = "./weald-dev";
/// How often it is looked whether nodes still run.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause between two looks at the membership.
const MEMBERS_EVERY: Duration = Duration::from_millis(300);
/// How long threads that still work are waited for at the end.
const THREADS_STOP: Duration = Duration::from_secs(1);

/// Runs the nodes until it is told to stop.
pub(crate) fn run(args: &Dev, global: &Global, mut out: Out) -> Outcome {
    if global.node.is_some() || global.key_file.is_some() {
        let text = "--node and --key are for commands that talk to a node; did you mean --nodes?";
        return Err(Failure::new(Exit::StartUsage, text));
    }
    let dir = global.data_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR));
    let nodes = layout::plan(&dir, args)?;
    layout::check_free(&nodes)?;
    let dir = layout::make(&dir, &nodes)?;
    let nodes = layout::below(nodes, &dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Io, format!("cannot start threads: {e}")))?;
    let outcome = runtime.block_on(drive(nodes, &dir, &mut out));
    runtime.shutdown_timeout(THREADS_STOP);
    outcome
}

async fn drive(nodes: Vec<DevNode>, dir: &Path, out: &mut Out) -> Outcome {
    let mut signals =
        Signals::take().map_err(|e| Failure::new(Exit::Io, format!("cannot take signals: {e}")))?;
    let first = nodes.first().map(|node| node.dir.clone()).unwrap_or_default();
    let count = nodes.len();
    let mut children = Children::spawn(nodes)?;
    // Biased: a signal first, so that a start that takes long can be ended.
    let started = tokio::select! {
        biased;
        name = signals.next() => Ok(Some(name)),
        result = children.ready() => result.map(|()| None),
    };
    match started {
        Ok(Some(name)) => return end(children, signals, name).await,
        Ok(None) => {}
        Err(failure) => {
            children.stop(&mut signals).await;
            return Err(failure);
        }
    }
    tell(out, |out| text::up(out, dir, &children.list()));
    let mut complete = std::pin::pin!(text::complete(first, count));
    let mut is_complete = false;
    loop {
        // Biased: the order is that of importance; each branch may be taken again at the next turn.
        tokio::select! {
            biased;
            name = signals.next() => return end(children, signals, name).await,
            () = &mut complete, if !is_complete => {
                is_complete = true;
                tell(out, |out| text::is_complete(out, count));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for ended in children.ended() {
            tell(out, |out| text::ended(out, &ended));
        }
    }
}

async fn end(mut children: Children, mut signals: Signals, name: &str) -> Outcome {
    out::note(&format!("{name}: stopping the nodes; once more kills them"));
    match children.stop(&mut signals).await {
        Stop::InOrder => Ok(Exit::Ok),
        Stop::Killed(nodes) => {
            let text = format!("{} did not stop in order", nodes.join(", "));
            Err(Failure::new(Exit::GaveUp, text))
        }
    }
}

/// Nodes do not end because nobody reads what is said of them.
fn tell(out: &mut Out, say: impl FnOnce(&mut Out) -> Result<(), Failure>) {
    if let Err(failure) = say(out).and_then(|()| out.flush()) {
        out::note(&failure.message);
    }
}
