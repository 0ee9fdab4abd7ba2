//! The log that `recorder.c` writes.
//!
//! # Shape
//! Events one after another, in host byte order: magic u32, kind u32, id u64, inode u64, offset u64, length u64, synced u32,
//! process u32, then `length` bytes.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0x5752_4543;
const HEADER_BYTES: usize = 48;

/// Names an event: its process and its number there.
pub type Id = (u32, u64);

/// Something that happened to the recorded directory. Paths are relative to it; inodes are numbers of files for as long as
/// they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file appeared.
    Create {
        /// The file.
        inode: u64,
        /// Its name.
        path: PathBuf,
    },
    /// Bytes are about to be written.
    Write {
        /// Number.
        id: Id,
        /// The file.
        inode: u64,
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// The length of a file is about to be set.
    Truncate {
        /// Number.
        id: Id,
        /// The file.
        inode: u64,
        /// Bytes.
        len: u64,
    },
    /// A write or truncation returned.
    Done {
        /// Number of the write.
        id: Id,
        /// Whether it came through a descriptor that syncs each write.
        synced: bool,
    },
    /// A sync began.
    Sync {
        /// Number.
        id: Id,
        /// The file, if it is one.
        inode: u64,
        /// Its name, or that of the directory.
        path: PathBuf,
    },
    /// A sync returned.
    Synced {
        /// Number of the sync.
        id: Id,
    },
    /// A file or directory got another name.
    Rename {
        /// Old name.
        from: PathBuf,
        /// New name.
        to: PathBuf,
    },
    /// A name went away.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// A directory appeared.
    Mkdir {
        /// Its name.
        path: PathBuf,
    },
    /// The program is about to tell the world something.
    Ack {
        /// What it says.
        text: String,
    },
}

/// Reads a log. `root` is the recorded directory.
///
/// # Errors
/// A log that is cut or mangled, and anything that the recorder could not model.
pub fn read(log: &Path, root: &Path) -> Result<Vec<Event>> {
    let bytes = std::fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let mut events = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (event, left) = one(rest, root)
            .with_context(|| format!("event {} of {}", events.len(), log.display()))?;
        events.push(event);
        rest = left;
    }
    Ok(events)
}

fn one<'a>(bytes: &'a [u8], root: &Path) -> Result<(Event, &'a [u8])> {
    let header = bytes.get(..HEADER_BYTES).context("the log ends within an event")?;
    #[allow(clippy::host_endian_bytes, reason = "written by the same machine a moment ago")]
    let u32_at = |at: usize| header[at..].first_chunk().map_or(0, |raw| u32::from_ne_bytes(*raw));
    #[allow(clippy::host_endian_bytes, reason = "written by the same machine a moment ago")]
    let u64_at = |at: usize| header[at..].first_chunk().map_or(0, |raw| u64::from_ne_bytes(*raw));
    if u32_at(0) != MAGIC {
        bail!("no event where one should be");
    }
    let (inode, offset) = (u64_at(16), u64_at(24));
    let id = (u32_at(44), u64_at(8));
    let end = HEADER_BYTES + usize::try_from(u64_at(32))?;
    let body = bytes.get(HEADER_BYTES..end).context("the log ends within an event")?;
    let path = |raw: &[u8]| -> Result<PathBuf> {
        let path = Path::new(std::str::from_utf8(raw)?);
        let below = path.strip_prefix(root).with_context(|| format!("{}", path.display()))?;
        Ok(below.to_owned())
    };
    let event = match u32_at(4) {
        1 => Event::Create { inode, path: path(body)? },
        2 => Event::Write { id, inode, offset, data: body.to_vec() },
        3 => Event::Done { id, synced: u32_at(40) != 0 },
        4 => Event::Sync { id, inode, path: path(body)? },
        5 => Event::Synced { id },
        6 => Event::Truncate { id, inode, len: offset },
        7 => {
            let split = body.iter().position(|b| *b == 0).context("rename of one name")?;
            Event::Rename { from: path(&body[..split])?, to: path(&body[split + 1..])? }
        }
        8 | 10 => Event::Remove { path: path(body)? },
        9 => Event::Mkdir { path: path(body)? },
        11 => Event::Ack { text: String::from_utf8_lossy(body).into_owned() },
        12 => bail!("not modelled: {}", String::from_utf8_lossy(body)),
        other => bail!("unknown kind {other}"),
    };
    Ok((event, &bytes[end..]))
}
