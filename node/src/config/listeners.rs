//! Addresses of the services for people and WAMP clients.
//!
//! Nothing listens on the admin address yet: the key is there so that a configuration written now stays valid, and so that
//! the ports of a node can be planned in one place.

use super::keys::Key;
use super::value::Value;
use std::net::SocketAddr;

/// Section `listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listeners {
    /// HTTP and WebSocket.
    pub(crate) http: SocketAddr,
    /// Admin API.
    pub(crate) admin: SocketAddr,
    /// WAMP RawSocket.
    pub(crate) rawsocket: SocketAddr,
    /// Web pages that may open a `WebSocket`.
    pub(crate) origins: Vec<String>,
}

impl Default for Listeners {
    fn default() -> Self {
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            http: loopback(18080),
            admin: loopback(18081),
            rawsocket: loopback(18082),
            origins: Vec::new(),
        }
    }
}

/// Web pages that can be listed.
const ORIGINS_MAX: usize = 1024;

fn origin(text: &str) -> Result<(), String> {
    weald_transports::Origins::new(&[text.to_owned()]).map(drop).map_err(|e| e.to_string())
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "listeners.http",
        doc: "HTTP and WebSocket (/ws). Port 0 takes a free one.",
        get: |c| Value::Text(c.listeners.http.to_string()),
        set: |c, v| v.addr().map(|addr| c.listeners.http = addr),
    },
    Key {
        path: "listeners.admin",
        doc: "Admin API and metrics. Reserved: this release does not listen on it.",
        get: |c| Value::Text(c.listeners.admin.to_string()),
        set: |c, v| v.addr().map(|addr| c.listeners.admin = addr),
    },
    Key {
        path: "listeners.rawsocket",
        doc: "WAMP RawSocket. Port 0 takes a free one.",
        get: |c| Value::Text(c.listeners.rawsocket.to_string()),
        set: |c, v| v.addr().map(|addr| c.listeners.rawsocket = addr),
    },
    Key {
        path: "listeners.origins",
        doc: "Web pages that may open a WebSocket, as [\"https://example.com\"], at most 1024; \"*\" is all.\n\
              Programs that are no browsers name no page, and need not be listed.",
        get: |c| Value::List(c.listeners.origins.clone()),
        set: |c, v| v.list(ORIGINS_MAX, origin).map(|origins| c.listeners.origins = origins),
    },
];
