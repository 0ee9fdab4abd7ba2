//! A history: what each client asked for, and what it was told.
//!
//! # Shape
//! JSON lines, one operation each, in the order of their ends:
//! `{"ts":µs,"took":µs,"session":n,"op":"put","key":"k","ctx":["v1"],"value":["v2"],"outcome":"ok"}`.

use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A key was written.
    Put,
    /// A key was deleted.
    Delete,
    /// A key was read.
    Get,
    /// A whole table was read: `key` is its name, `value` the elements found.
    Scan,
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// It may or may not have been done: no answer.
    Info,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds from the start of the history to the beginning of the operation.
    pub ts: u64,
    /// Microseconds that it took.
    #[serde(default)]
    pub took: u64,
    /// The session: its operations follow one another.
    pub session: u64,
    /// What was asked for.
    pub op: Op,
    /// The key.
    pub key: String,
    /// Values that a write was told to replace: those that were read with the context it was given. None: whatever the node
    /// held.
    #[serde(default)]
    pub ctx: Option<Vec<String>>,
    /// The value written, or all values read.
    pub value: Vec<String>,
    /// What was told.
    pub outcome: Outcome,
}

impl Entry {
    /// When it ended.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.ts.saturating_add(self.took)
    }

    /// Whether it may have changed something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.op, Op::Put | Op::Delete) && self.outcome != Outcome::Fail
    }

    /// Whether it read a key, and got an answer.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.op == Op::Get && self.outcome == Outcome::Ok
    }
}

/// Takes operations from many clients.
#[derive(Debug, Clone)]
pub struct Recorder {
    start: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty history that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), entries: Arc::default() }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds an operation that has just ended: its `took` is set here.
    pub fn ended(&self, mut entry: Entry) {
        entry.took = self.now().saturating_sub(entry.ts);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// What was recorded so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes a history.
///
/// # Errors
/// Of the file.
pub fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads one.
///
/// # Errors
/// Of the file, or of a line that is no operation.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let lines = BufReader::new(std::fs::File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

#[cfg(test)]
pub(super) mod build {
    //! Short histories for the tests of the checkers. Operations follow one another, 10 µs apart.

    use super::{Entry, Op, Outcome};

    pub(crate) fn numbered(mut entries: Vec<Entry>) -> Vec<Entry> {
        for (number, entry) in entries.iter_mut().enumerate() {
            entry.ts = number as u64 * 10;
            entry.took = 5;
        }
        entries
    }

    fn entry(session: u64, op: Op, key: &str, value: &[&str]) -> Entry {
        let value = value.iter().map(ToString::to_string).collect();
        let (key, outcome) = (key.to_owned(), Outcome::Ok);
        Entry { ts: 0, took: 0, session, op, key, ctx: None, value, outcome }
    }

    pub(crate) fn put(session: u64, key: &str, value: &str, ctx: &[&str]) -> Entry {
        let ctx = Some(ctx.iter().map(ToString::to_string).collect());
        Entry { ctx, ..entry(session, Op::Put, key, &[value]) }
    }

    pub(crate) fn delete(session: u64, key: &str, ctx: &[&str]) -> Entry {
        let ctx = Some(ctx.iter().map(ToString::to_string).collect());
        Entry { ctx, ..entry(session, Op::Delete, key, &[]) }
    }

    pub(crate) fn get(session: u64, key: &str, values: &[&str]) -> Entry {
        entry(session, Op::Get, key, values)
    }

    pub(crate) fn scan(elements: &[&str]) -> Entry {
        entry(99, Op::Scan, "t", elements)
    }

    pub(crate) fn with(mut entry: Entry, outcome: Outcome) -> Entry {
        entry.outcome = outcome;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let recorder = Recorder::new();
        for entry in [build::put(1, "k", "a", &[]), build::get(2, "k", &["a"])] {
            recorder.ended(Entry { ts: recorder.now(), ..entry });
        }
        write(&path, &recorder.entries()).unwrap();
        assert_eq!(read(&path).unwrap(), recorder.entries());
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"op\":\"put\",\"key\":\"k\""));
    }
}
