//! The members file: replaced as a whole, so that it is the old one or the new one after a crash.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::saved::{Saved, SavedError};

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// No file: the first start.
    Nothing,
    /// What was saved.
    Saved(Saved),
    /// A file that cannot be used; it was set aside under this name.
    SetAside(PathBuf, SavedError),
}

/// Reads the file; a broken one is set aside, since a node that forgets its peers is better than one that does not start.
///
/// # Errors
/// The file cannot be read, or not be set aside.
pub fn read(path: &Path) -> io::Result<Found> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    match Saved::decode(&bytes) {
        Ok(saved) => Ok(Found::Saved(saved)),
        Err(error) => {
            let aside = path.with_extension("broken");
            fs::rename(path, &aside)?;
            Ok(Found::SetAside(aside, error))
        }
    }
}

/// Replaces the file.
///
/// # Errors
/// Writing failed; the old file is still there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename is on disk once its directory is.
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
