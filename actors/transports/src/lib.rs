//! Sockets to WAMP clients: RawSocket and WebSocket over TCP, TLS and Unix sockets.
//!
//! What it is: everything between an accepted socket and whole messages: handshakes, framing, liveness, and the queues of
//! what is sent. A session owns a [`Connection`] and reads from it; anybody who has its [`Outbox`] can send to it.
//!
//! What it guarantees: no connection delays another: sending never blocks, and a client that does not read loses messages or
//! its connection, by policy. A message is framed once for any number of receivers. No input takes anything down but its
//! own connection, and none makes this reserve more than a small multiple of what has come.
//!
//! What it refuses: to know what is in a message. `permessage-deflate` is not offered: compression per receiver would undo
//! framing once, and its memory per connection is many times that of all else.

mod bind;
mod connection;
mod flushes;
mod framing;
mod handshake;
mod http;
mod info;
mod input;
mod limit;
mod listener;
mod outbox;
mod proxy;
pub mod raw;
mod socket;
mod tls;
mod websocket;

pub use bind::BindError;
pub use connection::{Close, CloseReason, Connection, Read, Settings};
pub use flushes::Flushes;
pub use framing::{Framing, RAW_BYTES_MAX};
pub use handshake::{Accepted, Origin, Rejected, accept_raw};
pub use http::{Answer, Body, NoSite, Site, Web, accept_web, text};
pub use info::{Address, ConnectionInfo, HttpInfo, Kind, TlsInfo};
pub use limit::{Place, Places};
pub use listener::{Bind, Endpoint, Listener, Protocols, Serve, Stopped};
pub use outbox::{Class, Config as EgressConfig, Counts, Egress, Kick, Outbox, Policy, Pushed};
pub use proxy::ProxyError;
pub use socket::Stream;
pub use tls::{Tls, TlsError, TlsFiles, TlsVersion};
pub use websocket::{OriginError, Origins, Refusal, Violation};
