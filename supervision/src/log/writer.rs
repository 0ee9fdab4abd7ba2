//! The writer thread of the log: numbers the records, writes, syncs, rotates.
//!
//! Guarantees: a record that follows a torn one starts on a line of its own; a disk that refuses
//! costs records (counted), never the thread; the room for the next records is reserved ahead, so
//! that a full disk can still be told of. Refuses: to hold more than one batch in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Instant;

use rustix::fs::{FallocateFlags, fallocate};

use super::read::{segment_name, segment_records, segments};
use super::{LogConfig, LogError, Shared, line, unix_ms};
use crate::record::{Event, Record};

/// Bytes gathered before they are written, while more records are waiting.
const BATCH_BYTES: usize = 64 * 1024;
/// Smallest segment: a few records.
const SEGMENT_BYTES_MIN: u64 = 4096;
/// Room kept behind the last record of the current segment: about a thousand records.
const RESERVE_BYTES: u64 = 256 * 1024;

/// Work for the writer.
#[derive(Debug)]
pub(super) enum Job {
    Write(Box<Record>),
    Flush(SyncSender<()>),
}

#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    config: LogConfig,
    shared: Arc<Shared>,
    /// `None` after the disk refused to give one; tried again with the next batch.
    segment: Option<File>,
    segment_len: u64,
    /// End of the room that is reserved in the segment; at or behind its length.
    reserved_to: u64,
    /// Bytes of the segment's last line may be missing: end it before the next one.
    torn_tail: bool,
    last_seq: u64,
    batch: Vec<u8>,
    batch_len: u64,
    unsynced_since: Option<Instant>,
    node: String,
    /// The disk refused the last write: said once, not for each record.
    refusing: bool,
}

impl Writer {
    pub(super) fn open(
        dir: &Path,
        config: LogConfig,
        shared: Arc<Shared>,
    ) -> Result<Self, LogError> {
        fs::create_dir_all(dir).map_err(LogError::io("create", dir))?;
        let found = segments(dir)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            config,
            shared,
            segment: None,
            segment_len: 0,
            reserved_to: 0,
            torn_tail: false,
            last_seq: found.last().map_or(0, |(first, _)| first.saturating_sub(1)),
            batch: Vec::new(),
            batch_len: 0,
            unsynced_since: None,
            node: String::new(),
            refusing: false,
        };
        if let Some((_, path)) = found.last() {
            segment_records(path, |record| {
                if let Some(record) = record {
                    writer.last_seq = writer.last_seq.max(record.seq);
                }
            })?;
            writer.reopen(path).map_err(LogError::io("open", path))?;
            // The limit may have been lowered.
            writer.drop_oldest(writer.segments_max());
        } else {
            writer.begin_segment().map_err(LogError::io("write to", dir))?;
        }
        writer.shared.last_seq.send_replace(writer.last_seq);
        Ok(writer)
    }

    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let job = match self.unsynced_since {
                None => queue.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
                Some(since) => {
                    queue.recv_timeout(self.config.fsync_interval.saturating_sub(since.elapsed()))
                }
            };
            match job {
                Ok(job) => self.take(job, queue),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.sync();
                    return;
                }
            }
            let overdue = |since: Instant| since.elapsed() >= self.config.fsync_interval;
            if self.unsynced_since.is_some_and(overdue) {
                self.sync();
            }
        }
    }

    /// Takes a job and what waits behind it, up to a batch.
    fn take(&mut self, first: Job, queue: &Receiver<Job>) {
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Write(record) => self.encode(*record),
                Job::Flush(done) => {
                    self.write();
                    self.sync();
                    // Nobody waits any more: nothing to tell.
                    done.send(()).ok();
                }
            }
            if self.batch.len() >= BATCH_BYTES {
                break;
            }
            next = queue.try_recv().ok();
        }
        self.write();
    }

    fn encode(&mut self, mut record: Record) {
        let missing = self.shared.unreported.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let text = format!("{missing} records were dropped before this one");
            let mut note = Record::note(Event::LogDropped, "", &text);
            note.node.clone_from(&self.node);
            note.ts_ms = unix_ms();
            self.push(note);
        }
        if self.node != record.node {
            self.node.clone_from(&record.node);
        }
        record.seq = 0;
        self.push(record);
    }

    fn push(&mut self, mut record: Record) {
        record.seq = self.last_seq + 1;
        let Ok(bytes) = line::encode(&record) else {
            self.shared.drop_records(1);
            return;
        };
        let used = self.segment_len + self.batch.len() as u64;
        let limit = self.config.segment_bytes.max(SEGMENT_BYTES_MIN);
        if self.segment.is_none() || (used > 0 && used + bytes.len() as u64 > limit) {
            self.write();
            self.sync();
            if let Err(error) = self.begin_segment() {
                self.refused(&error, 1);
                return;
            }
        }
        self.last_seq = record.seq;
        self.batch.extend_from_slice(&bytes);
        self.batch_len += 1;
    }

    fn write(&mut self) {
        if self.batch_len == 0 {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let count = std::mem::take(&mut self.batch_len);
        if self.torn_tail {
            batch.insert(0, b'\n');
        }
        let Some(segment) = self.segment.as_mut() else {
            return;
        };
        match segment.write_all(&batch) {
            Ok(()) => {
                self.torn_tail = false;
                self.refusing = false;
                self.segment_len += batch.len() as u64;
                self.reserve();
                self.unsynced_since.get_or_insert_with(Instant::now);
                self.shared.last_seq.send_replace(self.last_seq);
            }
            Err(error) => {
                self.torn_tail = true;
                self.segment_len = segment.metadata().map_or(self.segment_len, |m| m.len());
                self.refused(&error, count);
            }
        }
        batch.clear();
        self.batch = batch;
    }

    fn sync(&mut self) {
        if self.unsynced_since.take().is_none() {
            return;
        }
        if let Some(segment) = self.segment.as_ref()
            && let Err(error) = segment.sync_data()
        {
            tracing::warn!(target: "supervision", event = "log_sync_failed", %error, "supervision log not synced");
        }
    }

    /// Keeps room for what comes next, so that a disk that others fill can be told of. Where the
    /// disk or the file system gives none, records are written as long as they can be.
    fn reserve(&mut self) {
        let limit = self.config.segment_bytes.max(SEGMENT_BYTES_MIN);
        let wanted = (self.segment_len + RESERVE_BYTES).min(limit);
        let Some(segment) = self.segment.as_ref() else { return };
        if self.reserved_to >= limit || self.reserved_to > self.segment_len + RESERVE_BYTES / 2 {
            return;
        }
        let (at, bytes) = (self.segment_len, wanted.saturating_sub(self.segment_len));
        if bytes > 0 && fallocate(segment, FallocateFlags::KEEP_SIZE, at, bytes).is_ok() {
            self.reserved_to = wanted;
        }
    }

    /// Starts the next segment, after the oldest ones made room for it.
    fn begin_segment(&mut self) -> io::Result<()> {
        self.segment = None;
        self.drop_oldest(self.segments_max() - 1);
        let path = self.dir.join(segment_name(self.last_seq + 1));
        self.reopen(&path)?;
        // The new name survives a power cut, too.
        File::open(&self.dir)?.sync_all()
    }

    /// The current segment and at least one full one.
    fn segments_max(&self) -> usize {
        self.config.segments_max.max(2)
    }

    fn drop_oldest(&self, keep: usize) {
        // A folder that cannot be listed now is trimmed at the next turn.
        let found = segments(&self.dir).unwrap_or_default();
        for (_, old) in found.iter().take(found.len().saturating_sub(keep)) {
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(target: "supervision", event = "log_segment_kept", %error, "old segment not removed");
            }
        }
    }

    fn reopen(&mut self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        self.segment_len = file.seek(SeekFrom::End(0))?;
        self.torn_tail = false;
        if self.segment_len > 0 {
            let mut last = [0u8];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            self.torn_tail = last != *b"\n";
        }
        self.segment = Some(file);
        self.reserved_to = self.segment_len;
        self.reserve();
        Ok(())
    }

    fn refused(&mut self, error: &io::Error, records: u64) {
        self.shared.drop_records(records);
        if std::mem::replace(&mut self.refusing, true) {
            return;
        }
        tracing::warn!(target: "supervision", event = "log_write_failed", %error, records, "supervision log not written");
    }
}
