//! Who a client is, and what it may do: the seams that methods and rules of access are plugged into.
//!
//! What this gives: [`Authenticator`] turns HELLO and AUTHENTICATE into a [`Principal`], in as many steps as its method
//! needs; [`Authorizer`] decides on each action from memory. What it refuses: to know any method but anonymous, or where
//! rules are kept.

use std::fmt;

use bytestring::ByteString;
use futures::future::BoxFuture;
use weald_wamp::message::{HelloDetails, MatchPolicy};
use weald_wamp::{Dict, SessionId};

mod open;

pub use open::{Anonymous, Open};

/// Who is behind a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// Its name in the realm.
    pub authid: ByteString,
    /// Its role.
    pub authrole: ByteString,
    /// How it proved who it is.
    pub authmethod: ByteString,
    /// Who says so.
    pub authprovider: ByteString,
    /// What else the client is told of it in WELCOME.
    pub authextra: Option<Dict>,
}

/// What an authenticator is told of a client.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The realm it asks for; it exists.
    pub realm: &'a str,
    /// What it said in HELLO.
    pub details: &'a HelloDetails,
    /// The id that the session will have.
    pub session: SessionId,
    /// Where it comes from.
    pub peer: Option<std::net::IpAddr>,
}

/// How joining goes on.
pub enum Verdict {
    /// The session begins.
    Welcome(Principal),
    /// CHALLENGE.
    Challenge {
        /// The method.
        method: ByteString,
        /// What goes with it.
        extra: Dict,
        /// Takes the answer.
        pending: Box<dyn Pending>,
    },
    /// ABORT.
    Refuse {
        /// The reason, a URI.
        reason: &'static str,
        /// The explanation.
        message: String,
    },
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome(principal) => f.debug_tuple("Welcome").field(principal).finish(),
            Self::Challenge { method, .. } => f.debug_tuple("Challenge").field(method).finish(),
            Self::Refuse { reason, .. } => f.debug_tuple("Refuse").field(reason).finish(),
        }
    }
}

/// A challenge whose answer is awaited.
pub trait Pending: Send + 'static {
    /// The client's AUTHENTICATE.
    fn answer(self: Box<Self>, signature: &str, extra: &Dict) -> BoxFuture<'static, Verdict>;
}

/// Decides who a client is.
pub trait Authenticator: Send + Sync + 'static {
    /// The client's HELLO.
    fn hello(&self, offer: &Offer<'_>) -> BoxFuture<'static, Verdict>;
}

/// What a session wants to do with a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// CALL.
    Call,
    /// REGISTER.
    Register,
    /// PUBLISH.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
}

impl Action {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "calling",
            Self::Register => "registering",
            Self::Publish => "publishing to",
            Self::Subscribe => "subscribing to",
        }
    }
}

/// Whether callees and subscribers learn who the caller or publisher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// When it asks for it itself, or the callee's registration does.
    OnRequest,
    /// Always.
    Always,
    /// Never; asking for it is an error.
    Never,
}

/// What an authorizer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// Who learns of it.
        disclosure: Disclosure,
        /// How far the router trusts it, for callees and subscribers to see.
        trustlevel: Option<u64>,
    },
    /// It may not.
    Deny,
    /// It could not be decided.
    Failed,
}

/// Decides what a principal may do. Called on the routing path: from memory, without waiting.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether it may. `policy` is how the URI of a SUBSCRIBE or REGISTER matches.
    fn decide(
        &self,
        principal: &Principal,
        action: Action,
        uri: &str,
        policy: MatchPolicy,
    ) -> Decision;

    /// Whether a decision may name a trust level. Clients are told of trust levels only then.
    fn gives_trustlevels(&self) -> bool;

    /// Whether a decision may let callers and publishers be disclosed. Clients are told that they may be only then.
    fn discloses(&self) -> bool;
}
