//! Running a program under the recorder.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Which syncs are quietly left out, so that the test can show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignore {
    /// None: the truth.
    Nothing,
    /// Those of file data.
    Data,
    /// Those that come with each write of LMDB's meta page.
    Meta,
    /// Both.
    DataAndMeta,
}

/// What the disk does to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Which syncs are left out.
    pub ignore: Ignore,
    /// Which sync of file data fails with EIO, counted from 1.
    pub fail: Option<u64>,
}

/// The recorder, compiled.
#[derive(Debug)]
pub struct Recorder {
    library: PathBuf,
}

impl Recorder {
    /// Compiles the recorder into `dir`.
    ///
    /// # Errors
    /// No C compiler (`cc`), or one that fails.
    pub fn compile(dir: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("powerloss/recorder.c");
        let library = dir.join("recorder.so");
        let out = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .context("run cc (a C compiler is needed, as for LMDB)")?;
        if !out.status.success() {
            bail!("cc {}: {}", source.display(), String::from_utf8_lossy(&out.stderr));
        }
        Ok(Self { library })
    }

    /// Variables under which a process whose data is below `dir` has its sync number `number` fail, counted from 1.
    #[must_use]
    pub fn failing_sync(&self, dir: &Path, log: &Path, number: u64) -> Vec<(OsString, OsString)> {
        let variables: [(&str, OsString); 4] = [
            ("LD_PRELOAD", self.library.clone().into()),
            ("WEALD_RECORD_DIR", dir.into()),
            ("WEALD_RECORD_LOG", log.into()),
            ("WEALD_RECORD_FAIL", number.to_string().into()),
        ];
        variables.map(|(name, value)| (name.into(), value)).into()
    }

    /// Runs a command to its end, recording what it does below `dir` and what it writes to standard output into `log`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn run(&self, mut command: Command, dir: &Path, log: &Path, disk: Disk) -> Result<Output> {
        command
            .env("LD_PRELOAD", &self.library)
            .env("WEALD_RECORD_DIR", dir)
            .env("WEALD_RECORD_LOG", log)
            .env("WEALD_RECORD_ACK", "1")
            .env("WEALD_RECORD_SYNC_US", "200")
            .env(
                "WEALD_RECORD_IGNORE",
                match disk.ignore {
                    Ignore::Nothing => "",
                    Ignore::Data => "data",
                    Ignore::Meta => "meta",
                    Ignore::DataAndMeta => "data,meta",
                },
            );
        if let Some(number) = disk.fail {
            command.env("WEALD_RECORD_FAIL", number.to_string());
        }
        command.output().with_context(|| format!("run {command:?}"))
    }
}
