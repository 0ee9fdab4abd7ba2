//! The supervision tree and log as a client reads them: JSON, so that fields may be added without a new kind.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One node of the supervision tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Path from the root, as `node/storage/partition-0/store`.
    pub path: String,
    /// Id under its supervisor.
    pub id: String,
    /// `worker` or `supervisor`.
    pub kind: String,
    /// `running`, `restarting`, ...
    pub status: String,
    /// Milliseconds since its last start.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Restarts since the node booted.
    #[serde(default)]
    pub restarts: u64,
    /// Messages waiting.
    #[serde(default)]
    pub mailbox_depth: u64,
    /// Children in start order.
    #[serde(default)]
    pub children: Vec<Self>,
    /// Whatever else the node says of it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One record of the supervision log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Sequence number, rising by one.
    pub seq: u64,
    /// Unix time in milliseconds.
    pub ts_ms: u64,
    /// Path of the supervisor or child concerned.
    pub path: String,
    /// What happened, as `child_exited`.
    pub event: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// The other fields of the schema.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
