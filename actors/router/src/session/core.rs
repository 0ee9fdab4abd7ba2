//! What a client may say when: the session's states, and the order of its request ids.
//!
//! Guarantees (basic profile, sessions and protocol errors): only HELLO or ABORT before a session, never what a router
//! says, nothing after a violation; request ids are sequential from 1 when the realm asks for that.
//! Refuses: to know what any message means beyond that.

use weald_wamp::id::ID_MAX;
use weald_wamp::message::{Hello, RequestType};
use weald_wamp::{Message, RequestId};

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// None, or the one before has ended; a HELLO begins one.
    Closed,
    /// HELLO has come and its verdict has not been given. The shell reads nothing meanwhile.
    Joining,
    /// The client has been asked to prove who it is.
    Challenging,
    /// Messages are routed.
    Established,
    /// The router has said GOODBYE and waits for the client's.
    Leaving,
    /// Nothing is heard any more.
    Failed,
}

/// What to do with a message.
#[derive(Debug)]
pub enum Step {
    /// A session is asked for.
    Hello(Box<Hello>),
    /// The challenge is answered; the message is an AUTHENTICATE.
    Authenticate(Message),
    /// Route it.
    Route(Message),
    /// A CALL with an id that was used: a chunk of a progressive call, or wrong, as the dealer knows.
    Chunk(Message),
    /// The client leaves: answer with `wamp.close.goodbye_and_out`.
    Leave,
    /// The client is gone from the session without waiting for an answer.
    Gone,
    /// The client has answered the router's GOODBYE.
    Left,
    /// Nothing.
    Ignore,
    /// ABORT with `wamp.error.protocol_violation` and this explanation; the connection is to be closed.
    Violation(String),
}

/// The rules of one connection, whose sessions follow each other.
#[derive(Debug)]
pub struct Core {
    state: State,
    last_request: u64,
    is_strict: bool,
}

impl Default for Core {
    fn default() -> Self {
        Self { state: State::Closed, last_request: 0, is_strict: true }
    }
}

impl Core {
    /// Where the session is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The client is asked to prove who it is.
    pub fn challenged(&mut self) {
        self.state = State::Challenging;
    }

    /// The session begins. `is_strict`: request ids must be sequential.
    pub fn welcomed(&mut self, is_strict: bool) {
        self.state = State::Established;
        self.last_request = 0;
        self.is_strict = is_strict;
    }

    /// The router has said GOODBYE.
    pub fn leaving(&mut self) {
        self.state = State::Leaving;
    }

    /// The router has said ABORT.
    pub fn failed(&mut self) {
        self.state = State::Failed;
    }

    /// Takes a message.
    pub fn receive(&mut self, message: Message) -> Step {
        match self.state {
            State::Closed => self.before(message),
            State::Challenging => self.challenging(message),
            State::Established => self.established(message),
            State::Leaving => match message {
                Message::Goodbye(_) | Message::Abort(_) => {
                    self.state = State::Closed;
                    Step::Left
                }
                _ => Step::Ignore,
            },
            State::Joining | State::Failed => Step::Ignore,
        }
    }

    /// A violation: whatever comes after it is not looked at.
    pub fn violation(&mut self, why: String) -> Step {
        self.state = State::Failed;
        Step::Violation(why)
    }

    fn before(&mut self, message: Message) -> Step {
        match message {
            Message::Hello(hello) => {
                self.state = State::Joining;
                Step::Hello(hello)
            }
            Message::Abort(_) => Step::Gone,
            other => self.violation(format!("{} before HELLO", other.message_type().name())),
        }
    }

    fn challenging(&mut self, message: Message) -> Step {
        match message {
            Message::Authenticate(_) => {
                self.state = State::Joining;
                Step::Authenticate(message)
            }
            Message::Abort(_) => {
                self.state = State::Closed;
                Step::Gone
            }
            other => {
                self.violation(format!("{} in place of AUTHENTICATE", other.message_type().name()))
            }
        }
    }

    fn established(&mut self, message: Message) -> Step {
        match &message {
            Message::Publish(publish) => self.numbered(publish.request, message),
            Message::Subscribe(subscribe) => self.numbered(subscribe.request, message),
            Message::Unsubscribe(unsubscribe) => self.numbered(unsubscribe.request, message),
            Message::Register(register) => self.numbered(register.request, message),
            Message::Unregister(unregister) => self.numbered(unregister.request, message),
            Message::Call(call) => {
                if self.is_used(call.request) {
                    return Step::Chunk(message);
                }
                self.numbered(call.request, message)
            }
            Message::Cancel(_) | Message::Yield(_) => Step::Route(message),
            Message::Error(error) if error.request_type == RequestType::Invocation => {
                Step::Route(message)
            }
            Message::Error(error) => {
                let why = format!(
                    "ERROR for {:?}; a client may answer INVOCATION only",
                    error.request_type
                );
                self.violation(why)
            }
            Message::Goodbye(_) => {
                self.state = State::Closed;
                Step::Leave
            }
            Message::Abort(_) => {
                self.state = State::Closed;
                Step::Gone
            }
            other => {
                let why = format!("{} in an established session", other.message_type().name());
                self.violation(why)
            }
        }
    }

    fn is_used(&self, request: RequestId) -> bool {
        self.is_strict && request.get() <= self.last_request
    }

    fn numbered(&mut self, request: RequestId, message: Message) -> Step {
        let expected = self.last_request % ID_MAX + 1;
        if self.is_strict && request.get() != expected {
            let why = format!(
                "request id {} of {} where {expected} comes next",
                request.get(),
                message.message_type().name()
            );
            return self.violation(why);
        }
        self.last_request = request.get();
        Step::Route(message)
    }
}

#[cfg(test)]
#[path = "core_test.rs"]
mod tests;
