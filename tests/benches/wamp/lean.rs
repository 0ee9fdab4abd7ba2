//! The driver for servers that speak lines of text: one thread, encoded messages, a bounded window, as `weald bench wamp` has.

use super::processes::usage;
use super::shape::{Figures, Shape};
use anyhow::{Context, Result, bail};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const SUBJECT: &str = "bench.topic";
const PROCEDURE: &str = "bench.procedure";
/// A payload that only looks whether a subscriber is reached; it is not counted.
const PROBE: &[u8] = b"probe";
/// Characters of the time in a payload: `t` and 15 hexadecimal digits, as in `weald bench wamp`.
const STAMP: usize = 16;
const WARMUP: Duration = Duration::from_secs(1);
/// Time without progress after which a run is given up.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// Octets of one read, reads of a connection in one round, connections in one round; as in `weald bench wamp`.
const READ_BYTES: usize = 64 << 10;
const READS_MAX: usize = 4;
const READY_MAX: usize = 256;

/// What stands in messages of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A message, and where an answer is expected.
    Message { reply_to: Option<&'a [u8]>, payload: &'a [u8] },
    /// To be answered with this.
    Ping(&'static [u8]),
    /// Anything else.
    Nothing,
}

/// A protocol of text.
pub(crate) trait Wire {
    /// Whether calls have answers.
    const HAS_CALLS: bool;
    /// What is sent first.
    fn hello(out: &mut Vec<u8>);
    /// Asks for messages of a subject.
    fn subscribe(subject: &str, out: &mut Vec<u8>);
    /// Sends a message, and says where its answer is to go.
    fn publish(subject: &[u8], reply_to: Option<&str>, payload: &[u8], out: &mut Vec<u8>);
    /// Takes what begins at `input[*at]`, if all of it is there.
    fn take<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<Incoming<'a>>>;
}

/// Measures a shape at a port of loopback.
pub(crate) fn measure<W: Wire>(
    port: u16,
    pids: &[u32],
    shape: Shape,
    seconds: u64,
) -> Result<Option<Figures>> {
    let duration = Duration::from_secs(seconds);
    match shape {
        Shape::Pubsub { publishers, subscribers, payload_bytes } => {
            let window = (2048 / subscribers).clamp(16, 256).max(2 * publishers) as u64;
            let load = Load::<W>::new(port, publishers + subscribers, payload_bytes)?;
            load.pubsub(publishers, window, &mut Meter::new(pids, duration)).map(Some)
        }
        Shape::Rpc { depth, payload_bytes } if W::HAS_CALLS => {
            let load = Load::<W>::new(port, 2, payload_bytes)?;
            load.rpc(depth, &mut Meter::new(pids, duration)).map(Some)
        }
        Shape::Rpc { .. } => Ok(None),
        Shape::Idle { sessions } => idle::<W>(port, pids, sessions, duration).map(Some),
    }
}

/// Numbers of a run, while the time for it lasts.
struct Meter<'a> {
    pids: &'a [u32],
    duration: Duration,
    epoch: Instant,
    since: Instant,
    measuring: bool,
    /// Processor seconds of the server and of the driver at the start.
    before: (f64, f64),
    count: u64,
    latencies_us: Vec<u32>,
}

impl<'a> Meter<'a> {
    fn new(pids: &'a [u32], duration: Duration) -> Self {
        let now = Instant::now();
        Self {
            pids,
            duration,
            epoch: now,
            since: now,
            measuring: false,
            before: (0.0, 0.0),
            count: 0,
            latencies_us: Vec::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn count(&mut self, payload: &[u8]) {
        if self.measuring {
            self.count += 1;
            let taken = self.now_ns().saturating_sub(stamp(payload)) / 1000;
            self.latencies_us.push(u32::try_from(taken).unwrap_or(u32::MAX));
        }
    }

    /// The figures, when the time is over.
    fn step(&mut self) -> Result<Option<Figures>> {
        let passed = self.since.elapsed();
        if !self.measuring {
            if passed >= WARMUP {
                self.before = (usage(self.pids)?.0, usage(&[std::process::id()])?.0);
                (self.measuring, self.since) = (true, Instant::now());
            }
            return Ok(None);
        }
        if passed < self.duration {
            return Ok(None);
        }
        let (cpu, rss) = usage(self.pids)?;
        let seconds = passed.as_secs_f64();
        self.latencies_us.sort_unstable();
        let last = self.latencies_us.len().checked_sub(1).context("nothing arrived")?;
        let at = |thousandths: usize| Some(f64::from(self.latencies_us[last * thousandths / 1000]));
        Ok(Some(Figures {
            cpu_seconds_per_million: Some((cpu - self.before.0) * 1e6 / self.count as f64),
            per_second: Some(self.count as f64 / seconds),
            p50_us: at(500),
            p99_us: at(990),
            rss_bytes: Some(rss),
            driver_cpu_seconds: usage(&[std::process::id()])?.0 - self.before.1,
            seconds,
            ..Figures::default()
        }))
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    full: bool,
}

struct Load<W: Wire> {
    poll: OwnedFd,
    connections: Vec<Connection>,
    payload: Vec<u8>,
    scratch: Vec<u8>,
    wire: std::marker::PhantomData<W>,
}

impl<W: Wire> Load<W> {
    fn new(port: u16, connections: usize, payload_bytes: usize) -> Result<Self> {
        allow_files(connections as u64 + 64)?;
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut load = Self {
            poll,
            connections: Vec::with_capacity(connections),
            payload: vec![b'x'; payload_bytes.max(STAMP)],
            scratch: vec![0; READ_BYTES],
            wire: std::marker::PhantomData,
        };
        for number in 0..connections {
            let stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&load.poll, &stream, EventData::new_u64(number as u64), EventFlags::IN)?;
            let mut output = Vec::new();
            W::hello(&mut output);
            let input = Vec::new();
            load.connections.push(Connection { stream, input, output, sent: 0, full: false });
            load.flush(number)?;
        }
        Ok(load)
    }

    /// Queues a message that carries the time.
    fn send(&mut self, number: usize, subject: &str, reply_to: Option<&str>, now_ns: u64) {
        write_stamp(now_ns, &mut self.payload);
        let out = &mut self.connections[number].output;
        W::publish(subject.as_bytes(), reply_to, &self.payload, out);
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        let mut full = false;
        while connection.sent < connection.output.len() {
            match connection.stream.write(&connection.output[connection.sent..]) {
                Ok(len) => connection.sent += len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(e) => return Err(e).context("write"),
            }
        }
        if !full {
            connection.output.clear();
            connection.sent = 0;
        }
        if full != connection.full {
            connection.full = full;
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(number as u64);
            epoll::modify(&self.poll, &connection.stream, data, flags)?;
        }
        Ok(())
    }

    /// Reads what is there; `on` gets the connection's number, where an answer goes, the payload, and what it may write to.
    fn round(
        &mut self,
        ready: &mut Vec<epoll::Event>,
        limit: Duration,
        on: &mut impl FnMut(usize, Option<&[u8]>, &[u8], &mut Vec<u8>),
    ) -> Result<()> {
        ready.clear();
        let limit = Timespec::try_from(limit).ok();
        let buffer = rustix::buffer::spare_capacity(ready);
        if let Err(e) = epoll::wait(&self.poll, buffer, limit.as_ref())
            && e != rustix::io::Errno::INTR
        {
            return Err(e).context("wait");
        }
        for event in ready.iter() {
            let number = usize::try_from(event.data.u64())?;
            for _ in 0..READS_MAX {
                let connection = &mut self.connections[number];
                let len = match connection.stream.read(&mut self.scratch) {
                    Ok(0) => bail!("the server closed a connection"),
                    Ok(len) => len,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e).context("read"),
                };
                connection.input.extend_from_slice(&self.scratch[..len]);
                let mut at = 0;
                while let Some(incoming) = W::take(&connection.input, &mut at)? {
                    match incoming {
                        Incoming::Message { reply_to, payload } => {
                            on(number, reply_to, payload, &mut connection.output);
                        }
                        Incoming::Ping(answer) => connection.output.extend_from_slice(answer),
                        Incoming::Nothing => {}
                    }
                }
                connection.input.drain(..at);
                if len < READ_BYTES {
                    break;
                }
            }
            self.flush(number)?;
        }
        Ok(())
    }

    fn pubsub(mut self, publishers: usize, window: u64, meter: &mut Meter<'_>) -> Result<Figures> {
        let mut ready = Vec::with_capacity(READY_MAX);
        for number in publishers..self.connections.len() {
            W::subscribe(SUBJECT, &mut self.connections[number].output);
            self.flush(number)?;
        }
        let subscribers = self.connections.len() - publishers;
        let mut reached = vec![false; subscribers];
        let begun = Instant::now();
        while reached.contains(&false) {
            if begun.elapsed() > STALLED_AFTER {
                bail!("subscribers are not reached");
            }
            W::publish(SUBJECT.as_bytes(), None, PROBE, &mut self.connections[0].output);
            self.flush(0)?;
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_millis(50) {
                self.round(&mut ready, Duration::from_millis(50), &mut |number, _, _, _| {
                    reached[number - publishers] = true;
                })?;
            }
        }
        let mut received = vec![0_u64; subscribers];
        let mut published = 0_u64;
        meter.since = Instant::now();
        let mut progress = (Instant::now(), 0);
        loop {
            if let Some(figures) = meter.step()? {
                return Ok(figures);
            }
            let slowest = received.iter().copied().min().unwrap_or(0);
            if slowest != progress.1 {
                progress = (Instant::now(), slowest);
            } else if progress.0.elapsed() > STALLED_AFTER {
                bail!("nothing arrives any more: {slowest} of {published}");
            }
            let free = window - (published - slowest);
            if free >= window.div_ceil(2) {
                let all = publishers as u64;
                for number in 0..publishers {
                    let turn = (number as u64 + published) % all;
                    for _ in 0..free / all + u64::from(turn < free % all) {
                        self.send(number, SUBJECT, None, meter.now_ns());
                    }
                    self.flush(number)?;
                }
                published += free;
            }
            self.round(&mut ready, Duration::from_millis(20), &mut |number, _, payload, _| {
                if payload != PROBE {
                    received[number - publishers] += 1;
                    meter.count(payload);
                }
            })?;
        }
    }

    fn rpc(mut self, depth: usize, meter: &mut Meter<'_>) -> Result<Figures> {
        const INBOX: &str = "bench.inbox";
        let mut ready = Vec::with_capacity(READY_MAX);
        for (number, subject) in [INBOX, PROCEDURE].into_iter().enumerate() {
            W::subscribe(subject, &mut self.connections[number].output);
            self.flush(number)?;
        }
        let echo = |reply_to: Option<&[u8]>, payload: &[u8], out: &mut Vec<u8>| {
            W::publish(reply_to.unwrap_or_default(), None, payload, out);
        };
        let begun = Instant::now();
        let mut known = false;
        while !known {
            if begun.elapsed() > STALLED_AFTER {
                bail!("calls do not reach their callee");
            }
            let out = &mut self.connections[0].output;
            W::publish(PROCEDURE.as_bytes(), Some(INBOX), PROBE, out);
            self.flush(0)?;
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_millis(50) {
                let limit = Duration::from_millis(50);
                self.round(&mut ready, limit, &mut |number, reply_to, payload, out| {
                    if number == 1 {
                        echo(reply_to, payload, out);
                    } else {
                        known = true;
                    }
                })?;
            }
        }
        meter.since = Instant::now();
        for _ in 0..depth {
            self.send(0, PROCEDURE, Some(INBOX), meter.now_ns());
        }
        self.flush(0)?;
        let mut next = self.payload.clone();
        let (mut results, mut progress) = (0_u64, (Instant::now(), 0));
        loop {
            if let Some(figures) = meter.step()? {
                return Ok(figures);
            }
            if results != progress.1 {
                progress = (Instant::now(), results);
            } else if progress.0.elapsed() > STALLED_AFTER {
                bail!("no call is answered any more");
            }
            let limit = Duration::from_millis(20);
            self.round(&mut ready, limit, &mut |number, reply_to, payload, out| {
                if number == 1 {
                    echo(reply_to, payload, out);
                } else if payload != PROBE {
                    results += 1;
                    meter.count(payload);
                    write_stamp(meter.now_ns(), &mut next);
                    W::publish(PROCEDURE.as_bytes(), Some(INBOX), &next, out);
                }
            })?;
        }
    }
}

fn idle<W: Wire>(port: u16, pids: &[u32], sessions: usize, hold: Duration) -> Result<Figures> {
    let (_, before) = usage(pids)?;
    let mut load = Load::<W>::new(port, sessions, STAMP)?;
    for number in 0..sessions {
        // What a client that waits for something has, as a session of WAMP has a realm.
        W::subscribe(&format!("bench.idle.{number}"), &mut load.connections[number].output);
        load.flush(number)?;
    }
    let (since, mut ready) = (Instant::now(), Vec::with_capacity(READY_MAX));
    while since.elapsed() < hold + WARMUP {
        load.round(&mut ready, Duration::from_millis(20), &mut |_, _, _, _| {})?;
    }
    let (_, after) = usage(pids)?;
    let each = after.saturating_sub(before) / sessions as u64;
    let seconds = since.elapsed().as_secs_f64();
    Ok(Figures { rss_per_session_bytes: Some(each), seconds, ..Figures::default() })
}

fn allow_files(needed: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
            .with_context(|| format!("allow {needed} open files"))?;
    }
    Ok(())
}

fn write_stamp(now_ns: u64, out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out[0] = b't';
    for (place, digit) in (0..STAMP - 1).rev().zip(&mut out[1..]) {
        *digit = DIGITS[usize::from((now_ns >> (4 * place)).to_le_bytes()[0] & 15)];
    }
}

fn stamp(payload: &[u8]) -> u64 {
    let digits = payload.get(1..STAMP).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// The octets up to the end of the line that begins at `input[at]`, and where the next line begins.
pub(crate) fn line(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let len = input[at..].iter().position(|octet| *octet == b'\n')?;
    let text = &input[at..at + len];
    Some((text.strip_suffix(b"\r").unwrap_or(text), at + len + 1))
}

/// A number in decimal digits.
pub(crate) fn number(digits: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(digits)?;
    text.parse().with_context(|| format!("{text:?} is no number"))
}
