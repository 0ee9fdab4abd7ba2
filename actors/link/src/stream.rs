//! The stream that `ractor_cluster` is given: the filter around a socket, with its bounds and its deadlines.
//!
//! A connection that must end is ended here, by reporting the end of the stream to `ractor_cluster`: whatever it does then,
//! no further byte of the peer reaches it, and its writer is released even when the peer does not read.

use crate::filter::{Inbound, Outbound as OutboundFilter, Side, Step, Violation};
use crate::outbound::Outbound;
use crate::{Close, Limits};
use futures::task::AtomicWaker;
use ractor_cluster::ClusterBidiStream;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, BufWriter, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The reading half of a connection.
pub type BoxRead = Box<dyn AsyncRead + Unpin + Send + 'static>;
/// The writing half of a connection.
pub type BoxWrite = Box<dyn AsyncWrite + Unpin + Send + 'static>;

/// Bytes read from the socket at once.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Bytes gathered before they are written to the socket.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Both halves of a connected stream, the reading one buffered, so that a handshake never reads too far.
pub struct Halves {
    /// The reading half.
    pub read: BufReader<BoxRead>,
    /// The writing half.
    pub write: BoxWrite,
}

impl std::fmt::Debug for Halves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Halves").finish_non_exhaustive()
    }
}

impl Halves {
    /// Of a TCP connection.
    #[must_use]
    pub fn tcp(stream: tokio::net::TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self::new(Box::new(read), Box::new(write))
    }

    /// Of two halves.
    #[must_use]
    pub fn new(read: BoxRead, write: BoxWrite) -> Self {
        Self { read: BufReader::with_capacity(READ_BUFFER_BYTES, read), write }
    }
}

/// What the stream, the link actor and the connection actor share.
#[derive(Debug)]
pub(crate) struct Shared {
    close: OnceLock<Close>,
    inbound_bytes: AtomicUsize,
    reader: AtomicWaker,
    writer: AtomicWaker,
    outbound: Arc<Outbound>,
    limits: Limits,
}

impl Shared {
    pub(crate) fn new(outbound: Arc<Outbound>, limits: Limits) -> Self {
        Self {
            close: OnceLock::new(),
            inbound_bytes: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            outbound,
            limits,
        }
    }

    /// Ends the connection; the first reason stays.
    pub(crate) fn close(&self, why: Close) {
        if self.close.set(why).is_ok() {
            self.outbound.close();
            self.reader.wake();
            self.writer.wake();
        }
    }

    /// Why it ended, if it has.
    pub(crate) fn closed(&self) -> Option<&Close> {
        self.close.get()
    }

    /// The link actor has taken a batch.
    pub(crate) fn taken(&self, bytes: usize) {
        self.inbound_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.reader.wake();
    }

    fn is_full(&self) -> bool {
        self.inbound_bytes.load(Ordering::Acquire) >= self.limits.inbound_bytes_max
    }
}

/// The stream for `ractor_cluster`.
pub(crate) struct Filtered {
    halves: Halves,
    shared: Arc<Shared>,
    side: Side,
    link: u64,
    label: String,
}

impl Filtered {
    pub(crate) fn new(
        halves: Halves,
        shared: Arc<Shared>,
        side: Side,
        link: u64,
        label: String,
    ) -> Self {
        Self { halves, shared, side, link, label }
    }

    /// Both halves, filtered, with the peer's label.
    pub(crate) fn into_parts(self: Box<Self>) -> (BoxRead, BoxWrite, String) {
        let label = self.label.clone();
        let (read, write) = self.split();
        (read, write, label)
    }
}

impl ClusterBidiStream for Filtered {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let idle = self.shared.limits.idle_timeout;
        let read = FilterRead {
            inner: self.halves.read,
            filter: Inbound::new(self.side, self.link),
            state: ReadState::Head,
            started: Instant::now(),
            heard: Instant::now(),
            timer: Box::pin(tokio::time::sleep(idle)),
            shared: Arc::clone(&self.shared),
        };
        let write = FilterWrite {
            inner: BufWriter::with_capacity(WRITE_BUFFER_BYTES, self.halves.write),
            filter: OutboundFilter::new(self.link),
            state: WriteState::Head,
            pending: Vec::new(),
            pending_at: 0,
            stall: None,
            shared: self.shared,
        };
        (Box::new(read), Box::new(write))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

enum ReadState {
    /// Gathering the head of a frame.
    Head,
    /// Handing out what was gathered, from `at` on; then the next `left` bytes.
    Release { bytes: Vec<u8>, at: usize, left: usize },
    /// Handing out the next bytes as they come.
    Pass { left: usize },
}

struct FilterRead {
    inner: BufReader<BoxRead>,
    filter: Inbound,
    state: ReadState,
    started: Instant,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
    shared: Arc<Shared>,
}

impl FilterRead {
    /// The end of the stream as `ractor_cluster` sees it.
    fn end(&self, why: Close) -> Poll<io::Result<()>> {
        self.shared.close(why);
        Poll::Ready(Ok(()))
    }
}

/// Whether `until` has passed; arms the timer if not.
fn is_past(mut timer: Pin<&mut Sleep>, until: Instant, cx: &mut Context<'_>) -> bool {
    while timer.as_mut().poll(cx).is_ready() {
        if until <= Instant::now() {
            return true;
        }
        timer.as_mut().reset(until);
    }
    false
}

impl AsyncRead for FilterRead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.shared.reader.register(cx.waker());
            if this.shared.closed().is_some() {
                return Poll::Ready(Ok(()));
            }
            if let ReadState::Release { bytes, at, left } = &mut this.state {
                let rest = bytes.get(*at..).unwrap_or_default();
                let part = rest.get(..buf.remaining()).unwrap_or(rest);
                buf.put_slice(part);
                *at += part.len();
                if *at == bytes.len() {
                    let left = *left;
                    this.state = if left == 0 { ReadState::Head } else { ReadState::Pass { left } };
                }
                return Poll::Ready(Ok(()));
            }
            // While the receiver is behind, the socket is not read, and the peer's silence means nothing.
            if matches!(this.state, ReadState::Head)
                && this.filter.at_boundary()
                && this.shared.is_full()
            {
                this.heard = Instant::now();
                return Poll::Pending;
            }
            let until = this.heard + this.shared.limits.idle_timeout;
            let data = match Pin::new(&mut this.inner).poll_fill_buf(cx) {
                Poll::Ready(Ok([])) => return this.end(Close::Peer),
                Poll::Ready(Ok(data)) => data,
                Poll::Ready(Err(e)) => return this.end(Close::Io(e.to_string())),
                Poll::Pending if is_past(this.timer.as_mut(), until, cx) => {
                    return this.end(Close::Idle);
                }
                Poll::Pending => return Poll::Pending,
            };
            this.heard = Instant::now();
            match &mut this.state {
                ReadState::Pass { left } => {
                    let take = data.len().min(*left).min(buf.remaining());
                    buf.put_slice(data.get(..take).unwrap_or_default());
                    *left -= take;
                    if *left == 0 {
                        this.state = ReadState::Head;
                    }
                    Pin::new(&mut this.inner).consume(take);
                    return Poll::Ready(Ok(()));
                }
                ReadState::Head | ReadState::Release { .. } => {
                    let now_ms = this.heard.duration_since(this.started).as_millis();
                    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
                    let (taken, step) = match this.filter.push(data, now_ms) {
                        Ok(result) => result,
                        Err(violation) => return this.end(Close::Violation(violation)),
                    };
                    Pin::new(&mut this.inner).consume(taken);
                    let left = match step {
                        Step::More | Step::Drop { .. } => continue,
                        Step::Frame => 0,
                        Step::Cast { left, batch } => {
                            this.shared.inbound_bytes.fetch_add(batch, Ordering::AcqRel);
                            left
                        }
                    };
                    this.state = ReadState::Release { bytes: this.filter.release(), at: 0, left };
                }
            }
        }
    }
}

enum WriteState {
    /// Gathering the head of a frame.
    Head,
    /// Passing the next bytes on; `batch`: then a batch has been written.
    Pass { left: usize, batch: bool },
    /// Dropping the next bytes.
    Drop { left: usize },
}

struct FilterWrite {
    inner: BufWriter<BoxWrite>,
    filter: OutboundFilter,
    state: WriteState,
    pending: Vec<u8>,
    pending_at: usize,
    stall: Option<Pin<Box<Sleep>>>,
    shared: Arc<Shared>,
}

impl FilterWrite {
    fn check_open(&self, cx: &Context<'_>) -> io::Result<()> {
        self.shared.writer.register(cx.waker());
        match self.shared.closed() {
            Some(_) => Err(io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }

    /// Watches over a result of the socket: too long without progress ends the connection.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let timeout: Duration = self.shared.limits.idle_timeout;
        match poll {
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(stall.as_mut().poll(cx));
                self.shared.close(Close::Stalled);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Err(e)) => {
                self.shared.close(Close::Io(e.to_string()));
                Poll::Ready(Err(e))
            }
            Poll::Ready(Ok(value)) => {
                self.stall = None;
                Poll::Ready(Ok(value))
            }
        }
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.pending_at..).filter(|rest| !rest.is_empty()) {
            let poll = Pin::new(&mut self.inner).poll_write(cx, rest);
            self.pending_at += ready!(self.watch(cx, poll))?;
        }
        self.pending.clear();
        self.pending_at = 0;
        Poll::Ready(Ok(()))
    }

    fn frame_done(&mut self, batch: bool) {
        self.state = WriteState::Head;
        if batch {
            self.shared.outbound.written();
        }
    }

    fn begin(&mut self, step: Step) {
        match step {
            Step::More => {}
            Step::Drop { left: 0 } | Step::Frame => self.state = WriteState::Head,
            Step::Drop { left } => self.state = WriteState::Drop { left },
            Step::Cast { left, batch } => {
                self.pending = self.filter.release();
                self.state = WriteState::Pass { left, batch: batch > 0 };
            }
        }
    }
}

impl AsyncWrite for FilterWrite {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_open(cx)?;
        ready!(this.poll_pending(cx))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match this.state {
            WriteState::Pass { left: 0, batch } => {
                // The head held the whole frame; it has just been written.
                this.frame_done(batch);
            }
            WriteState::Pass { left, batch } => {
                let part = buf.get(..left).unwrap_or(buf);
                let poll = Pin::new(&mut this.inner).poll_write(cx, part);
                let written = ready!(this.watch(cx, poll))?;
                if written == left {
                    this.frame_done(batch);
                } else {
                    this.state = WriteState::Pass { left: left - written, batch };
                }
                return Poll::Ready(Ok(written));
            }
            WriteState::Drop { left } => {
                let dropped = left.min(buf.len());
                this.state = match left - dropped {
                    0 => WriteState::Head,
                    left => WriteState::Drop { left },
                };
                return Poll::Ready(Ok(dropped));
            }
            WriteState::Head => {}
        }
        match this.filter.push(buf) {
            Ok((taken, step)) => {
                this.begin(step);
                Poll::Ready(Ok(taken))
            }
            Err(violation) => {
                this.shared.close(Close::Violation(violation));
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_open(cx)?;
        ready!(this.poll_pending(cx))?;
        if let WriteState::Pass { left: 0, batch } = this.state {
            this.frame_done(batch);
        }
        let poll = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
