//! Opening a data directory: who we are, what happened last time, and whether the data is sound.
//!
//! In order: the clean marker is compared with the files and removed; every environment that is
//! not beyond doubt is checked in a child process before it is mapped; a damaged one is moved to
//! `quarantine/`; the identity is settled; a new incarnation, if one is due, is synced to every
//! environment before a dot can be issued.
//!
//! A first boot leaves a note before it makes the first environment and takes it away when the
//! store file is there. A power cut in between leaves environments that look damaged but hold
//! nothing that anybody was told of: the next boot finds the note and begins again.
//!
//! Refuses to open with a damaged or missing partition unless told to go on without it, and to mix
//! partitions of different nodes. Never deletes data that was ever acknowledged.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::check::{CheckVerdict, pages};
use crate::error::OpenError;
use crate::identity::{
    CleanMarker, DATA_FILE, EnvIdentity, FORMAT, FORMAT_MIN, IDENTITY_ROW, IdentityFault, LastStop,
    StoreFile, next_incarnation, partition_dir, sync_dir, write_durably,
};
use crate::ids::{Actor, NodeId};
use crate::lmdb::{Lmdb, Options};
use crate::partition::Space;
use crate::partition::durable::{Committed, adopt};
use crate::partition::read_committed;
use crate::store::{CheckFn, OnDamage, StoreConfig};

/// Directory for what was damaged.
pub const QUARANTINE_DIR: &str = "quarantine";

/// Why a node took a new incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NewLife {
    /// The directory was empty.
    FreshDirectory,
    /// The last stop was not clean: what was told to others may be more than what is here.
    UncleanStop,
    /// A data file is not the one that was closed: a copy or a backup was put in place.
    Restored,
    /// A partition is new, because it was damaged or missing.
    PartitionReplaced,
}

/// What happened at boot, for the log and the supervision records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BootEvent {
    /// A new node was made.
    NewNode {
        /// Its id.
        id: NodeId,
    },
    /// The last stop was clean and the files are those that were closed.
    CleanStart {
        /// The incarnation that goes on.
        incarnation: u32,
    },
    /// The last stop was not clean.
    UncleanStop,
    /// These partitions are copies or backups.
    Restored {
        /// Their numbers.
        partitions: Vec<u16>,
    },
    /// A new incarnation was taken.
    NewIncarnation {
        /// The old one, if any.
        from: Option<u32>,
        /// The new one.
        to: u32,
        /// Why.
        why: NewLife,
    },
    /// A partition was checked and found sound.
    Checked {
        /// Its number.
        partition: u16,
        /// Objects checked.
        rows: u64,
        /// Time it took.
        ms: u64,
    },
    /// A damaged partition was moved away.
    Quarantined {
        /// Its number.
        partition: u16,
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
        /// What was found.
        why: String,
    },
    /// A missing partition was begun afresh.
    Replaced {
        /// Its number.
        partition: u16,
    },
}

/// A partition ready to be started.
pub(crate) struct Booted {
    pub(crate) lmdb: Lmdb,
    pub(crate) committed: Committed,
    pub(crate) identity: EnvIdentity,
}

struct Found {
    lmdb: Lmdb,
    committed: Committed,
    identity: Option<EnvIdentity>,
}

fn io_error<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> OpenError + 'p {
    move |source| OpenError::Io { what, path: path.to_owned(), source }
}

/// Opens all partitions of `dir`.
pub(crate) fn boot(
    dir: &Path,
    config: &StoreConfig,
    check: &CheckFn,
    events: &mut Vec<BootEvent>,
) -> Result<Vec<Booted>, OpenError> {
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    let store_file = read_store_file(dir, config)?;
    if store_file.is_none() {
        begin_first_boot(dir).map_err(io_error("prepare", dir))?;
    }
    let last_stop =
        CleanMarker::take(dir, config.partitions).map_err(io_error("read the marker in", dir))?;
    let mut replaced = false;
    for index in 0..config.partitions {
        let is_same = match &last_stop {
            LastStop::Unclean => false,
            LastStop::Marked { same, .. } => same.get(usize::from(index)) == Some(&true),
        };
        let known = store_file.is_some();
        replaced |= prepare(dir, index, is_same, known, config, check, events)?;
    }
    let mut found = Vec::with_capacity(usize::from(config.partitions));
    for index in 0..config.partitions {
        found.push(open_one(dir, index, config)?);
    }
    let node = settle_node(store_file.as_ref(), &found, config, events)?;
    let is_new = store_file.is_none() && found.iter().all(|found| found.identity.is_none());
    let why = why_new_life(is_new, replaced, &last_stop, &found, events);
    let booted = settle_incarnation(node, why, store_file.as_ref(), found, config, events)?;
    if let Some(first) = booted.first() {
        write_store_file(dir, &first.identity)?;
        end_first_boot(dir).map_err(io_error("remove the note of the first boot in", dir))?;
    }
    Ok(booted)
}

/// Name of the note that a first boot is under way.
const FIRST_BOOT_FILE: &str = "first-boot";

/// Leaves the note if nothing is there yet. When it is there already, what that boot has left is
/// removed: it never came as far as to issue a dot.
fn begin_first_boot(dir: &Path) -> io::Result<()> {
    let mut partitions = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix("partition-");
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            partitions.push(path);
        }
    }
    if dir.join(FIRST_BOOT_FILE).try_exists()? {
        for path in partitions {
            fs::remove_dir_all(path)?;
        }
        return sync_dir(dir);
    }
    // Partitions without store file and note: put there by somebody, and to be trusted like any.
    if partitions.is_empty() {
        write_durably(dir, FIRST_BOOT_FILE, b"the first boot of this directory is under way\n")?;
    }
    Ok(())
}

fn end_first_boot(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FIRST_BOOT_FILE)) {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Notes whose directory this is and which incarnations were used in it.
pub(crate) fn write_store_file(dir: &Path, identity: &EnvIdentity) -> Result<(), OpenError> {
    let file = StoreFile {
        format: FORMAT,
        node: identity.node,
        partitions: identity.partitions,
        incarnation: identity.incarnation,
        memory_incarnation: identity.memory_incarnation,
    };
    file.write(dir).map_err(io_error("write the store file in", dir))
}

fn read_store_file(dir: &Path, config: &StoreConfig) -> Result<Option<StoreFile>, OpenError> {
    let file = StoreFile::read(dir).map_err(io_error("read the store file in", dir))?;
    let Some(file) = file else { return Ok(None) };
    if !(FORMAT_MIN..=FORMAT).contains(&file.format) {
        return Err(OpenError::Format { partition: None, found: file.format, known: FORMAT });
    }
    if file.partitions != config.partitions {
        let (stored, configured) = (file.partitions, config.partitions);
        return Err(OpenError::PartitionsDiffer { stored, configured });
    }
    Ok(Some(file))
}

/// Makes the directory of a partition fit to be opened; whether it was replaced by an empty one.
fn prepare(
    dir: &Path,
    index: u16,
    is_same: bool,
    known: bool,
    config: &StoreConfig,
    check: &CheckFn,
    events: &mut Vec<BootEvent>,
) -> Result<bool, OpenError> {
    let path = partition_dir(dir, index);
    let data = path.join(DATA_FILE);
    let header = pages::read_header(&data).map_err(io_error("read", &data))?;
    let Some(header) = header else {
        if known {
            return replace_missing(dir, index, config, events);
        }
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        sync_dir(dir).map_err(io_error("sync", dir))?;
        return Ok(false);
    };
    let why = match header {
        Err(why) => Some(why),
        Ok(header) if is_same && !header.is_short() => None,
        Ok(_) => {
            match check(&path).map_err(|source| OpenError::Check { partition: index, source })? {
                CheckVerdict::Sound { rows, ms } => {
                    events.push(BootEvent::Checked { partition: index, rows, ms });
                    None
                }
                CheckVerdict::Damaged { why } => Some(why),
            }
        }
    };
    let Some(why) = why else { return Ok(false) };
    let to = quarantine(dir, index, &why, config)?;
    events.push(BootEvent::Quarantined {
        partition: index,
        from: path,
        to: to.clone(),
        why: why.clone(),
    });
    match config.on_damage {
        OnDamage::Stop => {
            Err(OpenError::Damaged { partition: index, quarantined_to: Some(to), why })
        }
        OnDamage::Continue => replace_missing(dir, index, config, events),
    }
}

/// A partition that should be there is not: begins it afresh if that is allowed.
fn replace_missing(
    dir: &Path,
    index: u16,
    config: &StoreConfig,
    events: &mut Vec<BootEvent>,
) -> Result<bool, OpenError> {
    if config.on_damage == OnDamage::Stop {
        let prefix = format!("partition-{index}-");
        let quarantined_to = latest_entry(&dir.join(QUARANTINE_DIR), &prefix);
        let why = "its data is missing".to_owned();
        return Err(OpenError::Damaged { partition: index, quarantined_to, why });
    }
    let path = partition_dir(dir, index);
    fs::create_dir_all(&path).map_err(io_error("create", &path))?;
    sync_dir(dir).map_err(io_error("sync", dir))?;
    events.push(BootEvent::Replaced { partition: index });
    Ok(true)
}

fn latest_entry(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let names = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    names.map(|entry| entry.path()).max()
}

#[derive(Serialize)]
struct QuarantineReport<'r> {
    partition: u16,
    why: &'r str,
    at_unix_ms: u64,
    restore: &'r str,
}

fn quarantine(
    dir: &Path,
    index: u16,
    why: &str,
    config: &StoreConfig,
) -> Result<PathBuf, OpenError> {
    let quarantine = dir.join(QUARANTINE_DIR);
    fs::create_dir_all(&quarantine).map_err(io_error("create", &quarantine))?;
    let now_ms = config.clock.now_ms();
    let mut to = quarantine.join(format!("partition-{index}-{now_ms}"));
    let mut tries = 0;
    while to.try_exists().map_err(io_error("look at", &to))? {
        tries += 1;
        to = quarantine.join(format!("partition-{index}-{now_ms}-{tries}"));
    }
    let from = partition_dir(dir, index);
    fs::rename(&from, &to).map_err(io_error("move", &from))?;
    sync_dir(&quarantine).map_err(io_error("sync", &quarantine))?;
    sync_dir(dir).map_err(io_error("sync", dir))?;
    let report = QuarantineReport {
        partition: index,
        why,
        at_unix_ms: now_ms,
        restore: "put a sound copy in place of the partition's directory, or start with \
                  on_damage = \"continue\"",
    };
    let written = serde_json::to_vec_pretty(&report)
        .map_err(io::Error::from)
        .and_then(|json| write_durably(&to, "REPORT.json", &json));
    written.map_err(io_error("write the report in", &to))?;
    Ok(to)
}

fn open_one(dir: &Path, index: u16, config: &StoreConfig) -> Result<Found, OpenError> {
    let path = partition_dir(dir, index);
    let data = path.join(DATA_FILE);
    let stored = pages::read_header(&data).map_err(io_error("read", &data))?;
    // The map may have grown; one that is too small would only be grown again.
    let grown = match stored {
        Some(Ok(header)) => header.meta.map_bytes.min(config.map_size_max),
        _ => 0,
    };
    let options = Options {
        map_bytes: grown.max(config.map_size.min(config.map_size_max)),
        readers_max: config.max_readers,
        durability: config.durability,
    };
    let fail = |source| OpenError::Lmdb { partition: index, source };
    let lmdb = Lmdb::open(&path, options).map_err(fail)?;
    sync_dir(&path).map_err(io_error("sync", &path))?;
    let unreadable =
        |why: String| OpenError::Damaged { partition: index, quarantined_to: None, why };
    let (committed, identity) = {
        let txn = lmdb.read().map_err(fail)?;
        let committed =
            read_committed(&lmdb, &txn).map_err(|error| unreadable(error.to_string()))?;
        let row = lmdb.dbs.meta.get(&txn, IDENTITY_ROW).map_err(fail)?;
        let identity = row.map(EnvIdentity::decode).transpose().map_err(|fault| match fault {
            IdentityFault::Damaged => unreadable("the identity row is damaged".to_owned()),
            IdentityFault::UnknownFormat(found) => {
                OpenError::Format { partition: Some(index), found, known: FORMAT }
            }
        })?;
        (committed, identity)
    };
    Ok(Found { lmdb, committed, identity })
}

/// The node all partitions belong to.
fn settle_node(
    store_file: Option<&StoreFile>,
    found: &[Found],
    config: &StoreConfig,
    events: &mut Vec<BootEvent>,
) -> Result<NodeId, OpenError> {
    let first = found.iter().find_map(|found| found.identity);
    let node = store_file.map(|file| file.node).or_else(|| first.map(|identity| identity.node));
    let Some(node) = node else {
        let random =
            NodeId::random().map_err(io_error("draw a node id from", Path::new("/dev/urandom")));
        let id = random?;
        events.push(BootEvent::NewNode { id });
        return Ok(id);
    };
    for (index, found) in (0..config.partitions).zip(found) {
        let Some(identity) = found.identity else { continue };
        if identity.node != node || identity.partition != index {
            return Err(OpenError::Foreign {
                partition: index,
                expected: node,
                found: identity.node,
                found_partition: identity.partition,
            });
        }
        if identity.partitions != config.partitions {
            let (stored, configured) = (identity.partitions, config.partitions);
            return Err(OpenError::PartitionsDiffer { stored, configured });
        }
    }
    Ok(node)
}

fn why_new_life(
    is_new: bool,
    replaced: bool,
    last_stop: &LastStop,
    found: &[Found],
    events: &mut Vec<BootEvent>,
) -> Option<NewLife> {
    if is_new {
        return Some(NewLife::FreshDirectory);
    }
    let stop = match last_stop {
        LastStop::Unclean => {
            events.push(BootEvent::UncleanStop);
            Some(NewLife::UncleanStop)
        }
        LastStop::Marked { same, incarnation } => {
            let others = (0..).zip(same).filter(|(_, same)| !**same).map(|(index, _)| index);
            let partitions: Vec<u16> = others.collect();
            // A backup of another day may carry a marker of its own that fits its files.
            let of_one_life = found.iter().all(|found| {
                found.identity.is_some_and(|identity| identity.incarnation == *incarnation)
            });
            let restored = !partitions.is_empty() || !of_one_life;
            if restored && !replaced {
                events.push(BootEvent::Restored { partitions });
            }
            restored.then_some(NewLife::Restored)
        }
    };
    if replaced { Some(NewLife::PartitionReplaced) } else { stop }
}

/// Gives every partition the same incarnation and makes it durable.
fn settle_incarnation(
    node: NodeId,
    why: Option<NewLife>,
    store_file: Option<&StoreFile>,
    found: Vec<Found>,
    config: &StoreConfig,
    events: &mut Vec<BootEvent>,
) -> Result<Vec<Booted>, OpenError> {
    let now_ms = config.clock.now_ms();
    let identities = || found.iter().filter_map(|found| found.identity);
    let noted = store_file.map(|file| file.incarnation);
    let highest = identities().map(|identity| identity.incarnation).max().max(noted);
    let incarnation = match (why, highest) {
        (None, Some(highest)) => {
            events.push(BootEvent::CleanStart { incarnation: highest });
            highest
        }
        (why, highest) => {
            let to = next_incarnation(Space::Durable, highest, now_ms);
            let why = why.unwrap_or(NewLife::FreshDirectory);
            events.push(BootEvent::NewIncarnation { from: highest, to, why });
            to
        }
    };
    let noted = store_file.map(|file| file.memory_incarnation);
    let highest = identities().map(|identity| identity.memory_incarnation).max().max(noted);
    let memory_incarnation = next_incarnation(Space::Memory, highest, now_ms);
    let mut booted = Vec::with_capacity(found.len());
    for (partition, found) in (0..config.partitions).zip(found) {
        let identity = EnvIdentity {
            node,
            incarnation,
            memory_incarnation,
            partition,
            partitions: config.partitions,
        };
        let old = found.identity;
        let old = old.map(|old| Actor { node: old.node, incarnation: old.incarnation });
        let committed = adopt(&found.lmdb, &found.committed, old, &identity)
            .map_err(|failed| OpenError::Lmdb { partition, source: failed.error })?;
        booted.push(Booted { lmdb: found.lmdb, committed, identity });
    }
    Ok(booted)
}
