//! Sockets of a peer, with deadlines.

use super::tls::Trust;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

/// Time to connect, and for the system to take what is written.
const IO_WITHIN: Duration = Duration::from_secs(20);

/// Where a router listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// On TCP.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
    /// On TCP with TLS.
    Tls(SocketAddr, Trust),
    /// On TCP, where these octets are said before anything else.
    Behind(SocketAddr, Vec<u8>),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// On TCP.
    Tcp(TcpStream),
    /// On a Unix socket.
    Unix(UnixStream),
    /// On TCP with TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

fn tcp(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, IO_WITHIN)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(IO_WITHIN))?;
    Ok(stream)
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// Those of the system.
    pub fn connect(at: &At) -> io::Result<Self> {
        let stream = match at {
            At::Tcp(address) => Self::Tcp(tcp(address)?),
            At::Behind(address, first) => {
                let mut stream = tcp(address)?;
                stream.write_all(first)?;
                Self::Tcp(stream)
            }
            At::Tls(address, trust) => {
                let stream = tcp(address)?;
                stream.set_read_timeout(Some(IO_WITHIN))?;
                let mut stream = StreamOwned::new(trust.connection()?, stream);
                // The handshake, so that a refusal shows here as far as the client is told.
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Self::Tls(Box::new(stream))
            }
            At::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(IO_WITHIN))?;
                Self::Unix(stream)
            }
        };
        Ok(stream)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(octets),
            Self::Unix(stream) => stream.write_all(octets),
            Self::Tls(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
        }
    }

    /// Reads what there is, until `end`; `None` when the time is over, 0 at the end of the stream.
    ///
    /// # Errors
    /// Those of the system; a reset connection is an end.
    pub fn read(&mut self, buffer: &mut [u8], end: Instant) -> io::Result<Option<usize>> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let read = match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.read(buffer)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.read(buffer)
            }
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(Some(left))?;
                stream.read(buffer)
            }
        };
        match read {
            Ok(len) => Ok(Some(len)),
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(None),
                io::ErrorKind::Interrupted => Ok(None),
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => Ok(Some(0)),
                _ => Err(e),
            },
        }
    }

    /// The own address, on TCP.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Tls(stream) => stream.sock.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}
