//! A directory per test: data, logs, what was recorded. Kept when the test fails.

use std::path::{Path, PathBuf};

/// A directory that is removed at the end of a test that went well.
#[derive(Debug)]
pub struct Artefacts {
    dir: PathBuf,
    keep: bool,
}

impl Artefacts {
    /// A new directory in the system's place for temporary files.
    ///
    /// # Panics
    /// When it cannot be created.
    #[must_use]
    pub fn new(test: &str) -> Self {
        // Short: a Unix socket below it has room for about 100 bytes.
        let dir = tempfile::Builder::new().prefix(&format!("weald-{test}-")).tempdir();
        let dir = dir.unwrap_or_else(|e| panic!("create a temporary directory: {e}")).keep();
        Self { dir, keep: false }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps it whatever happens.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Artefacts {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            eprintln!("kept: {}", self.dir.display());
        } else if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {e}", self.dir.display());
        }
    }
}
