//! A `weald` process, and commands against it.
//!
//! Guarantees: a node is ready when it says so to its service manager, not after some time; each process that was started here
//! is ended here, by its id; what a node logs is in `node-<n>.log` of the site, and told when something fails.

use super::binary;
use super::wait::{tail, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use weald_client::{Client, Error, TreeNode};

/// Time for a node to become ready. Debug builds on a shared disk are slow.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time for a node to end.
const END_WITHIN: Duration = Duration::from_secs(40);
/// Time for a command.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);
/// Lines of the log that a failure shows.
const TAIL_LINES: usize = 30;

/// Where nodes run, one after another: a data directory, a configuration, logs.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    data: PathBuf,
    env: Vec<(OsString, OsString)>,
    wrapper: Vec<String>,
    runs: AtomicU32,
    commands: AtomicU32,
}

impl Site {
    /// A site in `dir`, which holds nothing else. `config` is added to a configuration in which ports are free ones.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn new(dir: &Path, config: &str) -> Self {
        Self::with_data(dir, &dir.join("data"), config)
    }

    /// The same, with the data somewhere else.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_data(dir: &Path, data: &Path, config: &str) -> Self {
        let text = format!("[cluster]\nlisten = \"127.0.0.1:0\"\n\n{config}\n");
        Self::with_config(dir, data, &text)
    }

    /// The same, with the whole configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_config(dir: &Path, data: &Path, config: &str) -> Self {
        let (runs, commands) = (AtomicU32::new(0), AtomicU32::new(0));
        let (env, wrapper) = (Vec::new(), Vec::new());
        let site =
            Self { dir: dir.to_owned(), data: data.to_owned(), env, wrapper, runs, commands };
        site.set_config(config);
        site
    }

    /// Replaces the configuration for the nodes started from now on.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set_config(&self, config: &str) {
        std::fs::write(self.dir.join("weald.toml"), config)
            .unwrap_or_else(|e| panic!("write the configuration: {e}"));
    }

    /// Nodes started from now on are started by this command; it must become the node, not its parent.
    pub fn set_wrapper(&mut self, wrapper: Vec<String>) {
        self.wrapper = wrapper;
    }

    /// Sets variables for the nodes started from now on, in place of those set before.
    pub fn set_node_env(&mut self, env: Vec<(OsString, OsString)>) {
        self.env = env;
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn weald(&self, wrapper: &[String]) -> Command {
        let mut command = match wrapper {
            [] => Command::new(binary::weald()),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(binary::weald());
                command
            }
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(&self.dir).arg("--data-dir").arg(&self.data).stdin(Stdio::null());
        command
    }

    /// Starts a node and does not wait until it is ready.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self) -> Node {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.join(format!("node-{run}.log"));
        let notify = self.dir.join(format!("notify-{run}"));
        // Left by another site in the same directory; a socket is not taken over.
        std::fs::remove_file(&notify).ok();
        let ready = UnixDatagram::bind(&notify).unwrap_or_else(|e| panic!("{notify:?}: {e}"));
        let mut command = self.weald(&self.wrapper);
        command.arg("start").arg("--config").arg(self.dir.join("weald.toml"));
        command.env("NOTIFY_SOCKET", &notify).env("RUST_BACKTRACE", "1");
        // Many nodes run at once; none needs a port that is known beforehand.
        for listener in ["HTTP", "RAWSOCKET"] {
            command.env(format!("WEALD_LISTENERS__{listener}"), "127.0.0.1:0");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(create(&log)).stderr(append(&log)).spawn();
        let child = child.unwrap_or_else(|e| panic!("start a node: {e}"));
        Node { data: self.data.clone(), child, log, ready, ended: None }
    }

    /// Starts a node and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time, or ends.
    pub fn start(&self) -> Node {
        let mut node = self.spawn();
        node.wait_ready();
        node
    }

    /// Starts a node that may refuse to: the node when it is ready, or how it ended and what it said.
    ///
    /// # Errors
    /// It ended before it was ready.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_or_end(&self) -> Result<Node, (ExitStatus, String)> {
        let mut node = self.spawn();
        match node.ready_or_end() {
            None => Ok(node),
            Some(status) => Err((status, node.log())),
        }
    }

    /// Starts a node that is expected to end by itself, and gives how it did and what it said.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn start_and_end(&self) -> (ExitStatus, String) {
        let mut node = self.spawn();
        let status = node.wait_end();
        (status, node.log())
    }

    /// Starts a command; its output goes to files.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn command(&self, args: &[&str]) -> Running {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|kind| self.dir.join(format!("cmd-{number}.{kind}")));
        let mut command = self.weald(&[]);
        command.args(args).stdout(create(&out)).stderr(create(&err));
        let child = command.spawn().unwrap_or_else(|e| panic!("start weald {args:?}: {e}"));
        Running { child, what: args.join(" "), out, err }
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.command(args).wait()
    }

    /// Runs a command that is expected to do well, and gives its output.
    ///
    /// # Panics
    /// When it does not.
    pub fn run_ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "weald {args:?}: {}", ended.err);
        ended.out
    }

    /// The supervision log, read from the data directory or from the node, whichever the command finds: the newest records.
    ///
    /// # Panics
    /// When the command fails.
    pub fn supervision_log(&self, more: &[&str]) -> Vec<serde_json::Value> {
        let args = [&["supervision", "log", "--json", "--limit", "1000"], more].concat();
        let lines = self.run_ok(&args);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        lines.lines().map(parse).collect()
    }
}

fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()))
}

fn append(path: &Path) -> File {
    let file = File::options().append(true).open(path);
    file.unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

fn signal(child: &Child, signal: Signal) {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    // It was not waited for yet, so the id is still its own.
    if let Err(e) = kill_process(pid, signal) {
        panic!("send a signal to {pid:?}: {e}");
    }
}

/// A running node; ended with SIGKILL when dropped.
#[derive(Debug)]
pub struct Node {
    data: PathBuf,
    child: Child,
    log: PathBuf,
    ready: UnixDatagram,
    ended: Option<ExitStatus>,
}

impl Node {
    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not in time, or ends.
    pub fn wait_ready(&mut self) {
        if let Some(status) = self.ready_or_end() {
            panic!("the node ended before it was ready: {status}\n{}", self.log_tail());
        }
    }

    fn ready_or_end(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + READY_WITHIN;
        let mut message = [0; 512];
        let limit = Some(Duration::from_millis(100));
        self.ready.set_read_timeout(limit).unwrap_or_else(|e| panic!("{e}"));
        loop {
            if let Ok(len) = self.ready.recv(&mut message)
                && String::from_utf8_lossy(&message[..len]).lines().any(|line| line == "READY=1")
            {
                return None;
            }
            if let Some(status) = self.try_end() {
                return Some(status);
            }
            let late = Instant::now() > end;
            assert!(!late, "not ready within {READY_WITHIN:?}:\n{}", self.log_tail());
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log(), TAIL_LINES)
    }

    fn try_end(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap_or_else(|e| panic!("wait for the node: {e}"));
        }
        self.ended
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.try_end().is_none()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait_end(&mut self) -> ExitStatus {
        let log = self.log.clone();
        wait_until(END_WITHIN, "the node to end", || {
            let bytes = std::fs::read(&log).unwrap_or_default();
            self.try_end().ok_or_else(|| tail(&String::from_utf8_lossy(&bytes), TAIL_LINES))
        })
    }

    /// Ends it with SIGKILL: as a crash of the process, or the out-of-memory killer.
    ///
    /// # Panics
    /// When it has ended by itself before.
    pub fn kill(mut self) {
        assert!(self.is_running(), "the node ended before it was killed:\n{}", self.log_tail());
        signal(&self.child, Signal::KILL);
        let status = self.wait_end();
        assert_eq!(status.signal(), Some(9));
        self.assert_no_panic();
    }

    /// Stops it where it is, with SIGSTOP; the system keeps its connections.
    ///
    /// # Panics
    /// When no signal can be sent.
    pub fn pause(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When no signal can be sent.
    pub fn resume(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it to stop with SIGTERM, and expects a clean end.
    ///
    /// # Panics
    /// When it does not end in time, or not with success.
    pub fn stop(mut self) {
        signal(&self.child, Signal::TERM);
        let status = self.wait_end();
        assert!(status.success(), "{status}:\n{}", self.log_tail());
        self.assert_no_panic();
    }

    /// No test here makes code panic: a panic is a bug, also when a supervisor mended it.
    fn assert_no_panic(&self) {
        let log = self.log();
        let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "the node panicked: {panics:#?}");
    }

    /// A client on its local socket.
    ///
    /// # Panics
    /// When it cannot connect.
    #[must_use]
    pub fn client(&self) -> Remote {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("start a runtime: {e}"));
        let client = runtime.block_on(Client::unix(self.data.join("weald.sock")));
        let client = client.unwrap_or_else(|e| panic!("connect: {e}\n{}", self.log_tail()));
        Remote { client, runtime }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.ended.is_none() && self.try_end().is_none() {
            if std::thread::panicking() {
                eprintln!("log of the node at the failure:\n{}", self.log_tail());
            }
            signal(&self.child, Signal::KILL);
            self.wait_end();
        }
    }
}

/// A client for tests that are no async code.
#[derive(Debug)]
pub struct Remote {
    /// The client.
    pub client: Client,
    /// What it runs on.
    pub runtime: Runtime,
}

impl Remote {
    /// The supervision tree.
    ///
    /// # Errors
    /// Any of the client.
    pub fn tree(&self) -> Result<TreeNode, Error> {
        self.runtime.block_on(self.client.supervision_tree())
    }

    /// Kills an actor.
    ///
    /// # Errors
    /// Any of the client.
    pub fn kill(&self, path: &str) -> Result<(), Error> {
        self.runtime.block_on(self.client.kill(path))
    }

    /// The node's state.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        self.runtime.block_on(self.client.status()).unwrap_or_else(|e| panic!("status: {e}"))
    }

    /// Writes a key.
    ///
    /// # Errors
    /// Any of the client.
    pub fn put(&self, table: &str, key: &str, value: &[u8]) -> Result<(), Error> {
        self.runtime.block_on(async { self.client.put(table, key, value).await.map(drop) })
    }

    /// Reads a key: its values.
    ///
    /// # Errors
    /// Any of the client.
    pub fn get(&self, table: &str, key: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.runtime.block_on(async { Ok(self.client.get(table, key).await?.values) })
    }
}

/// All nodes of a tree, parents first.
#[must_use]
pub fn flatten(tree: &TreeNode) -> Vec<&TreeNode> {
    let mut all = vec![tree];
    all.extend(tree.children.iter().flat_map(flatten));
    all
}

/// A command under way; ended with SIGKILL when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    out: PathBuf,
    err: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Running {
    /// Whether it runs.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap_or_else(|e| panic!("wait for {}: {e}", self.what)).is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(mut self) -> Ended {
        let what = format!("`weald {}` to end", self.what);
        let status = wait_until(COMMAND_WITHIN, &what, || {
            self.child.try_wait().ok().flatten().ok_or_else(|| read(&self.err))
        });
        Ended { code: status.code(), out: read(&self.out), err: read(&self.err) }
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        if self.is_running() {
            signal(&self.child, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(&self.child, Signal::KILL);
            // It is gone or about to be; nothing more can be done about it here.
            self.child.wait().ok();
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
