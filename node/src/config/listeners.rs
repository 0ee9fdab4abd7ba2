//! Addresses of the services for people and WAMP clients, and how they are secured.
//!
//! Nothing listens on the admin address yet: the key is there so that a configuration written now stays valid, and so that
//! the ports of a node can be planned in one place.

use super::keys::{Key, path_of, path_value, word};
use super::value::Value;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use weald_transports::TlsVersion;

/// Section `listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listeners {
    /// HTTP and WebSocket.
    pub(crate) http: Option<SocketAddr>,
    /// The same over TLS.
    pub(crate) https: Option<SocketAddr>,
    /// WAMP RawSocket.
    pub(crate) rawsocket: Option<SocketAddr>,
    /// The same over TLS.
    pub(crate) rawsocket_tls: Option<SocketAddr>,
    /// RawSocket, HTTP and WebSocket on a Unix socket.
    pub(crate) unix: Option<PathBuf>,
    /// Admin API.
    pub(crate) admin: SocketAddr,
    /// The path at which a `WebSocket` is opened.
    pub(crate) websocket_path: String,
    /// Web pages that may open a `WebSocket`.
    pub(crate) origins: Vec<String>,
    /// Proxies that tell who their clients are.
    pub(crate) proxies: Vec<IpNet>,
    /// Certificate chain, PEM.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key, PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// Authorities whose clients are let in, PEM.
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// The oldest version of TLS.
    pub(crate) tls_version_min: TlsVersion,
}

impl Default for Listeners {
    fn default() -> Self {
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            http: Some(loopback(18080)),
            https: None,
            rawsocket: Some(loopback(18082)),
            rawsocket_tls: None,
            unix: None,
            admin: loopback(18081),
            websocket_path: "/ws".to_owned(),
            origins: Vec::new(),
            proxies: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            tls_version_min: TlsVersion::V1_2,
        }
    }
}

/// Web pages that can be listed.
const ORIGINS_MAX: usize = 1024;
/// Networks of proxies that can be listed.
const PROXIES_MAX: usize = 256;
/// Bytes of the path of a Unix socket; the system takes 107.
pub(crate) const UNIX_BYTES_MAX: usize = 107;

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];

fn origin(text: &str) -> Result<(), String> {
    weald_transports::Origins::new(&[text.to_owned()]).map(drop).map_err(|e| e.to_string())
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or_else(|| {
        format!("{text:?} is neither an IP address nor a network, as \"10.0.0.0/8\"")
    })
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    texts.iter().map(|text| network(text)).collect()
}

fn websocket_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/')
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%'));
    if !is_path {
        return Err(format!("{text:?} is not the path of a URL, as \"/ws\""));
    }
    Ok(text.to_owned())
}

fn unix_path(text: &str) -> Result<Option<PathBuf>, String> {
    if text.len() > UNIX_BYTES_MAX {
        return Err(format!("{text:?} is longer than {UNIX_BYTES_MAX} bytes"));
    }
    Ok(path_of(text))
}

impl Listeners {
    /// Whether there is a port with TLS.
    pub(super) fn has_tls_port(&self) -> bool {
        self.https.is_some() || self.rawsocket_tls.is_some()
    }

    /// The TCP ports of WAMP clients: name of the key, address, if there is one.
    pub(crate) fn ports(&self) -> [(&'static str, Option<SocketAddr>); 4] {
        [
            ("http", self.http),
            ("https", self.https),
            ("rawsocket", self.rawsocket),
            ("rawsocket_tls", self.rawsocket_tls),
        ]
    }

    /// Whether the port of that key speaks TLS.
    pub(crate) fn is_tls(&self, name: &str) -> bool {
        matches!(name, "https" | "rawsocket_tls")
    }

    /// The path of the Unix socket, where relative paths begin in `data_dir`.
    pub(crate) fn unix_in(&self, data_dir: &Path) -> Option<PathBuf> {
        self.unix.as_ref().map(|path| data_dir.join(path))
    }
}

fn shown(address: Option<SocketAddr>) -> Value {
    Value::Text(address.map_or_else(String::new, |address| address.to_string()))
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "listeners.http",
        doc: "HTTP and WebSocket: an address with a port, \"127.0.0.1:18080\" or \"[::1]:18080\". Port 0 takes a\n\
              free one, which `weald status` shows; empty: no such port.",
        get: |c| shown(c.listeners.http),
        set: |c, v| v.addr_or_none().map(|addr| c.listeners.http = addr),
    },
    Key {
        path: "listeners.https",
        doc: "HTTP and WebSocket over TLS; needs listeners.tls_certificate. Empty: no such port.",
        get: |c| shown(c.listeners.https),
        set: |c, v| v.addr_or_none().map(|addr| c.listeners.https = addr),
    },
    Key {
        path: "listeners.rawsocket",
        doc: "WAMP RawSocket, as listeners.http.",
        get: |c| shown(c.listeners.rawsocket),
        set: |c, v| v.addr_or_none().map(|addr| c.listeners.rawsocket = addr),
    },
    Key {
        path: "listeners.rawsocket_tls",
        doc: "WAMP RawSocket over TLS; needs listeners.tls_certificate. Empty: no such port.",
        get: |c| shown(c.listeners.rawsocket_tls),
        set: |c, v| v.addr_or_none().map(|addr| c.listeners.rawsocket_tls = addr),
    },
    Key {
        path: "listeners.unix",
        doc: "Path of a Unix socket for RawSocket, HTTP and WebSocket, at most 107 bytes; a relative one is in\n\
              node.data_dir. Whoever may write to it, by umask and directory, may connect. Empty: none.",
        get: |c| path_value(c.listeners.unix.as_deref()),
        set: |c, v| unix_path(v.text()?).map(|path| c.listeners.unix = path),
    },
    Key {
        path: "listeners.admin",
        doc: "Admin API and metrics. Reserved: this release does not listen on it.",
        get: |c| Value::Text(c.listeners.admin.to_string()),
        set: |c, v| v.addr().map(|addr| c.listeners.admin = addr),
    },
    Key {
        path: "listeners.websocket_path",
        doc: "Path at which a WebSocket is opened.",
        get: |c| Value::Text(c.listeners.websocket_path.clone()),
        set: |c, v| websocket_path(v.text()?).map(|path| c.listeners.websocket_path = path),
    },
    Key {
        path: "listeners.origins",
        doc: "Web pages that may open a WebSocket, as [\"https://example.com\"], at most 1024; \"*\" is all.\n\
              Programs that are no browsers name no page, and need not be listed.",
        get: |c| Value::List(c.listeners.origins.clone()),
        set: |c, v| v.list(ORIGINS_MAX, origin).map(|origins| c.listeners.origins = origins),
    },
    Key {
        path: "listeners.proxies",
        doc: "Proxies that speak the PROXY protocol, version 1 or 2: addresses or networks, as [\"10.0.0.0/8\"],\n\
              at most 256. They must speak it on every TCP port of this section; nobody else is believed.",
        get: |c| Value::List(c.listeners.proxies.iter().map(ToString::to_string).collect()),
        set: |c, v| {
            let texts = v.list(PROXIES_MAX, |text| network(text).map(drop))?;
            networks(&texts).map(|proxies| c.listeners.proxies = proxies)
        },
    },
    Key {
        path: "listeners.tls_certificate",
        doc: "PEM file of the certificate chain for clients, the server's own first. A relative path here and\n\
              below is relative to the file it stands in. Changed files are used by new connections.",
        get: |c| path_value(c.listeners.tls_certificate.as_deref()),
        set: |c, v| v.text().map(|text| c.listeners.tls_certificate = path_of(text)),
    },
    Key {
        path: "listeners.tls_key",
        doc: "PEM file of the private key of listeners.tls_certificate.",
        get: |c| path_value(c.listeners.tls_key.as_deref()),
        set: |c, v| v.text().map(|text| c.listeners.tls_key = path_of(text)),
    },
    Key {
        path: "listeners.tls_client_ca",
        doc: "PEM file of authorities: only clients with a certificate of one of them may connect to the ports\n\
              with TLS. Empty: clients need no certificate.",
        get: |c| path_value(c.listeners.tls_client_ca.as_deref()),
        set: |c, v| v.text().map(|text| c.listeners.tls_client_ca = path_of(text)),
    },
    Key {
        path: "listeners.tls_version_min",
        doc: "The oldest version of TLS that clients may speak: \"1.2\" or \"1.3\".",
        get: |c| Value::Text(word(VERSIONS, c.listeners.tls_version_min)),
        set: |c, v| v.choice(VERSIONS).map(|version| c.listeners.tls_version_min = version),
    },
];
