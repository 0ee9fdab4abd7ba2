//! Configuration of the cluster port.

use super::keys::{Key, number};
use super::value::{Value, show_duration};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Section `cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Where nodes and Rust clients connect.
    pub(crate) listen: SocketAddr,
    /// Name of the cluster; empty for none.
    pub(crate) name: String,
    /// Most clients connected at a time.
    pub(crate) max_clients: u32,
    /// A client that is silent for so long is cut.
    pub(crate) idle_timeout: Duration,
    /// Certificate chain, PEM.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key, PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve beyond loopback without TLS.
    pub(crate) allow_plaintext: bool,
}

fn path_value(path: Option<&Path>) -> Value {
    Value::Text(path.map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
}

fn path_of(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 18086)),
            name: String::new(),
            max_clients: 1024,
            idle_timeout: Duration::from_secs(20),
            tls_certificate: None,
            tls_key: None,
            allow_plaintext: false,
        }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "cluster.listen",
        doc: "Address for Rust clients and, later, for other nodes; port 0 takes a free one, which\n\
              `weald status` shows.",
        get: |c| Value::Text(c.cluster.listen.to_string()),
        set: |c, v| v.addr().map(|addr| c.cluster.listen = addr),
    },
    Key {
        path: "cluster.name",
        doc: "Name of the cluster. A client that asks for a cluster of another name is refused; empty: none.",
        get: |c| Value::Text(c.cluster.name.clone()),
        set: |c, v| v.text().map(|name| name.clone_into(&mut c.cluster.name)),
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
        doc: "PEM file of the certificate chain, the node's own first; empty: no TLS.",
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
        path: "cluster.allow_plaintext",
        doc: "Serve addresses other than loopback without TLS. For networks that are secured otherwise.",
        get: |c| Value::Bool(c.cluster.allow_plaintext),
        set: |c, v| v.bool().map(|truth| c.cluster.allow_plaintext = truth),
    },
];
