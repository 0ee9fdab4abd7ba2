//! Weald, and `weald bench wamp`, which loads it and other WAMP routers.

use super::peers::Server;
use super::shape::{Figures, Shape};
use anyhow::{Context, Result, bail};
use std::process::Command;
use tempfile::TempDir;
use weald_tests::harness::binary;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::node::{Node, Site};
use weald_tests::harness::wires::Wire;

/// How clients of WAMP connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// RawSocket and MessagePack.
    Raw,
    /// WebSocket and JSON.
    WebSocket,
}

/// A router for `weald bench wamp`.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) transport: Transport,
    pub(crate) url: String,
    /// Where subscribers and callees connect.
    pub(crate) to: String,
    pub(crate) pids: Vec<u32>,
}

impl Router {
    /// Measures a shape with it.
    pub(crate) fn measure(&self, shape: Shape, seconds: u64) -> Result<Figures> {
        let serializer = match self.transport {
            Transport::Raw => "msgpack",
            Transport::WebSocket => "json",
        };
        let mut command = Command::new(binary::weald());
        command.args(["bench", "wamp", "--format", "json", "--url", &self.url, "--to", &self.to]);
        command.args(["--serializer", serializer, "--duration", &format!("{seconds}s")]);
        for pid in &self.pids {
            command.args(["--pid", &pid.to_string()]);
        }
        match shape {
            Shape::Pubsub { publishers, subscribers, payload_bytes } => {
                command.args(["--payload", &payload_bytes.to_string(), "pubsub"]);
                command.args(["--publishers", &publishers.to_string()]);
                command.args(["--subscribers", &subscribers.to_string()]);
            }
            Shape::Rpc { depth, payload_bytes } => {
                command.args(["--payload", &payload_bytes.to_string(), "rpc"]);
                command.args(["--depth", &depth.to_string()]);
            }
            Shape::Idle { sessions } => {
                command.args(["idle", "--sessions", &sessions.to_string()]);
            }
        }
        let output = command.output().context("start weald bench")?;
        // Exit code 1: measured, and events were lost, which the figures say, too.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}", said.trim().trim_start_matches("weald: "));
        }
        serde_json::from_slice(&output.stdout).context("read what weald bench says")
    }
}

/// Where clients connect to the node of a site; the harness gives each node ports of its own.
fn url(site: &Site, transport: Transport) -> Result<String> {
    let status = site.run_ok(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).context("read the status")?;
    let at = |listener: &str| {
        let address = status["listen"][listener].as_str();
        address.with_context(|| format!("no listener {listener} in the status"))
    };
    Ok(match transport {
        Transport::Raw => format!("tcp://{}", at("rawsocket")?),
        Transport::WebSocket => format!("ws://{}/ws", at("http")?),
    })
}

/// A node without configuration but for its ports.
pub(crate) struct OneNode {
    router: Router,
    /// Ended when dropped, before its directory goes.
    _node: Node,
    _dir: TempDir,
}

impl OneNode {
    pub(crate) fn start(transport: Transport) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("weald-bench-").tempdir()?;
        let site = Site::new(dir.path(), "");
        let node = site.start();
        let url = url(&site, transport)?;
        let router = Router { transport, to: url.clone(), url, pids: vec![node.pid()] };
        Ok(Self { router, _node: node, _dir: dir })
    }
}

impl Server for OneNode {
    fn what(&self) -> String {
        format!("one node, {}", self.router.url)
    }

    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>> {
        self.router.measure(shape, seconds).map(Some)
    }
}

/// Two nodes: publishers and callers on the first, subscribers and callees on the second.
pub(crate) struct TwoNodes {
    router: Router,
    _cluster: Cluster,
}

impl TwoNodes {
    pub(crate) fn start() -> Result<Self> {
        let mut cluster = Cluster::start("bench-wamp", Options::new(Wire::Direct, 2));
        let pids = vec![cluster.node(0).pid(), cluster.node(1).pid()];
        let transport = Transport::Raw;
        let [url, to] = [0, 1].map(|node| url(cluster.site(node), transport));
        let (url, to) = (url?, to?);
        Ok(Self { router: Router { transport, url, to, pids }, _cluster: cluster })
    }
}

impl Server for TwoNodes {
    fn what(&self) -> String {
        format!("from {} to {}, both processes counted", self.router.url, self.router.to)
    }

    fn measure(&self, shape: Shape, seconds: u64) -> Result<Option<Figures>> {
        match shape {
            // Idle sessions are on one node.
            Shape::Idle { .. } => Ok(None),
            Shape::Pubsub { .. } | Shape::Rpc { .. } => {
                self.router.measure(shape, seconds).map(Some)
            }
        }
    }
}
