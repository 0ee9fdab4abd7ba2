//! Reads and writes of the store.

use crate::client::Client;
use crate::error::Error;
use crate::session::{Concern, Session, Writing};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;
use weald_proto::error::Current;
use weald_proto::request::{self, Op, Table, TableKind, Written};

type CallFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What has been seen of a key: hand it to the next write of that key, so that the write replaces exactly that.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Context(Vec<u8>);

impl Context {
    /// From the bytes of [`Context::as_bytes`].
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

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} bytes)", self.0.len())
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The live values: none when the key is absent, several when they are siblings.
    pub values: Vec<Vec<u8>>,
    /// What has been seen by this read.
    pub context: Context,
}

impl Got {
    /// The value, or the first of several.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.values.first().map(Vec::as_slice)
    }
}

impl From<Current> for Got {
    fn from(current: Current) -> Self {
        Self { values: current.values, context: Context(current.context) }
    }
}

impl From<Written> for Context {
    fn from(written: Written) -> Self {
        Self(written.context)
    }
}

/// A write about to be made; `.await` makes it.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct Put {
    put: request::Put,
    writing: Writing,
}

impl Put {
    /// Replaces what was seen with this context; values written meanwhile by others stay, as siblings.
    pub fn context(mut self, context: &Context) -> Self {
        self.put.context = Some(context.0.clone());
        self
    }

    /// The key expires after this time.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.put.ttl_ms = Some(millis(ttl));
        self
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.writing.deadline = deadline;
        self
    }

    /// How many must have it before it is acknowledged.
    pub fn concern(mut self, concern: Concern) -> Self {
        self.writing.concern = concern;
        self
    }

    /// Acknowledged when so many other members have it, too; short for [`Concern::Members`].
    pub fn acked_by(self, members: u8) -> Self {
        self.concern(Concern::Members(members))
    }

    pub(crate) fn in_session(mut self, session: &Session) -> Self {
        self.writing.session = Some(session.clone());
        self
    }
}

impl IntoFuture for Put {
    type Output = Result<Context, Error>;
    type IntoFuture = CallFuture<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.writing.run(Op::Put(self.put)))
    }
}

/// A compare-and-set about to be made; `.await` makes it.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct PutIf {
    put: request::PutIf,
    writing: Writing,
}

impl PutIf {
    /// The key expires after this time.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.put.ttl_ms = Some(millis(ttl));
        self
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.writing.deadline = deadline;
        self
    }

    /// How many must have it before it is acknowledged.
    pub fn concern(mut self, concern: Concern) -> Self {
        self.writing.concern = concern;
        self
    }

    /// Acknowledged when so many other members have it, too; short for [`Concern::Members`].
    pub fn acked_by(self, members: u8) -> Self {
        self.concern(Concern::Members(members))
    }

    pub(crate) fn in_session(mut self, session: &Session) -> Self {
        self.writing.session = Some(session.clone());
        self
    }
}

impl IntoFuture for PutIf {
    type Output = Result<Context, Error>;
    type IntoFuture = CallFuture<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.writing.run(Op::PutIf(self.put)))
    }
}

/// A deletion about to be made; `.await` makes it.
#[derive(Debug)]
#[must_use = "nothing is deleted until it is awaited"]
pub struct Delete {
    delete: request::Delete,
    writing: Writing,
}

impl Delete {
    /// Deletes what was seen with this context; values written meanwhile by others stay.
    pub fn context(mut self, context: &Context) -> Self {
        self.delete.context = Some(context.0.clone());
        self
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.writing.deadline = deadline;
        self
    }

    /// How many must have it before it is acknowledged.
    pub fn concern(mut self, concern: Concern) -> Self {
        self.writing.concern = concern;
        self
    }

    /// Acknowledged when so many other members have it, too; short for [`Concern::Members`].
    pub fn acked_by(self, members: u8) -> Self {
        self.concern(Concern::Members(members))
    }

    pub(crate) fn in_session(mut self, session: &Session) -> Self {
        self.writing.session = Some(session.clone());
        self
    }
}

impl IntoFuture for Delete {
    type Output = Result<Context, Error>;
    type IntoFuture = CallFuture<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.writing.run(Op::Delete(self.delete)))
    }
}

impl Client {
    /// Reads a key.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn get(&self, table: &str, key: impl Into<Vec<u8>>) -> Result<Got, Error> {
        let get = request::Get { table: table.to_owned(), key: key.into() };
        Ok(self.request(get, self.deadline()).await?.into())
    }

    /// Writes a key. The result is the context after the write.
    pub fn put(&self, table: &str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Put {
        let (table, key, value) = (table.to_owned(), key.into(), value.into());
        let put = request::Put { table, key, value, context: None, ttl_ms: None };
        Put { put, writing: Writing::new(self) }
    }

    /// Writes a key if exactly what this context has seen is stored; without one, if the key is absent. Otherwise
    /// [`Error::Conflict`] tells what is stored.
    pub fn put_if(
        &self,
        table: &str,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        expected: Option<&Context>,
    ) -> PutIf {
        let (table, key, value) = (table.to_owned(), key.into(), value.into());
        let expected = expected.map(|context| context.0.clone());
        let put = request::PutIf { table, key, value, expected, ttl_ms: None };
        PutIf { put, writing: Writing::new(self) }
    }

    /// Deletes a key.
    pub fn delete(&self, table: &str, key: impl Into<Vec<u8>>) -> Delete {
        let delete = request::Delete { table: table.to_owned(), key: key.into(), context: None };
        Delete { delete, writing: Writing::new(self) }
    }

    /// Makes several writes, each on its own; one result for each, in order.
    ///
    /// # Errors
    /// Any [`Error`] of the whole; then nothing is known of the single ones.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Vec<Result<Context, Error>>, Error> {
        let results = self.request(request::Batch { ops }, self.deadline()).await?;
        Ok(results.into_iter().map(|result| Ok(result?.into())).collect())
    }

    /// Declares a table that survives restarts; `resolver` is `lww`, `siblings` or `merge:<function>`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn declare_table(&self, table: Table) -> Result<Table, Error> {
        self.request(request::DeclareTable { table }, self.deadline()).await
    }

    /// All tables.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn tables(&self) -> Result<Vec<Table>, Error> {
        self.request(request::Tables {}, self.deadline()).await
    }
}

/// A table that survives restarts and resolves siblings by the newest clock; change what should be other.
#[must_use]
pub fn table(name: &str) -> Table {
    let resolver = "lww".to_owned();
    Table { name: name.to_owned(), kind: TableKind::Durable, resolver, ttl_ms: None }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
