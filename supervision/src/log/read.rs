//! Reads the log's files, without locks and from any process.
//!
//! Guarantees: torn and altered lines are skipped and counted; a segment that vanishes meanwhile is
//! no error; records come back in the order of their sequence numbers.
//! Refuses: to write, to wait.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::line;
use crate::record::{Filter, Record};

const PREFIX: &str = "supervision-";
const SUFFIX: &str = ".jsonl";
/// No line of ours is longer (16 texts of 2 KiB, escaped); longer ones are not ours.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// The log could not be read or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The folder or a segment refused an operation. Nothing was changed.
    #[error("supervision log: {op} {path}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LogError {
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source }
    }
}

/// What a read came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Segment files read.
    pub segments: u64,
    /// Lines that were whole and sound.
    pub lines: u64,
    /// Lines that were torn or altered, and skipped.
    pub skipped: u64,
}

/// File name of the segment that starts with this sequence number.
pub(super) fn segment_name(first_seq: u64) -> String {
    format!("{PREFIX}{first_seq:020}{SUFFIX}")
}

/// The segments of a log, oldest first. A folder that is not there is an empty log.
pub(super) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(LogError::io("list", dir)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", dir))?;
        let name = entry.file_name();
        let seq = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        if let Some(seq) = seq {
            found.push((seq, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Records of a segment, in file order; `None` stands for a line that was skipped.
pub(super) fn segment_records(
    path: &Path,
    mut each: impl FnMut(Option<Record>),
) -> Result<(), LogError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        // Dropped by the writer since the folder was listed.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(LogError::io("open", path)(e)),
    };
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut buf = Vec::new();
    loop {
        buf.clear();
        let read = (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut buf)
            .map_err(LogError::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        match buf.strip_suffix(b"\n") {
            Some([]) => {} // written in front of the first record after a torn one
            Some(body) => each(line::decode(body)),
            // A torn tail: unfinished, whether it decodes or not.
            None => each(None),
        }
    }
}

/// Queries the log in `dir`.
pub(super) fn query(dir: &Path, filter: &Filter) -> Result<(Vec<Record>, ReadStats), LogError> {
    let segments = segments(dir)?;
    let mut stats = ReadStats::default();
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut found: VecDeque<Vec<Record>> = VecDeque::new();
    let mut found_len = 0usize;
    let mut next_first: Option<u64> = None;
    // Newest first, so that a limited or resumed query reads no more than it needs.
    for (first_seq, path) in segments.iter().rev() {
        let all_known = filter
            .after_seq
            .is_some_and(|after| next_first.is_some_and(|n| n <= after.saturating_add(1)));
        if all_known || found_len >= limit {
            break;
        }
        next_first = Some(*first_seq);
        stats.segments += 1;
        let mut hits = VecDeque::new();
        segment_records(path, |record| match record {
            Some(record) => {
                stats.lines += 1;
                if filter.matches(&record) {
                    if hits.len() >= limit - found_len {
                        hits.pop_front();
                    }
                    hits.push_back(record);
                }
            }
            None => stats.skipped += 1,
        })?;
        found_len += hits.len();
        found.push_front(hits.into());
    }
    Ok((found.into_iter().flatten().collect(), stats))
}
