//! A wall clock that is wrong, for one process.
//!
//! What it is: a library loaded before all others (`skew.c`), and the file that tells it how wrong. Clocks that only measure
//! how time passes stay true.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The library, and the file with the error.
#[derive(Debug)]
pub struct Skew {
    library: PathBuf,
    file: PathBuf,
}

impl Skew {
    /// Compiles the library into `dir`. The clock is right at first.
    ///
    /// # Errors
    /// No C compiler, or a file that cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/harness/skew.c");
        let (library, file) = (dir.join("skew.so"), dir.join("skew"));
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]);
        let out = cc.output().context("run cc")?;
        if !out.status.success() {
            bail!("cc {}: {}", source.display(), String::from_utf8_lossy(&out.stderr));
        }
        std::fs::write(&file, [0; 24]).context("write the file of the skew")?;
        Ok(Self { library, file })
    }

    /// Variables for the process.
    #[must_use]
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("WEALD_SKEW_FILE".into(), self.file.clone().into()),
        ]
    }

    /// From now on the clock is so many seconds ahead, and gains so many thousandths.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, ahead_s: i64, gain_permille: i64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let numbers = [ahead_s * 1_000_000_000, i64::try_from(now)?, gain_permille];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let file = std::fs::File::options().write(true).open(&self.file)?;
        file.write_all_at(&bytes, 0).context("write the skew")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_of_a_process_is_wrong_by_as_much_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let skew = Skew::new(dir.path()).unwrap();
        let read = || {
            let out = Command::new("date").arg("+%s").envs(skew.env()).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let now = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            i64::try_from(now.as_secs()).unwrap()
        };
        assert!((read() - now()).abs() <= 1);
        skew.set(-600, 0).unwrap();
        assert!((read() - now() + 600).abs() <= 1);
        skew.set(3600, 1000).unwrap();
        assert!((read() - now() - 3600).abs() <= 1);
    }
}
