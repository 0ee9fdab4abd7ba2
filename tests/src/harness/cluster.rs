//! Several real nodes that are one cluster, and what may happen to them.
//!
//! Guarantees: each node has a directory, a certificate and an address of its own, which it keeps through restarts; data,
//! logs and histories of a failed test are kept; all processes end with the cluster, paused ones, too. A node that panicked
//! fails the test, whoever mended it.

mod config;
mod data;
mod members;

pub use config::Backup;
pub use data::Content;

use super::artefacts::Artefacts;
use super::node::{Ended, Node, Site};
use super::wires::{Wire, Wires};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use weald_client::Client;
use weald_link::pki::{self, Authority};

/// Time of one request of a test.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Time for all members of a new cluster to know each other.
const FORM_WITHIN: Duration = Duration::from_secs(40);

/// Whom a node asks for the cluster when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeds {
    /// Every node.
    All,
    /// The first one.
    First,
    /// Nobody: it is told to join.
    Nobody,
}

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What joins the nodes.
    pub wire: Wire,
    /// Number of nodes.
    pub nodes: usize,
    /// Whom they ask.
    pub seeds: Seeds,
    /// Keys of the configuration, `section.key`, and their values in TOML. These come after those of the harness.
    pub config: Vec<(String, String)>,
    /// Whether the proxy looks into messages.
    pub messages: bool,
    /// The same seed, the same choices of the proxy.
    pub seed: u64,
}

impl Options {
    /// So many nodes, of which each knows all.
    #[must_use]
    pub const fn new(wire: Wire, nodes: usize) -> Self {
        Self { wire, nodes, seeds: Seeds::All, config: Vec::new(), messages: false, seed: 1 }
    }

    /// With this key of the configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// Where one node lives.
#[derive(Debug)]
struct Place {
    node: Option<Node>,
    site: Site,
    dir: PathBuf,
    client: Client,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    places: Vec<Place>,
    wires: Wires,
    runtime: Arc<Runtime>,
    options: Options,
    name: String,
    authority: Authority,
    kept: Artefacts,
}

impl Cluster {
    /// Makes the directories and certificates, and starts nothing.
    ///
    /// # Panics
    /// When something cannot be made.
    #[must_use]
    pub fn prepare(test: &str, options: Options) -> Self {
        let kept = Artefacts::new(test);
        let name = format!("test-{test}");
        let authority = pki::make_authority(&name).unwrap_or_else(|e| panic!("{e}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("clients")
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("start a runtime: {e}"));
        let wires = Wires::new(options.wire, options.nodes, options.seed);
        let runtime = Arc::new(runtime);
        let mut cluster =
            Self { places: Vec::new(), wires, runtime, options, name, authority, kept };
        for node in 0..cluster.options.nodes {
            cluster.make_place(node);
        }
        cluster
    }

    /// Starts all nodes and waits until each sees all others.
    ///
    /// # Panics
    /// When they do not find each other in time.
    #[must_use]
    pub fn start(test: &str, options: Options) -> Self {
        let mut cluster = Self::prepare(test, options);
        let all: Vec<usize> = (0..cluster.len()).collect();
        cluster.start_nodes(&all);
        cluster.wait_formed(FORM_WITHIN);
        cluster
    }

    fn connect(&self, data: &Path) -> Client {
        let _in_runtime = self.runtime.enter();
        let client = Client::builder().unix(data.join("weald.sock")).deadline(REQUEST_WITHIN);
        client.start().unwrap_or_else(|e| panic!("make a client: {e}"))
    }

    /// Name of a node.
    #[must_use]
    pub fn node_name(node: usize) -> String {
        format!("n{node}")
    }

    /// Number of nodes, running or not.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.options.nodes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.options.nodes == 0
    }

    /// The network.
    #[must_use]
    pub const fn wires(&self) -> &Wires {
        &self.wires
    }

    /// What clients of tests run on.
    #[must_use]
    pub const fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Directory of what is kept of this test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.kept.dir()
    }

    /// The site of a node.
    #[must_use]
    pub fn site(&self, node: usize) -> &Site {
        &self.places[node].site
    }

    /// A client of a node, on its local socket; it survives restarts.
    #[must_use]
    pub fn client(&self, node: usize) -> Client {
        self.places[node].client.clone()
    }

    /// Runs a future to its end.
    pub fn block<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        (0..self.len()).filter(|&k| self.places[k].node.is_some()).collect()
    }

    /// Starts a node and waits until it is ready; how long that took.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_node(&mut self, node: usize) -> Duration {
        let start = Instant::now();
        self.start_nodes(&[node]);
        start.elapsed()
    }

    /// Starts nodes at the same time and waits until all are ready.
    ///
    /// # Panics
    /// When one is not ready in time.
    pub fn start_nodes(&mut self, nodes: &[usize]) {
        for &node in nodes {
            assert!(self.places[node].node.is_none(), "n{node} runs already");
            let process = self.places[node].site.spawn();
            self.wires.started(node, Some(process.pid()));
            self.places[node].node = Some(process);
        }
        for &node in nodes {
            if let Some(process) = &mut self.places[node].node {
                process.wait_ready();
            }
        }
    }

    fn take(&mut self, node: usize) -> Node {
        self.wires.started(node, None);
        self.places[node].node.take().unwrap_or_else(|| panic!("n{node} does not run"))
    }

    /// The process of a node.
    ///
    /// # Panics
    /// When it does not run.
    pub fn node(&mut self, node: usize) -> &mut Node {
        self.places[node].node.as_mut().unwrap_or_else(|| panic!("n{node} does not run"))
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.take(node).kill();
    }

    /// Stops a node in order.
    pub fn stop(&mut self, node: usize) {
        self.take(node).stop();
    }

    /// Forgets a node that has ended by itself, and gives what it said.
    pub fn ended(&mut self, node: usize) -> (std::process::ExitStatus, String) {
        let mut process = self.take(node);
        (process.wait_end(), process.log())
    }

    /// Keeps data, logs and histories, and shows the end of each log.
    pub fn keep(&mut self) {
        self.kept.keep();
        for (number, place) in self.places.iter().enumerate() {
            if let Some(node) = &place.node {
                eprintln!("-- n{number}:\n{}", node.log_tail());
            }
        }
    }

    /// Brings back whatever is down, ends faults, and waits until the cluster is whole.
    pub fn mend(&mut self) {
        self.wires.heal();
        let down: Vec<usize> = (0..self.len()).filter(|k| !self.running().contains(k)).collect();
        if !down.is_empty() {
            self.start_nodes(&down);
        }
        self.wait_formed(FORM_WITHIN);
    }

    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resident memory of a node, in KiB.
    #[must_use]
    pub fn memory_kib(&mut self, node: usize) -> u64 {
        let status = format!("/proc/{}/status", self.node(node).pid());
        let text = std::fs::read_to_string(status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    /// The incarnation of a node.
    #[must_use]
    pub fn incarnation(&self, node: usize) -> u64 {
        let status = self.block(self.places[node].client.status());
        status.ok().and_then(|s| s["incarnation"].as_u64()).unwrap_or_default()
    }

    /// Stops all nodes in order, which ends the test.
    pub fn finish(mut self) {
        self.wires.heal();
        for node in self.running() {
            self.stop(node);
        }
    }

    /// Runs `weald` with these arguments against a node.
    pub fn cli(&self, node: usize, args: &[&str]) -> Ended {
        self.places[node].site.run(args)
    }
}
