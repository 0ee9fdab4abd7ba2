//! The store of the fake node: a map, the changes made to it, and sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use weald_cluster::service::{BoxFuture, Caller};
use weald_proto::error::{Current, ErrorCode, WireError};
use weald_proto::request as r;
use weald_proto::request::{Change, Named, Reply, Written};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) data: BTreeMap<(String, Vec<u8>), (u64, Vec<u8>)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) names: BTreeMap<String, (Arc<Caller>, Named)>,
}

/// The store. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Data {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for Data {
    fn default() -> Self {
        Self { state: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

pub(crate) fn fail<T>(code: ErrorCode, why: &str) -> Reply<T> {
    Err(WireError::new(code, why))
}

impl Data {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn put(
        &self,
        table: String,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Reply<Written> {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let current = Current {
            values: value.clone().into_iter().collect(),
            context: version.to_be_bytes().to_vec(),
        };
        state.changes.push(Change {
            partition: 0,
            seq: version,
            table: table.clone(),
            key: key.clone(),
            now: current.clone(),
        });
        match value {
            Some(value) => state.data.insert((table, key), (version, value)),
            None => state.data.remove(&(table, key)),
        };
        drop(state);
        self.changed.send_replace(version);
        Ok(Written { context: current.context })
    }

    pub(crate) fn current(&self, table: &str, key: &[u8]) -> Current {
        match self.state().data.get(&(table.to_owned(), key.to_vec())) {
            Some((version, value)) => {
                Current { values: vec![value.clone()], context: version.to_be_bytes().to_vec() }
            }
            None => Current { values: vec![], context: vec![] },
        }
    }

    pub(crate) fn put_if(&self, put: r::PutIf) -> Reply<Written> {
        let current = self.current(&put.table, &put.key);
        let stored = (!current.values.is_empty()).then(|| current.context.clone());
        if stored != put.expected {
            let message = "the stored state is not the expected one".to_owned();
            return Err(WireError { code: ErrorCode::Conflict, message, current: Some(current) });
        }
        self.put(put.table, put.key, Some(put.value))
    }

    pub(crate) fn execute(&self, op: r::Op) -> Reply<Written> {
        match op {
            r::Op::Put(put) => self.put(put.table, put.key, Some(put.value)),
            r::Op::PutIf(put) => self.put_if(put),
            r::Op::Delete(delete) => self.put(delete.table, delete.key, None),
        }
    }

    /// The number of writes that a token names; a token is that number, one byte each.
    fn version_of(token: Option<&[u8]>) -> u64 {
        token.and_then(|token| token.try_into().ok()).map_or(0, u64::from_be_bytes)
    }

    /// Waits until as many writes were made here as the token names.
    pub(crate) fn caught_up(
        &self,
        token: Option<&[u8]>,
        wait_ms: u64,
    ) -> BoxFuture<'static, Reply<()>> {
        let (wanted, mut changed) = (Self::version_of(token), self.changed.subscribe());
        Box::pin(async move {
            let wait = changed.wait_for(|version| *version >= wanted);
            match tokio::time::timeout(Duration::from_millis(wait_ms), wait).await {
                Ok(_) => Ok(()),
                Err(_elapsed) => fail(ErrorCode::NotCaughtUp, "the session has seen more"),
            }
        })
    }

    pub(crate) fn get_with(&self, get: r::GetWith) -> BoxFuture<'static, Reply<r::Seen>> {
        let (fake, waiting) = (self.clone(), self.caught_up(get.token.as_deref(), get.wait_ms));
        Box::pin(async move {
            waiting.await?;
            let version = fake.state().version.max(Self::version_of(get.token.as_deref()));
            let current = fake.current(&get.table, &get.key);
            Ok(r::Seen { current, token: version.to_be_bytes().to_vec() })
        })
    }

    pub(crate) fn write_with(
        &self,
        w: r::WriteWith,
        others: u8,
    ) -> BoxFuture<'static, Reply<r::WrittenWith>> {
        let (fake, waiting) = (self.clone(), self.caught_up(w.token.as_deref(), w.wait_ms));
        Box::pin(async move {
            waiting.await?;
            let context = fake.execute(w.op)?.context;
            let token = fake.state().version.to_be_bytes().to_vec();
            let acked = others.min(w.concern);
            Ok(r::WrittenWith { context, token, acked })
        })
    }
}
