//! A client of a WAMP router that costs little: one socket, messages encoded by the caller, no task and no thread.
//!
//! Guarantees: what it opens is an established session, or an error that says which step failed and what the router answered.
//! Requests block, with a deadline, until [`Client::set_nonblocking`]; after that the caller polls.
//! Refuses: TLS, authentication, and to answer a router that sends what no router may: the connection ends with an error.

use super::address::Address;
use super::framing::{Frame, Framing, Kind, Last};
use crate::exit::{Exit, Failure};
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use weald_wamp::message::{Hello, HelloDetails};
use weald_wamp::roles::{Features, Roles};
use weald_wamp::{Dict, Limits, Message, Serializer, decode};

/// Time for each step of a connection that is being opened.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a server may say before it has upgraded the connection.
const UPGRADE_BYTES_MAX: usize = 16 << 10;
/// Octets of one read while requests block.
const READ_BYTES: usize = 16 << 10;

/// How to open sessions.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) serializer: Serializer,
    pub(crate) realm: String,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    stream: Stream,
    framing: Framing,
    serializer: Serializer,
    /// The beginning of a frame.
    input: Vec<u8>,
    /// Parts of a message in several frames.
    parts: Vec<u8>,
    /// Frames to send, of which `sent` octets are gone.
    output: Vec<u8>,
    sent: usize,
    /// A message on its way into a frame.
    message: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    /// Opens a session.
    ///
    /// # Errors
    /// [`Exit::Unreachable`]: nothing answers there, or not as a WAMP router. [`Exit::Refused`]: ABORT.
    pub(crate) fn open(address: &Address, options: &Options) -> Result<Self, Failure> {
        let stream = Stream::connect(address)?;
        let serializer = options.serializer;
        let framing = match (address, serializer) {
            (Address::Tcp { .. } | Address::Unix { .. }, _) => Framing::Raw,
            (Address::WebSocket { .. }, Serializer::Json) => Framing::Text,
            (Address::WebSocket { .. }, Serializer::MsgPack | Serializer::Cbor) => Framing::Binary,
        };
        let (input, parts, output, message) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let address = address.clone();
        let mut client =
            Self { address, stream, framing, serializer, input, parts, output, sent: 0, message };
        let spoken = match &client.address {
            Address::WebSocket { authority, path } => {
                let request = upgrade(authority, path, serializer);
                client.upgrade(&request)
            }
            Address::Tcp { .. } | Address::Unix { .. } => client.shake_hands(),
        };
        spoken.map_err(|error| client.lost(&error))?;
        client.hello(&options.realm)?;
        Ok(client)
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        let code = match self.serializer {
            Serializer::Json => 1,
            Serializer::MsgPack => 2,
            Serializer::Cbor => 3,
        };
        let mut answer = [0; 4];
        self.stream.write_all(&[0x7F, 0xF0 | code, 0, 0])?;
        self.stream.read_exact(&mut answer)?;
        let problem = match answer {
            [0x7F, octet, _, _] if octet & 0x0F == code => return Ok(()),
            [0x7F, 0x10, _, _] => format!("it does not speak {} there", self.serializer),
            [0x7F, 0x40, _, _] => "it has too many connections".to_owned(),
            [0x7F, octet, _, _] if octet & 0x0F == 0 => format!("RawSocket error {}", octet >> 4),
            _ => format!("{answer:02x?} is no RawSocket handshake; is this its HTTP port?"),
        };
        Err(io::Error::other(problem))
    }

    fn upgrade(&mut self, request: &str) -> io::Result<()> {
        self.stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut some = [0; 2048];
            let len = self.stream.read(&mut some)?;
            answer.extend_from_slice(&some[..len]);
            let status = String::from_utf8_lossy(&answer);
            let status = status.lines().next().unwrap_or_default();
            if len == 0
                || answer.len() > UPGRADE_BYTES_MAX
                || !"HTTP/1.1 ".starts_with(head(status))
            {
                return Err(io::Error::other(format!("no answer of a web server: {status:?}")));
            }
        };
        let text = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = text.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(io::Error::other(format!("no WebSocket there: {status}")));
        }
        let chosen =
            text.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
                name.eq_ignore_ascii_case("sec-websocket-protocol").then(|| value.trim().to_owned())
            });
        let wanted = protocol(self.serializer);
        if chosen.as_deref() != Some(wanted) {
            let chosen = chosen.as_deref().unwrap_or("nothing");
            return Err(io::Error::other(format!("asked for {wanted}, it chose {chosen}")));
        }
        self.input.extend_from_slice(&answer[end..]);
        Ok(())
    }

    fn hello(&mut self, realm: &str) -> Result<(), Failure> {
        let role = Some(Features::NONE);
        let (caller, callee, publisher, subscriber) = (role, role, role, role);
        let roles = Roles { caller, callee, publisher, subscriber, ..Roles::default() };
        let agent = Some(concat!("weald-bench/", env!("CARGO_PKG_VERSION")).into());
        let authmethods = Some(vec!["anonymous".into()]);
        let details = HelloDetails { roles, agent, authmethods, ..HelloDetails::default() };
        let hello = Hello { realm: Some(realm.into()), details };
        match self.request(&Message::Hello(Box::new(hello)))? {
            Message::Welcome(_) => Ok(()),
            Message::Abort(abort) => {
                let why = said(&abort.reason, &abort.details);
                let what = format!("{} refuses a session on realm {realm}: {why}", self.address);
                Err(Failure::new(Exit::Refused, what))
            }
            Message::Challenge(challenge) => {
                let method = challenge.method;
                let what =
                    format!("{} wants {method}; only anonymous is spoken here", self.address);
                Err(Failure::new(Exit::Refused, what))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a message, and waits for the next one.
    ///
    /// # Errors
    /// The connection ended, or there was no answer in time.
    pub(crate) fn request(&mut self, message: &Message) -> Result<Message, Failure> {
        self.queue_message(message)?;
        let mut some = [0; READ_BYTES];
        loop {
            while self.sent < self.output.len() {
                self.write().map_err(|error| self.lost(&error))?;
            }
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
            let len = self.stream.read(&mut some).and_then(ended).map_err(|e| self.lost(&e))?;
            self.input.extend_from_slice(&some[..len]);
        }
    }

    /// From now on nothing blocks.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn set_nonblocking(&self) -> Result<(), Failure> {
        let set = match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(true),
            Stream::Unix(stream) => stream.set_nonblocking(true),
        };
        set.map_err(|error| self.lost(&error))
    }

    /// Queues a message that `write` appends, encoded, to what it gets.
    pub(crate) fn queue(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.message.clear();
        write(&mut self.message);
        self.framing.put(Kind::Message, &self.message, &mut self.output);
    }

    /// Queues a message.
    ///
    /// # Errors
    /// It has no encoding.
    pub(crate) fn queue_message(&mut self, message: &Message) -> Result<(), Failure> {
        self.message.clear();
        message
            .encode(self.serializer, &mut self.message)
            .map_err(|e| Failure::new(Exit::Usage, format!("encode a message: {e}")))?;
        self.framing.put(Kind::Message, &self.message, &mut self.output);
        Ok(())
    }

    /// Octets that are queued.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what is queued, and says whether all of it is gone.
    ///
    /// # Errors
    /// The connection ended.
    pub(crate) fn flush(&mut self) -> Result<Flushed, Failure> {
        while self.sent < self.output.len() {
            match self.write() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Part);
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Ok(Flushed::All)
    }

    fn write(&mut self) -> io::Result<()> {
        match self.stream.write(&self.output[self.sent..]) {
            Ok(len) => self.sent += ended(len)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once, as much as fits into `scratch`, and hands over what messages there are. Whether there may be more to read.
    ///
    /// # Errors
    /// The connection ended, or `on` failed.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        on: &mut impl FnMut(&mut Self, Message) -> Result<(), Failure>,
    ) -> Result<Received, Failure> {
        let len = match self.stream.read(scratch).and_then(ended) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::All),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Received::Part),
            Err(error) => return Err(self.lost(&error)),
        };
        self.input.extend_from_slice(&scratch[..len]);
        self.drain(on)?;
        Ok(if len == scratch.len() { Received::Part } else { Received::All })
    }

    /// Hands over the messages that were read before and not taken.
    ///
    /// # Errors
    /// The connection ended, or `on` failed.
    pub(crate) fn drain(
        &mut self,
        on: &mut impl FnMut(&mut Self, Message) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let data = Bytes::from(std::mem::take(&mut self.input));
        let mut at = 0;
        while let Some(message) = self.next(&data, &mut at)? {
            on(self, message)?;
        }
        self.keep(data, at);
        Ok(())
    }

    /// Takes one message, if a whole one was read; what came together with it is for later.
    fn take(&mut self) -> Result<Option<Message>, Failure> {
        let data = Bytes::from(std::mem::take(&mut self.input));
        let mut at = 0;
        let message = self.next(&data, &mut at)?;
        self.keep(data, at);
        Ok(message)
    }

    /// Keeps what was not taken, and the memory of what was if nobody holds it.
    fn keep(&mut self, data: Bytes, at: usize) {
        if at < data.len() {
            self.input = data[at..].to_vec();
        } else if let Ok(data) = data.try_into_mut() {
            self.input = data.into();
            self.input.clear();
        }
    }

    /// The next whole message; answers pings on the way.
    fn next(&mut self, data: &Bytes, at: &mut usize) -> Result<Option<Message>, Failure> {
        loop {
            let frame = self.framing.take(data, at);
            let Some(frame) = frame.map_err(|what| self.broken(&what))? else { return Ok(None) };
            let message = match frame {
                Frame::Message(message) => message,
                Frame::Part(part, last) => {
                    self.parts.extend_from_slice(&part);
                    if last == Last::No {
                        continue;
                    }
                    std::mem::take(&mut self.parts).into()
                }
                Frame::Ping(octets) => {
                    self.framing.put(Kind::Pong, &octets, &mut self.output);
                    continue;
                }
                Frame::Pong => continue,
                Frame::Close(why) => return Err(self.broken(&why)),
            };
            let limits = Limits::default();
            let message = decode(self.serializer, &message, &limits);
            return message.map(Some).map_err(|e| self.broken(&format!("decode a message: {e}")));
        }
    }

    /// The error for a message that has no place where it came.
    pub(crate) fn unexpected(&self, message: &Message) -> Failure {
        match message {
            Message::Error(error) => {
                let said = said(&error.error, &error.details.rest);
                let what = error.request_type;
                let address = &self.address;
                Failure::new(Exit::Refused, format!("{address} answers {what:?} with {said}"))
            }
            Message::Abort(abort) => self.broken(&said(&abort.reason, &abort.details)),
            Message::Goodbye(goodbye) => self.broken(&said(&goodbye.reason, &goodbye.details)),
            other => self.broken(&format!("unexpected {}", other.message_type().name())),
        }
    }

    fn broken(&self, what: &str) -> Failure {
        Failure::new(Exit::Unreachable, format!("{} ended the session: {what}", self.address))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if late {
            let what = format!("{} did not answer within {PATIENCE:?}", self.address);
            return Failure::new(Exit::TimedOut, what);
        }
        Failure::new(Exit::Unreachable, format!("lost the connection to {}: {error}", self.address))
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// How much of the queue is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    All,
    Part,
}

/// How much of what is there was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    All,
    Part,
}

impl Stream {
    fn connect(address: &Address) -> Result<Self, Failure> {
        let failed = |error: &io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    "; does a router listen there?"
                }
                _ => "",
            };
            Failure::new(Exit::Unreachable, format!("cannot connect to {address}: {error}{hint}"))
        };
        let connected = match address {
            Address::Unix { path } => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(stream))
            }),
            Address::Tcp { authority } | Address::WebSocket { authority, .. } => {
                tcp(authority).map(Self::Tcp)
            }
        };
        connected.map_err(|error| failed(&error))
    }
}

fn tcp(authority: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(out),
            Self::Unix(stream) => stream.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(octets),
            Self::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No octets are the end of a stream.
fn ended(len: usize) -> io::Result<usize> {
    if len == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the router closed it"));
    }
    Ok(len)
}

fn protocol(serializer: Serializer) -> &'static str {
    match serializer {
        Serializer::Json => "wamp.2.json",
        Serializer::MsgPack => "wamp.2.msgpack",
        Serializer::Cbor => "wamp.2.cbor",
    }
}

fn upgrade(authority: &str, path: &str, serializer: Serializer) -> String {
    // The key is for caches, of which there are none here.
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: d2VhbGQgYmVuY2ggd2FtcA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {}\r\n\r\n",
        protocol(serializer)
    )
}

/// As much of a status line as can be compared with how one begins.
fn head(status: &str) -> &str {
    status.get(..9).unwrap_or(status)
}

/// A URI, with the message that may come with it.
fn said(uri: &str, details: &Dict) -> String {
    match details.get_text("message") {
        Some(message) => format!("{uri} ({message})"),
        None => uri.to_owned(),
    }
}
