//! One connection: two directions, each a reader, a queue with times, and a writer.

use super::faults::{Count, Delay, Faults, Flow, Link, Wanted};
use super::frames::{Mangler, Splitter};
use crate::seed::Seeded;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Pieces between the reader and the writer.
const QUEUE: usize = 256;
/// Bytes written at once when the speed is limited.
const SLOW_BYTES: usize = 1 << 10;
/// How often held messages are looked at.
const TICK: Duration = Duration::from_millis(10);

type BoxRead = Box<dyn AsyncRead + Unpin + Send>;
type BoxWrite = Box<dyn AsyncWrite + Unpin + Send>;

/// Both halves of one end, and a second handle of its socket.
pub(super) struct Streams {
    read: BoxRead,
    write: BoxWrite,
    control: TcpStream,
}

/// A second handle of a socket: what is set on it holds for the socket.
pub(super) fn with_control(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let control = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, control))
}

impl Streams {
    /// Never into owned halves: those tell the end when they are dropped, which a reset must not.
    pub(super) fn new<S: AsyncRead + AsyncWrite + Send + 'static>(
        stream: S,
        control: TcpStream,
    ) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { read: Box::new(read), write: Box::new(write), control }
    }
}

/// Carries bytes until both directions have ended, or one fails, or a reset is asked for.
pub(super) async fn run(
    near: Streams,
    far: Streams,
    links: &[Arc<Link>; 2],
    messages: bool,
    seed: u64,
) {
    let [forward, backward] = links;
    let ended = {
        let there = direction(near.read, far.write, forward, messages, seed);
        let back = direction(far.read, near.write, backward, messages, seed ^ 1);
        let both = async { tokio::try_join!(there, back).map(drop) };
        // Either end of the connection, and nothing depends on which is noticed first.
        tokio::select! {
            ended = both => ended,
            () = reset(forward) => Err(io::ErrorKind::ConnectionReset.into()),
            () = reset(backward) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    if ended.is_err() {
        forward.count(Count::Resets, 1);
        near.control.set_zero_linger().ok();
        far.control.set_zero_linger().ok();
    }
}

async fn reset(link: &Link) {
    let mut watch = link.watch();
    let generation = watch.borrow().generation;
    let asked = |w: &Wanted| w.generation != generation || w.faults.flow == Flow::Reset;
    watch.wait_for(asked).await.ok();
}

struct Piece {
    at: Instant,
    bytes: Vec<u8>,
}

async fn direction(
    read: BoxRead,
    write: BoxWrite,
    link: &Link,
    messages: bool,
    seed: u64,
) -> io::Result<()> {
    let (pieces, queue) = mpsc::channel(QUEUE);
    let reader = Reader {
        watch: link.watch(),
        link,
        rng: Seeded::new(seed),
        mangler: messages.then(|| (Splitter::default(), Mangler::new(seed))),
        start: Instant::now(),
        until_flip: None,
        last: Instant::now(),
        broken: false,
    };
    tokio::try_join!(reader.run(read, pieces), writer(write, queue, link)).map(drop)
}

struct Reader<'a> {
    watch: watch::Receiver<Wanted>,
    link: &'a Link,
    rng: Seeded,
    mangler: Option<(Splitter, Mangler)>,
    start: Instant,
    until_flip: Option<u64>,
    last: Instant,
    broken: bool,
}

impl Reader<'_> {
    async fn run(mut self, mut read: BoxRead, pieces: mpsc::Sender<Piece>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let holding = self.mangler.as_ref().is_some_and(|(_, m)| m.is_holding());
            let len = if holding {
                match tokio::time::timeout(TICK, read.read(&mut buffer)).await {
                    Ok(len) => len?,
                    Err(_elapsed) => {
                        self.forward(Vec::new(), &pieces).await?;
                        continue;
                    }
                }
            } else {
                read.read(&mut buffer).await?
            };
            let flow = self.watch.borrow_and_update().faults.flow;
            if flow == Flow::Swallow {
                self.broken = true;
                self.link.count(Count::Swallowed, len as u64);
                if len == 0 {
                    // Not even the end is told, until the fault is over.
                    self.watch.wait_for(|w| w.faults.flow != Flow::Swallow).await.ok();
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                continue;
            }
            if self.broken {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if len == 0 {
                let rest = self.mangler.as_mut().map(|(s, _)| s.rest()).unwrap_or_default();
                return self.queue(rest, &pieces).await;
            }
            self.forward(buffer[..len].to_vec(), &pieces).await?;
        }
    }

    async fn forward(&mut self, bytes: Vec<u8>, pieces: &mpsc::Sender<Piece>) -> io::Result<()> {
        let faults = self.watch.borrow().faults.clone();
        let mut bytes = self.mangle(bytes, &faults);
        self.corrupt(&mut bytes, faults.corrupt_every);
        self.queue(bytes, pieces).await
    }

    async fn queue(&mut self, bytes: Vec<u8>, pieces: &mpsc::Sender<Piece>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let delay = self.watch.borrow().faults.delay;
        // Never before what came earlier: this is a stream.
        self.last = self.last.max(Instant::now() + self.random(delay));
        let piece = Piece { at: self.last, bytes };
        pieces.send(piece).await.map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    fn random(&mut self, delay: Delay) -> Duration {
        if delay.jitter.is_zero() {
            return delay.base;
        }
        let jitter_us = u64::try_from(delay.jitter.as_micros()).unwrap_or(u64::MAX).max(1);
        delay.base + Duration::from_micros(self.rng.any() % jitter_us)
    }

    fn mangle(&mut self, bytes: Vec<u8>, faults: &Faults) -> Vec<u8> {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Some((splitter, mangler)) = &mut self.mangler else { return bytes };
        let before = mangler.done;
        splitter.push(&bytes);
        let mut out = Vec::new();
        for unit in splitter.by_ref() {
            out.extend(mangler.pass(unit, &faults.messages, now_ms));
        }
        mangler.due(now_ms, &mut out);
        let done = mangler.done;
        self.link.count(Count::Messages, done.passed - before.passed);
        self.link.count(Count::Dropped, done.dropped - before.dropped);
        self.link.count(Count::Duplicated, done.duplicated - before.duplicated);
        self.link.count(Count::Reordered, done.reordered - before.reordered);
        out
    }

    fn corrupt(&mut self, bytes: &mut [u8], every: Option<u64>) {
        let Some(every) = every else {
            self.until_flip = None;
            return;
        };
        let mut at = 0_u64;
        loop {
            let rng = &mut self.rng;
            let left = *self.until_flip.get_or_insert_with(|| rng.any() % (2 * every).max(1));
            let rest = bytes.len() as u64 - at;
            if left >= rest {
                self.until_flip = Some(left - rest);
                return;
            }
            at += left;
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << rng.below(8);
            }
            at += 1;
            self.until_flip = None;
            self.link.count(Count::Corrupted, 1);
        }
    }
}

async fn writer(
    mut write: BoxWrite,
    mut queue: mpsc::Receiver<Piece>,
    link: &Link,
) -> io::Result<()> {
    let mut watch = link.watch();
    while let Some(piece) = queue.recv().await {
        tokio::time::sleep_until(piece.at).await;
        let mut rest = piece.bytes.as_slice();
        while !rest.is_empty() {
            watch.wait_for(|w| w.faults.flow != Flow::Stall).await.ok();
            let speed = watch.borrow_and_update().faults.bytes_per_s;
            let part = rest.len().min(if speed.is_some() { SLOW_BYTES } else { usize::MAX });
            let (now, later) = rest.split_at(part);
            write.write_all(now).await?;
            link.count(Count::Bytes, part as u64);
            rest = later;
            if let Some(speed) = speed {
                write.flush().await?;
                let nanos = (part as u64).saturating_mul(1_000_000_000) / speed.max(1);
                tokio::time::sleep(Duration::from_nanos(nanos)).await;
            }
        }
        write.flush().await?;
    }
    // The end is held back like everything else.
    watch.wait_for(|w| w.faults.flow != Flow::Stall).await.ok();
    write.shutdown().await
}
