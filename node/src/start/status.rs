//! What `weald status` shows: the node as it knows itself.
//!
//! # Shape
//! JSON. `state` is `starting`, `ready` or `stopping`; `healthy` is whether `problems` is empty in state `ready`; sizes in bytes, times in
//! milliseconds. Fields are only ever added.

use super::wamp::Wamp;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;
use weald_cluster::mail::MailHandle;
use weald_cluster::session::Sessions;
use weald_cluster::store::StoreHandle;
use weald_cluster::transport::Bound;
use weald_storage::StoreStats;
use weald_supervision::{Scope, Status, TreeNode};

/// What the node is at. Clones are the same phase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

const PHASES: [&str; 3] = ["starting", "ready", "stopping"];

impl Phase {
    /// The boot is over.
    pub(crate) fn ready(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// The node is stopping.
    pub(crate) fn stopping(&self) {
        self.0.store(2, Ordering::Relaxed);
    }

    /// Whether work that takes long is to be given up.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 2
    }

    fn name(&self) -> &'static str {
        PHASES[usize::from(self.0.load(Ordering::Relaxed)) % PHASES.len()]
    }
}

/// Where the status comes from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) node: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) started: Instant,
    pub(crate) store: StoreHandle,
    pub(crate) scope: Scope,
    pub(crate) bound: Bound,
    pub(super) wamp: Wamp,
    pub(crate) mail: MailHandle,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) phase: Phase,
}

impl Sources {
    /// The status now.
    pub(crate) fn status(&self) -> Value {
        let stats = self.store.store().stats();
        let tree = self.scope.tree();
        let mut problems = Vec::new();
        let mut restarts = 0;
        walk(&tree, &mut problems, &mut restarts);
        storage_problems(&stats, &mut problems);
        let state = self.phase.name();
        let cluster: Vec<String> = self.bound.addresses().iter().map(ToString::to_string).collect();
        let mut listen = json!({ "cluster": cluster.first(), "socket": self.socket });
        for (name, address) in self.wamp.addresses() {
            listen[name] = address.into();
        }
        json!({
            "node": self.node,
            "node_id": stats.node.to_string(),
            "incarnation": stats.incarnation,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "state": state,
            "healthy": state == "ready" && problems.is_empty(),
            "problems": problems,
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "data_dir": self.data_dir,
            "listen": listen,
            "clients": self.sessions.count(),
            "clients_let_in": self.wamp.is_open(),
            "wamp_sessions": self.wamp.router.sessions_count(),
            "mail": mail(&self.mail),
            "supervision": {
                "restarts": restarts,
                "log_seq": self.scope.log().map(|log| log.last_seq()),
                "log_dropped": self.scope.log().map(|log| log.dropped()),
            },
            "storage": storage(&stats),
        })
    }
}

fn storage(stats: &StoreStats) -> Value {
    let sum = |figure: fn(&weald_storage::PartitionStats) -> u64| -> u64 {
        stats.partitions.iter().map(figure).sum()
    };
    json!({
        "partitions": stats.partitions.len(),
        "rows": sum(|p| p.rows),
        "memory_rows": sum(|p| p.memory_rows),
        "bytes": sum(|p| p.used_bytes),
        "writes": sum(|p| p.writes),
        "commits": sum(|p| p.commits),
        "by_partition": stats.partitions,
    })
}

fn walk(node: &TreeNode, problems: &mut Vec<String>, restarts: &mut u64) {
    *restarts += node.restarts;
    match node.status {
        Status::Running => {}
        Status::Starting | Status::Restarting => problems.push(format!("{} restarts", node.path)),
        Status::Stopping | Status::Stopped => problems.push(format!("{} is down", node.path)),
    }
    for child in &node.children {
        walk(child, problems, restarts);
    }
}

fn storage_problems(stats: &StoreStats, problems: &mut Vec<String>) {
    for partition in &stats.partitions {
        let number = partition.partition;
        if let Some(why) = &partition.stopped {
            problems.push(format!("partition {number} does not write: {why}"));
        } else if partition.full {
            problems.push(format!("partition {number} has no space left"));
        }
    }
}

/// Messages to and from named actors at other nodes, since the start.
fn mail(handle: &MailHandle) -> Value {
    let stats = handle.stats();
    json!({
        "taken": stats.taken,
        "refused": stats.refused,
        "repeated": stats.repeated,
        "delivered": stats.delivered,
        "replaced": stats.replaced,
        "dropped": stats.dropped,
        "malformed": stats.malformed,
    })
}
