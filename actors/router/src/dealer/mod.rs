//! RPC: calls and invocations.
//!
//! What is in flight is kept with the sessions it concerns, caller's and callee's, each under a lock of its own that is
//! held for a few instructions and never together with another session's. So a call costs no shared actor and no global
//! lock, and what a session leaves behind is found with it. Messages that follow from a state are queued under the lock that
//! guards it, so that they leave in the order of the states.

use std::sync::Arc;

use bytestring::ByteString;
use weald_storage::NodeId;
use weald_wamp::message::{Discloser, Ppt};
use weald_wamp::{Payload, RegistrationId, RequestId, SessionId};

use crate::registry::{Callee, Excluded};
use crate::relay::CallKey;
use crate::session::handle::Handle;

pub(crate) mod answer;
pub mod call;
pub mod calls;
pub(crate) mod cancel;
pub mod invocations;
pub(crate) mod invoke;
pub(crate) mod register;

/// Who waits for what a callee answers.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A session of this node.
    Local {
        /// The session.
        session: Handle,
        /// Its call.
        request: RequestId,
    },
    /// A session of another node.
    Remote {
        /// The node.
        node: NodeId,
        /// The call, as that node knows it.
        key: CallKey,
    },
}

/// What a callee is to be told, whoever it is.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// What was called.
    pub(crate) procedure: ByteString,
    /// Who called, if the caller or the router discloses it.
    pub(crate) caller: Option<Discloser>,
    /// Who called, for callees whose registration asks to know.
    pub(crate) identity: Discloser,
    /// Whether callees may know at all.
    pub(crate) is_secret: bool,
    /// How far the router trusts the caller.
    pub(crate) trustlevel: Option<u64>,
    /// Whether the caller takes progressive results.
    pub(crate) receive_progress: bool,
    /// Whether more chunks follow.
    pub(crate) progress: bool,
    /// What the caller allows, milliseconds; for callees that keep to it themselves.
    pub(crate) timeout_ms: Option<u64>,
    /// How the payload is wrapped, if it is.
    pub(crate) ppt: Option<Box<Ppt>>,
    /// The arguments.
    pub(crate) payload: Payload,
}

/// What it takes to send a call to another callee.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    /// What is asked.
    pub(crate) request: Arc<Request>,
    /// Sessions of this node that were asked in vain.
    pub(crate) sessions: Vec<SessionId>,
    /// Nodes whose callees were asked in vain.
    pub(crate) nodes: Vec<NodeId>,
    /// Whether one of these could not be reached.
    pub(crate) is_unreached: bool,
}

impl Retry {
    pub(crate) fn new(request: Arc<Request>) -> Self {
        Self { request, sessions: Vec::new(), nodes: Vec::new(), is_unreached: false }
    }

    /// The same, without another callee.
    pub(crate) fn without(&self, tried: Tried) -> Self {
        let mut retry = self.clone();
        match tried {
            Tried::Session(session) => retry.sessions.push(session),
            Tried::Node(node) => retry.nodes.push(node),
            Tried::Unreached(node) => {
                retry.nodes.push(node);
                retry.is_unreached = true;
            }
        }
        retry
    }

    pub(crate) fn excluded(&self) -> Excluded<'_> {
        Excluded { sessions: &self.sessions, nodes: &self.nodes }
    }
}

/// Who was asked in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// A session of this node.
    Session(SessionId),
    /// Another node, with all its callees.
    Node(NodeId),
    /// One that could not be reached.
    Unreached(NodeId),
}

/// Whether a callee has as many invocations of a registration as it wants at a time.
pub(crate) fn is_busy(registration: RegistrationId, callee: &Callee<Handle>) -> bool {
    callee
        .options
        .concurrency
        .is_some_and(|most| callee.session.invocations().count(registration) as u64 >= most)
}

/// Why a call ends without an answer of a callee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The error, a URI.
    pub(crate) error: &'static str,
    /// The explanation.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(error: &'static str, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

/// A session as it is disclosed.
pub(crate) fn disclose(session: &Handle) -> Discloser {
    let principal = session.principal();
    Discloser {
        session: session.id(),
        authid: Some(principal.authid.clone()),
        authrole: Some(principal.authrole.clone()),
    }
}
