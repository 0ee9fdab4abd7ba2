//! The lock of a data directory: one process at a time.
//!
//! Guarantees that two processes of this program never work on the same directory, by an advisory
//! `flock` on `<dir>/LOCK`. The kernel drops the lock with the process, so a crash leaves none
//! behind. The file holds the holder's process id as text, only for the error message.
//!
//! Refuses to break a lock that is held, whoever holds it; does not protect against other programs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Name of the lock file inside the data directory.
pub const LOCK_FILE: &str = "LOCK";

/// Why the lock was not taken. Nothing was changed on disk but, at most, the empty lock file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds the directory.
    #[error(
        "data directory {} is in use by {}",
        dir.display(),
        holder_pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Process id the holder wrote into the file, if it could be read.
        holder_pid: Option<u32>,
    },
    /// The lock file could not be created, read or written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// A held lock; dropping it (or the end of the process) gives the directory free.
#[derive(Debug)]
pub struct DataDirLock {
    // Only kept open: closing the descriptor releases the lock.
    _file: File,
    path: PathBuf,
}

impl DataDirLock {
    /// Takes the lock of `dir`, which must exist. Never waits.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process (or another holder in this one) has it.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let fail = |source: io::Error| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    holder_pid: read.ok().and_then(|_| text.trim().parse().ok()),
                });
            }
            Err(errno) => return Err(fail(errno.into())),
        }
        file.set_len(0).map_err(fail)?;
        file.seek(SeekFrom::Start(0)).map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(Self { _file: file, path })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_refused_and_told_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDirLock::acquire(dir.path()).unwrap();
        match DataDirLock::acquire(dir.path()) {
            Err(LockError::Held { holder_pid, .. }) => {
                assert_eq!(holder_pid, Some(std::process::id()));
            }
            other => panic!("expected Held, got {other:?}"),
        }
        drop(held);
        DataDirLock::acquire(dir.path()).unwrap();
    }
}
