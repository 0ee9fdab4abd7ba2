//! The directories of a development cluster: what is there, what is still to be made.

use crate::args::Dev;
use crate::bundle::{self, Access, NODE_CERTIFICATE, NODE_CONFIG, NODE_KEY, NodeFile, Tls};
use crate::config::{self, Flags};
use crate::exit::{Exit, Failure};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use weald_storage::{DataDirLock, LockError};

/// Name of the cluster.
pub(super) const CLUSTER: &str = "dev";
/// Directory of the certificates.
pub(super) const PKI: &str = "pki";
/// What a node prints.
pub(super) const LOG: &str = "node.log";
/// Between the ports of two nodes.
const PORT_STEP: u16 = 100;

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct DevNode {
    pub(super) name: String,
    /// Its data directory.
    pub(super) dir: PathBuf,
    /// Its cluster port.
    pub(super) listen: SocketAddr,
    /// Whether its configuration is still to be made.
    is_new: bool,
    /// Time that it has to stop.
    pub(super) stop_time: Duration,
}

impl DevNode {
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join(NODE_CONFIG)
    }

    /// Where WAMP clients connect, as its configuration says; `None` when it lets none in over HTTP.
    pub(super) fn wamp_url(&self) -> Option<String> {
        let flags = Flags { config: Some(self.config()), values: Vec::new() };
        let listeners = config::load(&flags, std::iter::empty()).config.listeners;
        listeners.http.map(|address| format!("ws://{address}{}", listeners.websocket_path))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// The process that works on its directory, if one does; none inside when that does not say its number.
    pub(super) fn holder(&self) -> Option<Option<u32>> {
        if !self.dir.is_dir() {
            return None;
        }
        match DataDirLock::acquire(&self.dir) {
            Err(LockError::Held { holder_pid, .. }) => Some(holder_pid),
            Ok(_) | Err(_) => None,
        }
    }
}

/// The nodes to run: those of an earlier time as they are, the others by rule. Makes nothing.
pub(super) fn plan(dir: &Path, args: &Dev) -> Result<Vec<DevNode>, Failure> {
    (1..=args.nodes).map(|number| plan_node(dir, args.port, number)).collect()
}

fn plan_node(dir: &Path, port: u16, number: u16) -> Result<DevNode, Failure> {
    let name = format!("node{number}");
    let dir = dir.join(&name);
    let file = dir.join(NODE_CONFIG);
    let is_new = !bundle::is_there(&file)?;
    let port = port.checked_add((number - 1) * PORT_STEP).ok_or_else(|| {
        let text = format!("there is no port for {name}: fewer --nodes or a lower --port");
        Failure::new(Exit::StartUsage, text)
    })?;
    let mut listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stop_time = config::Config::default().node.shutdown_timeout;
    if !is_new {
        let flags = Flags { config: Some(file), values: Vec::new() };
        let loaded = config::load(&flags, std::iter::empty());
        if let Some(problem) = loaded.problems.first() {
            let text = format!("the configuration of {name} is wrong:\n{problem}");
            return Err(Failure::new(Exit::Config, text));
        }
        listen = loaded.config.cluster.listen;
        stop_time = loaded.config.node.shutdown_timeout;
    }
    Ok(DevNode { name, dir, listen, is_new, stop_time })
}

/// Refuses to begin when a node runs already or a port is taken.
pub(super) fn check_free(nodes: &[DevNode]) -> Result<(), Failure> {
    for node in nodes {
        if let Some(holder) = node.holder() {
            let (who, hint) = holder.map_or_else(
                || ("another process".to_owned(), "stop it first".to_owned()),
                |pid| (format!("process {pid}"), format!("stop it first, with: kill {pid}")),
            );
            let text = format!(
                "{} runs already as {who} in {}; {hint}, or use another --data-dir",
                node.name,
                node.dir.display()
            );
            return Err(Failure::new(Exit::Locked, text));
        }
    }
    for node in nodes {
        if let Err(e) = TcpListener::bind(node.listen) {
            let hint = if node.is_new {
                "give another first port with --port".to_owned()
            } else {
                format!("it comes from cluster.listen in {}", node.config().display())
            };
            let text = format!(
                "the port of {}, {}, cannot be used ({e}); nothing was started: {hint}",
                node.name, node.listen
            );
            return Err(Failure::new(Exit::PortTaken, text));
        }
    }
    Ok(())
}

/// Makes what is not there. Gives the directory in full.
pub(super) fn make(dir: &Path, nodes: &[DevNode]) -> Result<PathBuf, Failure> {
    let failed = |e: &std::io::Error| {
        Failure::new(Exit::NoDataDir, format!("directory {} cannot be made: {e}", dir.display()))
    };
    bundle::make_dir(dir).map_err(|e| failed(&e))?;
    let dir = dir.canonicalize().map_err(|e| failed(&e))?;
    let pki = dir.join(PKI);
    for node in nodes {
        if !bundle::is_there(&pki.join(&node.name))? {
            let authority = bundle::authority(&pki, CLUSTER)?;
            let certificate = bundle::issue(&authority, CLUSTER, &node.name, &[])?;
            bundle::write_node(&pki, &node.name, &authority, &certificate, None)?;
        }
        if node.is_new {
            let home = dir.join(&node.name);
            bundle::make_dir(&home).map_err(|e| Failure::file("create", &home, &e))?;
            let text = node_file(node, nodes, &home).text();
            bundle::write_new(&home.join(NODE_CONFIG), &text, Access::Anybody)?;
        }
    }
    Ok(dir)
}

/// The same nodes, with their directories in full.
pub(super) fn below(nodes: Vec<DevNode>, dir: &Path) -> Vec<DevNode> {
    let full = |node: DevNode| DevNode { dir: dir.join(&node.name), ..node };
    nodes.into_iter().map(full).collect()
}

fn node_file(node: &DevNode, nodes: &[DevNode], home: &Path) -> NodeFile {
    let others = nodes.iter().filter(|other| other.name != node.name);
    let certificates = |file: &str| format!("../{PKI}/{}/{file}", node.name);
    NodeFile {
        made_by: "weald dev",
        name: node.name.clone(),
        cluster: CLUSTER.to_owned(),
        data_dir: home.to_string_lossy().into_owned(),
        listen: node.listen,
        advertise: Vec::new(),
        seeds: others.map(|other| other.listen.to_string()).collect(),
        tls: Tls {
            certificate: certificates(NODE_CERTIFICATE),
            key: certificates(NODE_KEY),
            authority: certificates(bundle::CA_CERTIFICATE),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: PathBuf) -> config::Loaded {
        config::load(&Flags { config: Some(file), values: Vec::new() }, std::iter::empty())
    }

    #[test]
    fn files_of_three_nodes_are_a_cluster_and_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("try");
        let args = Dev { nodes: 2, port: 18086 };
        let made = make(&dir, &plan(&dir, &args).unwrap()).unwrap();
        let loaded = load(made.join("node2/weald.toml"));
        assert_eq!(loaded.problems, []);
        let config = &loaded.config;
        assert_eq!((&*config.node.name, &config.node.data_dir), ("node2", &made.join("node2")));
        assert_eq!(config.cluster.listen.to_string(), "127.0.0.1:18186");
        assert_eq!(config.cluster.seeds, ["127.0.0.1:18086"]);
        assert_eq!(config.listeners.http, "127.0.0.1:18180".parse().ok());
        let second = &below(plan(&dir, &args).unwrap(), &made)[1];
        assert_eq!(second.wamp_url().as_deref(), Some("ws://127.0.0.1:18180/ws"));
        for file in
            [&config.cluster.tls_certificate, &config.cluster.tls_key, &config.cluster.tls_ca]
        {
            assert!(file.as_ref().unwrap().is_file(), "{file:?}");
        }

        // A second time, with one node more and another port: what is there stays.
        let file = made.join("node1/weald.toml");
        let text = std::fs::read_to_string(&file).unwrap().replace("18086", "19999");
        std::fs::write(&file, &text).unwrap();
        let nodes = plan(&made, &Dev { nodes: 3, port: 20_000 }).unwrap();
        let ports: Vec<u16> = nodes.iter().map(|node| node.listen.port()).collect();
        assert_eq!(ports, [19_999, 18_186, 20_200]);
        make(&made, &nodes).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        let seeds = load(made.join("node3/weald.toml")).config.cluster.seeds;
        assert_eq!(seeds, ["127.0.0.1:19999", "127.0.0.1:18186"]);
    }

    #[test]
    fn taken_port_and_running_node_are_told_before_anything_starts() {
        let temp = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut nodes = plan(temp.path(), &Dev { nodes: 1, port }).unwrap();
        let refused = check_free(&nodes).unwrap_err();
        assert!(refused.exit == Exit::PortTaken && refused.message.contains("--port"), "{refused}");
        drop(taken);
        check_free(&nodes).unwrap();

        nodes = below(
            nodes,
            &make(temp.path(), &plan(temp.path(), &Dev { nodes: 1, port }).unwrap()).unwrap(),
        );
        let _lock = DataDirLock::acquire(&nodes[0].dir).unwrap();
        let refused = check_free(&nodes).unwrap_err();
        let hint = format!("kill {}", std::process::id());
        assert!(refused.exit == Exit::Locked && refused.message.contains(&hint), "{refused}");
    }

    #[test]
    fn more_nodes_than_ports_are_refused() {
        let refused = plan(Path::new("/nowhere"), &Dev { nodes: 32, port: 65_000 }).unwrap_err();
        assert_eq!(refused.exit, Exit::StartUsage);
    }
}
