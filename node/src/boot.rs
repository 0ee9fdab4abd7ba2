//! The order in which a node boots, as data.
//!
//! Guarantees: [`PLAN`] is what `weald start` walks, step by step, and what it walks backwards to stop; there is no other place
//! that knows the order. A step that fails ends the boot with the exit code of that step, after the steps before it were undone.

use crate::exit::Exit;
use crate::out::columns;
use serde_json::json;

/// A step of the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Config,
    Logging,
    DataDir,
    Lock,
    Ports,
    Store,
    SupervisionLog,
    Tree,
    Credential,
    Ready,
}

/// What a step does, and what its failure means.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Which.
    pub(crate) step: Step,
    /// Its name in logs and in the plan.
    pub(crate) name: &'static str,
    /// What starting it does.
    pub(crate) start: &'static str,
    /// What stopping it does; none: nothing is to be done.
    pub(crate) stop: Option<&'static str>,
    /// How the process ends when it fails.
    pub(crate) exit: Exit,
}

/// The boot, from first to last.
pub(crate) const PLAN: &[Entry] = &[
    Entry {
        step: Step::Config,
        name: "config",
        start: "defaults, file, environment, flags; all problems are listed",
        stop: None,
        exit: Exit::Config,
    },
    Entry {
        step: Step::Logging,
        name: "logging",
        start: "lines on stderr",
        stop: None,
        exit: Exit::Config,
    },
    Entry {
        step: Step::DataDir,
        name: "data-dir",
        start: "the data directory is there and can be written",
        stop: None,
        exit: Exit::NoDataDir,
    },
    Entry {
        step: Step::Lock,
        name: "lock",
        start: "no other process works on the data directory; weald.pid is written",
        stop: Some("weald.pid is removed, the lock is released"),
        exit: Exit::Locked,
    },
    Entry {
        step: Step::Ports,
        name: "ports",
        start: "the addresses to listen on are free",
        stop: None,
        exit: Exit::PortTaken,
    },
    Entry {
        step: Step::SupervisionLog,
        name: "supervision-log",
        start: "the supervision log is opened",
        stop: Some("the supervision log is synced"),
        exit: Exit::Io,
    },
    Entry {
        step: Step::Store,
        name: "store",
        start: "partitions are opened; after an unclean stop each is checked first",
        stop: Some("writers are drained, data is synced, the clean stop is marked"),
        exit: Exit::Damaged,
    },
    Entry {
        step: Step::Tree,
        name: "tree",
        start: "storage, registry, cluster port and local socket, under supervision",
        stop: Some(
            "listeners, cluster, registry, storage: in reverse, within node.shutdown_timeout",
        ),
        exit: Exit::GaveUp,
    },
    Entry {
        step: Step::Credential,
        name: "credential",
        start: "client.key is written at the first boot",
        stop: None,
        exit: Exit::Io,
    },
    Entry {
        step: Step::Ready,
        name: "ready",
        start: "the service manager and the terminal are told",
        stop: Some("the service manager is told"),
        exit: Exit::GaveUp,
    },
];

/// The plan for people.
pub(crate) fn table() -> String {
    let mut rows = vec![["STEP", "EXIT", "START", "STOP"].map(ToOwned::to_owned).to_vec()];
    rows.extend(PLAN.iter().map(|entry| {
        vec![
            entry.name.to_owned(),
            entry.exit.code().to_string(),
            entry.start.to_owned(),
            entry.stop.unwrap_or("-").to_owned(),
        ]
    }));
    columns(&rows)
}

/// The plan as JSON.
pub(crate) fn json() -> serde_json::Value {
    let entry = |entry: &Entry| {
        json!({
            "step": entry.name,
            "exit": entry.exit.code(),
            "start": entry.start,
            "stop": entry.stop,
        })
    };
    PLAN.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(step: Step) -> usize {
        PLAN.iter().position(|entry| entry.step == step).unwrap()
    }

    #[test]
    fn every_step_is_there_once_with_its_own_name() {
        for (i, entry) in PLAN.iter().enumerate() {
            assert_eq!(position(entry.step), i);
            assert_eq!(PLAN.iter().filter(|other| other.name == entry.name).count(), 1);
            assert!(entry.exit.code() >= 64, "{}", entry.name);
        }
    }

    #[test]
    fn order_is_safe() {
        // Nothing is touched in a directory that another process holds.
        assert!(position(Step::Lock) < position(Step::SupervisionLog));
        assert!(position(Step::Lock) < position(Step::Store));
        // A node that cannot listen does not open its data, so that a mistyped second start is harmless.
        assert!(position(Step::Ports) < position(Step::Store));
        // What the store found out at boot is on record, also when it refuses to open.
        assert!(position(Step::SupervisionLog) < position(Step::Store));
        // The store outlives the actors that use it.
        assert!(position(Step::Store) < position(Step::Tree));
        // Nobody is told "ready" before clients can get in.
        assert_eq!(position(Step::Ready), PLAN.len() - 1);
    }

    #[test]
    fn plan_is_printed_with_every_step() {
        assert_eq!(table().lines().count(), PLAN.len() + 1);
        assert_eq!(json().as_array().map(Vec::len), Some(PLAN.len()));
    }
}
