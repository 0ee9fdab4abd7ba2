//! Frames from the node to a client that await an answer.

use crate::service::{BoxFuture, Push, PushError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use weald_link::{Outbound, SendError};
use weald_proto::Frame;

/// Most frames that await an answer of one client.
const PUSHES_MAX: usize = 1024;

/// The pushes of one session.
pub(super) struct Pushes {
    outbound: Arc<Outbound>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    closed: bool,
    by_corr: BTreeMap<u64, oneshot::Sender<Frame>>,
}

impl Pushes {
    pub(super) fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound, waiting: Mutex::default() }
    }

    /// Hands an answer to who waits for it. An answer nobody waits for came too late, and is dropped.
    pub(super) fn answered(&self, frame: Frame) {
        let waiter = self.lock().by_corr.remove(&frame.corr);
        if let Some(waiter) = waiter {
            waiter.send(frame).ok();
        }
    }

    /// Fails all that wait, and all that come.
    pub(super) fn close(&self) {
        let waiting = {
            let mut waiting = self.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.by_corr)
        };
        drop(waiting);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(
        self: &Arc<Self>,
        mut frame: Frame,
    ) -> Result<(Entry, oneshot::Receiver<Frame>), PushError> {
        if !self.outbound.has_room() {
            return Err(PushError::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let corr = {
            let mut waiting = self.lock();
            if waiting.closed {
                return Err(PushError::Closed);
            }
            if waiting.by_corr.len() >= PUSHES_MAX {
                return Err(PushError::Overloaded);
            }
            waiting.next += 1;
            let corr = waiting.next;
            waiting.by_corr.insert(corr, answer);
            corr
        };
        let entry = Entry { pushes: Arc::clone(self), corr };
        frame.corr = corr;
        match self.outbound.send(&frame) {
            Ok(()) => Ok((entry, answered)),
            Err(SendError::Closed) => Err(PushError::Closed),
            Err(_) => Err(PushError::Overloaded),
        }
    }
}

/// A push that waits; no longer listed once dropped.
struct Entry {
    pushes: Arc<Pushes>,
    corr: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.pushes.lock().by_corr.remove(&self.corr);
    }
}

impl Push for Arc<Pushes> {
    fn request(
        &self,
        frame: Frame,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Frame, PushError>> {
        // Sent now, not at the first poll: pushes keep the order in which they were made.
        let sent = self.send(frame);
        Box::pin(async move {
            let (_entry, answered) = sent?;
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(frame)) => Ok(frame),
                Ok(Err(_closed)) => Err(PushError::Lost),
                Err(_elapsed) => Err(PushError::Timeout),
            }
        })
    }
}
