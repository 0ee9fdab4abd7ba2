//! Addresses of the services for people and WAMP clients.
//!
//! Nothing listens on them yet: the keys are there so that a configuration written now stays valid, and so that the ports of
//! a node can be planned in one place.

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
}

impl Default for Listeners {
    fn default() -> Self {
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self { http: loopback(18080), admin: loopback(18081), rawsocket: loopback(18082) }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "listeners.http",
        doc: "HTTP and WebSocket (/ws). Reserved: this release does not listen on it.",
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
        doc: "WAMP RawSocket. Reserved: this release does not listen on it.",
        get: |c| Value::Text(c.listeners.rawsocket.to_string()),
        set: |c, v| v.addr().map(|addr| c.listeners.rawsocket = addr),
    },
];
