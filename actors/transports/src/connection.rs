//! One client's connection: what its session reads from and closes.
//!
//! What it guarantees: [`Connection::read`] gives whole messages in the order they came and may be cancelled at any time;
//! while it waits it does all else the connection needs: it writes what the socket did not take before, answers and sends
//! pings, and notices a peer that is silent or does not read. An idle connection has no buffers.
//!
//! What it refuses: to look into messages, and to give out more than one read of the socket holds at once.

use crate::framing::Framing;
use crate::info::{ConnectionInfo, Kind};
use crate::input::Partial;
use crate::limit::Place;
use crate::outbox::{Class, Egress, Kick, Outbox, Pushed, Wrote};
use crate::raw;
use crate::socket::{ReadHalf, Stream};
use crate::websocket::{self, End, Violation};
use bytes::{Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite as _;
use tokio::time::{Instant, Sleep};
use weald_wamp::Subprotocol;

/// What every connection of a listener has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest message we take, in bytes. RawSocket announces the power of two at or below it.
    pub message_bytes_max: usize,
    /// Silence of the peer after which it is sent a ping, and TCP asks whether its machine is there; none: neither.
    pub ping_interval: Option<Duration>,
    /// Whether RawSocket clients are sent pings, too. There are some in use that fail at the first.
    pub raw_pings: bool,
    /// How long the peer may be silent after a ping.
    pub ping_timeout: Duration,
    /// Bounds of what waits to be sent.
    pub egress: Arc<Egress>,
}

/// What has come to pass on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Read {
    /// Messages were added to the inbox.
    Messages,
    /// The deadline has passed, with nothing to read at that moment.
    Deadline,
    /// Nothing more will come.
    Closed(CloseReason),
    /// The connection is being ended from this side. [`Kick::Asked`] is said once, and reading may go on; of anything else
    /// there is nothing more to read.
    Kicked(Kick),
}

/// Why nothing more will come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client has closed its side, at the end of a message.
    Peer,
    /// The connection was lost.
    Lost(io::ErrorKind),
    /// The client has not been heard of for too long.
    Silent,
    /// The client broke the rules of RawSocket.
    Raw(raw::FrameError),
    /// The client has closed its WebSocket, with this code.
    WebSocketClosed(Option<u16>),
    /// The client broke the rules of WebSocket.
    WebSocket(Violation),
}

/// How bytes are cut into messages.
#[derive(Debug)]
enum Codec {
    Raw(raw::Decoder),
    WebSocket(websocket::Decoder),
}

impl Codec {
    fn decode(
        &mut self,
        input: &mut BytesMut,
        messages: &mut Vec<Bytes>,
        reply: &mut Vec<u8>,
    ) -> Result<usize, CloseReason> {
        match self {
            Self::Raw(codec) => codec.decode(input, messages, reply).map_err(CloseReason::Raw),
            Self::WebSocket(codec) => {
                codec.decode(input, messages, reply).map_err(|end| match end {
                    End::Close(code) => CloseReason::WebSocketClosed(code),
                    End::Violation(violation) => CloseReason::WebSocket(violation),
                })
            }
        }
    }
}

/// How to end a connection; for WebSocket the code of the close frame follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// All is said.
    Normal,
    /// This node stops.
    GoingAway,
    /// The client broke the rules of its protocol.
    Protocol,
    /// The client did what it is not allowed to.
    Policy,
    /// Something went wrong here.
    Internal,
}

impl Close {
    fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Policy => 1008,
            Self::Internal => 1011,
        }
    }
}

/// A client's connection, owned by the task of its session.
///
/// Dropped, it cuts the connection at once; [`Self::close`] ends it in good order.
#[derive(Debug)]
pub struct Connection {
    info: Arc<ConnectionInfo>,
    outbox: Outbox,
    half: ReadHalf,
    codec: Codec,
    partial: Partial,
    /// Why nothing more is read.
    closed: Option<CloseReason>,
    kicked: Option<Kick>,
    /// The session has heard that somebody asks it to end.
    is_told: bool,
    /// This task has to write.
    writing: bool,
    /// TLS holds bytes it has not written.
    unflushed: bool,
    liveness: Liveness,
    alarm: Alarm,
    /// Its place among the connections of the listener.
    _place: Option<Place>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// What makes a connection of a socket after its handshake.
pub(crate) struct Parts {
    pub(crate) stream: Stream,
    /// What the client sent after its handshake.
    pub(crate) leftover: BytesMut,
    pub(crate) info: ConnectionInfo,
    pub(crate) framing: Framing,
    /// The longest message the client takes.
    pub(crate) peer_bytes_max: usize,
    pub(crate) place: Option<Place>,
}

impl Connection {
    pub(crate) fn new(parts: Parts, settings: &Settings) -> Self {
        let (half, write) = parts.stream.split();
        let egress = Arc::clone(&settings.egress);
        let message_bytes_max = settings.message_bytes_max;
        let codec = match parts.info.kind {
            Kind::RawSocket => {
                Codec::Raw(raw::Decoder::new(raw::announced_bytes(message_bytes_max)))
            }
            Kind::WebSocket => {
                let ConnectionInfo { serializer, batched, .. } = parts.info;
                let subprotocol = Subprotocol { serializer, batched };
                Codec::WebSocket(websocket::Decoder::new(subprotocol, message_bytes_max))
            }
        };
        let liveness = Liveness::new(settings, parts.info.kind);
        let outbox = Outbox::new(write, parts.framing, parts.peer_bytes_max, egress);
        Self {
            info: Arc::new(parts.info),
            outbox,
            half,
            codec,
            partial: Partial::new(parts.leftover),
            closed: None,
            kicked: None,
            is_told: false,
            writing: false,
            unflushed: false,
            liveness,
            alarm: Alarm::default(),
            _place: parts.place,
        }
    }

    /// What is known of the connection.
    #[must_use]
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// The way to the client.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Waits for messages and appends them to `inbox`; at least one if the outcome is [`Read::Messages`], and at most what
    /// one read of the socket holds. May be cancelled: nothing is lost.
    ///
    /// What the socket does not take at once is written while this waits, and time passes for the peer only then: a session
    /// should not be away from it for long.
    pub async fn read(&mut self, inbox: &mut Vec<Bytes>, deadline: Option<Instant>) -> Read {
        std::future::poll_fn(|cx| self.poll_event(cx, inbox, deadline)).await
    }

    /// Ends the connection: sends what is queued, says goodbye as the transport does, waits for the peer to do the same,
    /// and drops the socket; all that within `grace`. Nothing can be pushed any more.
    pub async fn close(mut self, how: Close, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut is_answered = self.say_goodbye(how);
        self.outbox.seal();
        self.outbox.flush();
        let parting = std::future::poll_fn(|cx| self.poll_parting(cx, &mut is_answered));
        // Late or not, the socket is dropped now.
        tokio::time::timeout_at(deadline, parting).await.ok();
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Vec<Bytes>,
        deadline: Option<Instant>,
    ) -> Poll<Read> {
        if self.outbox.is_called(cx.waker()) {
            self.writing |= self.outbox.is_owners();
            self.kicked = self.outbox.kicked();
        }
        match self.kicked {
            // What the client has sent before it went is still to be read.
            None | Some(Kick::Broken) => {}
            Some(Kick::Asked) if self.is_told => {}
            Some(kick) => {
                self.is_told = true;
                return Poll::Ready(Read::Kicked(kick));
            }
        }
        if let Some(reason) = &self.closed {
            return Poll::Ready(Read::Closed(reason.clone()));
        }
        self.poll_write(cx);
        if let Poll::Ready(read) = self.poll_input(cx, inbox) {
            return Poll::Ready(read);
        }
        if let Some(kick @ Kick::Broken) = self.kicked {
            return Poll::Ready(Read::Kicked(kick));
        }
        self.poll_timers(cx, deadline)
    }

    /// Reads until there is a message, the end, or nothing more for now.
    fn poll_input(&mut self, cx: &mut Context<'_>, inbox: &mut Vec<Bytes>) -> Poll<Read> {
        let before = inbox.len();
        let mut input = self.partial.take_unread();
        loop {
            if input.is_empty() {
                input = match ready!(self.partial.poll_read(&mut self.half, cx)) {
                    Ok(input) if input.is_empty() => return self.closed(CloseReason::Peer),
                    Ok(input) => input,
                    Err(e) => return self.closed(CloseReason::Lost(e.kind())),
                };
            }
            self.liveness.heard(Instant::now());
            let mut reply = Vec::new();
            let decoded = self.codec.decode(&mut input, inbox, &mut reply);
            if !reply.is_empty() {
                self.send(reply.into());
            }
            match decoded {
                Ok(need) => self.partial.keep(std::mem::take(&mut input), need),
                Err(reason) => self.closed = Some(reason),
            }
            if inbox.len() > before {
                return Poll::Ready(Read::Messages);
            }
            if let Some(reason) = &self.closed {
                return Poll::Ready(Read::Closed(reason.clone()));
            }
        }
    }

    fn closed(&mut self, reason: CloseReason) -> Poll<Read> {
        self.closed = Some(reason.clone());
        Poll::Ready(Read::Closed(reason))
    }

    /// Sends a frame of the transport's own.
    fn send(&self, frame: Bytes) {
        // A connection that is being ended says so by itself.
        if self.outbox.push_any(frame, Class::Reply) == Pushed::First {
            self.outbox.flush();
        }
    }

    /// Writes what is left to this task, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while self.writing {
            if self.half.poll_write_ready(cx).is_pending() {
                return;
            }
            // An error of the socket shows again when it is written to, and ends the connection.
            let Self { half, outbox, .. } = self;
            let left = match half.tls() {
                None => outbox.write_as_owner(None),
                Some(mut tls) => {
                    self.unflushed = true;
                    outbox.write_as_owner(Some(&mut |chunks| match tls
                        .as_mut()
                        .poll_write_vectored(cx, chunks)
                    {
                        Poll::Ready(wrote) => wrote,
                        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                    }))
                }
            };
            match left {
                None => self.writing = false,
                Some(Wrote::Turn) => {
                    // Others of this thread come first.
                    cx.waker().wake_by_ref();
                    break;
                }
                // TLS has registered this task; of the others the next round does.
                Some(_) if self.unflushed => break,
                Some(_) => {}
            }
        }
        if self.unflushed
            && let Some(tls) = self.half.tls()
        {
            self.unflushed = tls.poll_flush(cx).is_pending();
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<Read> {
        loop {
            let stuck_until = if self.writing { self.outbox.stuck_until() } else { None };
            // A peer that takes bytes lives, and one that takes none has a deadline of its own.
            let silence = if stuck_until.is_some() { None } else { self.liveness.due() };
            let Some(at) = [deadline, stuck_until, silence].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            ready!(self.alarm.poll(cx, at));
            let now = Instant::now();
            if stuck_until.is_some_and(|until| until <= now)
                && let Some(kick) = self.outbox.too_old()
            {
                return Poll::Ready(Read::Kicked(kick));
            }
            if silence.is_some_and(|due| due <= now) {
                if self.liveness.is_over(now) {
                    return self.closed(CloseReason::Silent);
                }
                self.liveness.asked(now);
                self.send(match self.codec {
                    Codec::Raw(_) => raw::ping(),
                    Codec::WebSocket(_) => websocket::ping(),
                });
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Read::Deadline);
            }
        }
    }

    /// The transport's own goodbye; whether the peer is to answer it.
    fn say_goodbye(&self, how: Close) -> bool {
        if matches!(self.codec, Codec::Raw(_)) {
            return false;
        }
        let (code, is_answered) = match self.closed {
            None => (Some(how.code()), true),
            Some(CloseReason::WebSocketClosed(code)) => (code, false),
            Some(CloseReason::WebSocket(violation)) => (Some(violation.close_code()), false),
            Some(_) => (Some(how.code()), false),
        };
        self.send(websocket::close_frame(code));
        is_answered
    }

    /// Waits for the peer's goodbye, whatever comes before it.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inbox = Vec::new();
        while self.closed.is_none() {
            let _more = ready!(self.poll_input(cx, &mut inbox));
            inbox.clear();
        }
        Poll::Ready(())
    }

    fn poll_parting(&mut self, cx: &mut Context<'_>, is_answered: &mut bool) -> Poll<()> {
        if self.outbox.is_called(cx.waker()) {
            self.writing |= self.outbox.is_owners();
        }
        if self.outbox.kicked().is_some_and(Kick::is_at_once) {
            return Poll::Ready(());
        }
        self.poll_write(cx);
        if !self.outbox.is_empty() || self.unflushed {
            return Poll::Pending;
        }
        if *is_answered {
            ready!(self.poll_answer(cx));
            *is_answered = false;
        }
        if ready!(self.half.poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        // What the peer still sends is read and thrown away: a socket closed with unread bytes resets the connection, and
        // takes what was sent last with it.
        loop {
            match ready!(self.partial.poll_read(&mut self.half, cx)) {
                Ok(bytes) if !bytes.is_empty() => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

/// Whether the peer is heard of.
#[derive(Debug)]
struct Liveness {
    interval: Option<Duration>,
    timeout: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Liveness {
    fn new(settings: &Settings, kind: Kind) -> Self {
        let is_asked = kind == Kind::WebSocket || settings.raw_pings;
        Self {
            interval: settings.ping_interval.filter(|_| is_asked),
            timeout: settings.ping_timeout,
            heard: Instant::now(),
            asked: None,
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// When something is to be done.
    fn due(&self) -> Option<Instant> {
        let interval = self.interval?;
        Some(self.asked.map_or(self.heard + interval, |asked| asked + self.timeout))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| asked + self.timeout <= now)
    }
}

/// A timer that is set again only where it would ring too late.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `at` has come.
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        loop {
            let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() > at {
                sleep.as_mut().reset(at);
            }
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                // Set again by whoever waits next.
                self.0 = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
