//! The supervision log: a bounded journal of [`Record`]s on disk that outlives the process.
//!
//! Guarantees: [`SupervisionLog::append`] never waits for the disk; the disk holds at most
//! `segments_max * segment_bytes` (plus one line), the oldest segment goes first; after `kill -9`
//! every record that was handed to the system is there, after a power cut all but those of the last
//! `fsync_interval`; it can be read at any time by any process without a lock.
//! Refuses: to lose records in silence (drops are counted and recorded as `log_dropped`), to block
//! an actor, to repair a damaged segment (damaged lines are skipped and counted).
//!
//! One process writes a folder at a time; this is the owner's duty (the node locks its data folder).

mod line;
mod read;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use read::{LogError, ReadStats};

use crate::record::{Filter, Record};
use writer::{Job, Writer};

/// Records that may wait for the writer; further ones are dropped and counted.
const QUEUE_LEN_MAX: usize = 4096;

/// Limits of the log on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of a segment file in bytes; the next one is begun before it is passed.
    pub segment_bytes: u64,
    /// Segments kept, the current one included; at least 2 are kept.
    pub segments_max: usize,
    /// Longest time between two syncs while there is something to sync.
    pub fsync_interval: Duration,
}

impl Default for LogConfig {
    /// 8 segments of 4 MiB (about 100,000 records), synced every second.
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments_max: 8, fsync_interval: Duration::from_secs(1) }
    }
}

/// Handle of an open log; clones share one writer thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct SupervisionLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

/// What the writer tells the handles.
#[derive(Debug)]
struct Shared {
    last_seq: watch::Sender<u64>,
    /// Dropped since the log was opened.
    dropped: AtomicU64,
    /// Of these, the ones no `log_dropped` record tells of yet.
    unreported: AtomicU64,
}

impl Shared {
    fn drop_records(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        self.unreported.fetch_add(count, Ordering::Relaxed);
    }
}

impl SupervisionLog {
    /// Opens or creates the log in `dir`, and goes on behind its last sound record.
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder cannot be created, listed or written, or no thread started.
    pub fn open(dir: &Path, config: LogConfig) -> Result<Self, LogError> {
        let (jobs, queue) = sync_channel(QUEUE_LEN_MAX);
        let shared = Arc::new(Shared {
            last_seq: watch::Sender::new(0),
            dropped: AtomicU64::new(0),
            unreported: AtomicU64::new(0),
        });
        let writer = Writer::open(dir, config, Arc::clone(&shared))?;
        std::thread::Builder::new()
            .name("supervision-log".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(LogError::io("start the writer of", dir))?;
        Ok(Self { inner: Arc::new(Inner { dir: dir.to_owned(), jobs, shared }) })
    }

    /// Hands a record to the writer. Never waits: with a full queue the record is dropped and
    /// counted. Sets `ts_ms` where it is 0, and cuts long texts.
    pub fn append(&self, mut record: Record) {
        if record.ts_ms == 0 {
            record.ts_ms = unix_ms();
        }
        record.bound();
        match self.inner.jobs.try_send(Job::Write(Box::new(record))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.inner.shared.drop_records(1);
            }
        }
    }

    /// Records that match, oldest first. Reads files (at most the whole log): not for an actor's
    /// handler, use a blocking thread there.
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder or a segment cannot be read.
    pub fn query(&self, filter: &Filter) -> Result<Vec<Record>, LogError> {
        Self::read(&self.inner.dir, filter)
    }

    /// As [`Self::query`], for a log that is not open here: the node is down, or another process.
    /// A folder that does not exist is an empty log.
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder or a segment cannot be read.
    pub fn read(dir: &Path, filter: &Filter) -> Result<Vec<Record>, LogError> {
        Self::read_with_stats(dir, filter).map(|(records, _)| records)
    }

    /// As [`Self::read`], with what was skipped.
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder or a segment cannot be read.
    pub fn read_with_stats(
        dir: &Path,
        filter: &Filter,
    ) -> Result<(Vec<Record>, ReadStats), LogError> {
        read::query(dir, filter)
    }

    /// Follows a log from another process, or in this one.
    #[must_use]
    pub fn follow(dir: &Path, filter: Filter) -> Follow {
        Follow { dir: dir.to_owned(), filter }
    }

    /// Sequence number of the newest record that can be read; 0 while there is none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        *self.inner.shared.last_seq.borrow()
    }

    /// Tells of each new last sequence number (several records may come at once).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.shared.last_seq.subscribe()
    }

    /// Records dropped since the log was opened: the queue was full, or the disk refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.shared.dropped.load(Ordering::Relaxed)
    }

    /// The folder of the log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Waits until all records appended so far are written and synced. Blocks the calling thread
    /// for that time: for the end of a process, not for actors.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.inner.jobs.send(Job::Flush(done)).is_ok() {
            // An error means that the writer is gone, and with it the queue.
            wait.recv().ok();
        }
    }
}

/// Reads what is new at each call; made by [`SupervisionLog::follow`].
#[derive(Debug, Clone)]
pub struct Follow {
    dir: PathBuf,
    filter: Filter,
}

impl Follow {
    /// The matching records since the last call, oldest first. The limit of the filter holds for
    /// the first call only: 0 means "from now on".
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder or a segment cannot be read; the next call tries again.
    pub fn poll(&mut self) -> Result<Vec<Record>, LogError> {
        let mut after = self.filter.after_seq;
        if self.filter.limit.is_some() {
            // What the limit leaves out now must not come later.
            let newest = Filter { limit: Some(1), ..Filter::default() };
            let last = read::query(&self.dir, &newest)?.0.last().map_or(0, |record| record.seq);
            after = Some(after.map_or(last, |after| after.max(last)));
        }
        let (records, _) = read::query(&self.dir, &self.filter)?;
        self.filter.limit = None;
        self.filter.after_seq = records.last().map(|record| record.seq).max(after);
        Ok(records)
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
