//! The supervision log's record: what one line says.
//!
//! Guarantees: field and event names are a stable API; fields are only ever added; absent fields are
//! left out; texts are cut at [`TEXT_BYTES_MAX`].
//! Refuses: payloads of messages.

use serde::{Deserialize, Serialize};

/// Longest text in a record, in bytes; longer ones are cut and end in `...`.
pub const TEXT_BYTES_MAX: usize = 2048;

/// What happened. The names in records are the `snake_case` of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A supervisor has started all its children.
    SupervisorStarted,
    /// A supervisor ended; `reason` says why.
    SupervisorStopped,
    /// A child started for the first time under this supervisor.
    ChildStarted,
    /// A child ended by itself, failed to start, or was killed from outside: the crash report.
    ChildExited,
    /// A restart was granted and is about to happen (after `backoff_ms`).
    ChildRestarting,
    /// A child is up again.
    ChildRestarted,
    /// A child that ended abnormally stays down.
    ChildGaveUp,
    /// The strategy stops siblings of a child that ended.
    StrategyApplied,
    /// A child was asked to stop.
    ChildStopping,
    /// A child stopped as asked.
    ChildStopped,
    /// A child was killed: brutal shutdown, out of time, a leftover, a drill. `reason` tells.
    ChildKilled,
    /// One restart too many: the supervisor stops its children and fails upward.
    IntensityExceeded,
    /// The node came up.
    NodeStarted,
    /// The node was told to stop.
    NodeStopping,
    /// The node has stopped in order.
    NodeStopped,
    /// The run before this one did not stop in order.
    UncleanStop,
    /// Something was set aside to keep the node going.
    Quarantined,
    /// No space left for the store.
    StorageFull,
    /// The store accepts writes again.
    StorageRecovered,
    /// A background verification found a hash tree that did not match its objects.
    HashtreeMismatch,
    /// Records were dropped because the log's queue was full or the disk refused them.
    LogDropped,
}

/// One line of the supervision log. Units are in the names: `_ms` milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the log, from 1, without gaps on one node's disk; 0 before it is written.
    #[serde(default)]
    pub seq: u64,
    /// Unix time, milliseconds.
    pub ts_ms: u64,
    /// Name of the node.
    pub node: String,
    /// Path of the subject in the tree, `/` between ids.
    pub path: String,
    /// Id of the child the record is about, the last part of `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// What happened.
    pub event: Event,
    /// `normal`, `shutdown`, `error`, `panic`, `killed`, `cancelled`, `start_failed`, `timeout`,
    /// `gave_up`, `brutal`, `leftover`, `unkillable`, `auto_shutdown`, `drill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Text of the error, panic or stop reason; the text of a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `file:line:column` of a panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// `worker` or `supervisor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `permanent`, `transient` or `temporary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// Strategy of the supervisor that reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Rust type of the actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
    /// Id of the incarnation, `0.<n>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// Counts the starts of this child under this supervisor, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Rust type of the message that was being handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// Messages that were waiting (lost, in a crash report).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox_depth: Option<u64>,
    /// How long the incarnation was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// Restarts of this child so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// Restarts tolerated within the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intensity_max: Option<u32>,
    /// Length of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
    /// Which restart within the window this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_in_window: Option<u32>,
    /// Delay before the restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Siblings the strategy stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siblings: Option<u64>,
}

impl Record {
    /// A record with nothing but its event and subject; node and time are filled in by
    /// [`crate::Scope::emit`] or [`crate::SupervisionLog::append`] where they are empty.
    #[must_use]
    pub fn new(event: Event, path: &str) -> Self {
        Self {
            seq: 0,
            ts_ms: 0,
            node: String::new(),
            path: path.to_owned(),
            child: None,
            event,
            reason: None,
            error: None,
            location: None,
            kind: None,
            restart: None,
            strategy: None,
            actor_type: None,
            actor_id: None,
            generation: None,
            message_type: None,
            mailbox_depth: None,
            uptime_ms: None,
            restarts: None,
            intensity_max: None,
            window_ms: None,
            restart_in_window: None,
            backoff_ms: None,
            siblings: None,
        }
    }

    /// A free note about the node: `text` lands in `error` for faults and in `reason` otherwise.
    #[must_use]
    pub fn note(event: Event, path: &str, text: &str) -> Self {
        let mut record = Self::new(event, path);
        let text = Some(text.to_owned()).filter(|t| !t.is_empty());
        if event.is_fault() {
            record.error = text
        } else {
            record.reason = text
        }
        record
    }

    /// Cuts texts that are longer than [`TEXT_BYTES_MAX`].
    pub(crate) fn bound(&mut self) {
        for text in [&mut self.reason, &mut self.error, &mut self.location].into_iter().flatten() {
            bound_text(text);
        }
        bound_text(&mut self.path);
        bound_text(&mut self.node);
        for text in
            [&mut self.child, &mut self.message_type, &mut self.actor_type].into_iter().flatten()
        {
            bound_text(text);
        }
    }
}

fn bound_text(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
}

impl Event {
    /// The stable name, as in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SupervisorStarted => "supervisor_started",
            Self::SupervisorStopped => "supervisor_stopped",
            Self::ChildStarted => "child_started",
            Self::ChildExited => "child_exited",
            Self::ChildRestarting => "child_restarting",
            Self::ChildRestarted => "child_restarted",
            Self::ChildGaveUp => "child_gave_up",
            Self::StrategyApplied => "strategy_applied",
            Self::ChildStopping => "child_stopping",
            Self::ChildStopped => "child_stopped",
            Self::ChildKilled => "child_killed",
            Self::IntensityExceeded => "intensity_exceeded",
            Self::NodeStarted => "node_started",
            Self::NodeStopping => "node_stopping",
            Self::NodeStopped => "node_stopped",
            Self::UncleanStop => "unclean_stop",
            Self::Quarantined => "quarantined",
            Self::StorageFull => "storage_full",
            Self::StorageRecovered => "storage_recovered",
            Self::HashtreeMismatch => "hashtree_mismatch",
            Self::LogDropped => "log_dropped",
        }
    }

    /// All events, for documentation and command lines.
    pub const ALL: [Self; 21] = [
        Self::SupervisorStarted,
        Self::SupervisorStopped,
        Self::ChildStarted,
        Self::ChildExited,
        Self::ChildRestarting,
        Self::ChildRestarted,
        Self::ChildGaveUp,
        Self::StrategyApplied,
        Self::ChildStopping,
        Self::ChildStopped,
        Self::ChildKilled,
        Self::IntensityExceeded,
        Self::NodeStarted,
        Self::NodeStopping,
        Self::NodeStopped,
        Self::UncleanStop,
        Self::Quarantined,
        Self::StorageFull,
        Self::StorageRecovered,
        Self::HashtreeMismatch,
        Self::LogDropped,
    ];

    const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::UncleanStop
                | Self::Quarantined
                | Self::StorageFull
                | Self::HashtreeMismatch
                | Self::LogDropped
        )
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        Self::ALL
            .into_iter()
            .find(|e| e.name() == name)
            .ok_or_else(|| UnknownEvent(name.to_owned()))
    }
}

/// No event has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no supervision event is called {0:?}")]
pub struct UnknownEvent(pub String);

/// Which records a query returns; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only this path and what is below it (a prefix on `/` boundaries).
    pub path: Option<String>,
    /// Only these events; empty means all.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Only records of this unix time (ms) and later.
    pub since_ms: Option<u64>,
    /// Only records after this sequence number.
    pub after_seq: Option<u64>,
    /// Only the newest N of those that match.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether the record passes (the limit apart).
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        self.path.as_deref().is_none_or(|prefix| is_under(&record.path, prefix))
            && (self.events.is_empty() || self.events.contains(&record.event))
            && self.since_ms.is_none_or(|since_ms| record.ts_ms >= since_ms)
            && self.after_seq.is_none_or(|seq| record.seq > seq)
    }
}

/// Whether `path` is `prefix` or lies below it.
pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names_are_those_of_serde_and_parse_back() {
        for event in Event::ALL {
            assert_eq!(serde_json::to_string(&event).unwrap(), format!("\"{}\"", event.name()));
            assert_eq!(event.name().parse::<Event>(), Ok(event));
        }
        assert!("nothing".parse::<Event>().is_err());
    }

    #[test]
    fn path_prefix_ends_at_a_slash() {
        assert!(is_under("node/a", "node/a"));
        assert!(is_under("node/a/b", "node/a/"));
        assert!(!is_under("node/ab", "node/a"));
        assert!(is_under("node/ab", ""));
    }

    #[test]
    fn long_text_is_cut_on_a_char_boundary() {
        let mut record = Record::note(Event::NodeStarted, "node", &"é".repeat(TEXT_BYTES_MAX));
        record.bound();
        let text = record.reason.unwrap();
        assert!(text.len() <= TEXT_BYTES_MAX && text.ends_with("..."));
    }
}
