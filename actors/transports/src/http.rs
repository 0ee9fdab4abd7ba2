//! The HTTP side of a listener: `WebSocket`s on one path, anything else to a service of the node.
//!
//! What it guarantees: one port serves both; a request has a bounded head and a bounded time to come; the socket of a
//! WebSocket is taken out of the HTTP machinery with all that came after the request.
//!
//! What it refuses: HTTP/2. Paths nobody has asked for are not found.

use crate::connection::{Connection, Parts, Settings};
use crate::framing::Framing;
use crate::handshake::{Accepted, Origin, Rejected};
use crate::info::{ConnectionInfo, HttpInfo, Kind};
use crate::socket::Stream;
use crate::websocket::{Opened, Origins, open, refuse};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weald_wamp::Subprotocol;

/// Bytes of a request's head, at least what hyper needs. // guess
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request. // guess: browsers send about 15
const HEADERS_MAX: usize = 64;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// An answer that is being made.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What answers requests that open no WebSocket.
pub trait Site: Send + Sync + 'static {
    /// Answers a request; `origin` tells who asks.
    fn answer(&self, request: Request<Incoming>, origin: &Origin) -> Answer;
}

/// A site without pages.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSite;

impl Site for NoSite {
    fn answer(&self, _request: Request<Incoming>, _origin: &Origin) -> Answer {
        Box::pin(std::future::ready(text(StatusCode::NOT_FOUND, "not found\n")))
    }
}

/// What a listener serves over HTTP.
#[derive(Clone)]
pub struct Web {
    /// The path of `WebSocket`s, such as `/ws`.
    pub path: String,
    /// Which web pages may open them.
    pub origins: Origins,
    /// Everything else.
    pub site: Arc<dyn Site>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web")
            .field("path", &self.path)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

/// An answer of plain text.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// What a request for a WebSocket has left for when its answer is sent.
struct Upgrade {
    on: OnUpgrade,
    subprotocol: Subprotocol,
    http: HttpInfo,
}

/// Serves HTTP until the connection ends, or becomes a WebSocket. `patience` is the time for each request's head.
///
/// # Errors
/// The connection has ended otherwise than by the rules.
pub async fn accept_web(
    accepted: Accepted,
    web: &Web,
    settings: &Settings,
    patience: Duration,
) -> Result<Option<Connection>, Rejected> {
    accept_web_after(accepted, web, settings, (), patience, None).await
}

/// As [`accept_web`], with an octet that was read before. `waiting` is dropped when a request is given to the site: the
/// connection is no handshake from then on.
pub(crate) async fn accept_web_after<W>(
    accepted: Accepted,
    web: &Web,
    settings: &Settings,
    waiting: W,
    patience: Duration,
    first: Option<u8>,
) -> Result<Option<Connection>, Rejected> {
    let Accepted { stream, origin, place, is_full } = accepted;
    let stream = Prefixed { first, stream };
    let upgrade = Mutex::new(None);
    let waiting = Mutex::new(Some(waiting));
    let serve = service_fn(|request: Request<Incoming>| {
        let answer = if is_full {
            Err(text(StatusCode::SERVICE_UNAVAILABLE, "too many connections\n"))
        } else if request.uri().path() == web.path {
            Err(open_websocket(request, web, &upgrade))
        } else {
            drop(take(&waiting));
            Ok(web.site.answer(request, &origin))
        };
        async move {
            Ok::<_, Infallible>(match answer {
                Ok(answer) => answer.await,
                Err(response) => response,
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), serve)
        .with_upgrades();
    connection.await?;
    let Some(Upgrade { on, subprotocol, http }) = take(&upgrade) else { return Ok(None) };
    let (stream, leftover) = take_out(on.await?)?;
    let Origin { peer, local, proxy, tls } = origin;
    let parts = Parts {
        stream,
        leftover: BytesMut::from(&leftover[..]),
        info: ConnectionInfo {
            serializer: subprotocol.serializer,
            batched: subprotocol.batched,
            kind: Kind::WebSocket,
            peer,
            local,
            proxy,
            tls,
            http: Some(Box::new(http)),
        },
        framing: Framing::of(subprotocol),
        peer_bytes_max: usize::MAX,
        place,
    };
    Ok(Some(Connection::new(parts, settings)))
}

fn open_websocket(
    mut request: Request<Incoming>,
    web: &Web,
    slot: &Mutex<Option<Upgrade>>,
) -> Response<Body> {
    let response = match open(&request, &web.origins) {
        Ok(Opened { subprotocol, http, response }) => {
            let on = hyper::upgrade::on(&mut request);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Upgrade { on, subprotocol, http });
            response
        }
        Err(why) => {
            tracing::debug!(event = "websocket_refused", reason = %why, "request for a WebSocket refused");
            refuse(why)
        }
    };
    let (head, body) = response.into_parts();
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    Response::from_parts(head, body.boxed_unsync())
}

/// The socket behind an upgraded connection, and what came after the request.
fn take_out(upgraded: Upgraded) -> Result<(Stream, Bytes), Rejected> {
    let parts = upgraded.downcast::<TokioIo<Prefixed>>().map_err(|_upgraded| Rejected::Upgrade)?;
    Ok((parts.io.into_inner().stream, parts.read_buf))
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A socket of which an octet was read before.
#[derive(Debug)]
struct Prefixed {
    first: Option<u8>,
    stream: Stream,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, chunks)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
