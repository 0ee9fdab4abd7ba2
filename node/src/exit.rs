//! Exit codes, and the error that carries one.
//!
//! Guarantees: a code never changes its meaning; the table in `--help` and the README is rendered from [`Exit::ALL`]. The codes
//! of `weald start` follow sysexits(3) and start at 64, those of client commands are below 64, so that neither can be taken
//! for the other.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Unhealthy,
    Usage,
    Unreachable,
    Refused,
    Conflict,
    TimedOut,
    StorageFull,
    Busy,
    NodeFault,
    ConcernNotMet,
    StartUsage,
    Damaged,
    PortTaken,
    GaveUp,
    NoDataDir,
    Io,
    Locked,
    Config,
}

impl Exit {
    /// All of them, by code.
    pub(crate) const ALL: &[Self] = &[
        Self::Ok,
        Self::Unhealthy,
        Self::Usage,
        Self::Unreachable,
        Self::Refused,
        Self::Conflict,
        Self::TimedOut,
        Self::StorageFull,
        Self::Busy,
        Self::NodeFault,
        Self::ConcernNotMet,
        Self::StartUsage,
        Self::Damaged,
        Self::PortTaken,
        Self::GaveUp,
        Self::NoDataDir,
        Self::Io,
        Self::Locked,
        Self::Config,
    ];

    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unhealthy => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Conflict => 5,
            Self::TimedOut => 6,
            Self::StorageFull => 7,
            Self::Busy => 8,
            Self::NodeFault => 9,
            Self::ConcernNotMet => 10,
            Self::StartUsage => 64,
            Self::Damaged => 65,
            Self::PortTaken => 69,
            Self::GaveUp => 70,
            Self::NoDataDir => 73,
            Self::Io => 74,
            Self::Locked => 75,
            Self::Config => 78,
        }
    }

    /// Its name in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unhealthy => "unhealthy",
            Self::Usage | Self::StartUsage => "usage",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::TimedOut => "timed_out",
            Self::StorageFull => "storage_full",
            Self::Busy => "busy",
            Self::NodeFault => "node_fault",
            Self::ConcernNotMet => "concern_not_met",
            Self::Damaged => "damaged",
            Self::PortTaken => "port_taken",
            Self::GaveUp => "gave_up",
            Self::NoDataDir => "no_data_dir",
            Self::Io => "io",
            Self::Locked => "locked",
            Self::Config => "config",
        }
    }

    /// What it means.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Unhealthy => {
                "not found, unhealthy, different, or finished with lines that were not imported"
            }
            Self::Usage => "wrong arguments, or a request that can never succeed",
            Self::Unreachable => "the node cannot be reached",
            Self::Refused => "the node refuses this client or this client's role",
            Self::Conflict => "something else is stored, or the name is taken",
            Self::TimedOut => "no answer in time; a write may or may not have happened",
            Self::StorageFull => "the node has no space left",
            Self::Busy => "overloaded or restarting; nothing was done, try again",
            Self::NodeFault => {
                "the node answered with a fault of its own, such as a damaged record"
            }
            Self::ConcernNotMet => {
                "the write is done, but fewer other members than asked for had it in time"
            }
            Self::StartUsage => "start: wrong arguments",
            Self::Damaged => "start: stored data is damaged",
            Self::PortTaken => "start: a port is taken or an address cannot be used",
            Self::GaveUp => "start: supervision gave up, or did not stop in time",
            Self::NoDataDir => "start: the data directory cannot be created or written",
            Self::Io => "a file could not be read or written",
            Self::Locked => "start: another process holds the data directory",
            Self::Config => "the configuration is wrong",
        }
    }

    /// The table for people.
    pub(crate) fn table() -> String {
        let row = |exit: &Self| format!("  {:>2}  {}\n", exit.code(), exit.meaning());
        Self::ALL.iter().map(row).collect()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What to tell the user; nothing when the reader of our output went away.
    pub(crate) message: String,
}

/// How a command ended, or why it failed.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A file that could not be used.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::new(Exit::Io, format!("cannot {verb} {}: {error}", path.display()))
    }

    /// An error on our own output. A closed pipe (`weald scan ... | head`) is a quiet end.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::Ok, "")
        } else {
            Self::new(Exit::Io, format!("cannot write output: {error}"))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_listed_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        assert_eq!(Exit::table().lines().count(), codes.len());
    }

    #[test]
    fn readme_has_the_table() {
        let readme = include_str!("../README.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(readme.contains(&row), "{row}");
        }
    }

    #[test]
    fn closed_pipe_is_a_quiet_end() {
        let failure = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Ok, ""));
    }
}
