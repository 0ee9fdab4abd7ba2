//! How far an import has come, in a file.
//!
//! # Shape
//! JSON: `line` and `offset` end the part of the input of which every line is acknowledged (or was bad and skipped); `crc32c`
//! is over that part, so that another input is told apart.
//!
//! Guarantees: the file is replaced as a whole and synced; it never claims a line that was not acknowledged.

use crate::exit::{Exit, Failure};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A place in the input: everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Lines.
    pub(crate) line: u64,
    /// Bytes.
    pub(crate) offset: u64,
    /// CRC-32C of those bytes.
    pub(crate) crc32c: u32,
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Form of this file.
    pub(crate) version: u32,
    /// The acknowledged part.
    #[serde(flatten)]
    pub(crate) mark: Mark,
}

const VERSION: u32 = 1;

impl Checkpoint {
    /// Reads a checkpoint; none when the file is not there.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::file("read checkpoint", path, &e)),
        };
        let refuse = |why: String| {
            Failure::new(Exit::Usage, format!("{} is not a checkpoint: {why}", path.display()))
        };
        let checkpoint: Self = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        if checkpoint.version != VERSION {
            return Err(refuse(format!("its version is {}", checkpoint.version)));
        }
        Ok(Some(checkpoint))
    }

    /// Replaces the checkpoint.
    pub(crate) fn write(path: &Path, mark: Mark) -> Result<(), Failure> {
        let text = serde_json::to_vec(&Self { version: VERSION, mark })
            .map_err(|e| Failure::new(Exit::Io, e.to_string()))?;
        let mut file = AtomicFile::create(path)?;
        file.write(&text)?;
        file.write(b"\n")?;
        file.commit()
    }
}

/// A file that appears under its name only when it is complete and synced.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: std::io::BufWriter<File>,
    path: PathBuf,
    temporary: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Opens a temporary file beside the path.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|e| Failure::file("write", path, &e))?;
        let file = std::io::BufWriter::with_capacity(1 << 16, file);
        Ok(Self { file, path: path.to_owned(), temporary, committed: false })
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| Failure::file("write", &self.path, &e))
    }

    /// Gives the file its name, after what it holds is on disk.
    pub(crate) fn commit(mut self) -> Result<(), Failure> {
        let done = || -> std::io::Result<()> {
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            std::fs::rename(&self.temporary, &self.path)?;
            self.committed = true;
            let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
        }();
        done.map_err(|e| Failure::file("write", &self.path, &e))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // An unfinished file is of no use; that it cannot be removed changes nothing for the user.
            std::fs::remove_file(&self.temporary).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_comes_back_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        assert_eq!(Checkpoint::read(&path).unwrap(), None);
        let mark = Mark { line: 7, offset: 99, crc32c: 0xDEAD_BEEF };
        Checkpoint::write(&path, Mark::default()).unwrap();
        Checkpoint::write(&path, mark).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap(), Some(Checkpoint { version: 1, mark }));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn unfinished_file_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        AtomicFile::create(&path).unwrap().write(b"half").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
