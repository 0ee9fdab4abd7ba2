//! Looking after a node: its supervision tree and log, its state, its clients.

use crate::client::Client;
use crate::error::Error;
use crate::store::millis;
use std::collections::VecDeque;
use std::time::Duration;
use weald_proto::request::{self, ClientInfo, ClientRole};
use weald_proto::supervision::{LogRecord, TreeNode};

/// How long one poll of the log waits.
const FOLLOW_WAIT: Duration = Duration::from_secs(25);
/// Time for an answer beyond that wait.
const SLACK: Duration = Duration::from_secs(10);

/// Which records of the supervision log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    /// Only this path and those below it.
    pub path: Option<String>,
    /// Only these events; empty for all.
    pub events: Vec<String>,
    /// Only records at or after this unix time in milliseconds.
    pub since_ms: Option<u64>,
    /// Only records after this sequence number.
    pub after_seq: Option<u64>,
    /// The newest so many of those found, at most 1,000.
    pub limit: u32,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self { path: None, events: Vec::new(), since_ms: None, after_seq: None, limit: 1000 }
    }
}

impl LogFilter {
    fn request(&self, wait: Duration) -> request::Log {
        request::Log {
            path: self.path.clone(),
            events: self.events.clone(),
            since_ms: self.since_ms,
            after_seq: self.after_seq,
            limit: self.limit,
            wait_ms: millis(wait),
        }
    }
}

/// The supervision log as it grows.
#[derive(Debug)]
pub struct Follow {
    client: Client,
    filter: LogFilter,
    records: VecDeque<LogRecord>,
}

impl Follow {
    /// The next record, however long it takes; those that are there come first. May be dropped and called again.
    ///
    /// # Errors
    /// Any [`Error`]; the next call goes on from the same place.
    pub async fn next(&mut self) -> Result<LogRecord, Error> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(record);
            }
            let request = self.filter.request(FOLLOW_WAIT);
            let page = self.client.request(request, FOLLOW_WAIT + SLACK).await?;
            let records = parse(&page.records)?;
            self.filter.after_seq = match records.last() {
                Some(last) => Some(last.seq),
                None => self.filter.after_seq.max(Some(page.last_seq)),
            };
            self.records.extend(records);
        }
    }
}

fn parse(records: &[String]) -> Result<Vec<LogRecord>, Error> {
    let failed = |e| Error::Internal(format!("the node's log record: {e}"));
    records.iter().map(|record| serde_json::from_str(record).map_err(failed)).collect()
}

impl Client {
    /// The whole supervision tree.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn supervision_tree(&self) -> Result<TreeNode, Error> {
        self.supervision_subtree("").await
    }

    /// The supervision tree below a path, as `node/storage`.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NotFound`] when there is no such path.
    pub async fn supervision_subtree(&self, path: &str) -> Result<TreeNode, Error> {
        let json = self.request(request::Tree { path: path.to_owned() }, self.deadline()).await?;
        serde_json::from_str(&json).map_err(|e| Error::Internal(format!("the node's tree: {e}")))
    }

    /// Records of the supervision log, oldest first.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn supervision_log(&self, filter: &LogFilter) -> Result<Vec<LogRecord>, Error> {
        let page = self.request(filter.request(Duration::ZERO), self.deadline()).await?;
        parse(&page.records)
    }

    /// The supervision log as it grows, beginning with what the filter finds.
    #[must_use]
    pub fn follow_log(&self, filter: LogFilter) -> Follow {
        Follow { client: self.clone(), filter, records: VecDeque::new() }
    }

    /// Kills an actor, for drills; its supervisor restarts it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn kill(&self, path: &str) -> Result<(), Error> {
        self.request(request::Kill { path: path.to_owned() }, self.deadline()).await
    }

    /// The node's state.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn status(&self) -> Result<serde_json::Value, Error> {
        let json = self.request(request::Status {}, self.deadline()).await?;
        serde_json::from_str(&json).map_err(|e| Error::Internal(format!("the node's status: {e}")))
    }

    /// Changes the node's log level, as `info,weald_storage=debug`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set_log_level(&self, directives: &str) -> Result<(), Error> {
        let directives = directives.to_owned();
        self.request(request::SetLogLevel { directives }, self.deadline()).await
    }

    /// Creates a client credential; the reply is the only copy of its secret.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn add_client(
        &self,
        name: &str,
        role: ClientRole,
    ) -> Result<crate::Credential, Error> {
        let added = self
            .request(request::AddClient { name: name.to_owned(), role }, self.deadline())
            .await?;
        let secret = <[u8; 32]>::try_from(added.secret)
            .map_err(|secret| Error::Internal(format!("a secret of {} bytes", secret.len())))?;
        Ok(crate::Credential::new(added.name, &secret))
    }

    /// Takes a client credential away and cuts its connections.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove_client(&self, name: &str) -> Result<(), Error> {
        self.request(request::RemoveClient { name: name.to_owned() }, self.deadline()).await
    }

    /// All client credentials, without secrets.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn clients(&self) -> Result<Vec<ClientInfo>, Error> {
        self.request(request::Clients {}, self.deadline()).await
    }
}
