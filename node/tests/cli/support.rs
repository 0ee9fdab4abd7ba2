//! Starting nodes and running commands.

use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const WEALD: &str = env!("CARGO_BIN_EXE_weald");
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory, and the node that runs in it, if one does.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The lines of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Checks the exit code.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary without the environment of whoever runs the tests, in a directory of its own.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(WEALD);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEALD_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    command
}

/// Polls until there is an answer; fails with the last state otherwise.
pub(crate) fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if begun.elapsed() > PATIENCE => panic!("{what}: {state}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// Waits for the end of a process; kills it when it does not end.
pub(crate) fn wait_exit(child: &mut Child) -> std::process::ExitStatus {
    wait_until("the process does not end", || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    })
}

impl Node {
    /// A directory without a node.
    pub(crate) fn stopped() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// A node on a free port.
    pub(crate) fn start() -> Self {
        let mut node = Self::stopped();
        node.start_again();
        node
    }

    /// Starts a node in the directory, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.start_with(&[], &[]);
    }

    pub(crate) fn start_with(&mut self, args: &[&str], variables: &[(&str, &str)]) {
        self.spawn(args, variables);
        wait_until("the node does not come up", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the node ended with {status}:\n{}", self.stderr());
            }
            let ran = self.run(&["status"]);
            if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
        });
    }

    /// Starts a node without waiting.
    pub(crate) fn spawn(&mut self, args: &[&str], variables: &[(&str, &str)]) {
        assert!(self.child.is_none());
        let log = File::options().create(true).append(true).open(self.stderr_path()).unwrap();
        let child = command(self.dir.path())
            .arg("start")
            .args(args)
            .env("WEALD_CLUSTER__LISTEN", "127.0.0.1:0")
            .env("WEALD_LISTENERS__HTTP", "127.0.0.1:0")
            .env("WEALD_LISTENERS__RAWSOCKET", "127.0.0.1:0")
            .env("WEALD_STORAGE__PARTITIONS", "2")
            .env("WEALD_DATA_DIR", self.data())
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn stderr_path(&self) -> PathBuf {
        self.dir.path().join("stderr")
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr_path()).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A command about this node.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.arg("--data-dir").arg(self.data()).args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let path = self.file("stdin");
        std::fs::write(&path, stdin).unwrap();
        self.command(args).stdin(File::open(path).unwrap()).output().unwrap().into()
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).ok().json().remove(0)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end of the node; gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_exit(&mut self.child.take().unwrap()).code()
    }

    /// Stops in order.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.wait(), Some(0), "{}", self.stderr());
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        assert_eq!(self.wait(), None);
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success());
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
