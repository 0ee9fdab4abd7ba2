//! One client of a router, driven step by step.

use super::log::Log;
use super::pattern::{ID, fits};
use super::serializer::Serializer;
use super::stream::At;
use super::wire::{Frame, Transport, Wire};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long an expected message is waited for. A loaded machine is slow; a case fails only when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What came, if anything.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    /// A message.
    Message(Value),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The connection was closed, with a code on WebSocket.
    Closed(Option<u16>),
    /// Nothing, in time.
    Nothing,
}

/// A client. It answers pings, and nothing else, by itself.
#[derive(Debug)]
pub struct Peer {
    name: String,
    wire: Wire,
    serializer: Serializer,
    log: Log,
    pub(super) request: u64,
    /// Its session, once it has joined.
    pub session: u64,
    /// Details of WELCOME.
    pub welcome: Value,
}

/// Details of a HELLO that announces all roles and features.
#[must_use]
pub fn details() -> Value {
    let features = |names: &[&str]| {
        let features: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), true.into())).collect();
        json!({ "features": features })
    };
    json!({
        "agent": "weald-tests",
        "roles": {
            "caller": features(&[
                "progressive_call_results", "progressive_call_invocations", "call_canceling",
                "caller_identification", "payload_passthru_mode", "call_timeout",
            ]),
            "callee": features(&[
                "progressive_call_results", "progressive_call_invocations", "call_canceling",
                "call_timeout", "caller_identification", "call_trustlevels",
                "pattern_based_registration", "shared_registration", "registration_revocation",
                "call_reroute", "payload_passthru_mode",
            ]),
            "publisher": features(&[
                "subscriber_blackwhite_listing", "publisher_exclusion",
                "publisher_identification", "payload_passthru_mode",
            ]),
            "subscriber": features(&[
                "publisher_identification", "publication_trustlevels",
                "pattern_based_subscription", "subscription_revocation", "event_history",
                "event_retention", "payload_passthru_mode",
            ]),
        },
    })
}

impl Peer {
    /// Connects; says no HELLO.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn connect(
        name: &str,
        at: &At,
        transport: Transport,
        serializer: Serializer,
        log: &Log,
    ) -> Self {
        let wire = Wire::open(at, transport, serializer, Instant::now() + PATIENCE);
        let wire = wire.unwrap_or_else(|e| panic!("{name}: {e}"));
        log.note(name, &format!("connected by {transport:?}, {serializer:?}"));
        Self::over(name, wire, serializer, log)
    }

    /// On a connection made otherwise.
    #[must_use]
    pub fn over(name: &str, wire: Wire, serializer: Serializer, log: &Log) -> Self {
        let (name, log) = (name.to_owned(), log.clone());
        Self { name, wire, serializer, log, request: 0, session: 0, welcome: Value::Null }
    }

    /// The connection.
    #[must_use]
    pub const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// How it encodes.
    #[must_use]
    pub const fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Joins a realm with these details.
    ///
    /// # Panics
    /// When the answer is no WELCOME.
    pub fn join(&mut self, realm: &str, details: &Value) {
        self.send(&json!([1, realm, details]));
        let welcome = self.expect(&json!([2, ID, { "roles": { "broker": {}, "dealer": {} } }]));
        self.session = welcome[1].as_u64().unwrap_or_default();
        self.welcome = welcome[2].clone();
        self.request = 0;
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the connection does not take it.
    pub fn send(&mut self, message: &Value) {
        self.log.note(&self.name, &format!("-> {message}"));
        let octets = self.serializer.encode(message);
        self.wire.send(&octets).unwrap_or_else(|e| panic!("{} sends {message}: {e}", self.name));
    }

    /// Sends messages in one write.
    ///
    /// # Panics
    /// When the connection does not take them.
    pub fn send_together(&mut self, messages: &[Value]) {
        let mut octets = Vec::new();
        for message in messages {
            octets.extend(self.wire.framed(&self.serializer.encode(message)));
        }
        self.log.note(&self.name, &format!("-> {} messages at once", messages.len()));
        self.wire.send_octets(&octets).unwrap_or_else(|e| panic!("{} sends: {e}", self.name));
    }

    /// Sends octets as one message, whatever they are. That the router has closed the connection meanwhile is no failure.
    pub fn send_payload(&mut self, octets: &[u8]) {
        self.log.note(&self.name, &format!("-> {}", String::from_utf8_lossy(octets)));
        if let Err(e) = self.wire.send(octets) {
            self.log.note(&self.name, &format!("   {e}"));
        }
    }

    /// Sends octets as they are, without a frame. That the router has closed the connection meanwhile is no failure.
    pub fn send_octets(&mut self, octets: &[u8]) {
        self.log.note(&self.name, &format!("-> octets {octets:x?}"));
        if let Err(e) = self.wire.send_octets(octets) {
            self.log.note(&self.name, &format!("   {e}"));
        }
    }

    /// Notes something in the transcript.
    pub fn note(&self, what: &str) {
        self.log.note(&self.name, what);
    }

    /// What comes within some time.
    ///
    /// # Panics
    /// When it is nothing a router may send.
    pub fn poll(&mut self, time: Duration) -> Got {
        let end = Instant::now() + time;
        loop {
            let frame = self.wire.receive(end);
            match frame.unwrap_or_else(|e| panic!("{} receives: {e}", self.name)) {
                None => return Got::Nothing,
                Some(Frame::Ping(_)) => self.log.note(&self.name, "<- ping"),
                Some(Frame::Pong(payload)) => return Got::Pong(payload),
                Some(Frame::Close(code)) => {
                    self.log.note(&self.name, &format!("<- close {code:?}"));
                    return Got::Closed(code);
                }
                Some(Frame::End) => {
                    self.log.note(&self.name, "<- end of the connection");
                    return Got::Closed(None);
                }
                Some(Frame::Message(octets)) => {
                    let message = self.serializer.decode(&octets);
                    let message = message.unwrap_or_else(|e| {
                        panic!("{} got {:x?}: {e}", self.name, octets.get(..64).unwrap_or(&octets))
                    });
                    self.log.note(&self.name, &format!("<- {message}"));
                    return Got::Message(message);
                }
            }
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn receive(&mut self) -> Value {
        match self.poll(PATIENCE) {
            Got::Message(message) => message,
            other => panic!("{} waited for a message: {other:?}", self.name),
        }
    }

    /// The next message, which must be so.
    ///
    /// # Panics
    /// When none comes in time, or another one.
    #[track_caller]
    pub fn expect(&mut self, pattern: &Value) -> Value {
        let message = match self.poll(PATIENCE) {
            Got::Message(message) => message,
            other => panic!("{} waited for {pattern}: {other:?}", self.name),
        };
        let good = fits(pattern, &message);
        assert!(good, "{} expected {pattern}\n      got {message}", self.name);
        message
    }

    /// The next messages, which must be these in any order; they are given in the order of the patterns.
    ///
    /// # Panics
    /// When one does not come in time, or another one does.
    #[track_caller]
    pub fn expect_all(&mut self, patterns: &[Value]) -> Vec<Value> {
        let mut found: Vec<Option<Value>> = vec![None; patterns.len()];
        for _ in patterns {
            let message = match self.poll(PATIENCE) {
                Got::Message(message) => message,
                other => panic!("{} waited for {patterns:?}: {other:?}", self.name),
            };
            let mut places = patterns.iter().zip(&mut found);
            let place = places.find(|(pattern, place)| place.is_none() && fits(pattern, &message));
            match place {
                Some((_, place)) => *place = Some(message),
                None => panic!("{} expected one of {patterns:?}\n      got {message}", self.name),
            }
        }
        found.into_iter().flatten().collect()
    }

    /// The connection is closed by the router; whatever comes before is an error. The code, on WebSocket.
    ///
    /// # Panics
    /// When it is not, in time.
    #[track_caller]
    pub fn expect_closed(&mut self) -> Option<u16> {
        match self.poll(PATIENCE) {
            Got::Closed(code) => code,
            other => panic!("{} expected the end of the connection: {other:?}", self.name),
        }
    }

    /// ABORT for a violation of the protocol, and the end of the connection.
    ///
    /// # Panics
    /// When that does not come.
    #[track_caller]
    pub fn expect_violation(&mut self) {
        self.expect(&json!([3, {}, "wamp.error.protocol_violation"]));
        self.expect_closed();
    }

    /// Nothing more comes: what the router was told to send before has been, which is seen by the answer to a question.
    ///
    /// # Panics
    /// When something comes before that answer.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let request = self.next_request();
        self.send(&json!([34, request, 9_007_199_254_740_991_u64]));
        self.expect(&json!([8, 34, request, {}, "wamp.error.no_such_subscription"]));
    }

    /// The next number of a request.
    pub const fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    /// The number of the newest request.
    #[must_use]
    pub const fn last_request(&self) -> u64 {
        self.request
    }
}
