//! Frames on their way to the peer: one bounded queue per connection.
//!
//! What it guarantees: frames leave in the order in which they were given; what waits is bounded in bytes, and who would go
//! over the bound is told at once; frames that wait for the same write leave as one batch (the first goes out at once, those
//! that come while it is being written follow together, so batches grow with the load and add no delay).
//!
//! What it refuses: waiting. A caller that may wait asks [`Outbound::has_room`] first.

use crate::{BATCH_BYTES, Limits};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use weald_proto::{Frame, FrameError};

/// Batches that are written at the same time: one on the wire, one behind it.
const BATCHES_OUT_MAX: usize = 2;
/// Room beyond the limit for frames of at most [`SMALL_FRAME_BYTES`]: errors must reach a client that is over it.
const SMALL_SLACK_BYTES: usize = 256 << 10;
/// What counts as a small frame.
const SMALL_FRAME_BYTES: usize = 1 << 10;

/// Takes a batch to the peer; false when there is no way any more.
type Sink = Box<dyn Fn(Vec<u8>) -> bool + Send>;

/// Why a frame was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is over.
    #[error("the connection has ended")]
    Closed,
    /// Too much is waiting already.
    #[error("{waiting} bytes are waiting for the peer already")]
    Full {
        /// Bytes waiting.
        waiting: usize,
    },
    /// The frame is larger than any frame may be.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Vec<u8>>,
    out: VecDeque<usize>,
    bytes: usize,
    written: u64,
    sink: Option<Sink>,
    closed: bool,
}

/// The queue of one connection.
pub struct Outbound {
    queue: Mutex<Queue>,
    bytes_max: usize,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("bytes", &self.bytes())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl Outbound {
    /// An empty queue; frames wait in it until [`Outbound::attach`].
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { queue: Mutex::default(), bytes_max: limits.outbound_bytes_max }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError`]; the frame is not queued then.
    pub fn send(&self, frame: &Frame) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(SendError::Closed);
        }
        let len = frame.encoded_len();
        let slack = if len <= SMALL_FRAME_BYTES { SMALL_SLACK_BYTES } else { 0 };
        if queue.bytes > 0 && queue.bytes.saturating_add(len) > self.bytes_max + slack {
            return Err(SendError::Full { waiting: queue.bytes });
        }
        match queue.batches.back_mut() {
            Some(batch) if batch.len() + len <= BATCH_BYTES => frame.encode(batch)?,
            _ => {
                let mut batch = Vec::new();
                frame.encode(&mut batch)?;
                queue.batches.push_back(batch);
            }
        }
        queue.bytes += len;
        queue.pump();
        Ok(())
    }

    /// Whether less than half of the bound is waiting.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes() < self.bytes_max / 2
    }

    /// Bytes given and not yet written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Batches written so far: a writer that stands still shows here.
    #[must_use]
    pub fn written_count(&self) -> u64 {
        self.lock().written
    }

    /// Says where batches go, and sends those that wait.
    pub fn attach(&self, sink: impl Fn(Vec<u8>) -> bool + Send + 'static) {
        let mut queue = self.lock();
        queue.sink = Some(Box::new(sink));
        queue.pump();
    }

    /// The oldest batch given to the sink has been written.
    pub fn written(&self) {
        let mut queue = self.lock();
        if let Some(len) = queue.out.pop_front() {
            queue.bytes = queue.bytes.saturating_sub(len);
            queue.written += 1;
        }
        queue.pump();
    }

    /// Drops what waits; nothing is taken any more.
    pub fn close(&self) {
        let mut queue = self.lock();
        *queue = Queue { closed: true, written: queue.written, ..Queue::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way: a poisoned queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pump(&mut self) {
        let Some(sink) = &self.sink else { return };
        while self.out.len() < BATCHES_OUT_MAX {
            let Some(batch) = self.batches.pop_front() else {
                return;
            };
            self.out.push_back(batch.len());
            if !sink(batch) {
                *self = Self { closed: true, written: self.written, ..Self::default() };
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn frame(len: usize) -> Frame {
        Frame { kind: 1, corr: 1, body: vec![7; len] }
    }

    #[test]
    fn frames_that_wait_leave_as_one_batch_and_in_order() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let outbound = Outbound::new(&Limits::default());
        let log = Arc::clone(&sent);
        outbound.attach(move |batch| {
            log.lock().unwrap().push(Frame::decode_batch(&batch).unwrap());
            true
        });
        for corr in 0..10 {
            outbound.send(&Frame { kind: 1, corr, body: vec![] }).unwrap();
        }
        assert_eq!(sent.lock().unwrap().len(), 2, "two batches are out, eight frames wait");
        outbound.written();
        let sent = sent.lock().unwrap();
        assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 8]);
        assert!(sent.iter().flatten().map(|f| f.corr).eq(0..10));
        assert_eq!(outbound.bytes(), 9 * 16);
    }

    #[test]
    fn full_queue_refuses_but_lets_small_frames_through_for_a_while() {
        let limits = Limits { outbound_bytes_max: 10_000, ..Limits::default() };
        let outbound = Outbound::new(&limits);
        outbound.send(&frame(9_000)).unwrap();
        assert!(matches!(outbound.send(&frame(2_000)), Err(SendError::Full { .. })));
        for _ in 0..1_000 {
            outbound.send(&frame(10)).unwrap();
        }
        let refused = (0..20_000).any(|_| outbound.send(&frame(10)).is_err());
        assert!(refused && outbound.bytes() < 10_000 + SMALL_SLACK_BYTES);
        outbound.close();
        assert_eq!(outbound.send(&frame(1)), Err(SendError::Closed));
        assert_eq!(outbound.bytes(), 0);
    }
}
