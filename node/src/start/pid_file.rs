//! `weald.pid`: the process id of the node, for scripts.
//!
//! Guarantees: complete whenever it is there; removed by an ordered stop. The lock, not this file, keeps a second process out.

use std::io;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub(crate) const NAME: &str = "weald.pid";

/// Writes the file.
pub(crate) fn write(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(NAME);
    let temporary = dir.join(format!("{NAME}.tmp"));
    std::fs::write(&temporary, format!("{}\n", std::process::id()))?;
    std::fs::rename(&temporary, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_holds_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{}\n", std::process::id()));
    }
}
