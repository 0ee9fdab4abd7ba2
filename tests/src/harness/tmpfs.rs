//! A small file system of its own, so that a disk can be full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many MiB at a directory that is made if it is not there.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn mount(at: &Path, mib: u32) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|e| format!("create {}: {e}", at.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
        let out = mount.output().map_err(|e| format!("cannot run mount: {e}"))?;
        if out.status.success() {
            return Ok(Self(at.to_owned()));
        }
        let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        Err(format!("no tmpfs may be mounted here: {why}"))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a node that the failing test left behind may still have files open.
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.0.display());
        }
    }
}
