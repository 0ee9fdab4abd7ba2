//! The data directory: made if it is not there, and known to be writable.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Makes the directory if need be, for its owner only, and gives its absolute path.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf, String> {
    let failed = |what: &str, e: &io::Error| {
        format!("data directory {} cannot be {what}: {e}", dir.display())
    };
    if !dir.try_exists().map_err(|e| failed("looked at", &e))? {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| failed("created", &e))?;
    }
    if !dir.is_dir() {
        return Err(format!("data directory {} is not a directory", dir.display()));
    }
    let absolute = dir.canonicalize().map_err(|e| failed("looked at", &e))?;
    // Tried out, since permissions do not tell of a read-only file system.
    tempfile_in(&absolute).map_err(|e| failed("written", &e))?;
    Ok(absolute)
}

fn tempfile_in(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".write-test-{}", std::process::id()));
    std::fs::write(&path, b"")?;
    std::fs::remove_file(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_created_with_its_parents_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let path = prepare(&dir.path().join("a/b")).unwrap();
        assert!(path.is_absolute());
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn file_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(prepare(&file).unwrap_err().contains("not a directory"));
        assert!(prepare(&file.join("below")).is_err());
    }
}
