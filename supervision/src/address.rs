//! Stable addresses of children.
//!
//! Guarantees: an address stays valid over restarts and always leads to the present incarnation;
//! `Ok` of a cast means that the message lies in the mailbox of a live incarnation whose end was not
//! known; after an end was seen every cast gives its message back; the path of a cast takes no lock
//! of ours. Refuses: to queue for a child that is down, to grow a mailbox beyond its limit.
//!
//! What `Ok` cannot mean: that the message is handled. A child may die with messages waiting; a
//! [`Address::call`] tells (`Lost`), a cast does not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::{ActorId, ActorRef, Message, MessagingErr, RpcReplyPort};
use tokio::sync::{oneshot, watch};

use crate::probe::Probe;

/// Messages that may wait in a mailbox unless [`Address::with_capacity`] says otherwise. A guess:
/// at some 150 B a slot it bounds a mailbox at about 150 MB.
pub const MAILBOX_LEN_MAX: u64 = 1 << 20;

/// A stable handle of a child whose messages are `M`. Clones are the same address.
pub struct Address<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    name: String,
    capacity: u64,
    slot: ArcSwapOption<Live<M>>,
    /// Whether an incarnation is up; for those who wait.
    changes: watch::Sender<bool>,
}

struct Live<M> {
    actor: ActorRef<M>,
    probe: Arc<Probe>,
}

/// A cast that was not delivered; the message comes back.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Undelivered<M> {
    /// No incarnation is up.
    #[error("the child is down")]
    Down(M),
    /// As many messages as allowed are waiting.
    #[error("the mailbox is full")]
    Full(M),
}

impl<M> Undelivered<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Down(message) | Self::Full(message) => message,
        }
    }
}

impl<M> std::fmt::Debug for Undelivered<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Down(_) => "Undelivered::Down",
            Self::Full(_) => "Undelivered::Full",
        })
    }
}

/// A call without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Certainly not delivered: the child is down or its mailbox is full.
    #[error("the child is down or refused the call")]
    Down,
    /// Delivered, then the child ended or dropped the reply: the outcome is unknown.
    #[error("the child ended or dropped the reply; the outcome is unknown")]
    Lost,
    /// No answer in time; it may still be handled.
    #[error("no answer in time")]
    Timeout,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M> std::fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("name", &self.inner.name)
            .field("up", &self.is_up())
            .finish()
    }
}

impl<M> Address<M> {
    /// An address nobody lives at yet. The name is for people (logs, errors), it need not be unique.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_capacity(name, MAILBOX_LEN_MAX)
    }

    /// As [`Self::new`], with a limit of its own for waiting messages.
    #[must_use]
    pub fn with_capacity(name: &str, mailbox_len_max: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                capacity: mailbox_len_max,
                slot: ArcSwapOption::empty(),
                changes: watch::Sender::new(false),
            }),
        }
    }

    /// The name given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether an incarnation is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.slot.load().is_some()
    }

    /// Waits until an incarnation is up; `false` when that took longer than `timeout`.
    pub async fn wait_up(&self, timeout: Duration) -> bool {
        let mut changes = self.inner.changes.subscribe();
        let up = async {
            while !self.is_up() {
                // The sender lives in `self`, so this cannot fail while we wait.
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(timeout, up).await.unwrap_or(false)
    }

    /// Messages sent through addresses and not handled yet.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.inner.slot.load().as_ref().map_or(0, |live| live.probe.depth())
    }

    /// Id of the present incarnation.
    #[must_use]
    pub fn actor_id(&self) -> Option<ActorId> {
        self.inner.slot.load().as_ref().map(|live| live.actor.get_id())
    }

    /// Takes the address down if this incarnation holds it.
    pub(crate) fn detach(&self, id: ActorId) {
        let before = self.inner.slot.rcu(|live| match live {
            Some(live) if live.actor.get_id() == id => None,
            Some(live) => Some(Arc::clone(live)),
            None => None,
        });
        if before.is_some_and(|live| live.actor.get_id() == id) {
            self.inner.changes.send_replace(false);
        }
    }
}

impl<M: Message> Address<M> {
    /// Puts a message into the mailbox of the present incarnation.
    ///
    /// # Errors
    /// [`Undelivered`] with the message, when the child is down or its mailbox is full.
    pub fn cast(&self, message: M) -> Result<(), Undelivered<M>> {
        let slot = self.inner.slot.load();
        let Some(live) = slot.as_ref() else {
            return Err(Undelivered::Down(message));
        };
        if !live.probe.admit(self.inner.capacity) {
            return Err(Undelivered::Full(message));
        }
        match live.actor.send_message(message) {
            Ok(()) => Ok(()),
            Err(MessagingErr::SendErr(message)) => {
                live.probe.take_one();
                Err(Undelivered::Down(message))
            }
            // A local actor of this very type gives neither of these.
            Err(MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => {
                unreachable!("a typed local send gives the message back")
            }
        }
    }

    /// Sends a message that carries a reply port, and waits for the reply.
    ///
    /// # Errors
    /// [`CallError`]; it tells whether the message can have been handled.
    pub fn call<T, F>(
        &self,
        make: F,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, CallError>> + Send + 'static + use<T, F, M>
    where
        T: Send + 'static,
        F: FnOnce(RpcReplyPort<T>) -> M,
    {
        let (reply, answer) = oneshot::channel();
        // Sent at once, not at the first poll: calls keep the order in which they were made.
        let sent = self
            .cast(make(RpcReplyPort::from((reply, timeout))))
            .map_err(|_undelivered| CallError::Down);
        async move {
            sent?;
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(_dropped)) => Err(CallError::Lost),
                Err(_elapsed) => Err(CallError::Timeout),
            }
        }
    }

    pub(crate) fn attach(&self, actor: ActorRef<M>, probe: Arc<Probe>) {
        self.inner.slot.store(Some(Arc::new(Live { actor, probe })));
        self.inner.changes.send_replace(true);
    }
}
