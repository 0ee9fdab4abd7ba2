//! Configuration of the cluster: its port, its members, what goes between them.

use super::keys::{Key, number, path_of, path_value, word};
use super::value::{Value, show_duration};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use weald_cluster::gate::cluster::is_host_port;
use weald_link::pki::is_name;

/// Name of a cluster that is given none.
const NAME: &str = "weald";
/// Most addresses or names in a list.
const LIST_MAX: usize = 64;

/// Section `cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Where nodes and Rust clients connect.
    pub(crate) listen: SocketAddr,
    /// Where others are told to connect, `host:port`; none: `listen`.
    pub(crate) advertise: Vec<String>,
    /// Name of the cluster.
    pub(crate) name: String,
    /// Who is connected to whom.
    pub(crate) strategy: Strategy,
    /// To how many each node is connected for good when not to all.
    pub(crate) active_view: u32,
    /// Where other members come from.
    pub(crate) discovery: Discovery,
    /// Nodes of the cluster, `host:port`.
    pub(crate) seeds: Vec<String>,
    /// Names that lead to nodes.
    pub(crate) dns_names: Vec<String>,
    /// How often they are asked for.
    pub(crate) poll_interval: Duration,
    /// How often what was held back is announced.
    pub(crate) lazy_tick_period: Duration,
    /// How often a broadcast is followed by an exchange.
    pub(crate) exchange_tick_period: Duration,
    /// A member that was away for longer is fenced.
    pub(crate) max_absence: Duration,
    /// Most clients connected at a time.
    pub(crate) max_clients: u32,
    /// A client that is silent for so long is cut.
    pub(crate) idle_timeout: Duration,
    /// Certificate chain, PEM.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key, PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// The authority that other nodes' certificates come from, PEM.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Serve beyond loopback without TLS.
    pub(crate) allow_plaintext: bool,
}

/// Who is connected to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Each member to each.
    FullMesh,
    /// Each to a few.
    P2p,
}

/// Where other members come from, beside those that are known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// `seeds`.
    Static,
    /// `dns_names`, and `seeds`.
    Dns,
}

const STRATEGIES: &[(&str, Strategy)] =
    &[("full-mesh", Strategy::FullMesh), ("p2p", Strategy::P2p)];
const DISCOVERIES: &[(&str, Discovery)] = &[("static", Discovery::Static), ("dns", Discovery::Dns)];

fn address(text: &str) -> Result<(), String> {
    if is_host_port(text) { Ok(()) } else { Err(format!("{text:?} is not of the form host:port")) }
}

/// The name of a service has no port: its records have.
fn dns_name(text: &str) -> Result<(), String> {
    let is_service = text.starts_with('_') && text.contains("._") && !text.contains(':');
    if is_service || is_host_port(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is neither host:port nor the name of a service, as _weald._tcp.example.org"
    ))
}

fn set_name(cluster: &mut Cluster, name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("{name:?} is not 1 to 64 letters, digits, '-', '_' or '.'"));
    }
    name.clone_into(&mut cluster.name);
    Ok(())
}

impl Cluster {
    /// Whether the configuration tells where other nodes are.
    pub(crate) fn has_seeds(&self) -> bool {
        let by_name = self.discovery == Discovery::Dns && !self.dns_names.is_empty();
        by_name || !self.seeds.is_empty()
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 18086)),
            advertise: Vec::new(),
            name: NAME.to_owned(),
            strategy: Strategy::FullMesh,
            active_view: 5,
            discovery: Discovery::Static,
            seeds: Vec::new(),
            dns_names: Vec::new(),
            poll_interval: Duration::from_secs(10),
            lazy_tick_period: Duration::from_secs(1),
            exchange_tick_period: Duration::from_secs(60),
            max_absence: Duration::from_secs(7 * 86_400),
            max_clients: 1024,
            idle_timeout: Duration::from_secs(20),
            tls_certificate: None,
            tls_key: None,
            tls_ca: None,
            allow_plaintext: false,
        }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "cluster.listen",
        doc: "Address for other nodes and for Rust clients; port 0 takes a free one, which\n\
              `weald status` shows.",
        get: |c| Value::Text(c.cluster.listen.to_string()),
        set: |c, v| v.addr().map(|addr| c.cluster.listen = addr),
    },
    Key {
        path: "cluster.advertise",
        doc: "Where other nodes are told to reach this one, as [\"node1.example.org:18086\"]; at most 64.\n\
              Empty: cluster.listen, which must not be a wildcard such as 0.0.0.0 then.",
        get: |c| Value::List(c.cluster.advertise.clone()),
        set: |c, v| v.list(LIST_MAX, address).map(|list| c.cluster.advertise = list),
    },
    Key {
        path: "cluster.name",
        doc: "Name of the cluster: up to 64 letters, digits, '-', '_' or '.'. Nodes of another cluster, and\n\
              clients that ask for another, are refused.",
        get: |c| Value::Text(c.cluster.name.clone()),
        set: |c, v| set_name(&mut c.cluster, v.text()?),
    },
    Key {
        path: "cluster.strategy",
        doc: "Who is connected to whom: \"full-mesh\" (each member to each) or \"p2p\" (each to a few, for\n\
              hundreds of nodes). Equal on all nodes.",
        get: |c| Value::Text(word(STRATEGIES, c.cluster.strategy)),
        set: |c, v| v.choice(STRATEGIES).map(|strategy| c.cluster.strategy = strategy),
    },
    Key {
        path: "cluster.active_view",
        doc: "Neighbours of a node with strategy \"p2p\", from 3 to 64. Calls and events for other members go\n\
              over connections that are made when they are needed, and closed when they are not.",
        get: |c| number(c.cluster.active_view.into()),
        set: |c, v| {
            let neighbours = v.int(&(3..=64))?;
            c.cluster.active_view = u32::try_from(neighbours).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "cluster.seeds",
        doc: "Nodes of the cluster to join, as [\"10.0.0.1:18086\"], at most 64; this node's own address is\n\
              skipped. One that answers is enough. Members that are known stay members when they are not here.",
        get: |c| Value::List(c.cluster.seeds.clone()),
        set: |c, v| v.list(LIST_MAX, address).map(|list| c.cluster.seeds = list),
    },
    Key {
        path: "cluster.discovery",
        doc: "Where nodes to join come from: \"static\" (cluster.seeds) or \"dns\" (cluster.dns_names, too).",
        get: |c| Value::Text(word(DISCOVERIES, c.cluster.discovery)),
        set: |c, v| v.choice(DISCOVERIES).map(|discovery| c.cluster.discovery = discovery),
    },
    Key {
        path: "cluster.dns_names",
        doc: "Names that lead to nodes, at most 64: \"nodes.example.org:18086\" (all its A and AAAA records)\n\
              or \"_weald._tcp.example.org\" (its SRV records). An empty answer removes nobody.",
        get: |c| Value::List(c.cluster.dns_names.clone()),
        set: |c, v| v.list(LIST_MAX, dns_name).map(|list| c.cluster.dns_names = list),
    },
    Key {
        path: "cluster.poll_interval",
        doc: "How often nodes to join are looked for, from 1s to 1h.",
        get: |c| Value::Text(show_duration(c.cluster.poll_interval)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(3600)))
                .map(|d| c.cluster.poll_interval = d)
        },
    },
    Key {
        path: "cluster.lazy_tick_period",
        doc: "How often a broadcast announces what it did not send along its tree, from 10ms to 1m.",
        get: |c| Value::Text(show_duration(c.cluster.lazy_tick_period)),
        set: |c, v| {
            v.duration(&(Duration::from_millis(10)..=Duration::from_secs(60)))
                .map(|d| c.cluster.lazy_tick_period = d)
        },
    },
    Key {
        path: "cluster.exchange_tick_period",
        doc: "How often the broadcast asks for an exchange with a peer, from 100ms to 1d.",
        get: |c| Value::Text(show_duration(c.cluster.exchange_tick_period)),
        set: |c, v| {
            v.duration(&(Duration::from_millis(100)..=Duration::from_secs(86_400)))
                .map(|d| c.cluster.exchange_tick_period = d)
        },
    },
    Key {
        path: "cluster.max_absence",
        doc: "A member that was away for longer no longer holds back the removal of deleted keys, and has to\n\
              catch up with a complete exchange when it is back; from 1s to 52w.",
        get: |c| Value::Text(show_duration(c.cluster.max_absence)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(52 * 7 * 86_400)))
                .map(|d| c.cluster.max_absence = d)
        },
    },
    Key {
        path: "cluster.max_clients",
        doc: "Most clients connected at a time, from 1 to 100000; one more is refused with the reason.",
        get: |c| number(c.cluster.max_clients.into()),
        set: |c, v| {
            let clients = v.int(&(1..=100_000))?;
            c.cluster.max_clients = u32::try_from(clients).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "cluster.idle_timeout",
        doc: "A client that is silent, or does not read, for so long is cut; from 1s to 1h.",
        get: |c| Value::Text(show_duration(c.cluster.idle_timeout)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(3600)))
                .map(|d| c.cluster.idle_timeout = d)
        },
    },
    Key {
        path: "cluster.tls_certificate",
        doc: "PEM file of the certificate chain, the node's own first; empty: no TLS. A relative path here and\n\
              below is relative to the file it stands in. `weald cluster init` makes all three.",
        get: |c| path_value(c.cluster.tls_certificate.as_deref()),
        set: |c, v| v.text().map(|text| c.cluster.tls_certificate = path_of(text)),
    },
    Key {
        path: "cluster.tls_key",
        doc: "PEM file of the private key of cluster.tls_certificate.",
        get: |c| path_value(c.cluster.tls_key.as_deref()),
        set: |c, v| v.text().map(|text| c.cluster.tls_key = path_of(text)),
    },
    Key {
        path: "cluster.tls_ca",
        doc: "PEM file of the cluster's authority: only nodes with a certificate of it are let in.",
        get: |c| path_value(c.cluster.tls_ca.as_deref()),
        set: |c, v| v.text().map(|text| c.cluster.tls_ca = path_of(text)),
    },
    Key {
        path: "cluster.allow_plaintext",
        doc: "Serve addresses other than loopback without TLS. For networks that are secured otherwise.",
        get: |c| Value::Bool(c.cluster.allow_plaintext),
        set: |c, v| v.bool().map(|truth| c.cluster.allow_plaintext = truth),
    },
];
