//! Who this store is, and whether it stopped cleanly.
//!
//! An event is named by a *dot*: actor and counter, and the actor is the node's UUID plus an
//! *incarnation*. No dot may ever name two values, so the incarnation is renewed whenever the data
//! on disk might not be the latest this node has told others about: a fresh directory, a stop that
//! was not clean, a partition that was replaced, a copy or a backup put in place.
//!
//! Three things are kept:
//! - in every environment a sealed row with node, incarnation and partition (`EnvIdentity`), in
//!   the same file as the data, so that a backup of the data is a backup of its identity;
//! - `<dir>/store.json`, written when a boot is complete: how many partitions there are and whose they
//!   are, so that a partition that vanished is noticed, and the incarnations, so that they are not
//!   forgotten with it;
//! - `<dir>/clean`, written by a clean stop after everything is closed and removed by the next boot
//!   before anything else: inode, change time and size of each data file. A copy has other inodes
//!   and times, a restored file another size, so neither passes for the file that was closed.
//!
//! It does not detect a whole machine that was set back to a snapshot: peers do, by the highest
//! dot they know.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::partition::Space;

/// Version of the layout of an environment and of the files beside it. 2: the index of events, and
/// trees that count only what is not deleted. 3: marks of damaged buckets.
pub const FORMAT: u16 = 3;
/// The oldest version that can be read. Each start writes the current one.
pub(crate) const FORMAT_MIN: u16 = 2;
/// Name of the marker a clean stop leaves.
pub(crate) const CLEAN_FILE: &str = "clean";
/// Name of the file that tells a complete data directory.
pub(crate) const STORE_FILE: &str = "store.json";
/// Name of the data file of an environment.
pub(crate) const DATA_FILE: &str = "data.mdb";
/// Row of [`EnvIdentity`] in database `meta`.
pub(crate) const IDENTITY_ROW: &[u8] = b"identity";

/// Directory of partition `index`.
pub(crate) fn partition_dir(dir: &Path, index: u16) -> PathBuf {
    dir.join(format!("partition-{index}"))
}

/// What an environment knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnvIdentity {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u32,
    /// Incarnation of the in-memory tables: new at each boot, since their dots die with the process.
    pub(crate) memory_incarnation: u32,
    pub(crate) partition: u16,
    pub(crate) partitions: u16,
}

/// Why an identity row cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentityFault {
    Damaged,
    UnknownFormat(u16),
}

const IDENTITY_BYTES: usize = 2 + 16 + 4 + 4 + 2 + 2 + 4;

impl EnvIdentity {
    /// Shape: format u16 | node 16 | incarnation u32 | memory incarnation u32 | partition u16 |
    /// partitions u16 | crc32c u32, big-endian.
    pub(crate) fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut row = Vec::with_capacity(IDENTITY_BYTES);
        row.extend_from_slice(&FORMAT.to_be_bytes());
        row.extend_from_slice(&self.node.0);
        row.extend_from_slice(&self.incarnation.to_be_bytes());
        row.extend_from_slice(&self.memory_incarnation.to_be_bytes());
        row.extend_from_slice(&self.partition.to_be_bytes());
        row.extend_from_slice(&self.partitions.to_be_bytes());
        let sum = crc32c::crc32c(&row);
        row.extend_from_slice(&sum.to_be_bytes());
        let mut out = [0; IDENTITY_BYTES];
        out.copy_from_slice(&row);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, IdentityFault> {
        let format = row.first_chunk().map(|raw| u16::from_be_bytes(*raw));
        match format {
            None => return Err(IdentityFault::Damaged),
            Some(FORMAT_MIN..=FORMAT) => {}
            Some(other) => return Err(IdentityFault::UnknownFormat(other)),
        }
        let row: &[u8; IDENTITY_BYTES] =
            row.try_into().map_err(|_wrong_length| IdentityFault::Damaged)?;
        let (body, sum) = row.split_at(IDENTITY_BYTES - 4);
        if crc32c::crc32c(body).to_be_bytes() != sum {
            return Err(IdentityFault::Damaged);
        }
        let mut node = [0; 16];
        node.copy_from_slice(&body[2..18]);
        let u32_at =
            |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let u16_at = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        Ok(Self {
            node: NodeId(node),
            incarnation: u32_at(18),
            memory_incarnation: u32_at(22),
            partition: u16_at(26),
            partitions: u16_at(28),
        })
    }
}

/// A number above every one used before, and not below the clock, so that even a directory that
/// lost its own record takes another one than its past lives. Those of durable tables are even and
/// those of memory tables odd: no actor ever issues dots in both.
pub(crate) fn next_incarnation(space: Space, highest_known: Option<u32>, now_ms: u64) -> u32 {
    let seconds = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
    let next = highest_known.map_or(seconds, |known| known.saturating_add(1).max(seconds)).max(1);
    let lowest_bit = match space {
        Space::Durable => 0,
        Space::Memory => 1,
    };
    if next & 1 == lowest_bit { next } else { next.saturating_add(1) }
}

/// `<dir>/store.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreFile {
    pub(crate) format: u16,
    pub(crate) node: NodeId,
    pub(crate) partitions: u16,
    /// The incarnations in use, also kept here so that they are not lost with the partitions.
    pub(crate) incarnation: u32,
    pub(crate) memory_incarnation: u32,
}

impl StoreFile {
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(STORE_FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write_durably(dir, STORE_FILE, &serde_json::to_vec_pretty(self)?)
    }
}

/// The stamp of one closed data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStamp {
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
    bytes: u64,
}

impl FileStamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            inode: meta.ino(),
            changed_s: meta.ctime(),
            changed_ns: meta.ctime_nsec(),
            bytes: meta.len(),
        })
    }
}

/// `<dir>/clean`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanMarker {
    pub(crate) format: u16,
    pub(crate) incarnation: u32,
    pub(crate) files: Vec<FileStamp>,
}

/// What the last stop left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LastStop {
    /// No marker, or one that cannot be read.
    Unclean,
    /// A marker; per partition whether its file is the one that was closed.
    Marked { incarnation: u32, same: Vec<bool> },
}

impl CleanMarker {
    pub(crate) fn of(dir: &Path, partitions: u16, incarnation: u32) -> io::Result<Self> {
        let files = (0..partitions)
            .map(|index| FileStamp::of(&partition_dir(dir, index).join(DATA_FILE)))
            .collect::<io::Result<_>>()?;
        Ok(Self { format: FORMAT, incarnation, files })
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        write_durably(dir, CLEAN_FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads the marker, compares it with the files, and removes it durably.
    pub(crate) fn take(dir: &Path, partitions: u16) -> io::Result<LastStop> {
        let path = dir.join(CLEAN_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LastStop::Unclean),
            Err(error) => return Err(error),
        };
        let stop = match serde_json::from_slice::<Self>(&bytes) {
            Ok(marker) if marker.format == FORMAT => LastStop::Marked {
                incarnation: marker.incarnation,
                same: (0..partitions)
                    .map(|index| {
                        let now = FileStamp::of(&partition_dir(dir, index).join(DATA_FILE)).ok();
                        now.is_some() && now.as_ref() == marker.files.get(usize::from(index))
                    })
                    .collect(),
            },
            _ => LastStop::Unclean,
        };
        fs::remove_file(&path)?;
        sync_dir(dir)?;
        Ok(stop)
    }
}

/// Makes the entries of `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a small file so that a crash leaves either the old one or the new one, and returns when
/// the new one is on disk.
pub(crate) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_encoding_and_notices_each_flipped_bit() {
        let identity = EnvIdentity {
            node: NodeId([7; 16]),
            incarnation: 1_900_000_000,
            memory_incarnation: 1_900_000_001,
            partition: 3,
            partitions: 8,
        };
        let row = identity.encode();
        assert_eq!(EnvIdentity::decode(&row), Ok(identity));
        for bit in 0..row.len() * 8 {
            let mut damaged = row;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(EnvIdentity::decode(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(EnvIdentity::decode(&row[1..]).ok(), None);
    }

    #[test]
    fn identity_of_the_format_before_is_read_and_others_are_refused() {
        let identity = EnvIdentity {
            node: NodeId([7; 16]),
            incarnation: 4,
            memory_incarnation: 5,
            partition: 3,
            partitions: 8,
        };
        for (format, expected) in [
            (1, Err(IdentityFault::UnknownFormat(1))),
            (2, Ok(identity)),
            (3, Ok(identity)),
            (4, Err(IdentityFault::UnknownFormat(4))),
        ] {
            let mut row = identity.encode();
            row[..2].copy_from_slice(&u16::to_be_bytes(format));
            let body = row.len() - 4;
            let sum = crc32c::crc32c(&row[..body]);
            row[body..].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(EnvIdentity::decode(&row), expected, "{format}");
        }
    }

    #[test]
    fn incarnation_is_above_the_last_and_not_below_the_clock() {
        let durable = |known, now_ms| next_incarnation(Space::Durable, known, now_ms);
        assert_eq!(durable(None, 5_000), 6);
        assert_eq!(durable(Some(4), 6_000), 6);
        assert_eq!(durable(Some(6), 6_000), 8);
        assert_eq!(durable(Some(900), 5_000), 902);
        assert_eq!(durable(None, 0), 2);
        let memory = |known, now_ms| next_incarnation(Space::Memory, known, now_ms);
        assert_eq!(memory(None, 5_000), 5);
        assert_eq!(memory(Some(5), 5_000), 7);
        assert_eq!(memory(None, 0), 1);
    }

    #[test]
    fn clean_marker_is_taken_once_and_notices_a_copied_file() {
        let dir = tempfile::tempdir().unwrap();
        let part = partition_dir(dir.path(), 0);
        fs::create_dir(&part).unwrap();
        fs::write(part.join(DATA_FILE), b"data").unwrap();
        let mark = || CleanMarker::of(dir.path(), 1, 9).unwrap().write(dir.path()).unwrap();
        mark();
        let same = LastStop::Marked { incarnation: 9, same: vec![true] };
        assert_eq!(CleanMarker::take(dir.path(), 1).unwrap(), same);
        assert_eq!(CleanMarker::take(dir.path(), 1).unwrap(), LastStop::Unclean);
        mark();
        fs::copy(part.join(DATA_FILE), part.join("copy")).unwrap();
        fs::rename(part.join("copy"), part.join(DATA_FILE)).unwrap();
        let other = LastStop::Marked { incarnation: 9, same: vec![false] };
        assert_eq!(CleanMarker::take(dir.path(), 1).unwrap(), other);
    }
}
