//! One live connection: requests that await replies, and frames that the node pushes.

use crate::inbox::Inbox;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use weald_link::{Close, Outbound, Receive, SendError};
use weald_proto::Frame;
use weald_proto::request::kind;

type Closer = Box<dyn Fn(Close) + Send + Sync>;

/// A connection. Whatever waits on it fails when it ends.
pub(crate) struct Wire {
    outbound: Arc<Outbound>,
    inbox: Arc<Inbox>,
    pending: Mutex<Pending>,
    phase: watch::Sender<Phase>,
    closer: OnceLock<Closer>,
    me: Weak<Self>,
}

/// What a connection is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Up,
    Over(Close),
}

#[derive(Default)]
struct Pending {
    over: bool,
    last: u64,
    by_corr: BTreeMap<u64, oneshot::Sender<Frame>>,
}

/// A request on its way; forgotten when dropped.
pub(crate) struct Sent {
    wire: Arc<Wire>,
    corr: u64,
    reply: oneshot::Receiver<Frame>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(outbound: Arc<Outbound>, inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            outbound,
            inbox,
            pending: Mutex::default(),
            phase: watch::Sender::new(Phase::Opening),
            closer: OnceLock::new(),
            me: me.clone(),
        })
    }

    /// Says how the connection is ended.
    pub(crate) fn ends_by(&self, closer: impl Fn(Close) + Send + Sync + 'static) {
        self.closer.set(Box::new(closer)).ok();
    }

    /// Ends it.
    pub(crate) fn end(&self, why: &str) {
        if let Some(closer) = self.closer.get() {
            closer(Close::Local(why.to_owned()));
        }
    }

    /// Waits until it is up; or why it never was.
    pub(crate) async fn up(&self) -> Result<(), Close> {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(|phase| *phase != Phase::Opening).await.as_deref() {
            Ok(Phase::Over(why)) => Err(why.clone()),
            Ok(Phase::Opening | Phase::Up) => Ok(()),
            Err(_gone) => Err(Close::Peer),
        }
    }

    /// Waits until it is over.
    pub(crate) async fn over(&self) -> Close {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(|phase| matches!(phase, Phase::Over(_))).await.as_deref() {
            Ok(Phase::Over(why)) => why.clone(),
            Ok(Phase::Opening | Phase::Up) | Err(_) => Close::Peer,
        }
    }

    /// Sends a request. An error means that nothing was sent.
    pub(crate) fn send(self: &Arc<Self>, frame: &mut Frame) -> Result<Sent, SendError> {
        let (answer, reply) = oneshot::channel();
        let corr = {
            let mut pending = self.pending();
            if pending.over {
                return Err(SendError::Closed);
            }
            pending.last += 1;
            let corr = pending.last;
            pending.by_corr.insert(corr, answer);
            corr
        };
        let sent = Sent { wire: Arc::clone(self), corr, reply };
        frame.corr = corr;
        self.outbound.send(frame)?;
        Ok(sent)
    }

    /// Answers a push.
    pub(crate) fn answer(&self, frame: &Frame) {
        // A node that cannot take the answer sees a time-out, as it must anyway.
        self.outbound.send(frame).ok();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing in here panics half-way.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a request that was sent.
pub(crate) enum Outcome {
    Reply(Frame),
    /// The connection ended first.
    Lost,
    Elapsed,
}

impl Sent {
    pub(crate) async fn outcome(mut self, until: tokio::time::Instant) -> Outcome {
        match tokio::time::timeout_at(until, &mut self.reply).await {
            Ok(Ok(frame)) => Outcome::Reply(frame),
            Ok(Err(_dropped)) => Outcome::Lost,
            Err(_elapsed) => Outcome::Elapsed,
        }
    }

    /// As [`Sent::outcome`], within a time from now.
    pub(crate) async fn outcome_within(self, limit: Duration) -> Outcome {
        self.outcome(tokio::time::Instant::now() + limit).await
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.wire.pending().by_corr.remove(&self.corr);
    }
}

impl Receive for Wire {
    fn up(&self) {
        self.phase.send_if_modified(|phase| {
            let opening = *phase == Phase::Opening;
            if opening {
                *phase = Phase::Up;
            }
            opening
        });
    }

    fn frame(&self, frame: Frame) {
        if frame.kind & kind::REPLY == 0 {
            if let Some(me) = self.me.upgrade() {
                self.inbox.take(&me, frame);
            }
            return;
        }
        let waiter = self.pending().by_corr.remove(&frame.corr);
        if let Some(waiter) = waiter {
            // Whoever gave up waiting does not want it.
            waiter.send(frame).ok();
        }
    }

    fn closed(&self, why: &Close) {
        let waiting = {
            let mut pending = self.pending();
            pending.over = true;
            std::mem::take(&mut pending.by_corr)
        };
        drop(waiting);
        self.phase.send_replace(Phase::Over(why.clone()));
    }
}
