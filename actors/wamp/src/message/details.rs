//! Details of messages.

use bytestring::ByteString;

use super::options::Ppt;
use crate::id::SessionId;
use crate::roles::Roles;
use crate::value::Dict;

/// Details of HELLO.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HelloDetails {
    /// What the client can do; a client without any role is none.
    pub roles: Roles,
    /// The client's software.
    pub agent: Option<ByteString>,
    /// Ways to authenticate, the preferred one first; absent is `anonymous` only.
    pub authmethods: Option<Vec<ByteString>>,
    /// Who the client says it is.
    pub authid: Option<ByteString>,
    /// The role it asks for.
    pub authrole: Option<ByteString>,
    /// What methods of authentication need.
    pub authextra: Dict,
}

/// The peer who called or published, where it is disclosed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discloser {
    /// Its session.
    pub session: SessionId,
    /// Its authid.
    pub authid: Option<ByteString>,
    /// Its role.
    pub authrole: Option<ByteString>,
}

/// Details of EVENT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventDetails {
    /// `publisher`, `publisher_authid`, `publisher_authrole`.
    pub publisher: Option<Discloser>,
    /// The topic published to, for subscriptions to patterns.
    pub topic: Option<ByteString>,
    /// How far the publisher is trusted; 0 is least.
    pub trustlevel: Option<u64>,
    /// It was retained from earlier.
    pub retained: bool,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}

/// Details of INVOCATION.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvocationDetails {
    /// `caller`, `caller_authid`, `caller_authrole`.
    pub caller: Option<Discloser>,
    /// The procedure called, for registrations of patterns.
    pub procedure: Option<ByteString>,
    /// How far the caller is trusted; 0 is least.
    pub trustlevel: Option<u64>,
    /// The caller takes progressive results.
    pub receive_progress: bool,
    /// More parts of this call follow.
    pub progress: bool,
    /// `timeout` in milliseconds, for callees that keep time themselves.
    pub timeout_ms: Option<u64>,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}

/// Details of RESULT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultDetails {
    /// More results follow.
    pub progress: bool,
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
}

/// Details of ERROR.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorDetails {
    /// Payload passthru mode.
    pub ppt: Option<Box<Ppt>>,
    /// Everything else that is said.
    pub rest: Dict,
}
