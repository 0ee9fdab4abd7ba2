//! What the tree looks like from outside.

use serde::{Deserialize, Serialize};

use crate::spec::{Kind, Strategy};

/// What a child is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In `pre_start`.
    Starting,
    /// Up.
    Running,
    /// Ended, and about to be started again.
    Restarting,
    /// Asked to stop.
    Stopping,
    /// Down.
    Stopped,
}

/// A node of the tree, with what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Ids from the root, `/` between them.
    pub path: String,
    /// Last part of the path.
    pub id: String,
    /// Worker or supervisor.
    pub kind: Kind,
    /// Of a supervisor.
    pub strategy: Option<Strategy>,
    /// What it is at.
    pub status: Status,
    /// Id of the present (or last) incarnation, empty before the first.
    pub actor_id: String,
    /// Time since the present incarnation started, milliseconds; 0 while it is down.
    pub uptime_ms: u64,
    /// Restarts so far (failed ones included), since its supervisor started.
    pub restarts: u64,
    /// Messages sent through its address and not handled yet.
    pub mailbox_depth: u64,
    /// How the incarnation before this one ended.
    pub last_exit: Option<String>,
    /// Light tasks, of a supervisor of such; `children` names the oldest of them only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// In start order.
    pub children: Vec<Self>,
}

/// Children of a supervisor by what they are (OTP: `count_children`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCounts {
    /// All children, running or not.
    pub specs: u64,
    /// Those that run.
    pub active: u64,
    /// Supervisors among all.
    pub supervisors: u64,
    /// Workers among all.
    pub workers: u64,
}

/// A question about the tree that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// Nothing lives at this path.
    #[error("nothing is supervised at {path:?}")]
    NotFound {
        /// The path asked for.
        path: String,
    },
    /// It is there, but down at the moment.
    #[error("{path:?} is not running")]
    NotRunning {
        /// The path asked for.
        path: String,
    },
}
