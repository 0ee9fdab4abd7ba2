//! The PROXY protocol, version 1 and 2: who a client behind a proxy is.
//!
//! What it guarantees: it is believed from configured addresses only, and asked of them on every connection; it reads no
//! byte beyond the header.
//!
//! What it refuses: headers longer than `HEADER_BYTES_MAX`, and those of datagrams. From any other address a header is not
//! read, so that the protocol that is spoken there refuses it.

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use std::net::SocketAddr;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The longest header taken: of version 1 there is none longer than 107, version 2 may carry extensions. // guess
const HEADER_BYTES_MAX: usize = 2 * 1024;
/// Octets of version 2 up to and including the length of the rest.
const FIXED_BYTES: usize = 16;
/// The longest header of version 1.
const LINE_BYTES_MAX: usize = 107;

/// Why a header is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no header.
    #[error("no header of the PROXY protocol")]
    Malformed,
    /// It is too long.
    #[error("header of the PROXY protocol is too long")]
    TooLong,
    /// It is about something that is not a stream.
    #[error("header of the PROXY protocol is about a datagram")]
    Datagram,
}

/// Whether an address is a proxy's.
pub(crate) fn is_proxy(proxies: &[IpNet], peer: SocketAddr) -> bool {
    // A socket for both families shows IPv4 in the clothes of IPv6.
    let address = peer.ip().to_canonical();
    proxies.iter().any(|network| network.contains(&address))
}

/// Reads the header; client and destination as the proxy sees them, or none for a connection of its own.
pub(crate) async fn read(
    stream: &mut TcpStream,
) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyError> {
    let mut header = vec![0; FIXED_BYTES];
    // Nothing shorter exists in either version but `PROXY UNKNOWN`, which is a line of 15 octets.
    stream.read_exact(&mut header[..15]).await?;
    if header.starts_with(b"PROXY ") {
        header.truncate(15);
        while !header.ends_with(b"\r\n") {
            if header.len() >= LINE_BYTES_MAX {
                return Err(ProxyError::TooLong);
            }
            // One at a time: what follows the line is the client's.
            header.push(stream.read_u8().await?);
        }
    } else {
        header[15] = stream.read_u8().await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if !header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            return Err(ProxyError::Malformed);
        }
        if FIXED_BYTES + length > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong);
        }
        header.resize(FIXED_BYTES + length, 0);
        stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    }
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyError> {
    let (parsed, length) =
        ProxyHeader::parse(header, ParseConfig::default()).map_err(|_why| ProxyError::Malformed)?;
    if length != header.len() {
        return Err(ProxyError::Malformed);
    }
    match parsed.proxied_address() {
        None => Ok(None),
        Some(ProxiedAddress { protocol: Protocol::Datagram, .. }) => Err(ProxyError::Datagram),
        Some(ProxiedAddress { source, destination, .. }) => Ok(Some((*source, *destination))),
    }
}
