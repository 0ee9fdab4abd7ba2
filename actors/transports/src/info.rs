//! What is known of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use weald_wamp::Serializer;

/// Which transport it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RawSocket.
    RawSocket,
    /// WebSocket.
    WebSocket,
}

impl Kind {
    /// The name used in logs and in a session's details.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RawSocket => "rawsocket",
            Self::WebSocket => "websocket",
        }
    }
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix socket; clients mostly have no path.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// How messages are encoded.
    pub serializer: Serializer,
    /// Whether messages come in batches.
    pub batched: bool,
    /// Which transport it is.
    pub kind: Kind,
    /// The client, as far as known: behind a proxy, what the proxy says.
    pub peer: Address,
    /// Where the client has connected to: behind a proxy, what the proxy says.
    pub local: Address,
    /// The proxy in between.
    pub proxy: Option<SocketAddr>,
    /// TLS, if it is that.
    pub tls: Option<TlsInfo>,
    /// The request that opened a WebSocket.
    pub http: Option<Box<HttpInfo>>,
}

/// What is known of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The version, such as `TLSv1.3`.
    pub version: String,
    /// The name the client asked for.
    pub server_name: Option<String>,
    /// Keying material for channel binding (RFC 9266, `tls-exporter`); TLS 1.3 only.
    pub exporter: Option<[u8; 32]>,
}

/// What is known of the request that opened a WebSocket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpInfo {
    /// Path and query.
    pub target: String,
    /// The Origin header.
    pub origin: Option<String>,
    /// The Cookie headers, joined.
    pub cookies: Option<String>,
    /// The User-Agent header.
    pub user_agent: Option<String>,
}
