//! The nodes that the cases of the matrix share.

use crate::net::{Doors, Net, Variant};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use weald_tests::harness::cluster::{Cluster, Options};
use weald_tests::harness::wait::wait_until;
use weald_tests::harness::wires::Wire;
use weald_tests::wamp::{At, Serializer, Transport};

/// The environment variable that names another router: RawSocket, WebSocket.
const AT: &str = "WEALD_WAMP_AT";

/// The end of the topics whose events the nodes of the matrix keep: `com.<run>.kept`.
pub(crate) const KEPT: &str = "kept";
/// What clients of the nodes of the matrix are trusted.
pub(crate) const TRUST_LEVEL: u64 = 4;
/// Time in which a node that is ready lets clients in: it knows the routes of the others first.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// Where the listeners of a running node are.
pub(crate) fn doors(cluster: &Cluster, node: usize) -> Doors {
    wait_until(OPEN_WITHIN, &format!("n{node} to let clients in"), || {
        let status = cluster.block(cluster.client(node).status()).map_err(|e| e.to_string())?;
        let at = |name: &str| {
            let address = status["listen"][name].as_str().and_then(|text| text.parse().ok());
            address.map(At::Tcp).ok_or_else(|| format!("no {name} in {}", status["listen"]))
        };
        Ok::<_, String>(Doors { raw: at("rawsocket")?, web: at("http")? })
    })
}

/// Nodes on which everything that can be announced is on.
fn all_on(nodes: usize) -> Options {
    let history = format!("[\"wildcard:com..{KEPT}\"]");
    Options::new(Wire::Direct, nodes)
        .with("realm.history", &history)
        .with("realm.trust_level", &TRUST_LEVEL.to_string())
        // Less to send until a client that does not read is cut off.
        .with("clients.queue_size", "\"4MiB\"")
}

/// Starts a cluster, and tells where its listeners are.
pub(crate) fn start(name: &str, options: Options) -> (Cluster, Vec<Doors>) {
    let cluster = Cluster::start(name, options);
    let doors = (0..cluster.len()).map(|node| doors(&cluster, node)).collect();
    (cluster, doors)
}

/// Each transport with each serializer.
pub(crate) fn ways() -> Vec<(Transport, Serializer)> {
    let of = |transport| Serializer::ALL.map(|serializer| (transport, serializer));
    [of(Transport::RawSocket), of(Transport::WebSocket)].concat()
}

/// A node with a configuration of its own.
pub(crate) struct Own {
    pub(crate) cluster: Cluster,
    runs: usize,
}

impl Own {
    /// A node that is not started yet.
    pub(crate) fn prepare(name: &str) -> Self {
        Self { cluster: Cluster::prepare(name, Options::new(Wire::Direct, 1)), runs: 0 }
    }

    /// A node with these keys, running.
    pub(crate) fn start(name: &str, keys: &[(&str, &str)]) -> Self {
        let mut own = Self::prepare(name);
        own.run_with(keys);
        own
    }

    /// Runs it with these keys in place of those before. Keys of ports win over those of the harness.
    pub(crate) fn run_with(&mut self, keys: &[(&str, &str)]) {
        if !self.cluster.running().is_empty() {
            self.cluster.stop(0);
        }
        let (ports, others): (Vec<_>, Vec<_>) =
            keys.iter().copied().partition(|(key, _)| PORTS.contains(key));
        let variable = |(key, value): &(&str, &str)| {
            let name = format!("WEALD_{}", key.replace('.', "__").to_uppercase());
            (name.into(), value.trim_matches('"').into())
        };
        self.cluster.set_env(0, ports.iter().map(variable).collect());
        // Peers of a test that have done their part do not answer GOODBYE.
        let quick = [("clients.goodbye_timeout", "\"200ms\"")];
        self.cluster.set_config(0, &[&quick[..], &others].concat());
        self.cluster.start_node(0);
        self.runs += 1;
    }

    /// Where a port is.
    pub(crate) fn at(&self, name: &str) -> SocketAddr {
        let status = self.cluster.block(self.cluster.client(0).status());
        let status = status.unwrap_or_else(|e| panic!("status: {e}"));
        let address = status["listen"][name].as_str().and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| panic!("no {name} in {}", status["listen"]))
    }

    /// What is connected to two doors, in a transport and serializer.
    pub(crate) fn net_at(&self, (transport, serializer): Way, raw: At, web: At) -> Net {
        let variant = Variant { nodes: 1, sides: [(transport, serializer); 2] };
        let doors = Doors { raw, web };
        let tag = format!("own{}{transport:?}{}", self.runs, serializer.name()).to_lowercase();
        Net::new(variant, [doors.clone(), doors], tag)
    }

    /// What is connected to its usual doors.
    pub(crate) fn net(&self, way: Way) -> Net {
        let [raw, web] = ["rawsocket", "http"].map(|name| At::Tcp(self.at(name)));
        self.net_at(way, raw, web)
    }

    /// What is connected by RawSocket, in MessagePack.
    pub(crate) fn plain(&self) -> Net {
        self.net((Transport::RawSocket, Serializer::MsgPack))
    }

    /// A file beside its configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.cluster.node_dir(0).join(name)
    }

    /// Stops it: a clean end is a part of the test.
    pub(crate) fn finish(self) {
        self.cluster.finish();
    }
}

/// A transport and a serializer.
pub(crate) type Way = (Transport, Serializer);

/// Keys that the harness sets by variables.
const PORTS: [&str; 2] = ["listeners.http", "listeners.rawsocket"];

/// The nodes of the matrix: started when the first case needs them.
#[derive(Default)]
pub(crate) struct Nodes {
    one: OnceLock<(Mutex<Option<Cluster>>, [Doors; 2])>,
    two: OnceLock<(Mutex<Option<Cluster>>, [Doors; 2])>,
    elsewhere: Option<Doors>,
}

impl Nodes {
    /// As the environment says.
    pub(crate) fn from_env() -> Self {
        let elsewhere = std::env::var(AT).ok().map(|text| {
            let at =
                |text: &str| At::Tcp(text.parse().unwrap_or_else(|e| panic!("{AT}={text}: {e}")));
            let (raw, web) = text.split_once(',').unwrap_or_else(|| panic!("{AT}={text}"));
            Doors { raw: at(raw), web: at(web) }
        });
        Self { elsewhere, ..Self::default() }
    }

    /// Whether the router is another than ours.
    pub(crate) const fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// The doors of the two sides.
    pub(crate) fn doors(&self, nodes: usize) -> [Doors; 2] {
        if let Some(doors) = &self.elsewhere {
            return [doors.clone(), doors.clone()];
        }
        let (cell, name) = if nodes == 1 { (&self.one, "wamp1") } else { (&self.two, "wamp2") };
        let started = cell.get_or_init(|| {
            let (cluster, doors) = start(name, all_on(nodes));
            let sides = [doors[0].clone(), doors[nodes - 1].clone()];
            (Mutex::new(Some(cluster)), sides)
        });
        started.1.clone()
    }

    /// Stops them: a clean end without a panic is a part of the test.
    pub(crate) fn finish(self, failed: bool) {
        let started = [self.one, self.two].into_iter().filter_map(OnceLock::into_inner);
        for (cluster, _) in started {
            let Some(mut cluster) = cluster.into_inner().unwrap() else { continue };
            if failed {
                cluster.keep();
            }
            cluster.finish();
        }
    }
}
