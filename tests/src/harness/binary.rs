//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::SystemTime;

/// The `weald` binary of the profile that the test itself was built with.
///
/// # Panics
/// When it is not there: integration tests of this crate use the binary of another one, which `cargo test -p weald-tests` does
/// not build.
#[must_use]
pub fn weald() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|e| panic!("find this program: {e}"));
    let found =
        test.ancestors().skip(1).take(3).map(|dir| dir.join("weald")).find(|path| path.is_file());
    let Some(path) = found else {
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        panic!(
            "there is no weald beside {}: run `cargo build --workspace{profile}` first",
            test.display()
        );
    };
    // Told once per test program.
    static WARNED: Once = Once::new();
    WARNED.call_once(|| warn_when_older_than_its_sources(&path));
    path
}

fn warn_when_older_than_its_sources(binary: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = ["node/src", "actors", "storage/src", "supervision/src"].map(|d| root.join(d));
    let newest = sources.iter().filter_map(|dir| newest_below(dir)).max();
    let built = std::fs::metadata(binary).and_then(|m| m.modified()).ok();
    if newest > built {
        eprintln!(
            "WARNING: {} is older than its sources; `cargo build --workspace` builds it anew",
            binary.display()
        );
    }
}

fn newest_below(dir: &Path) -> Option<SystemTime> {
    let newest = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let is_test =
            ["tests", "examples", "benches"].iter().any(|name| entry.file_name() == *name);
        if path.is_dir() {
            return if is_test { None } else { newest_below(&path) };
        }
        path.extension().filter(|e| *e == "rs")?;
        entry.metadata().ok()?.modified().ok()
    };
    std::fs::read_dir(dir).ok()?.flatten().filter_map(newest).max()
}
