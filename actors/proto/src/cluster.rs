//! The cluster as a client sees it: JSON, so that fields may be added without a new kind.
//!
//! # Units
//! `*_ms_ago` and `*_age_ms` are milliseconds before the moment of the reply, by the answering node's clock; `*_ms` alone is
//! a duration, or unix time where that is said.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The reply to [`crate::request::Members`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// Name of the cluster.
    pub cluster: String,
    /// Node id of the node that answers.
    pub own: String,
    /// All of whom it knows, itself, too; also those that have left or were forgotten.
    pub members: Vec<Member>,
    /// Whatever else the node says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Its incarnation.
    #[serde(default)]
    pub incarnation: u32,
    /// Where it listens, `host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// `joined`, `fenced`, `leaving`, `left` or `evicted`.
    pub status: String,
    /// `up`, `suspect` or `down`, as the answering node sees it.
    pub liveness: String,
    /// Unix milliseconds of the last sign of life.
    #[serde(default)]
    pub seen_ms: u64,
    /// Whatever else the node says of it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The reply to [`crate::request::ClusterStatus`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node that answers.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// `full-mesh` or `p2p`.
    #[serde(default)]
    pub strategy: String,
    /// Members, itself, too.
    #[serde(default)]
    pub members: u64,
    /// Members that answer, itself, too.
    #[serde(default)]
    pub up: u64,
    /// What is wrong, in words; empty: nothing.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Its connections.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// Whatever else the node says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A peer of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Whether all channels to it are connected.
    #[serde(default)]
    pub connected: bool,
    /// Bytes received from it.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes sent to it.
    #[serde(default)]
    pub bytes_out: u64,
    /// Frames that its queues did not take; what was lost so is made up for by an exchange.
    #[serde(default)]
    pub overflow: u64,
    /// Times it was connected again.
    #[serde(default)]
    pub reconnects: u64,
    /// Round trip, in milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// For how long this node may lack something that the peer has.
    #[serde(default)]
    pub convergence_age_ms: Option<u64>,
    /// Whatever else the node says of it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One change of the membership.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterEvent {
    /// Number of the event in this run of the node.
    pub seq: u64,
    /// Unix time in milliseconds.
    pub ts_ms: u64,
    /// `member_joined`, `member_fenced`, `member_leaving`, `member_left`, `member_evicted`, `member_up`, `member_suspect`,
    /// `member_down` or `member_moved` (other addresses).
    pub event: String,
    /// The member as it is now.
    #[serde(flatten)]
    pub member: Member,
}

/// The reply to [`crate::request::AaeStatus`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AaeStatus {
    /// Whether exchanges run by themselves.
    pub enabled: bool,
    /// Each peer.
    #[serde(default)]
    pub peers: Vec<AaePeer>,
    /// Whatever else the node says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Anti-entropy with one peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AaePeer {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Whether an exchange with it runs.
    #[serde(default)]
    pub running: bool,
    /// Since the last exchange that ended well; none: there was none yet.
    #[serde(default)]
    pub last_success_ms_ago: Option<u64>,
    /// For how long this node may lack something that the peer has; none: it was never equal in this run.
    #[serde(default)]
    pub convergence_age_ms: Option<u64>,
    /// Exchanges that ended well.
    #[serde(default)]
    pub exchanges: u64,
    /// Exchanges that did not.
    #[serde(default)]
    pub failures: u64,
    /// Objects received and sent.
    #[serde(default)]
    pub objects: u64,
    /// Bytes received and sent.
    #[serde(default)]
    pub bytes: u64,
    /// Why the last one failed, if it did.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Whatever else the node says of it.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The reply to [`crate::request::AaeRun`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AaeReport {
    /// Name of the peer.
    pub peer: String,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Objects received.
    #[serde(default)]
    pub objects_in: u64,
    /// Objects sent.
    #[serde(default)]
    pub objects_out: u64,
    /// Bytes received.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes sent.
    #[serde(default)]
    pub bytes_out: u64,
    /// Partitions that had to be compared tree by tree.
    #[serde(default)]
    pub walked: u64,
    /// Whatever else the node says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The reply to [`crate::request::AaeDiff`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AaeDiff {
    /// Name of the peer.
    pub peer: String,
    /// Whether nothing differs.
    pub equal: bool,
    /// Parts of partitions (durable or memory tables) that differ.
    #[serde(default)]
    pub parts: u64,
    /// Events that the peer has processed and this node has not.
    #[serde(default)]
    pub missing_here: u64,
    /// Events that this node has processed and the peer has not.
    #[serde(default)]
    pub missing_there: u64,
    /// Keys that only this node holds.
    #[serde(default)]
    pub keys_only_here: u64,
    /// Keys that only the peer holds.
    #[serde(default)]
    pub keys_only_there: u64,
    /// Keys that both hold, differently.
    #[serde(default)]
    pub keys_different: u64,
    /// The first of these keys.
    #[serde(default)]
    pub first: Vec<KeyDiff>,
    /// Whatever else the node says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A key that differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyDiff {
    /// The table.
    pub table: String,
    /// The key, what is not UTF-8 in it escaped.
    pub key: String,
    /// Who holds it: `here`, `there` or `both`.
    pub held: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_kept_and_missing_ones_have_defaults() {
        let json = r#"{"cluster":"c","own":"n1","strategy":"p2p",
            "members":[{"name":"a","node":"n1","status":"joined","liveness":"up","zone":"eu"}]}"#;
        let members: Members = serde_json::from_str(json).unwrap();
        assert_eq!(members.members[0].addresses, Vec::<String>::new());
        assert_eq!(members.members[0].extra["zone"], "eu");
        let again: Members =
            serde_json::from_str(&serde_json::to_string(&members).unwrap()).unwrap();
        assert_eq!(again, members);
        assert_eq!(again.extra["strategy"], "p2p");
    }
}
