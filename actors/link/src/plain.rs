//! Frames over a stream of the same machine, one after another, without a handshake and without `ractor_cluster`.
//!
//! What it guarantees: the same as a [`crate::Connection`]: bounded bytes, a peer that does not read is cut, the end is
//! reported once, also when the task is dropped. A body is allocated as it comes, not as it is announced.
//!
//! What it refuses: telling a silent peer from a dead one. The system does that for processes of one machine.

use crate::stream::{BoxRead, BoxWrite};
use crate::{Close, Halves, Limits, Outbound, Receive};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};
use weald_proto::frame::{Frame, HEADER_BYTES, Header};

/// Bytes taken for a body before any of it has come.
const BODY_FIRST_BYTES: usize = 64 << 10;
/// Batches between the queue and the writer; more than the queue ever has under way.
const BATCHES: usize = 4;

/// A connection not yet running.
#[derive(Debug)]
pub struct Plain {
    halves: Halves,
    outbound: Arc<Outbound>,
    limits: Limits,
    end: watch::Sender<Option<Close>>,
}

/// Ends a plain connection from outside.
#[derive(Debug, Clone)]
pub struct PlainHandle(watch::Sender<Option<Close>>);

impl PlainHandle {
    /// Ends it; the first reason given stays.
    pub fn close(&self, why: Close) {
        self.0.send_if_modified(|end| end.is_none().then(|| *end = Some(why)).is_some());
    }
}

/// Reports the end, also of a task that is dropped.
struct Ending {
    receive: Arc<dyn Receive>,
    outbound: Arc<Outbound>,
    why: Close,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.outbound.close();
        self.receive.closed(&self.why);
    }
}

impl Plain {
    /// A connection over these halves.
    #[must_use]
    pub fn new(halves: Halves, outbound: Arc<Outbound>, limits: Limits) -> Self {
        Self { halves, outbound, limits, end: watch::Sender::new(None) }
    }

    /// Ends the connection from outside, at any time.
    #[must_use]
    pub fn handle(&self) -> PlainHandle {
        PlainHandle(self.end.clone())
    }

    /// Runs it until it ends.
    pub async fn run(self, receive: Arc<dyn Receive>) {
        let Self { halves, outbound, limits, end } = self;
        let why = Close::Local("the connection's task was dropped".to_owned());
        let mut ending =
            Ending { receive: Arc::clone(&receive), outbound: Arc::clone(&outbound), why };
        receive.up();
        let mut ended = end.subscribe();
        let why = tokio::select! {
            why = read_frames(halves.read, &*receive) => why,
            why = write_batches(halves.write, &outbound, limits.idle_timeout) => why,
            why = ended.wait_for(Option::is_some) => {
                why.ok().and_then(|why| why.clone()).unwrap_or(Close::Peer)
            }
        };
        ending.why = why;
    }
}

async fn write_batches(mut write: BoxWrite, outbound: &Outbound, timeout: Duration) -> Close {
    let (batches, mut to_write) = mpsc::channel::<Vec<u8>>(BATCHES);
    outbound.attach(move |batch| batches.try_send(batch).is_ok());
    while let Some(batch) = to_write.recv().await {
        let mut rest = &*batch;
        while !rest.is_empty() {
            match tokio::time::timeout(timeout, write.write(rest)).await {
                Ok(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Ok(Err(e)) => return Close::Io(e.to_string()),
                Err(_elapsed) => return Close::Stalled,
            }
        }
        outbound.written();
    }
    Close::Local("the session has ended".to_owned())
}

async fn read_frames(mut read: BufReader<BoxRead>, receive: &dyn Receive) -> Close {
    loop {
        match read_frame(&mut read).await {
            Ok(Some(frame)) => receive.frame(frame),
            Ok(None) => return Close::Peer,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Close::Malformed(e.to_string());
            }
            Err(e) => return Close::Io(e.to_string()),
        }
    }
}

/// The next frame; none at the end.
async fn read_frame(read: &mut BufReader<BoxRead>) -> io::Result<Option<Frame>> {
    let mut head = [0; HEADER_BYTES];
    match read.read_exact(&mut head).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let header =
        Header::decode(&head).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let mut body = Vec::with_capacity(header.len.min(BODY_FIRST_BYTES));
    read.take(header.len as u64).read_to_end(&mut body).await?;
    if body.len() < header.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { kind: header.kind, corr: header.corr, body }))
}
