//! How sure a message to a named actor is to arrive.

use crate::client::Client;
use crate::error::Error;
use crate::names::CALL_SLACK;
use crate::session::{Session, Token};
use crate::store::millis;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;
use weald_proto::request;

/// How a message to a named actor is delivered. None is delivered twice.
///
/// | | while links break | `Ok` means | order |
/// |---|---|---|---|
/// | best effort | is lost, with an error | the actor's mailbox has it | as sent, of those that one task awaits |
/// | acknowledged | is sent again, until the deadline | the actor's mailbox has it | any, unless each is awaited |
/// | monotonic | waits, and gives way to a newer one of its key | it is on its way, or waits | of a key never older after newer |
/// | causal | as acknowledged | as acknowledged, and its node had seen what the session has seen | as acknowledged |
///
/// An error says whether the actor may have the message: it may after [`Error::TimedOut`], [`Error::Unknown`] and
/// [`Error::Internal`], and does not after any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// Sent once.
    #[default]
    BestEffort,
    /// Sent until the actor's mailbox has it, or the deadline comes.
    Acknowledged,
    /// The newest of those with this key, 1 to 255 bytes, that this node sends to the actor: for states, of which only the
    /// newest counts. It may be lost with either node, and where very many keys wait; the nodes count that.
    Monotonic(Vec<u8>),
    /// Acknowledged, and handed to the actor once its node has all that this token names: the actor may read there what its
    /// sender has written. It says nothing of other messages.
    Causal(Token),
}

impl Delivery {
    /// The newest message of a key.
    pub fn monotonic(key: impl Into<Vec<u8>>) -> Self {
        Self::Monotonic(key.into())
    }

    /// After all that a session has read and written so far.
    #[must_use]
    pub fn causal(session: &Session) -> Self {
        Self::Causal(session.token())
    }
}

/// A message about to be sent; `.await` sends it.
#[must_use = "nothing is sent until it is awaited"]
pub struct Sending {
    client: Client,
    name: String,
    payload: Result<Vec<u8>, Error>,
    delivery: Delivery,
    deadline: Duration,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("name", &self.name)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

impl Sending {
    pub(crate) fn new(client: &Client, name: &str, payload: Result<Vec<u8>, Error>) -> Self {
        let deadline = client.deadline();
        let (client, name) = (client.clone(), name.to_owned());
        Self { client, name, payload, delivery: Delivery::BestEffort, deadline }
    }

    /// How it is to be delivered; best effort unless told.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Time for it, at most 30 s; that of the client unless told.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    async fn run(self) -> Result<(), Error> {
        let Self { client, name, payload, delivery, deadline } = self;
        let (payload, timeout_ms) = (payload?, millis(deadline));
        let delivery = match delivery {
            Delivery::BestEffort => {
                // As nodes of earlier releases know it.
                let send = request::SendTo { name, payload, reply: false, timeout_ms };
                return client.request(send, deadline + CALL_SLACK).await.map(drop);
            }
            Delivery::Acknowledged => request::Delivery::Acknowledged,
            Delivery::Monotonic(key) => request::Delivery::Monotonic { key },
            Delivery::Causal(token) => match token.to_send() {
                Some(token) => request::Delivery::Causal { token },
                None => request::Delivery::Acknowledged,
            },
        };
        let send = request::SendWith { name, payload, timeout_ms, delivery };
        client.request(send, deadline + CALL_SLACK).await
    }
}

impl IntoFuture for Sending {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
