//! The messages, one struct for each.
//!
//! What it is: plain data with public fields. Options and details are typed structs whose `Default` is "all absent".
//!
//! What it guarantees: what was encoded decodes to the same, and [`decode`](crate::decode) takes every message either side may send.
//!
//! What it refuses: to know who may send what, and when; that is the session's business.

use bytestring::ByteString;

pub mod details;
pub mod options;

pub use details::{
    Discloser, ErrorDetails, EventDetails, HelloDetails, InvocationDetails, ResultDetails,
};
pub use options::{
    CallOptions, CancelMode, CancelOptions, Choice, InterruptOptions, InvokePolicy, MatchPolicy,
    Ppt, PublishOptions, Receivers, RegisterOptions, SubscribeOptions, UnknownChoice, YieldOptions,
};

use crate::id::{PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
use crate::payload::Payload;
use crate::value::Dict;

/// The type of a message: the number it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the message of that name")]
pub enum MessageType {
    Hello = 1,
    Welcome = 2,
    Abort = 3,
    Challenge = 4,
    Authenticate = 5,
    Goodbye = 6,
    Error = 8,
    Publish = 16,
    Published = 17,
    Subscribe = 32,
    Subscribed = 33,
    Unsubscribe = 34,
    Unsubscribed = 35,
    Event = 36,
    Call = 48,
    Cancel = 49,
    Result = 50,
    Register = 64,
    Registered = 65,
    Unregister = 66,
    Unregistered = 67,
    Invocation = 68,
    Interrupt = 69,
    Yield = 70,
}

impl MessageType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::Hello,
        Self::Welcome,
        Self::Abort,
        Self::Challenge,
        Self::Authenticate,
        Self::Goodbye,
        Self::Error,
        Self::Publish,
        Self::Published,
        Self::Subscribe,
        Self::Subscribed,
        Self::Unsubscribe,
        Self::Unsubscribed,
        Self::Event,
        Self::Call,
        Self::Cancel,
        Self::Result,
        Self::Register,
        Self::Registered,
        Self::Unregister,
        Self::Unregistered,
        Self::Invocation,
        Self::Interrupt,
        Self::Yield,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The type of a number.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Abort,
            4 => Self::Challenge,
            5 => Self::Authenticate,
            6 => Self::Goodbye,
            8 => Self::Error,
            16 => Self::Publish,
            17 => Self::Published,
            32 => Self::Subscribe,
            33 => Self::Subscribed,
            34 => Self::Unsubscribe,
            35 => Self::Unsubscribed,
            36 => Self::Event,
            48 => Self::Call,
            49 => Self::Cancel,
            50 => Self::Result,
            64 => Self::Register,
            65 => Self::Registered,
            66 => Self::Unregister,
            67 => Self::Unregistered,
            68 => Self::Invocation,
            69 => Self::Interrupt,
            70 => Self::Yield,
            _ => return None,
        })
    }

    /// The name, in capitals as the specification writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Abort => "ABORT",
            Self::Challenge => "CHALLENGE",
            Self::Authenticate => "AUTHENTICATE",
            Self::Goodbye => "GOODBYE",
            Self::Error => "ERROR",
            Self::Publish => "PUBLISH",
            Self::Published => "PUBLISHED",
            Self::Subscribe => "SUBSCRIBE",
            Self::Subscribed => "SUBSCRIBED",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsubscribed => "UNSUBSCRIBED",
            Self::Event => "EVENT",
            Self::Call => "CALL",
            Self::Cancel => "CANCEL",
            Self::Result => "RESULT",
            Self::Register => "REGISTER",
            Self::Registered => "REGISTERED",
            Self::Unregister => "UNREGISTER",
            Self::Unregistered => "UNREGISTERED",
            Self::Invocation => "INVOCATION",
            Self::Interrupt => "INTERRUPT",
            Self::Yield => "YIELD",
        }
    }
}

/// The request that an ERROR answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the message of that name")]
pub enum RequestType {
    Publish = 16,
    Subscribe = 32,
    Unsubscribe = 34,
    Call = 48,
    Register = 64,
    Unregister = 66,
    Invocation = 68,
}

impl RequestType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Publish,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Call,
        Self::Register,
        Self::Unregister,
        Self::Invocation,
    ];

    /// The number of the request's message type.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The request of a number; `None` where that message has no ERROR.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| u64::from(known.code()) == code)
    }
}

/// Opens a session. Client to router.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hello {
    /// The realm; `None` is null on the wire: the router chooses by the credentials.
    pub realm: Option<ByteString>,
    /// Who the client is and what it can do.
    pub details: HelloDetails,
}

/// The session is open. Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// The session.
    pub session: SessionId,
    /// `roles`, `realm`, `authid`, `authrole`, `authmethod`, `authprovider`, `authextra`, `agent`.
    pub details: Dict,
}

/// The session does not open, or ends at once. Both directions; never answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// `message` and others.
    pub details: Dict,
    /// Why.
    pub reason: ByteString,
    /// More about it.
    pub payload: Payload,
}

/// Asks for proof of who the client is. Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct Challenge {
    /// The method of authentication.
    pub method: ByteString,
    /// What the method needs.
    pub extra: Dict,
}

/// The proof. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticate {
    /// The signature, or the ticket.
    pub signature: ByteString,
    /// What the method needs.
    pub extra: Dict,
}

/// Ends a session; answered by another one. Both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Goodbye {
    /// `message` and others.
    pub details: Dict,
    /// Why.
    pub reason: ByteString,
}

/// A request failed. Both directions; from a client only for INVOCATION.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// What the request was.
    pub request_type: RequestType,
    /// The request.
    pub request: RequestId,
    /// What is said beside.
    pub details: ErrorDetails,
    /// Why.
    pub error: ByteString,
    /// More about it.
    pub payload: Payload,
}

/// Sends an event to a topic. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// The request.
    pub request: RequestId,
    /// How.
    pub options: PublishOptions,
    /// Where to.
    pub topic: ByteString,
    /// What.
    pub payload: Payload,
}

/// A publication was accepted. Router to client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The request.
    pub request: RequestId,
    /// The publication.
    pub publication: PublicationId,
}

/// Asks for events of a topic. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// The request.
    pub request: RequestId,
    /// How.
    pub options: SubscribeOptions,
    /// The topic or pattern.
    pub topic: ByteString,
}

/// A subscription is there. Router to client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    /// The request.
    pub request: RequestId,
    /// The subscription.
    pub subscription: SubscriptionId,
}

/// Ends a subscription. Client to router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The request.
    pub request: RequestId,
    /// The subscription.
    pub subscription: SubscriptionId,
}

/// A subscription has ended: as asked, or revoked by the router. Router to client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unsubscribed {
    /// The request; `None` (0 on the wire) when the router revoked the subscription.
    pub request: Option<RequestId>,
    /// `subscription` and `reason` of a revocation.
    pub revocation: Option<Dict>,
}

/// An event. Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The subscription it comes from.
    pub subscription: SubscriptionId,
    /// The publication.
    pub publication: PublicationId,
    /// What is said beside.
    pub details: EventDetails,
    /// What was published.
    pub payload: Payload,
}

/// Calls a procedure, or sends a further part of a call. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The request.
    pub request: RequestId,
    /// How.
    pub options: CallOptions,
    /// What to call.
    pub procedure: ByteString,
    /// The arguments.
    pub payload: Payload,
}

/// Gives up a call. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Cancel {
    /// The CALL's request.
    pub request: RequestId,
    /// How.
    pub options: CancelOptions,
}

/// A result of a call (RESULT). Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// The CALL's request.
    pub request: RequestId,
    /// What is said beside.
    pub details: ResultDetails,
    /// The result.
    pub payload: Payload,
}

/// Offers a procedure. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// The request.
    pub request: RequestId,
    /// How.
    pub options: RegisterOptions,
    /// The procedure or pattern.
    pub procedure: ByteString,
}

/// A registration is there. Router to client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The request.
    pub request: RequestId,
    /// The registration.
    pub registration: RegistrationId,
}

/// Ends a registration. Client to router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unregister {
    /// The request.
    pub request: RequestId,
    /// The registration.
    pub registration: RegistrationId,
}

/// A registration has ended: as asked, or revoked by the router. Router to client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unregistered {
    /// The request; `None` (0 on the wire) when the router revoked the registration.
    pub request: Option<RequestId>,
    /// `registration` and `reason` of a revocation.
    pub revocation: Option<Dict>,
}

/// A call arrives at a callee. Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The request, of the router's own counter for this session.
    pub request: RequestId,
    /// The registration it is for.
    pub registration: RegistrationId,
    /// What is said beside.
    pub details: InvocationDetails,
    /// The arguments.
    pub payload: Payload,
}

/// Asks a callee to stop. Router to client.
#[derive(Debug, Clone, PartialEq)]
pub struct Interrupt {
    /// The INVOCATION's request.
    pub request: RequestId,
    /// How, and why.
    pub options: InterruptOptions,
}

/// A result of an invocation. Client to router.
#[derive(Debug, Clone, PartialEq)]
pub struct Yield {
    /// The INVOCATION's request.
    pub request: RequestId,
    /// How.
    pub options: YieldOptions,
    /// The result.
    pub payload: Payload,
}

/// Any message.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the message of that name")]
pub enum Message {
    Hello(Box<Hello>),
    Welcome(Welcome),
    Abort(Abort),
    Challenge(Challenge),
    Authenticate(Authenticate),
    Goodbye(Goodbye),
    Error(Error),
    Publish(Publish),
    Published(Published),
    Subscribe(Subscribe),
    Subscribed(Subscribed),
    Unsubscribe(Unsubscribe),
    Unsubscribed(Unsubscribed),
    Event(Event),
    Call(Call),
    Cancel(Cancel),
    Result(CallResult),
    Register(Register),
    Registered(Registered),
    Unregister(Unregister),
    Unregistered(Unregistered),
    Invocation(Invocation),
    Interrupt(Interrupt),
    Yield(Yield),
}

impl Message {
    /// The type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Hello(_) => MessageType::Hello,
            Self::Welcome(_) => MessageType::Welcome,
            Self::Abort(_) => MessageType::Abort,
            Self::Challenge(_) => MessageType::Challenge,
            Self::Authenticate(_) => MessageType::Authenticate,
            Self::Goodbye(_) => MessageType::Goodbye,
            Self::Error(_) => MessageType::Error,
            Self::Publish(_) => MessageType::Publish,
            Self::Published(_) => MessageType::Published,
            Self::Subscribe(_) => MessageType::Subscribe,
            Self::Subscribed(_) => MessageType::Subscribed,
            Self::Unsubscribe(_) => MessageType::Unsubscribe,
            Self::Unsubscribed(_) => MessageType::Unsubscribed,
            Self::Event(_) => MessageType::Event,
            Self::Call(_) => MessageType::Call,
            Self::Cancel(_) => MessageType::Cancel,
            Self::Result(_) => MessageType::Result,
            Self::Register(_) => MessageType::Register,
            Self::Registered(_) => MessageType::Registered,
            Self::Unregister(_) => MessageType::Unregister,
            Self::Unregistered(_) => MessageType::Unregistered,
            Self::Invocation(_) => MessageType::Invocation,
            Self::Interrupt(_) => MessageType::Interrupt,
            Self::Yield(_) => MessageType::Yield,
        }
    }
}
