//! The processes of a development cluster.

use super::layout::DevNode;
use super::{LOOK_EVERY, text};
use crate::api::Api;
use crate::cmd::remote::{Remote, Target};
use crate::config::keys;
use crate::config::load::{CONFIG_VARIABLE, DATA_DIR_VARIABLE};
use crate::exit::{Exit, Failure};
use crate::out;
use crate::start::signals::Signals;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::Instant;
use weald_proto::request::Status;

/// Time that a node has to end beyond its own limit.
const STOP_SLACK: Duration = Duration::from_secs(5);
/// After this, a start that is not over is mentioned.
const SLOW_START: Duration = Duration::from_secs(15);
/// Time for one question about the state of a node.
const ASK_TIME: Duration = Duration::from_secs(2);

/// Keys that differ from node to node: a variable must not make them equal.
const OWN_KEYS: [&str; 10] = [
    "node.name",
    "node.data_dir",
    "cluster.listen",
    "cluster.advertise",
    "cluster.name",
    "cluster.seeds",
    "cluster.tls_certificate",
    "cluster.tls_key",
    "cluster.tls_ca",
    "log.format",
];

/// The nodes with their processes. Dropped, it kills what still runs.
pub(super) struct Children {
    nodes: Vec<(DevNode, Option<Child>)>,
}

/// A node that has ended.
pub(super) struct Ended {
    pub(super) node: DevNode,
    pub(super) pid: u32,
    pub(super) status: ExitStatus,
}

/// How all of them ended.
pub(super) enum Stop {
    InOrder,
    /// These did not.
    Killed(Vec<String>),
}

impl Children {
    /// Starts a process for each node.
    pub(super) fn spawn(nodes: Vec<DevNode>) -> Result<Self, Failure> {
        let mut children = Self { nodes: Vec::with_capacity(nodes.len()) };
        for node in nodes {
            let child = start(&node)?;
            children.nodes.push((node, Some(child)));
        }
        Ok(children)
    }

    /// Waits until all are ready.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut is_told = false;
        for index in 0..self.nodes.len() {
            let api = Remote::new(Target::Local(self.nodes[index].0.dir.clone()));
            while !is_ready(&api).await {
                // Any of them may have failed, not only the one that is waited for.
                if let Some(ended) = self.ended().into_iter().next() {
                    return Err(failed_start(&ended));
                }
                if begun.elapsed() > SLOW_START && !is_told {
                    is_told = true;
                    let (name, log) = (&self.nodes[index].0.name, self.nodes[index].0.log());
                    out::note(&format!("{name} is still starting; see {}", log.display()));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// The nodes with the numbers of their processes.
    pub(super) fn list(&self) -> Vec<(&DevNode, Option<u32>)> {
        self.nodes.iter().map(|(node, child)| (node, child.as_ref().map(Child::id))).collect()
    }

    /// Those that have ended since the last look.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let mut found = Vec::new();
        for (node, slot) in &mut self.nodes {
            let Some(child) = slot else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                found.push(Ended { node: node.clone(), pid: child.id(), status });
                *slot = None;
            }
        }
        found
    }

    /// Asks all to end, also those that somebody has started again by hand, and waits. The time over, or at another signal,
    /// its own processes are killed.
    pub(super) async fn stop(&mut self, signals: &mut Signals) -> Stop {
        let mut foreign = Vec::new();
        let mut time = Duration::ZERO;
        for (node, child) in &self.nodes {
            let pid = child.as_ref().map(Child::id);
            if let Some(pid) = pid.or_else(|| node.holder().flatten()) {
                terminate(pid);
                time = time.max(node.stop_time);
            }
            if child.is_none() {
                foreign.push(node.clone());
            }
        }
        let until = Instant::now() + time + STOP_SLACK;
        let mut killed = Vec::new();
        loop {
            for ended in self.ended() {
                if !ended.status.success() {
                    out::note(&text::how_it_ended(&ended));
                    killed.push(ended.node.name);
                }
            }
            foreign.retain(|node| node.holder().is_some());
            if foreign.is_empty() && self.nodes.iter().all(|(_, child)| child.is_none()) {
                break;
            }
            // Biased: a signal first.
            let is_over = tokio::select! {
                biased;
                _name = signals.next() => true,
                () = tokio::time::sleep(LOOK_EVERY) => Instant::now() >= until,
            };
            if is_over {
                killed.extend(self.kill());
                killed.extend(foreign.iter().map(|node| node.name.clone()));
                break;
            }
        }
        if killed.is_empty() { Stop::InOrder } else { Stop::Killed(killed) }
    }

    /// Kills what runs; gives the names.
    fn kill(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for (node, slot) in &mut self.nodes {
            let Some(mut child) = slot.take() else { continue };
            // Neither fails but for a process that is gone already.
            child.kill().ok();
            child.wait().ok();
            names.push(node.name.clone());
        }
        names
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(node: &DevNode) -> Result<Child, Failure> {
    let log = node.log();
    let file = File::options().create(true).append(true).open(&log);
    let file = file.map_err(|e| Failure::file("open", &log, &e))?;
    let also = file.try_clone().map_err(|e| Failure::file("open", &log, &e))?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(Exit::Io, format!("cannot find this program: {e}")))?;
    let mut command = Command::new(program);
    command
        .args(["start", "--log-format", "human", "--config"])
        .arg(node.config())
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(also)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove(CONFIG_VARIABLE)
        .env_remove(DATA_DIR_VARIABLE)
        // Ctrl-C on the terminal is for this process alone, which passes it on.
        .process_group(0);
    for key in OWN_KEYS.iter().filter_map(|path| keys::find(path)) {
        command.env_remove(key.variable());
    }
    command.spawn().map_err(|e| Failure::new(Exit::Io, format!("cannot start {}: {e}", node.name)))
}

async fn is_ready(api: &Remote) -> bool {
    let Ok(status) = api.request(Status {}, ASK_TIME).await else { return false };
    let status = serde_json::from_str::<serde_json::Value>(&status).unwrap_or_default();
    status["state"] == "ready"
}

fn failed_start(ended: &Ended) -> Failure {
    let log = ended.node.log();
    let lines = std::fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = lines.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
    let text = format!(
        "{} while starting; the end of {}:\n  {tail}",
        text::how_it_ended(ended),
        log.display()
    );
    Failure::new(Exit::GaveUp, text)
}

/// Asks a process to end. It may be gone meanwhile.
fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM).ok();
    }
}
