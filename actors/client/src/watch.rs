//! Following changes.

use crate::client::Client;
use crate::error::Error;
use crate::store::{Got, millis};
use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;
use weald_proto::limits::{CHANGES_MAX, WAIT_MS_MAX};
use weald_proto::request;

/// Time for an answer beyond the wait that was asked for.
const SLACK: Duration = Duration::from_secs(10);

/// Where a watch stands; keep it to go on later, in another process too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(Vec<u8>);

impl Position {
    /// From the bytes of [`Position::as_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// To keep it somewhere.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A key changed.
    Change(Change),
    /// Changes were lost, as the node no longer has them: scan again to see the state as it is. The watch goes on.
    Lagged,
}

/// A key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its table.
    pub table: String,
    /// The key.
    pub key: Vec<u8>,
    /// What is stored now; no values: deleted or expired.
    pub now: Got,
    /// Its partition; changes of one partition come in order.
    pub partition: u16,
    /// Its number in that partition.
    pub seq: u64,
}

/// A watch about to begin; `.await` begins it.
#[derive(Debug)]
#[must_use = "nothing is watched until it is awaited"]
pub struct WatchBuilder {
    client: Client,
    request: request::Watch,
}

impl WatchBuilder {
    /// Only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Go on after this position; without one, from now on.
    pub fn from(mut self, position: &Position) -> Self {
        self.request.position = Some(position.0.clone());
        self
    }
}

impl IntoFuture for WatchBuilder {
    type Output = Result<Watch, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, mut request } = self;
            let wait_ms = request.wait_ms;
            let position = match request.position.clone() {
                Some(position) => position,
                None => {
                    // "Now" is the moment of this answer: what changes after it is seen, whatever happens to the connection.
                    request.wait_ms = 0;
                    client.request(request.clone(), client.deadline()).await?.position
                }
            };
            request.position = Some(position.clone());
            request.wait_ms = wait_ms;
            let fetched = position.clone();
            Ok(Watch { client, request, events: VecDeque::new(), position, fetched })
        })
    }
}

/// Changes as they happen. Survives lost connections: it goes on where it was.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: request::Watch,
    events: VecDeque<WatchEvent>,
    /// All events before this were handed out.
    position: Vec<u8>,
    /// All events before this were fetched.
    fetched: Vec<u8>,
}

impl Watch {
    /// The next event, however long it takes. May be dropped and called again: no event is lost.
    ///
    /// # Errors
    /// Any [`Error`]; the next call goes on from the same place.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if self.events.is_empty() {
                    self.position.clone_from(&self.fetched);
                }
                return Ok(event);
            }
            self.position.clone_from(&self.fetched);
            self.request.position = Some(self.fetched.clone());
            let limit = Duration::from_millis(self.request.wait_ms) + SLACK;
            let changes = self.client.request(self.request.clone(), limit).await?;
            self.fetched = changes.position;
            if changes.lagged {
                self.events.push_back(WatchEvent::Lagged);
            }
            self.events.extend(changes.events.into_iter().map(|change| {
                WatchEvent::Change(Change {
                    table: change.table,
                    key: change.key,
                    now: change.now.into(),
                    partition: change.partition,
                    seq: change.seq,
                })
            }));
        }
    }

    /// Where to go on later. Events fetched together share a position: those of the last group may come again.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position.clone())
    }
}

impl Client {
    /// Follows the changes of a table.
    pub fn watch(&self, table: &str) -> WatchBuilder {
        self.watching(Some(table.to_owned()))
    }

    /// Follows the changes of all tables.
    pub fn watch_all(&self) -> WatchBuilder {
        self.watching(None)
    }

    fn watching(&self, table: Option<String>) -> WatchBuilder {
        let request = request::Watch {
            table,
            prefix: Vec::new(),
            position: None,
            limit: u32::try_from(CHANGES_MAX).unwrap_or(u32::MAX),
            wait_ms: millis(Duration::from_millis(WAIT_MS_MAX)),
        };
        WatchBuilder { client: self.clone(), request }
    }
}
