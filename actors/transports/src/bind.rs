//! Opening ports.
//!
//! What it guarantees: the address given out is the one that clients connect to; a Unix socket that a dead process has left
//! behind is replaced, and one's own is removed with the port.
//!
//! What it refuses: to take a path from a process that listens on it, or one that holds anything but a socket.

use crate::handshake::Origin;
use crate::info::Address;
use crate::listener::Bind;
use crate::socket::Stream;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Clients that may wait to be accepted. // guess: the kernel's own bound is 4,096
const BACKLOG: u32 = 4_096;

/// Why a port cannot be opened.
#[derive(Debug, Error)]
#[error("listen on {address}")]
pub struct BindError {
    /// Where.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, Owned),
}

/// A path that this process has made.
#[derive(Debug)]
pub(crate) struct Owned {
    path: PathBuf,
    inode: u64,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Another may have taken the path meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            // Gone already is as good.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Opens a port, and tells its address.
pub(crate) fn bind(place: &Bind) -> Result<(Socket, Address), BindError> {
    match place {
        Bind::Ip(address) => {
            let failed = |source| BindError { address: Address::Ip(*address), source };
            let listener = bind_tcp(*address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            Ok((Socket::Tcp(listener), Address::Ip(bound)))
        }
        Bind::Unix(path) => {
            let address = Address::Unix(Some(path.clone()));
            match bind_unix(path) {
                Ok(socket) => Ok((socket, address)),
                Err(source) => Err(BindError { address, source }),
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let inode = std::fs::symlink_metadata(path)?.ino();
    Ok(Socket::Unix(listener, Owned { path: path.to_owned(), inode }))
}

/// Whether nobody listens there.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let connected = std::os::unix::net::UnixStream::connect(path);
    is_socket && connected.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

impl Socket {
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Origin)> {
        let (stream, peer, local) = match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let local = stream.local_addr()?;
                (Stream::Tcp(stream), Address::Ip(peer), Address::Ip(local))
            }
            Self::Unix(listener, owned) => {
                let (stream, peer) = listener.accept().await?;
                let path = peer.as_pathname().map(Path::to_owned);
                (Stream::Unix(stream), Address::Unix(path), Address::Unix(Some(owned.path.clone())))
            }
        };
        Ok((stream, Origin { peer, local, proxy: None, tls: None }))
    }
}
