//! A session as others hold it: who it is, and how to write to it.
//!
//! Guarantees: writing never waits; what one task writes arrives in order. A handle of a session that has ended is
//! harmless: what is written to it goes nowhere.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weald_transports::{Class, Flushes, Framing, Kick, Outbox, Pushed};
use weald_wamp::roles::Roles;
use weald_wamp::{Dict, Message, Serializer, SessionId};

use super::testament::Testaments;
use crate::auth::Principal;
use crate::dealer::calls::Calls;
use crate::dealer::invocations::Invocations;
use crate::dealer::{Caller, Retry};
use crate::error;
use crate::registry::Subscriber;

/// Why a session is ended by the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The reason in GOODBYE, a URI.
    pub reason: String,
    /// The explanation, if any.
    pub message: Option<String>,
    /// Whether its end is published, with testaments and meta events.
    pub is_announced: bool,
}

impl Ending {
    /// The node stops.
    pub(crate) fn system_shutdown() -> Self {
        let reason = error::SYSTEM_SHUTDOWN.to_owned();
        Self { reason, message: None, is_announced: true }
    }
}

/// A session. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    id: SessionId,
    principal: Principal,
    roles: Roles,
    transport: Dict,
    serializer: Serializer,
    outbox: Outbox,
    calls: Mutex<Calls<Handle, Arc<Retry>>>,
    invocations: Mutex<Invocations<Caller>>,
    testaments: Mutex<Testaments>,
    ending: Mutex<Option<Ending>>,
    is_gone: AtomicBool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.id).finish()
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Handle {}

impl Subscriber for Handle {
    fn id(&self) -> SessionId {
        self.0.id
    }
}

/// What a session is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its id.
    pub id: SessionId,
    /// Who is behind it.
    pub principal: Principal,
    /// What its client can do.
    pub roles: Roles,
    /// How it is connected, for the session meta API.
    pub transport: Dict,
    /// What it speaks.
    pub serializer: Serializer,
    /// The way to its client.
    pub outbox: Outbox,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, as long as the connection lasts.
    Queued,
    /// It is larger than the client takes.
    TooLarge,
    /// The client is gone, or reads too slowly.
    Lost,
}

impl Handle {
    /// A session that begins.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { id, principal, roles, transport, serializer, outbox } = parts;
        Self(Arc::new(Inner {
            id,
            principal,
            roles,
            transport,
            serializer,
            outbox,
            calls: Mutex::default(),
            invocations: Mutex::default(),
            testaments: Mutex::default(),
            ending: Mutex::default(),
            is_gone: AtomicBool::new(false),
        }))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Who is behind it.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// What its client can do.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.0.roles
    }

    /// How it is connected.
    #[must_use]
    pub fn transport(&self) -> &Dict {
        &self.0.transport
    }

    /// What it speaks.
    #[must_use]
    pub fn serializer(&self) -> Serializer {
        self.0.serializer
    }

    /// How its messages are framed.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.0.outbox.framing()
    }

    /// Its calls in flight.
    pub(crate) fn calls(&self) -> MutexGuard<'_, Calls<Self, Arc<Retry>>> {
        // A panic while it was held ends a session; what is in the table is whole all the same.
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The invocations it works on.
    pub(crate) fn invocations(&self) -> MutexGuard<'_, Invocations<Caller>> {
        self.0.invocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be published when it ends.
    pub(crate) fn testaments(&self) -> MutexGuard<'_, Testaments> {
        self.0.testaments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message whose payload is in its serializer already.
    pub(crate) fn send(&self, message: &Message, flushes: &mut Flushes) -> Sent {
        match encode(message, self.serializer(), self.framing()) {
            Some(framed) => self.send_framed(framed, Class::Reply, flushes),
            None => Sent::TooLarge,
        }
    }

    /// Sends what was encoded and framed for it.
    pub(crate) fn send_framed(&self, framed: Bytes, class: Class, flushes: &mut Flushes) -> Sent {
        match flushes.push(&self.0.outbox, framed, class) {
            Pushed::First | Pushed::Queued => Sent::Queued,
            Pushed::TooLarge => Sent::TooLarge,
            Pushed::Dropped | Pushed::Refused => Sent::Lost,
        }
    }

    /// Ends the session soon: GOODBYE, and what follows from its end.
    pub fn end(&self, ending: Ending) {
        let mut slot = self.0.ending.lock().unwrap_or_else(PoisonError::into_inner);
        // The first reason holds.
        slot.get_or_insert(ending);
        drop(slot);
        self.0.outbox.kick(Kick::Asked);
    }

    /// Why the router ends it, if it does.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.0.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks it as gone. True the first time.
    pub(crate) fn mark_gone(&self) -> bool {
        !self.0.is_gone.swap(true, Ordering::AcqRel)
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.is_gone.load(Ordering::Acquire)
    }
}

/// Room for what is not payload in most messages.
const HEAD_BYTES: usize = 64;

fn payload_bytes(message: &Message) -> usize {
    let payload = match message {
        Message::Event(event) => &event.payload,
        Message::Invocation(invocation) => &invocation.payload,
        Message::Result(result) => &result.payload,
        Message::Error(error) => &error.payload,
        // Those of the router's own are short, but for WELCOME.
        _ => return HEAD_BYTES,
    };
    payload.raw().len()
}

/// A message as it goes out. None when it has no encoding: a value is beyond what the serializer can say.
pub(crate) fn encode(message: &Message, serializer: Serializer, framing: Framing) -> Option<Bytes> {
    let expected_bytes = HEAD_BYTES + payload_bytes(message);
    match framing.try_frame(expected_bytes, |buffer| message.encode(serializer, buffer)) {
        Ok(framed) => Some(framed),
        Err(error) => {
            tracing::debug!(event = "message_unencodable", %serializer, %error, "a message has no encoding");
            None
        }
    }
}
