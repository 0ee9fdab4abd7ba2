//! The only module that talks to LMDB's unsafe side.
//!
//! [`Lmdb`] is one environment with its named databases. It guarantees that the memory map is
//! resized only when no transaction of this process is alive (the borrow checker proves it: growing
//! takes `&mut self`, transactions borrow `self`), that the data file is never mapped writable, and
//! that a commit is synced as the durability asks. It refuses `WRITEMAP` (a full disk would be a
//! `SIGBUS`) and `NOSYNC` (a power cut would leave an environment that opens and lies).
#![allow(unsafe_code)]

use std::io;
use std::path::Path;

use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithTls,
};

use crate::store::Durability;

/// A named database of raw rows.
pub(crate) type Rows = Database<'static, Bytes, Bytes>;

/// Sizes of a memory map are multiples of this many bytes (a multiple of every usual page size).
pub(crate) const MAP_STEP: u64 = 64 * 1024;

/// The named databases of an environment; layouts are documented in [`crate::partition`].
#[derive(Clone, Copy)]
pub(crate) struct Databases {
    pub(crate) meta: Rows,
    pub(crate) objects: Rows,
    pub(crate) tree: Rows,
    pub(crate) buckets: Rows,
    pub(crate) changes: Rows,
    pub(crate) expiry: Rows,
    pub(crate) clock: Rows,
    pub(crate) dots: Rows,
    pub(crate) swept: Rows,
}

/// Names, in the order of the fields of [`Databases`].
pub(crate) const NAMES: [&str; DATABASES] =
    ["meta", "objects", "tree", "buckets", "changes", "expiry", "clock", "dots", "swept"];
/// As LMDB is told.
const DATABASES_MAX: u32 = 9;
/// Number of named databases.
pub(crate) const DATABASES: usize = 9;

impl Databases {
    fn all(&self) -> [Rows; DATABASES] {
        let Self { meta, objects, tree, buckets, changes, expiry, clock, dots, swept } = *self;
        [meta, objects, tree, buckets, changes, expiry, clock, dots, swept]
    }
}

/// How to open an environment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) map_bytes: u64,
    pub(crate) readers_max: u32,
    pub(crate) durability: Durability,
}

/// What a failed transaction means for its batch and for the partition.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The memory map is full; it may be grown.
    MapFull,
    /// The disk (or a quota) is full. The environment is intact and readable.
    NoSpace(io::Error),
    /// The disk failed while syncing, or LMDB gave the environment up. What is on disk is not
    /// known any more; nothing may be written until the environment was opened anew.
    Fatal(heed::Error),
    /// Anything else; this transaction was rolled back.
    Other(heed::Error),
}

/// Free bytes under which a short write is taken for a full disk.
const NO_SPACE_BYTES: u64 = 4 * 1024 * 1024;

/// One open environment.
pub(crate) struct Lmdb {
    env: Env<WithTls>,
    pub(crate) dbs: Databases,
}

impl std::fmt::Debug for Lmdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lmdb").field("path", &self.env.path()).finish_non_exhaustive()
    }
}

fn map_len(bytes: u64) -> usize {
    let rounded = bytes.div_ceil(MAP_STEP).max(1).saturating_mul(MAP_STEP);
    // A map larger than the address space cannot be asked for anyway.
    usize::try_from(rounded).unwrap_or(usize::MAX - (usize::MAX % 65_536))
}

impl Lmdb {
    /// Opens (or creates) the environment in directory `dir`.
    pub(crate) fn open(dir: &Path, options: Options) -> heed::Result<Self> {
        let mut open = EnvOpenOptions::new();
        open.map_size(map_len(options.map_bytes))
            .max_dbs(DATABASES_MAX)
            .max_readers(options.readers_max);
        if options.durability == Durability::Relaxed {
            // SAFETY: NO_META_SYNC keeps the file consistent; after a power cut the last
            // transaction may be missing, which the caller answers with a new incarnation.
            unsafe { open.flags(EnvFlags::NO_META_SYNC) };
        }
        // SAFETY: the data directory is locked by this process, heed refuses a second open of the
        // same path, and the file's head and size were checked (and the whole file, when there was
        // any doubt) before it is mapped. No other code writes the file.
        let env = unsafe { open.open(dir)? };
        env.clear_stale_readers()?;
        let txn = env.write_txn()?;
        let dbs = env
            .create_databases_and_commit(txn, |opener, txn| {
                let mut rows = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
                let [meta, objects, tree, buckets, changes, expiry, clock, dots, swept] = NAMES;
                heed::Result::Ok(CommitOrAbort::<_, ()>::Commit((
                    rows(meta)?,
                    rows(objects)?,
                    rows(tree)?,
                    rows(buckets)?,
                    rows(changes)?,
                    rows(expiry)?,
                    rows(clock)?,
                    rows(dots)?,
                    rows(swept)?,
                )))
            })?
            .commit();
        let Some((meta, objects, tree, buckets, changes, expiry, clock, dots, swept)) = dbs else {
            return Err(heed::Error::Mdb(MdbError::Problem));
        };
        let dbs = Databases { meta, objects, tree, buckets, changes, expiry, clock, dots, swept };
        Ok(Self { env, dbs })
    }

    /// A snapshot. Keep it short: it pins old pages.
    #[inline]
    pub(crate) fn read(&self) -> heed::Result<RoTxn<'_, WithTls>> {
        self.env.read_txn()
    }

    /// The write transaction; it must end on the thread that began it.
    pub(crate) fn write(&self) -> heed::Result<RwTxn<'_>> {
        self.env.write_txn()
    }

    /// Makes the map at least `bytes` long (never shorter than the data).
    pub(crate) fn grow(&mut self, bytes: u64) -> heed::Result<()> {
        // SAFETY: LMDB asks that no transaction of this process is active. Every transaction
        // borrows `self`, and `&mut self` proves that none is left.
        unsafe { self.env.resize(map_len(bytes)) }
    }

    /// Length of the map in bytes.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.env.info().map_size as u64
    }

    /// Bytes up to the last page ever used, free pages included.
    pub(crate) fn high_water_bytes(&self) -> u64 {
        let pages = self.env.info().last_page_number as u64 + 1;
        pages * u64::from(self.env.unnamed_database_stat().page_size)
    }

    /// Bytes of all pages in use by rows, as `txn` sees them.
    pub(crate) fn used_bytes(&self, txn: &RoTxn<'_>) -> heed::Result<u64> {
        let mut pages = 4;
        let mut page_bytes = 4096;
        for rows in self.dbs.all() {
            let stat = rows.stat(txn)?;
            page_bytes = u64::from(stat.page_size);
            pages += (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64;
        }
        Ok(pages * page_bytes)
    }

    /// Forces everything committed to disk, also what `Relaxed` left to the system.
    pub(crate) fn sync(&self) -> heed::Result<()> {
        self.env.force_sync()
    }

    /// Closes the environment and waits until it is closed.
    pub(crate) fn close(self) {
        self.env.prepare_for_closing().wait();
    }
}

/// Says what `error` means; `committing` tells whether it came out of the commit itself.
pub(crate) fn classify(error: heed::Error, committing: bool, dir: &Path) -> Failure {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => Failure::MapFull,
        heed::Error::Mdb(
            MdbError::Panic | MdbError::Corrupted | MdbError::PageNotFound | MdbError::Problem,
        ) => Failure::Fatal(error),
        heed::Error::Io(io) => classify_io(io, committing, dir),
        other => Failure::Other(other),
    }
}

fn classify_io(error: io::Error, committing: bool, dir: &Path) -> Failure {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
        return Failure::NoSpace(error);
    }
    // LMDB answers a write that was cut short by a full disk with EIO. The same number from a sync
    // means that pages were lost, so only a disk that is nearly full may be called full.
    let free =
        rustix::fs::statvfs(dir).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    if free < NO_SPACE_BYTES {
        Failure::NoSpace(error)
    } else if committing {
        Failure::Fatal(heed::Error::Io(error))
    } else {
        Failure::Other(heed::Error::Io(error))
    }
}

/// Opens an environment without a store around it: for benches that compare with raw LMDB, and for tests that change rows
/// behind a store's back. The directory must belong to the caller alone.
///
/// # Errors
/// LMDB cannot open it, or this process has it open already.
#[doc(hidden)]
pub fn open_raw(dir: &Path, map_bytes: usize, databases_max: u32) -> heed::Result<Env> {
    let mut open = EnvOpenOptions::new();
    open.map_size(map_bytes).max_dbs(databases_max);
    // SAFETY: heed refuses to open a path twice in one process, and no other process knows the directory.
    unsafe { open.open(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `EIO`, `ENOSPC` and `EFBIG`.
    fn os(number: i32) -> heed::Error {
        heed::Error::Io(io::Error::from_raw_os_error(number))
    }

    #[test]
    fn failed_sync_is_fatal_and_a_full_disk_is_not() {
        let dir = tempfile::tempdir().unwrap();
        // The machine that runs this has some megabytes free.
        assert!(matches!(classify(os(5), true, dir.path()), Failure::Fatal(_)));
        assert!(matches!(classify(os(5), false, dir.path()), Failure::Other(_)));
        for full in [28, 27, 122] {
            assert!(matches!(classify(os(full), true, dir.path()), Failure::NoSpace(_)));
        }
        let lmdb = |error| classify(heed::Error::Mdb(error), false, dir.path());
        assert!(matches!(lmdb(MdbError::MapFull), Failure::MapFull));
        assert!(matches!(lmdb(MdbError::Panic), Failure::Fatal(_)));
        assert!(matches!(lmdb(MdbError::BadTxn), Failure::Other(_)));
    }
}
