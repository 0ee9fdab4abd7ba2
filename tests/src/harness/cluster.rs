//! Several real nodes that are one cluster, and what may happen to them.
//!
//! Guarantees: each node has a directory, a certificate and an address of its own, which it keeps through restarts; data,
//! logs and histories of a failed test are kept; all processes end with the cluster, paused ones, too. A node that panicked
//! fails the test, whoever mended it.

use super::artefacts::Artefacts;
use super::damage::copy;
use super::node::{Ended, Node, Site};
use super::wait::{pause, wait_until};
use super::wires::{Wire, Wires};
use crate::proxy::Bundle;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use weald_client::{Client, Error};
use weald_link::pki::{self, Authority};
use weald_proto::cluster::{Member, Members};

/// Time of one request of a test.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Time for all members of a new cluster to know each other.
const FORM_WITHIN: Duration = Duration::from_secs(40);
/// Time for a node that came back to be let in.
const SERVE_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two comparisons of all data.
const COMPARE_EVERY: Duration = Duration::from_millis(100);

/// What a table holds: the values of each key.
pub type Content = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

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

/// A copy of a node's data.
#[derive(Debug)]
pub struct Backup(PathBuf);

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

    fn make_place(&mut self, node: usize) {
        let dir = self.kept.dir().join(Self::node_name(node));
        let host = self.wires.reached_at(node).ip().to_string();
        let name = Self::node_name(node);
        let bundle = pki::issue(&self.authority, &self.name, &name, &[host]);
        let bundle = bundle.unwrap_or_else(|e| panic!("issue a certificate: {e}"));
        write(&dir.join("ca.pem"), &self.authority.cert_pem);
        write(&dir.join("node.pem"), &bundle.cert_pem);
        write(&dir.join("node.key"), &bundle.key_pem);
        let mut site = Site::with_config(&dir, &dir.join("data"), &self.config(node, &dir));
        site.set_wrapper(self.wires.enter(node));
        if self.options.messages {
            self.wires.open_tls(node, self.bundle(node, &dir));
        }
        let client = self.connect(&dir.join("data"));
        self.places.push(Place { node: None, site, dir, client });
    }

    fn bundle(&self, node: usize, dir: &Path) -> Bundle {
        let server_name = format!("{}.{}.weald.internal", Self::node_name(node), self.name);
        let [authority, certificate, key] =
            ["ca.pem", "node.pem", "node.key"].map(|file| dir.join(file));
        Bundle { server_name, authority, certificate, key }
    }

    fn connect(&self, data: &Path) -> Client {
        let _in_runtime = self.runtime.enter();
        let client = Client::builder().unix(data.join("weald.sock")).deadline(REQUEST_WITHIN);
        client.start().unwrap_or_else(|e| panic!("make a client: {e}"))
    }

    fn config(&self, node: usize, dir: &Path) -> String {
        let quoted = |text: &str| format!("\"{text}\"");
        let seeds: Vec<usize> = match self.options.seeds {
            Seeds::All => (0..self.len()).filter(|&other| other != node).collect(),
            Seeds::First => (0..1).filter(|&other| other != node).collect(),
            Seeds::Nobody => Vec::new(),
        };
        let seeds: Vec<_> =
            seeds.iter().map(|&k| quoted(&self.wires.reached_at(k).to_string())).collect();
        let file = |name: &str| quoted(&dir.join(name).to_string_lossy());
        let (listen, reached_at) = (self.wires.listen(node), self.wires.reached_at(node));
        let mut keys: Vec<(String, String)> = [
            ("node.name", quoted(&Self::node_name(node))),
            ("cluster.name", quoted(&self.name)),
            ("cluster.listen", quoted(&listen.to_string())),
            ("cluster.seeds", format!("[{}]", seeds.join(", "))),
            ("cluster.tls_certificate", file("node.pem")),
            ("cluster.tls_key", file("node.key")),
            ("cluster.tls_ca", file("ca.pem")),
            ("storage.partitions", "4".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if listen != reached_at {
            let advertised = format!("[{}]", quoted(&reached_at.to_string()));
            keys.push(("cluster.advertise".to_owned(), advertised));
        }
        keys.extend(self.options.config.iter().cloned());
        toml_of(&keys)
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

    /// Variables of a node from its next start on.
    pub fn set_env(&mut self, node: usize, env: Vec<(OsString, OsString)>) {
        self.places[node].site.set_node_env(env);
    }

    /// Keys of the configuration of one node, added from its next start on.
    pub fn set_config(&mut self, node: usize, keys: &[(&str, &str)]) {
        let place = &self.places[node];
        let mut text = self.config(node, &place.dir);
        let mut all: toml::Table = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        for (key, value) in keys {
            let (section, key) = key.split_once('.').unwrap_or_else(|| panic!("{key}"));
            let value: toml::Table =
                format!("v = {value}").parse().unwrap_or_else(|e| panic!("{value}: {e}"));
            let section = all.entry(section).or_insert_with(|| toml::Table::new().into());
            if let (Some(section), Some(value)) = (section.as_table_mut(), value.get("v")) {
                section.insert((*key).to_owned(), value.clone());
            }
        }
        text = all.to_string();
        place.site.set_config(&text);
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

    /// Writes a key.
    ///
    /// # Panics
    /// When that fails.
    pub fn put(&self, node: usize, table: &str, key: &str, value: &str) {
        let client = &self.places[node].client;
        self.write(node, key, || client.put(table, key, value).into_future());
    }

    /// Deletes a key, whatever it holds.
    ///
    /// # Panics
    /// When that fails.
    pub fn delete(&self, node: usize, table: &str, key: &str) {
        let client = &self.places[node].client;
        self.write(node, key, || client.delete(table, key).into_future());
    }

    /// Does a write; one that a node refuses because of where it stands (it is fenced still, or the others have not noticed
    /// yet that its predecessor is dead) is made again.
    ///
    /// # Panics
    /// When it fails otherwise.
    pub fn write<T, F: Future<Output = Result<T, Error>>>(
        &self,
        node: usize,
        what: &str,
        make: impl Fn() -> F,
    ) -> T {
        wait_until(SERVE_WITHIN, &format!("n{node} to take writes"), || {
            match self.block(async { make().await }) {
                Ok(done) => Ok(done),
                Err(Error::NotServing(why)) => Err(why),
                Err(e) => panic!("write {what} on n{node}: {e}"),
            }
        })
    }

    /// The values of a key.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn get(&self, node: usize, table: &str, key: &str) -> BTreeSet<String> {
        let got = self.block(self.places[node].client.get(table, key));
        let values = got.unwrap_or_else(|e| panic!("get {key} on n{node}: {e}")).values;
        values.into_iter().map(|v| String::from_utf8_lossy(&v).into_owned()).collect()
    }

    /// Waits until a node has exactly this value of a key; how long that took.
    ///
    /// # Panics
    /// When it does not get it in time.
    pub fn wait_value(
        &self,
        node: usize,
        table: &str,
        key: &str,
        value: &str,
        deadline: Duration,
    ) -> Duration {
        let start = Instant::now();
        wait_until(deadline, &format!("{key} to be {value} on n{node}"), || {
            match self.block(self.places[node].client.get(table, key)) {
                Ok(got) if got.values == [value.as_bytes()] => Ok(start.elapsed()),
                Ok(got) => Err(format!("{:?}", got.values)),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    /// Waits until all running nodes hold the same in these tables, also where they cannot ask each other; how long it took.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_same_content(&self, tables: &[&str], deadline: Duration) -> Duration {
        let start = Instant::now();
        wait_until(deadline, "all nodes to hold the same", || {
            match self.unequal_content(tables, "") {
                None => Ok(start.elapsed()),
                Some(what) => Err(what),
            }
        })
    }

    /// Gives a node the name, certificate and key of another.
    ///
    /// # Panics
    /// When files cannot be copied.
    pub fn impersonate(&mut self, node: usize, other: usize) {
        for file in ["node.pem", "node.key"] {
            let [from, to] = [other, node].map(|k| self.places[k].dir.join(file));
            if let Err(e) = std::fs::copy(&from, &to) {
                panic!("copy {}: {e}", from.display());
            }
        }
        self.set_config(node, &[("node.name", &format!("\"{}\"", Self::node_name(other)))]);
    }

    /// Directory of a node: certificate, configuration, logs, and data unless told otherwise.
    #[must_use]
    pub fn node_dir(&self, node: usize) -> &Path {
        &self.places[node].dir
    }

    /// The certificate of a node.
    #[must_use]
    pub fn certificate(&self, node: usize) -> Bundle {
        self.bundle(node, &self.places[node].dir)
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

    /// Removes the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be removed.
    pub fn wipe(&self, node: usize) {
        assert!(self.places[node].node.is_none(), "n{node} runs");
        let data = self.places[node].site.data();
        if let Err(e) = std::fs::remove_dir_all(data) {
            panic!("remove {}: {e}", data.display());
        }
    }

    /// Copies the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be copied.
    #[must_use]
    pub fn backup(&self, node: usize, name: &str) -> Backup {
        assert!(self.places[node].node.is_none(), "n{node} runs");
        let to = self.kept.dir().join(format!("backup-{name}"));
        copy(self.places[node].site.data(), &to);
        Backup(to)
    }

    /// Replaces the data of a node that does not run.
    ///
    /// # Panics
    /// When it runs, or its files cannot be replaced.
    pub fn restore(&self, node: usize, backup: &Backup) {
        let data = self.places[node].site.data().to_owned();
        if matches!(std::fs::exists(&data), Ok(true)) {
            self.wipe(node);
        }
        copy(&backup.0, &data);
    }

    /// Runs `weald` with these arguments against a node.
    pub fn cli(&self, node: usize, args: &[&str]) -> Ended {
        self.places[node].site.run(args)
    }

    /// The members as a node knows them.
    ///
    /// # Errors
    /// What it said instead.
    pub fn members(&self, node: usize) -> Result<Members, String> {
        self.block(self.places[node].client.members()).map_err(|e| e.to_string())
    }

    /// What a node knows of the newest member with this name.
    #[must_use]
    pub fn member(&self, node: usize, name: &str) -> Option<Member> {
        let members = self.members(node).ok()?.members;
        let is_live = |m: &&Member| ["joined", "fenced", "leaving"].contains(&m.status.as_str());
        let named = || members.iter().filter(|m| m.name == name);
        named().find(is_live).or_else(|| named().next()).cloned()
    }

    /// Waits until a node sees a member as wanted; how long that took.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_member(
        &self,
        node: usize,
        name: &str,
        deadline: Duration,
        wanted: impl Fn(Option<&Member>) -> bool,
    ) -> Duration {
        let start = Instant::now();
        wait_until(deadline, &format!("n{node} to see {name} as it should be"), || {
            let member = self.member(node, name);
            if wanted(member.as_ref()) { Ok(start.elapsed()) } else { Err(format!("{member:?}")) }
        })
    }

    /// Waits until every running node sees every running node as joined and up; how long that took.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_formed(&self, deadline: Duration) -> Duration {
        let running = self.running();
        let names: BTreeSet<_> = running.iter().map(|&k| Self::node_name(k)).collect();
        let start = Instant::now();
        wait_until(deadline, "all nodes to see each other", || {
            for &node in &running {
                let members = self.members(node)?.members;
                let up: BTreeSet<_> = members
                    .iter()
                    .filter(|m| m.status == "joined" && m.liveness == "up")
                    .map(|m| m.name.clone())
                    .collect();
                if !names.is_subset(&up) {
                    return Err(format!("n{node} sees {up:?} of {names:?}"));
                }
            }
            Ok(start.elapsed())
        })
    }

    /// What a node holds in a table, below a prefix.
    ///
    /// # Errors
    /// What it said instead.
    pub fn content(&self, node: usize, table: &str, prefix: &str) -> Result<Content, String> {
        let client = self.places[node].client.clone();
        self.block(async {
            let mut content = Content::new();
            let mut scan = client.scan(table).prefix(prefix).page_size(1000);
            while let Some(item) = scan.next().await {
                let item = item.map_err(|e| e.to_string())?;
                content.insert(item.key, item.values.into_iter().collect());
            }
            Ok(content)
        })
    }

    /// Waits until all running nodes hold the same in these tables, and find no difference among themselves; how long it took.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_converged(&self, tables: &[&str], deadline: Duration) -> Duration {
        self.wait_converged_below(tables, "", deadline)
    }

    /// The same, where contents are looked at below a prefix only; digests are of everything.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_converged_below(
        &self,
        tables: &[&str],
        prefix: &str,
        deadline: Duration,
    ) -> Duration {
        let start = Instant::now();
        let end = start + deadline;
        loop {
            match self.difference(tables, prefix) {
                None => return start.elapsed(),
                Some(what) => {
                    assert!(Instant::now() < end, "not converged after {deadline:?}: {what}");
                }
            }
            pause(COMPARE_EVERY);
        }
    }

    /// What differs between running nodes, if anything.
    fn difference(&self, tables: &[&str], prefix: &str) -> Option<String> {
        let running = self.running();
        let (&first, others) = running.split_first()?;
        for &other in others {
            let name = Self::node_name(other);
            match self.block(self.places[first].client.aae_diff(&name, REQUEST_WITHIN)) {
                Ok(diff) if diff.equal => {}
                Ok(diff) => {
                    return Some(format!("n{first} and n{other} differ: {:?}", diff.first));
                }
                Err(e) => return Some(format!("n{first} cannot compare with n{other}: {e}")),
            }
        }
        self.unequal_content(tables, prefix)
    }

    fn unequal_content(&self, tables: &[&str], prefix: &str) -> Option<String> {
        let running = self.running();
        let (&first, others) = running.split_first()?;
        tables.iter().find_map(|table| {
            let content = |node| self.content(node, table, prefix);
            let here = match content(first) {
                Ok(here) => here,
                Err(e) => return Some(format!("n{first}: {e}")),
            };
            others.iter().find_map(|&other| match content(other) {
                Ok(there) if there == here => None,
                Ok(there) => {
                    Some(format!("{table}: n{first}, n{other}: {}", unequal(&here, &there)))
                }
                Err(e) => Some(format!("n{other}: {e}")),
            })
        })
    }
}

fn unequal(here: &Content, there: &Content) -> String {
    let keys: BTreeSet<_> = here.keys().chain(there.keys()).collect();
    let differ: Vec<_> = keys.into_iter().filter(|k| here.get(*k) != there.get(*k)).collect();
    let show = |values: Option<&BTreeSet<Vec<u8>>>| {
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        values.map(|values| values.iter().map(text).collect::<Vec<_>>())
    };
    let some: Vec<_> = differ
        .iter()
        .take(5)
        .map(|k| {
            let key = String::from_utf8_lossy(k);
            format!("{key}: {:?} and {:?}", show(here.get(*k)), show(there.get(*k)))
        })
        .collect();
    format!("{} of {} keys: {some:?}", differ.len(), here.len().max(there.len()))
}

/// A configuration file of keys `section.key`; the last one of a name counts.
fn toml_of(keys: &[(String, String)]) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for (key, value) in keys {
        let (section, key) = key.split_once('.').unwrap_or_else(|| panic!("{key}"));
        sections.entry(section).or_default().insert(key, value);
    }
    let mut text = String::new();
    for (section, keys) in sections {
        text += &format!("[{section}]\n");
        keys.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
    }
    text
}

fn write(path: &Path, text: &str) {
    let parent = path.parent().unwrap_or_else(|| panic!("{}", path.display()));
    std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("create {}: {e}", parent.display()));
    std::fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_toml_and_later_keys_win() {
        let keys = [("a.x", "1"), ("b.y", "\"z\""), ("a.x", "2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let table: toml::Table = toml_of(&keys).parse().unwrap();
        assert_eq!(table["a"]["x"].as_integer(), Some(2));
        assert_eq!(table["b"]["y"].as_str(), Some("z"));
    }
}
