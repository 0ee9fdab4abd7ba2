//! From an accepted socket to a connection: the RawSocket handshake.
//!
//! What it guarantees: it reads no byte beyond the handshake; every refusal the protocol has an answer for is answered.
//!
//! What it refuses: to wait without end is the caller's to refuse: none of this has a deadline of its own.

use crate::connection::{Connection, Parts, Settings};
use crate::framing::{Framing, RAW_BYTES_MAX};
use crate::info::{Address, ConnectionInfo, Kind, TlsInfo};
use crate::limit::Place;
use crate::proxy::ProxyError;
use crate::raw::{self, HANDSHAKE_BYTES, HandshakeError};
use crate::socket::Stream;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Why a socket came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The socket failed, or was closed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The RawSocket handshake failed.
    #[error(transparent)]
    Raw(#[from] HandshakeError),
    /// HTTP failed.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The word of a proxy is not understood.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// It took too long.
    #[error("handshake timed out")]
    Timeout,
    /// HTTP did not give the socket back.
    #[error("the socket of a WebSocket is not what was accepted")]
    Upgrade,
}

/// Where a socket comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The client.
    pub peer: Address,
    /// Where it has connected to.
    pub local: Address,
    /// The proxy in between.
    pub proxy: Option<SocketAddr>,
    /// TLS, if it is that.
    pub tls: Option<TlsInfo>,
}

/// An accepted socket before the handshake of its protocol.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// Where it comes from.
    pub origin: Origin,
    /// Its place among the connections of the listener.
    pub place: Option<Place>,
    /// There is no place: it is to be told so.
    pub is_full: bool,
}

/// Takes a RawSocket client in.
///
/// # Errors
/// The client is told, if there is an answer; the socket is gone.
pub async fn accept_raw(accepted: Accepted, settings: &Settings) -> Result<Connection, Rejected> {
    accept_raw_after(accepted, settings, &[]).await
}

/// As [`accept_raw`], with octets of the handshake that were read before.
pub(crate) async fn accept_raw_after(
    mut accepted: Accepted,
    settings: &Settings,
    before: &[u8],
) -> Result<Connection, Rejected> {
    let mut octets = [0; HANDSHAKE_BYTES];
    let count = before.len().min(HANDSHAKE_BYTES);
    octets[..count].copy_from_slice(&before[..count]);
    accepted.stream.read_exact(&mut octets[count..]).await?;
    let request = raw::request(octets).and_then(|request| {
        if accepted.is_full { Err(HandshakeError::ConnectionsMax) } else { Ok(request) }
    });
    let request = match request {
        Ok(request) => request,
        Err(why) => {
            if let Some(reply) = why.reply() {
                accepted.stream.write_all(&reply).await?;
                accepted.stream.shutdown().await?;
            }
            return Err(why.into());
        }
    };
    let reply = raw::accept(request.serializer, settings.message_bytes_max);
    accepted.stream.write_all(&reply).await?;
    accepted.stream.flush().await?;
    let Origin { peer, local, proxy, tls } = accepted.origin;
    let parts = Parts {
        stream: accepted.stream,
        leftover: BytesMut::new(),
        info: ConnectionInfo {
            serializer: request.serializer,
            batched: false,
            kind: Kind::RawSocket,
            peer,
            local,
            proxy,
            tls,
            http: None,
        },
        framing: Framing::RawSocket,
        peer_bytes_max: request.message_bytes_max.min(RAW_BYTES_MAX),
        place: accepted.place,
    };
    Ok(Connection::new(parts, settings))
}
