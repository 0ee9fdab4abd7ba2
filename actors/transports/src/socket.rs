//! Sockets of every kind behind one type.
//!
//! What it guarantees: of TCP and Unix sockets the writing half may be used from any task without waiting; of TLS only the
//! connection's own task writes.
//!
//! What it refuses: to hide errors or to retry.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::server::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The reading half, and for TLS all of it.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The writing half; for TLS there is none.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
    Owners,
}

impl Stream {
    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Self::Tls(stream) => (ReadHalf::Tls(stream), WriteHalf::Owners),
        }
    }
}

impl WriteHalf {
    /// Whether only the connection's own task can write.
    pub(crate) fn is_owners(&self) -> bool {
        matches!(self, Self::Owners)
    }

    pub(crate) fn try_write(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, chunks) {
            // The kernel has less to look at than with a list of one.
            (Self::Tcp(half), [only]) => half.try_write(only),
            (Self::Unix(half), [only]) => half.try_write(only),
            (Self::Tcp(half), chunks) => half.try_write_vectored(chunks),
            (Self::Unix(half), chunks) => half.try_write_vectored(chunks),
            (Self::Owners, _) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl ReadHalf {
    /// Waits until the socket may take bytes; TLS finds out by writing.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.as_ref().poll_write_ready(cx),
            Self::Unix(half) => half.as_ref().poll_write_ready(cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// The stream to write to, where the writing half cannot.
    pub(crate) fn tls(&mut self) -> Option<Pin<&mut TlsStream<TcpStream>>> {
        match self {
            Self::Tls(stream) => Some(Pin::new(&mut **stream)),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Says that nothing more will be sent. Of TLS it has to be repeated until it is ready.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let how = std::net::Shutdown::Write;
        match self {
            Self::Tcp(half) => Poll::Ready(socket2::SockRef::from(half.as_ref()).shutdown(how)),
            Self::Unix(half) => Poll::Ready(socket2::SockRef::from(half.as_ref()).shutdown(how)),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, chunks),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, chunks),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, chunks),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
